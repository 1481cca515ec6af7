"""What Pillow reads: any of its formats, quietly, upright and in RGB."""

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
"""How much larger than it is scanned a JPEG is decoded. At 2, the classes of photos of 4 to 8 megapixels keep
their probability to 0.01; at 1, to 0.02."""

_NOT_DECODED = frozenset("BUFR EPS GRIB HDF5 MPEG WMF".split())
"""Formats that Pillow knows and leaves to other programs to decode."""

_FRAMED = frozenset("AVIF GIF PNG TIFF WEBP".split())
"""Formats whose further pictures are frames or pages of equal rank. In others, as the MPO of phones, they are
previews."""

_REDUCED, _MASK = 1, 4

_limit = threading.Lock()


class BoundedFile(io.BufferedReader):
    """A file that is never asked for more than it holds: memory is taken for what is asked for, and Pillow
    asks for as many bytes as a chunk claims, 2 GB in a PNG of some kilobytes.
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
    """The image in a file, of which only the header was read, however large it is."""
    # Pillow's limit is a global of its module; it is lifted for the header only, as the caller checks the
    # size itself, with a message that has the numbers in it.
    with _limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)  # type: ignore[arg-type]
        except MemoryError as error:  # a length in the header is read as it is told
            raise OSError("its header claims more than the memory holds") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def frames(image: Image.Image) -> list[int]:
    """Pillow's numbers of the pictures in a file: the frames of an animation, the pages of a TIFF without the
    smaller copies and masks of others. At least one; the image is at the first of them then.
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
    """Sets a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size if `MARGIN` is left; whether that is so."""
    before, factor = image.size, MARGIN * short_side / min(image.size)
    if factor < 1:
        image.draft(None, (ceil(before[0] * factor), ceil(before[1] * factor)))
    return image.size != before


def orientation(image: Image.Image) -> int:
    """How a picture lies, as EXIF numbers it; 1, upright, where damaged metadata do not say."""
    # A JPEG XL is decoded upright by its own header, which stands over EXIF, unless it is a JPEG inside.
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises anything, and costs no picture
        return 1
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value in range(1, 9) else 1


def orientation_of(file: io.IOBase) -> int:
    """The same of a file, whose place is kept; 1 where Pillow cannot tell."""
    place = file.tell()
    try:
        with silence, opened(file) as image:
            return orientation(image)
    except Exception:  # decoders raise anything on damaged data, and whoever opens the image tells of it
        return 1
    finally:
        file.seek(place)


def is_turned(image: Image.Image) -> bool:
    """Whether the file holds the picture on its side, by EXIF."""
    return orientation(image) >= 5


def upright_rgb(image: Image.Image) -> Pixels:
    """uint8 (H, W, 3): a picture's pixels; of an animation those of the frame that it is at."""
    return decoded(image)[0]


def decoded(image: Image.Image, name: str = "") -> tuple[Pixels, Mask | None]:
    """A picture's pixels, uint8 (H, W, 3), upright, on white paper; and where it is not clear, bool (H, W),
    or None for everywhere. An animation gives the frame that it is at.
    """
    format = image.format
    image.load()
    turned = orientation(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image, name)
    mask = None
    if image.has_transparency_data:  # see-through pixels have arbitrary colours: show them as on white paper
        image = image.convert("RGBA")
        mask = np.asarray(image.getchannel("A")) > 0
        if mask.any():
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif format in _UNUSED_ALPHA:
            mask = None  # a byte that was left zero, which no viewer heeds
        else:
            log.warning("%s: every pixel is transparent, so that nothing but white is seen", name)
            image = Image.new("RGB", image.size, "white")
    pixels = upright(np.asarray(image.convert("RGB")), turned)
    whole = mask is None or mask.all()
    return np.ascontiguousarray(pixels), None if mask is None or whole else upright(mask, turned)


_UNUSED_ALPHA = frozenset(("BMP", "DIB", "TGA"))
"""Formats whose fourth byte is often zero without meaning opacity."""


def _eight_bit(image: Image.Image, name: str = "") -> Image.Image:
    """An image of 16- or 32-bit intensities in 8 bits. White is 65535 for 16-bit files; for 32-bit integers
    and floats, whose white no header tells, the least of 1 (floats), 255 and 65535 that holds the maximum,
    or that.
    """
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
    top = float(values.max())
    deep = image.mode.startswith("I;16")
    if deep and name and 0 < top < 65535 / 8:
        log.warning(
            "%s: its 16 bits reach %d of 65535, so that it is nearly black; --rescale 0,%d lightens it, with "
            "rasterio (pip install 'fcnconv[geo]')",
            *(name, top, (1 << int(top).bit_length()) - 1),
        )
    usual = (65535.0,) if deep else (255.0, 65535.0)
    usual = (1.0, *usual) if image.mode == "F" else usual
    white = next((white for white in usual if top <= white), top)
    return Image.fromarray(np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8))


def without_metadata(content: bytes) -> bytes | None:
    """A PNG without the chunks that are not needed for its pixels, whose damage would cost the picture; None
    for other files, and for one that has no such chunk.
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
    found = b"".join(kept)
    return found if len(found) < len(content) else None


_PNG = b"\x89PNG\r\n\x1a\n"


class _Silence:
    """Keeps Pillow from warning of odd metadata that does not touch the pixels.

    Filters of warnings belong to the process, and images are opened in several threads: the first one in
    sets the filter, and the last one out puts the old ones back.
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
