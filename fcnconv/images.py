"""Reading images: any file that Pillow knows, upright and in RGB.

Everything that comes in goes through `open_image`, so that EXIF orientation, colour modes and the size limit
are treated once. What comes out is an `ImageSource`: a size, and a function that reads a region.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fcnconv.errors import ImageError, UsageError
from fcnconv.sources import (
    REGION_SUFFIXES,
    ImageSource,
    MemorySource,
    Pixels,
    ReducedSource,
    open_any,
    open_regions,
    slide_hint,
)

ImageLike = str | Path | bytes | Image.Image | Pixels

MAX_PIXELS = 178_956_970
"""Pixels over which Pillow refuses an image as a possible decompression bomb (twice its warning limit)."""

MARGIN = 2
"""How much larger than it is scanned a JPEG is decoded. At 2, the classes of photos of 4 to 8 megapixels keep
their probability to 0.01; at 1, to 0.02."""

_NOT_DECODED = frozenset("BUFR EPS GRIB HDF5 MPEG WMF".split())
"""Formats that Pillow knows and leaves to other programs to decode."""

_pillow_limit = threading.Lock()


def image_suffixes() -> frozenset[str]:
    """The suffixes of files that hold images, in lower case with their dot."""
    known = Image.registered_extensions().items()
    decoded = {suffix for suffix, name in known if name in Image.OPEN and name not in _NOT_DECODED}
    return frozenset(decoded | REGION_SUFFIXES)


def normalize(pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """float32 (1, 3, H, W): ``(pixels / 255 - mean) / std`` for each channel.

    pixels: uint8 (H, W, 3). mean, std: one value a channel, for intensities 0 to 1.
    """
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, np.float32))
    shift = -np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    out = np.empty((1, 3, *pixels.shape[:2]), np.float32)
    for channel in range(3):  # (H, W, 3) -> (3, H, W), a plane at a time: no interleaved float copy
        np.multiply(pixels[:, :, channel], scale[channel], out=out[0, channel])
        out[0, channel] += shift[channel]
    return out


def open_image(
    image: ImageLike,
    *,
    max_pixels: int = MAX_PIXELS,
    short_side: int | None = None,
    name: str | None = None,
) -> ImageSource:
    """The image, opened, decoded and turned upright.

    image: a path (``-`` reads standard input), an encoded file as bytes, a PIL image, or uint8 (H, W, 3) RGB.
    max_pixels: an image of more pixels is refused before it is decoded.
    short_side: the largest short side, in pixels, at which the image will be read; None if that is its own.
        A JPEG of more than `MARGIN` times that is decoded smaller, which takes less time and memory.
    name: what messages call it; None says the path.

    Raises ImageError, whose message starts with the path.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise UsageError(f"an image array must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        return MemorySource(image)
    if isinstance(image, Image.Image):
        return MemorySource(_upright_rgb(image))
    if name is None or str(image) == "-":
        name = "image" if isinstance(image, bytes) else "standard input" if str(image) == "-" else str(image)
    path = None if isinstance(image, bytes) or str(image) == "-" else Path(image)
    with _open_file(image, name) as file, _explained(name, path):
        regions = open_regions(path, name) if path else None
        if regions is not None:  # never whole in memory, so that there is no limit
            return regions
        return _decoded(file, path, name, max_pixels, short_side)


def _decoded(
    file: io.IOBase, path: Path | None, name: str, max_pixels: int, short_side: int | None
) -> ImageSource:
    with _pillow_open(file) as opened:
        width, height = opened.size
        regions = open_any(path, name, width, height) if path else None
        if regions is not None:
            return regions
        if width * height > max_pixels:
            raise ImageError(
                f"{name}: {width} × {height} is {width * height:,} pixels, over the limit of {max_pixels:,}; "
                f"--max-pixels {width * height} lets it in"
            )
        if not (short_side and _reduce(opened, short_side)):
            return MemorySource(_upright_rgb(opened), name)
        turned = opened.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return ReducedSource(_upright_rgb(opened), (height, width) if turned else (width, height), name)


def _reduce(image: Image.Image, short_side: int) -> bool:
    """Sets a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size if `MARGIN` is left; whether that is so."""
    before, factor = image.size, MARGIN * short_side / min(image.size)
    if factor < 1:
        image.draft(None, (ceil(before[0] * factor), ceil(before[1] * factor)))
    return image.size != before


def read_image(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """uint8 (H, W, 3): the whole image, RGB, upright. Arguments and errors as for `open_image`."""
    source = open_image(image, max_pixels=max_pixels)
    return source.read((0, 0, *source.size))


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


_silence = _Silence()


@contextmanager
def _open_file(image: str | Path | bytes, name: str) -> Iterator[io.IOBase]:
    if isinstance(image, bytes) or str(image) == "-":
        data = image if isinstance(image, bytes) else sys.stdin.buffer.read()
        if not data:
            raise ImageError(f"{name}: empty, no image came")
        yield io.BytesIO(data)
        return
    path = Path(image)
    try:
        if path.is_dir():
            raise ImageError(
                f"{name}: a directory, not an image; name the files in it, as in {name.rstrip('/')}/*.jpg"
            )
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name}: cannot be opened: {reason}") from error
    with file:
        yield file


@contextmanager
def _pillow_open(file: io.IOBase) -> Iterator[Image.Image]:
    # Pillow's limit is a global of its module; it is lifted for the header only, as `open_image` checks the
    # size itself, with a message that has the numbers in it.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(file)  # type: ignore[arg-type]
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with opened:
        yield opened


@contextmanager
def _explained(name: str, path: Path | None) -> Iterator[None]:
    """Turns whatever Pillow raises on a damaged file into an ImageError with the file's name."""
    try:
        with _silence:
            yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        hint = slide_hint(path) if path else ""
        raise ImageError(f"{name}: not an image that Pillow can decode{hint}") from error
    except (
        Exception
    ) as error:  # decoders raise anything on damaged data: OSError, SyntaxError, struct.error, …
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: damaged or cut short: {reason}") from error


def _upright_rgb(image: Image.Image) -> Pixels:
    image.load()  # the first frame of an animation
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image)
    if image.has_transparency_data:  # see-through pixels have arbitrary colours: show them as on white paper
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))


def _eight_bit(image: Image.Image) -> Image.Image:
    """An image of 16- or 32-bit intensities in 8 bits. White is 65535 for 16-bit files; for 32-bit integers
    and floats, whose white no header tells, the least of 1 (floats), 255 and 65535 that holds the maximum,
    or that.
    """
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
    top = float(values.max())
    usual = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0)
    usual = (1.0, *usual) if image.mode == "F" else usual
    white = next((white for white in usual if top <= white), top)
    return Image.fromarray(np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8))
