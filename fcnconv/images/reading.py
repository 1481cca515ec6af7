"""Opens images: any file that Pillow or another installed reader knows, upright and in RGB.

All images are opened by `open_image`, so EXIF orientation, colour modes and the size limit are handled in one
place. It returns an `ImageSource`: a size, and a function that reads a region.
"""

from __future__ import annotations

import io
import logging
import re
import shlex
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fcnconv.errors import ImageError, UsageError, first_line
from fcnconv.images import (
    REGION_SUFFIXES,
    Asked,
    ImageSource,
    MemorySource,
    Pixels,
    ReducedSource,
    codecs,
    gdal,
    ome_zarr,
    open_any,
    open_raster,
    open_regions,
    pillow,
    slide_hint,
    warn_of_lost_place,
)
from fcnconv.images.remote import fetch, fetch_to, is_address, shown_address
from fcnconv.images.source import GreySource, grey
from fcnconv.images.tiff_tags import is_tiff
from fcnconv.rescale import Rescale

log = logging.getLogger("fcnconv")

ImageLike = str | Path | bytes | Image.Image | Pixels

MAX_PIXELS = 178_956_970
"""The number of pixels above which Pillow refuses an image as a possible decompression bomb (twice its
warning limit).
"""


def image_suffixes() -> frozenset[str]:
    """The suffixes of files that contain images, in lower case with their dot."""
    return pillow.suffixes() | codecs.SUFFIXES | REGION_SUFFIXES


def normalize(pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Normalises each channel of an image: ``(pixels / 255 - mean) / std``.

    Args:
        pixels: uint8 (H, W, channels).
        mean, std: one value per channel, for intensities 0 to 1.

    Returns:
        float32 (1, channels, H, W).
    """
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, np.float32))
    shift = -np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    out = np.empty((1, len(mean), *pixels.shape[:2]), np.float32)
    for channel in range(len(mean)):  # (H, W, 3) -> (3, H, W), plane by plane: no interleaved float copy
        np.multiply(pixels[:, :, channel], scale[channel], out=out[0, channel])
        out[0, channel] += shift[channel]
    return out


def open_image(
    image: ImageLike,
    *,
    max_pixels: int = MAX_PIXELS,
    short_side: int | None = None,
    name: str | None = None,
    frame: int | None = None,
    bands: tuple[int, ...] | None = None,
    rescale: Rescale | None = None,
    channels: int = 3,
) -> ImageSource:
    """Opens an image, decodes it and turns it upright.

    Args:
        image: a path (``-`` reads standard input), the address of a remote file, an encoded file as bytes, a
            PIL image, or uint8 (H, W, channels), RGB.
        max_pixels: an image of more pixels is refused before it is decoded.
        short_side: the largest short side, in pixels, at which the image will be read; None means its own. A
            JPEG whose short side is more than `pillow.MARGIN` times as long is decoded at a smaller size,
            which takes less time and memory.
        name: of the image, for messages; None means the path.
        frame: of an animation, or the page of a TIFF, from 1; None takes the first, and logs that there are
            more.
        bands, rescale: for a TIFF or OME-Zarr, as in `options.ReadOptions`.
        channels: number of channels that the network takes.

    Raises:
        ImageError: if the image cannot be read; the message starts with the path.
        UsageError: for an array of another shape or type.
    """
    if channels == 1 and isinstance(image, np.ndarray) and image.ndim == 2:
        image = image[..., None]
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8 or 0 in image.shape:
            wanted = f"uint8 (H, W, {channels})"
            raise UsageError(f"an image array must be {wanted}, got {image.dtype} {image.shape}")
        return MemorySource(image)
    if isinstance(image, Image.Image):
        if channels not in (1, 3):
            raise UsageError(f"the network takes {channels} channels; pass an array or a TIFF file")
        pixels = pillow.upright_rgb(image)
        return MemorySource(grey(pixels) if channels == 1 else pixels)
    content: Path | bytes
    if isinstance(image, bytes):
        content, name = image, name or "image"
    elif str(image) == "-":
        content, name = sys.stdin.buffer.read(), "standard input"
    elif is_address(str(image)):
        name = name or shown_address(str(image))
        if Path(shown_address(str(image))).suffix.lower() in REGION_SUFFIXES:
            return _of_copy(
                str(image),
                partial(
                    open_image,
                    max_pixels=max_pixels,
                    short_side=short_side,
                    name=name,
                    frame=frame,
                    bands=bands,
                    rescale=rescale,
                    channels=channels,
                ),
            )
        content = fetch(str(image))
    else:
        content, name = Path(image), name or str(image)
        if ome_zarr.is_store(content):
            return ome_zarr.ZarrSource.open(content, name, Asked(None, bands, rescale, channels))
    asked = Asked(frame, bands, rescale, channels, max_pixels)
    with _open_file(content, name) as file:
        is_grey = channels == 1 and not (bands or rescale) and not is_tiff(file.read(4))
        file.seek(0)
        if is_grey:  # any picture has a brightness, but the bands of a TIFF may be anything
            asked, short_side = replace(asked, channels=3), None
        if isinstance(file, io.BytesIO):  # also the content of a FIFO, which can be read only once
            content = file.getvalue()
        path = content if isinstance(content, Path) else None
        with _explained(name, path):
            regions = open_regions(content, file, name, asked)
        if regions is not None:
            _log_frames(name, regions.info.frames, frame)
            return GreySource(regions) if is_grey else regions
        if not asked.samples:
            picture = _decoded(file, content, name, asked, short_side)
            warn_of_lost_place(content, name)
            return GreySource(picture) if is_grey else picture
        if find_spec("rasterio") is None:
            wanted = f"images of {channels} channels need" if channels != 3 else "--bands and --rescale need"
            raise ImageError(f"{name}: {wanted} rasterio: pip install 'fcnconv[geo]'")
        raise ImageError(f"{name}: GDAL cannot read it: {gdal.failure(content)}")


def _of_copy(address: str, opening: Callable[[Path], ImageSource]) -> ImageSource:
    """The image in a remote file that is read region by region, from a copy that lasts as long as itself."""
    with tempfile.NamedTemporaryFile(
        prefix="fcnconv-", suffix=Path(shown_address(address)).suffix, delete=False
    ) as file:
        copy = Path(file.name)
    try:
        fetch_to(address, copy)
        source = opening(copy)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    weakref.finalize(source, copy.unlink, missing_ok=True)
    return source


def _decoded(
    file: io.IOBase, content: Path | bytes, name: str, asked: Asked, short_side: int | None
) -> ImageSource:
    """The image as Pillow decodes it, or as GDAL reads it if Pillow does not know it."""
    path = content if isinstance(content, Path) else None
    with _explained(name, path):
        own_codec = codecs.prepare(file, name)
        region_path = None if own_codec else path
        try:
            with pillow.opened(file) as opened:
                return _picture(opened, content, region_path, name, asked, short_side)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # decoders raise anything on damaged data
            file.seek(0)
            plain = pillow.without_metadata(file.read())
            if plain is not None:  # the picture is read even if its metadata are damaged
                with suppress(Exception), pillow.opened(io.BytesIO(plain)) as opened:
                    return _picture(opened, plain, None, name, asked, short_side)
            other = open_raster(content, name, asked) if isinstance(error, UnidentifiedImageError) else None
            if other is None:
                raise
            return other


def _picture(
    opened: Image.Image,
    content: Path | bytes,
    path: Path | None,
    name: str,
    asked: Asked,
    short_side: int | None,
) -> ImageSource:
    """An image that Pillow has opened. path: of its file, if another reader may read regions from it."""
    max_pixels = asked.max_pixels
    frames = pillow.frames(opened)
    _log_frames(name, len(frames), asked.frame)
    opened.seek(frames[(asked.frame or 1) - 1])
    width, height = opened.size
    if opened.format == "TIFF" and opened.mode in ("F", "I"):
        raise ImageError(
            f"{name}: nothing defines which of its values are black and white; with rasterio (pip install "
            "'fcnconv[geo]'), add --rescale LOW,HIGH"
        )
    regions = open_any(path, name, width, height) if path and opened.tell() == 0 else None
    if regions is not None:
        return regions
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} × {height} is {width * height:,} pixels, over the limit of "
            f"{max_pixels:,}; to read it, add --max-pixels {width * height}"
        )
    if not (short_side and pillow.reduce(opened, short_side)):
        again = None
        if opened.format == "JPEG" and short_side is None:
            again = partial(_again, content, name, asked)
        pixels, mask = pillow.decoded(opened, name)
        return MemorySource(pixels, name, None, mask, again)
    size = (height, width) if pillow.is_turned(opened) else (width, height)
    return ReducedSource(pillow.upright_rgb(opened), size, name, partial(_whole, content, name))


def _again(content: Path | bytes, name: str, asked: Asked, short_side: int) -> ImageSource:
    """Decodes a JPEG a second time, for a smaller size. The first time it was decoded whole."""
    with _open_file(content, name) as file:
        return _decoded(file, content, name, asked, short_side)


def _log_frames(name: str, count: int, frame: int | None) -> None:
    """Logs that there are more frames than the first, if no frame is chosen.

    Raises:
        ImageError: for a frame that does not exist.
    """
    if frame is None and count > 1:
        log.info("%s: using the first of %d frames; choose with --frame N, or use --frame all", name, count)
    elif frame is not None and frame > count:
        raise ImageError(f"{name}: has no frame {frame}, only {count}")


def count_frames(image: str | bytes) -> int:
    """The number of frames or pages in a file; 1 if it cannot be read, which is reported when it is opened.

    image: a path, or an encoded file.
    """
    content = Path(image) if isinstance(image, str) else image
    try:
        with _open_file(content, "") as file, _explained("", None):
            with suppress(ImageError):
                if (regions := open_regions(content, file, "")) is not None:
                    return regions.info.frames
            file.seek(0)
            codecs.prepare(file, "")
            with pillow.opened(file) as opened:
                return len(pillow.frames(opened))
    except ImageError:
        return 1


def picture_size(path: str) -> tuple[int, int] | None:
    """(width, height) of an image file by its header, before it is turned upright; None if Pillow cannot read
    it.
    """
    try:
        with pillow.silence, Path(path).open("rb") as file, pillow.opened(file) as opened:
            return opened.size
    except Exception:  # decoders raise anything; opening the image reports it
        return None


def rereadable(image: str) -> str | bytes:
    """The path, if it can be read more than once; for ``-``, a FIFO and an address, the content.

    Raises:
        ImageError: if it cannot be read.
    """
    if image == "-":
        return sys.stdin.buffer.read()
    if is_address(image):
        return fetch(image)
    if Path(image).is_fifo():
        with _open_file(Path(image), image) as file:
            return bytes(file.read())
    return image


def _whole(content: Path | bytes, name: str) -> Pixels:
    path = content if isinstance(content, Path) else None
    with _open_file(content, name) as file, _explained(name, path), pillow.opened(file) as opened:
        return pillow.upright_rgb(opened)


def read_image(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The whole image, RGB, upright: uint8 (H, W, 3). Arguments and errors as for `open_image`."""
    source = open_image(image, max_pixels=max_pixels)
    return source.read((0, 0, *source.size))


def cannot_open(name: str, error: Exception) -> ImageError:
    """The error to raise if a path cannot be opened."""
    return ImageError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}")


@contextmanager
def _open_file(content: Path | bytes, name: str) -> Iterator[io.IOBase]:
    """A seekable file: the file itself, or its content in memory."""
    if isinstance(content, bytes):
        if not content:
            raise ImageError(f"{name}: is empty")
        yield io.BytesIO(content)
        return
    try:
        if content.is_dir():
            folder = name.rstrip("/") or "/"
            raise ImageError(
                f"{name}: a directory, not an image; name the files in it, as in {folder}/*.jpg, or map all "
                f"below it: fcnconv batch {shlex.quote(folder)} --out maps"
            )
        file = pillow.BoundedFile(content)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise cannot_open(name, error) from error
    with file:
        if file.seekable() and file.length == 0 and content.is_file():
            raise ImageError(f"{name}: empty, 0 bytes")
        yield file if file.seekable() else io.BytesIO(file.read())


def _is_prose(path: Path) -> bool:
    """Whether a file is text, and not in a raster format that GDAL reads."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(512)
        known = (b"<", b"ncols", b"ENVI", b"PDS_VERSION", b"DSAA")
        return head.isascii() and b"\0" not in head and not head.lstrip().startswith(known)
    return False


@contextmanager
def _explained(name: str, path: Path | None) -> Iterator[None]:
    """Turns any exception of Pillow on a damaged file into an ImageError with the file's name."""
    try:
        with pillow.silence:
            yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        hint = slide_hint(path) if path else ""
        if find_spec("rasterio") or path is None or _is_prose(path):
            raise ImageError(f"{name}: not an image that Pillow can decode{hint}") from error
        raise ImageError(
            f"{name}: not an image that Pillow can decode; GDAL reads more formats: pip install "
            f"'fcnconv[geo]'{hint}"
        ) from error
    except (
        Exception
    ) as error:  # decoders raise anything on damaged data: OSError, SyntaxError, struct.error, …
        reason = first_line(error)
        what = "Pillow cannot decode it" if _UNSUPPORTED.search(reason) else "damaged or cut short"
        raise ImageError(f"{name}: {what}: {reason}") from error


_UNSUPPORTED = re.compile(
    "unsupported|unimplemented|unknown|not supported|unable to locate|cannot find|bomb|no loader",
    re.IGNORECASE,
)
"""Pillow's messages for files that are not damaged, but that it does not support."""
