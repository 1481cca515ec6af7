"""Formats that Pillow reads with an additional package, recognised by their content and registered on demand.

So files in common formats import no such package. If a package is missing, the error says what to install
instead of reporting damage.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from PIL import features

from fcnconv.errors import ImageError

_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_HEAD = 64
"""Bytes that identify a format: the first box of a file with its brands, rarely more than a dozen."""


def _brands(head: bytes) -> set[bytes]:
    """The brands of an ISO media file, including the major brand; empty for any other file."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[8 : int.from_bytes(head[:4], "big")]
    return {box[:4], *(box[at : at + 4] for at in range(8, len(box), 4))}


def _is_avif(head: bytes) -> bool:
    return bool(_brands(head) & _AVIF)


def _is_heif(head: bytes) -> bool:
    return bool(_brands(head) & _HEIF) and not _is_avif(head)


def _is_jxl(head: bytes) -> bool:
    return head.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"))


def _use_heif() -> None:
    import_module("pillow_heif").register_heif_opener()


def _use_jxl() -> None:
    import_module("pillow_jxl")  # registers itself


def _use_avif() -> None:
    if not features.check("avif"):
        raise ImportError("this Pillow has no AVIF")


@dataclass(frozen=True)
class Codec:
    """One format.

    Attributes:
        name: what it is called.
        suffixes: of its files.
        knows: whether a file has this format, by its first bytes.
        use: makes Pillow read it, or raises ImportError.
        install: how to install the package.
    """

    name: str
    suffixes: tuple[str, ...]
    knows: Callable[[bytes], bool]
    use: Callable[[], None]
    install: str


CODECS = (
    Codec("HEIC", (".heic", ".heif", ".hif"), _is_heif, _use_heif, "pip install 'fcnconv[heif]'"),
    Codec("JPEG XL", (".jxl",), _is_jxl, _use_jxl, "pip install 'fcnconv[jxl]'"),
    Codec("AVIF", (".avif", ".avifs"), _is_avif, _use_avif, "pip install 'pillow>=11.3'"),
)
SUFFIXES = frozenset(suffix for codec in CODECS for suffix in codec.suffixes)
"""Suffixes of files that count as images even if the package is missing: an error reports them."""


def prepare(file: io.IOBase, name: str) -> bool:
    """Makes Pillow read a file of one of `CODECS`. The position in the file is kept.

    Returns:
        Whether the file has one of these formats.

    Raises:
        ImageError: if the package for it is missing.
    """
    place = file.tell()
    head = file.read(_HEAD)
    file.seek(place)
    codec = next((codec for codec in CODECS if codec.knows(head)), None)
    if codec is None:
        return False
    try:
        codec.use()
    except ImportError as error:
        raise ImageError(f"{name}: to read {codec.name}, {codec.install}") from error
    return True
