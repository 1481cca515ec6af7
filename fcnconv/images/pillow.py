"""Decodes every format that Pillow reads, without its warnings, upright and in RGB."""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fcnconv.images.source import Pixels, upright

log = logging.getLogger("fcnconv")

Mask = npt.NDArray[np.bool_]

MARGIN = 2
"""How many times larger than the scan a JPEG is decoded. At 2, the classes of photos of 4 to 8 megapixels
keep their probability to 0.01; at 1, to 0.02.
"""

_NOT_DECODED = frozenset("BUFR EPS GRIB HDF5 MPEG WMF".split())
"""Formats that Pillow recognises, but leaves to other programs to decode."""

_FRAMED = frozenset("AVIF GIF PNG TIFF WEBP".split())
"""Formats whose further pictures are frames or pages of equal rank. In other formats, such as the MPO of
phones, they are previews.
"""

_REDUCED, _MASK = 1, 4

_limit = threading.Lock()


class BoundedFile(io.BufferedReader):
    """A file that never reads more bytes than it has left.

    Pillow requests as many bytes as a chunk claims, up to 2 GB in a PNG of a few kilobytes, and memory is
    allocated for the requested size.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; all that are left if `size` is negative or None."""
        if size is not None and size > io.DEFAULT_BUFFER_SIZE and self.length:  # devices have no length
            size = min(size, max(self.length - self.tell(), 0))
        return super().read(size)


def suffixes() -> frozenset[str]:
    """The suffixes of files that Pillow decodes, in lower case with their dot."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in Image.OPEN and name not in _NOT_DECODED)


@contextmanager
def opened(file: io.IOBase) -> Iterator[Image.Image]:
    """The image in a file. Only the header is read, however large the file is."""
    # Pillow's limit is a global of its module. It is lifted for the header only, because the caller checks
    # the size itself, and its message contains the numbers.
    with _limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)  # type: ignore[arg-type]
        except MemoryError as error:  # Pillow believes the lengths in the header
            raise OSError("its header claims more than the memory holds") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def frames(image: Image.Image) -> list[int]:
    """Pillow's numbers of the pictures in a file.

    These are the frames of an animation, or the pages of a TIFF without masks and smaller copies of other
    pages. There is at least one. Afterwards the image is at the first of them.
    """
    numbers = list(range(_count(image)))
    if image.format == "TIFF" and len(numbers) > 1:
        numbers = [number for number in numbers if not _subfile(image, number) & (_REDUCED | _MASK)]
    image.seek((numbers or [0])[0])
    return numbers or [0]


def _count(image: Image.Image) -> int:
    if image.format not in _FRAMED or not getattr(image, "is_animated", False):
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # decoders raise anything on damaged data: the first frame may be whole
        return 1


def _subfile(image: Image.Image, number: int) -> int:
    """The tag NewSubfileType of a page of a TIFF."""
    image.seek(number)
    kind = image.tag_v2.get(254, 0)  # type: ignore[attr-defined]
    return kind if isinstance(kind, int) else 0


def reduce(image: Image.Image, short_side: int) -> bool:
    """Makes Pillow decode a JPEG at 1/2, 1/4 or 1/8 of its size if `MARGIN` is left, and returns whether it
    does.
    """
    before, factor = image.size, MARGIN * short_side / min(image.size)
    if factor < 1:
        image.draft(None, (ceil(before[0] * factor), ceil(before[1] * factor)))
    return image.size != before


def orientation(image: Image.Image) -> int:
    """The orientation of a picture as EXIF numbers it; 1, upright, if damaged metadata do not contain it."""
    # A JPEG XL is decoded upright by its own header, which overrides EXIF, unless it contains a JPEG.
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises anything, but the picture is still read
        return 1
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value in range(1, 9) else 1


def orientation_of(file: io.IOBase) -> int:
    """The same for a file, whose position is kept; 1 if Pillow cannot read it."""
    place = file.tell()
    try:
        with silence, opened(file) as image:
            return orientation(image)
    except Exception:  # decoders raise anything on damaged data; opening the image reports it
        return 1
    finally:
        file.seek(place)


def is_turned(image: Image.Image) -> bool:
    """Whether the file holds the picture on its side, by EXIF."""
    return orientation(image) >= 5


def upright_rgb(image: Image.Image) -> Pixels:
    """The pixels of a picture: uint8 (H, W, 3). For an animation, the pixels of its current frame."""
    return decoded(image)[0]


def decoded(image: Image.Image, name: str = "") -> tuple[Pixels, Mask | None]:
    """The pixels of a picture, upright, and where it is not transparent. An animation gives its current
    frame.

    Returns:
        uint8 (H, W, 3), on white paper; and bool (H, W), or None for everywhere.
    """
    format = image.format
    image.load()
    turned = orientation(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image, name)
    mask = None
    if image.has_transparency_data:  # transparent pixels have arbitrary colours; show them on white paper
        image = image.convert("RGBA")
        mask = np.asarray(image.getchannel("A")) > 0
        if mask.any():
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif format in _UNUSED_ALPHA:
            mask = None  # a byte that was left zero, which viewers ignore
        else:
            log.warning("%s: every pixel is transparent, so the image is white", name)
            image = Image.new("RGB", image.size, "white")
    pixels = upright(np.asarray(image.convert("RGB")), turned)
    whole = mask is None or mask.all()
    return np.ascontiguousarray(pixels), None if mask is None or whole else upright(mask, turned)


_UNUSED_ALPHA = frozenset(("BMP", "DIB", "TGA"))
"""Formats whose fourth byte is often zero without meaning opacity."""


def _eight_bit(image: Image.Image, name: str = "") -> Image.Image:
    """Converts an image of 16- or 32-bit intensities to 8 bits.

    White is 65535 for 16-bit files. The headers of 32-bit integers and floats do not define white. There it
    is the least of 1 (floats only), 255 and 65535 that is at least the maximum, or else the maximum.
    """
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
    top = float(values.max())
    deep = image.mode.startswith("I;16")
    if deep and name and 0 < top < 65535 / 8:
        log.warning(
            "%s: its 16 bits reach only %d of 65535, so it is nearly black; lighten it with --rescale 0,%d, "
            "which needs rasterio (pip install 'fcnconv[geo]')",
            *(name, top, (1 << int(top).bit_length()) - 1),
        )
    usual = (65535.0,) if deep else (255.0, 65535.0)
    usual = (1.0, *usual) if image.mode == "F" else usual
    white = next((white for white in usual if top <= white), top)
    return Image.fromarray(np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8))


def without_metadata(content: bytes) -> bytes | None:
    """A PNG without the chunks that are not needed for its pixels, and whose damage would prevent decoding.

    Returns:
        The PNG; None for other files, and for a PNG without such chunks.
    """
    if not content.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        end = place + 12 + length
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(content[place:end])
        place = end
    png = b"".join(kept)
    return png if len(png) < len(content) else None


_PNG = b"\x89PNG\r\n\x1a\n"


class _Silence:
    """Suppresses Pillow's warnings about odd metadata that do not affect the pixels.

    Warning filters belong to the process, and several threads open images. So the first thread that enters
    sets the filter, and the last thread that leaves restores the old filters.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.filters = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.filters.close()


silence = _Silence()
