"""Reading images: any file that Pillow knows, upright and in RGB.

Everything that comes in goes through `open_image`, so that EXIF orientation, colour modes and the size limit
are treated once. What comes out is an `ImageSource`: a size, and a function that reads a region.
"""

from __future__ import annotations

import io
import logging
import shlex
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fcnconv.errors import ImageError, UsageError, first_line
from fcnconv.parsing import Rescale
from fcnconv.sources import (
    REGION_SUFFIXES,
    ImageSource,
    MemorySource,
    Pixels,
    ReducedSource,
    codecs,
    may_be_tiff,
    ome_zarr,
    open_any,
    open_regions,
    pillow,
    slide_hint,
)
from fcnconv.sources.geo import read_world_file
from fcnconv.sources.remote import fetch, fetch_to, is_address, shown_address

log = logging.getLogger("fcnconv")

ImageLike = str | Path | bytes | Image.Image | Pixels

MAX_PIXELS = 178_956_970
"""Pixels over which Pillow refuses an image as a possible decompression bomb (twice its warning limit)."""


def image_suffixes() -> frozenset[str]:
    """The suffixes of files that hold images, in lower case with their dot."""
    return pillow.suffixes() | codecs.SUFFIXES | REGION_SUFFIXES


def normalize(pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """float32 (1, channels, H, W): ``(pixels / 255 - mean) / std`` for each channel.

    pixels: uint8 (H, W, channels). mean, std: one value a channel, for intensities 0 to 1.
    """
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, np.float32))
    shift = -np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    out = np.empty((1, len(mean), *pixels.shape[:2]), np.float32)
    for channel in range(len(mean)):  # (H, W, 3) -> (3, H, W), a plane at a time: no interleaved float copy
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
    """The image, opened, decoded and turned upright.

    image: a path (``-`` reads standard input), the address of a file elsewhere, an encoded file as bytes, a
        PIL image, or uint8 (H, W, channels), RGB.
    max_pixels: an image of more pixels is refused before it is decoded.
    short_side: the largest short side, in pixels, at which the image will be read; None if that is its own. A
        JPEG of more than `pillow.MARGIN` times that is decoded smaller, which takes less time and memory.
    name: what messages call it; None says the path.
    frame: of an animation, or the page of a TIFF, from 1; None is the first, and logs that there are more.
    bands, rescale: of a TIFF or OME-Zarr, as in `options.NetworkOptions`. channels: that the network takes.

    Raises ImageError, whose message starts with the path.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8 or 0 in image.shape:
            wanted = f"uint8 (H, W, {channels})"
            raise UsageError(f"an image array must be {wanted}, got {image.dtype} {image.shape}")
        return MemorySource(image)
    if isinstance(image, Image.Image):
        if channels != 3:
            raise UsageError(f"an image of the network's {channels} channels is an array or a TIFF file")
        return MemorySource(pillow.upright_rgb(image))
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
            return ome_zarr.ZarrSource.open(content, name, bands, rescale, channels)
    with _open_file(content, name) as file:
        if isinstance(file, io.BytesIO):  # also what came through a FIFO, which can be read only once
            content = file.getvalue()
        path = content if isinstance(content, Path) else None
        with _explained(name, path):
            regions = open_regions(path, name, frame or 1, bands, rescale, channels) if path else None
        if regions is not None:  # never whole in memory, so that there is no limit
            _tell_frames(name, getattr(regions, "frames", 1), frame)
            return regions
        if path and may_be_tiff(path) and (channels != 3 or bands or rescale):
            raise ImageError(
                f"{name}: damaged, or its samples are compressed in a way that nothing here reads"
            )
        if channels != 3:
            raise ImageError(
                f"{name}: the network takes images of {channels} channels, as TIFF files on disk have (extra "
                "tiff: pip install 'fcnconv[tiff]'), or arrays in Python"
            )
        if bands or rescale:
            raise ImageError(
                f"{name}: --bands and --rescale are for the samples of TIFF files, by the extra tiff "
                "(pip install 'fcnconv[tiff]'); leave them out, or convert the image"
            )
        return _decoded(file, content, name, max_pixels, short_side, frame)


def _of_copy(address: str, opening: Callable[[Path], ImageSource]) -> ImageSource:
    """The image in a file elsewhere that is read region by region, from a copy which lasts as long as it."""
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
    file: io.IOBase,
    content: Path | bytes,
    name: str,
    max_pixels: int,
    short_side: int | None,
    frame: int | None,
) -> ImageSource:
    path = content if isinstance(content, Path) else None
    with _explained(name, path):
        own_codec = codecs.prepare(file, name)
        with pillow.opened(file) as opened:
            frames = pillow.frames(opened)
            _tell_frames(name, len(frames), frame)
            opened.seek(frames[(frame or 1) - 1])
            width, height = opened.size
            if opened.format == "TIFF" and opened.mode in ("F", "I"):
                raise ImageError(
                    f"{name}: its values have no range that is black to white; for a file on disk, by the "
                    "extra tiff (pip install 'fcnconv[tiff]'), --rescale LOW,HIGH gives one"
                )
            elsewhere = path and not own_codec and opened.tell() == 0
            regions = open_any(path, name, width, height) if path and elsewhere else None
            if regions is not None:
                return regions
            if width * height > max_pixels:
                raise ImageError(
                    f"{name}: {width} × {height} is {width * height:,} pixels, over the limit of "
                    f"{max_pixels:,}; --max-pixels {width * height} lets it in"
                )
            place = read_world_file(path) if path else None
            if not (short_side and pillow.reduce(opened, short_side)):
                return MemorySource(pillow.upright_rgb(opened), name, place)
            size = (height, width) if pillow.is_turned(opened) else (width, height)
            return ReducedSource(
                pillow.upright_rgb(opened), size, name, partial(_whole, content, name), place
            )


def _tell_frames(name: str, count: int, frame: int | None) -> None:
    """Logs that there are more frames than the first, if none is asked for. Raises ImageError for one that is
    not there.
    """
    if frame is None and count > 1:
        log.info("%s: the first of %d frames; --frame N takes another, --frame all each", name, count)
    elif frame is not None and frame > count:
        raise ImageError(f"{name}: has no frame {frame}, only {count}")


def count_frames(image: str | bytes) -> int:
    """How many frames or pages of its own a file has; 1 for one that cannot be read, which is told when it is
    opened. image: a path, or an encoded file.
    """
    content = Path(image) if isinstance(image, str) else image
    path = content if isinstance(content, Path) else None
    try:
        with _open_file(content, "") as file, _explained("", path):
            regions = open_regions(path, "") if path else None
            if regions is not None:
                return int(getattr(regions, "frames", 1))
            codecs.prepare(file, "")
            with pillow.opened(file) as opened:
                return len(pillow.frames(opened))
    except ImageError:
        return 1


def picture_size(path: str) -> tuple[int, int] | None:
    """(width, height) of an image file by its header, on its side perhaps; None where Pillow cannot tell."""
    try:
        with pillow.silence, Path(path).open("rb") as file, pillow.opened(file) as opened:
            return opened.size
    except Exception:  # decoders raise anything, and whoever opens the image tells of it
        return None


def rereadable(image: str) -> str | bytes:
    """A path, if it can be read more than once; of ``-``, a FIFO and an address the content. Raises
    ImageError.
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
    """uint8 (H, W, 3): the whole image, RGB, upright. Arguments and errors as for `open_image`."""
    source = open_image(image, max_pixels=max_pixels)
    return source.read((0, 0, *source.size))


def cannot_open(name: str, error: Exception) -> ImageError:
    """The error to raise when a path could not be opened."""
    return ImageError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}")


@contextmanager
def _open_file(content: Path | bytes, name: str) -> Iterator[io.IOBase]:
    """A file that can be read from any place: itself, or in memory."""
    if isinstance(content, bytes):
        if not content:
            raise ImageError(f"{name}: empty, no image came")
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
        yield file if file.seekable() else io.BytesIO(file.read())


@contextmanager
def _explained(name: str, path: Path | None) -> Iterator[None]:
    """Turns whatever Pillow raises on a damaged file into an ImageError with the file's name."""
    try:
        with pillow.silence:
            yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        hint = slide_hint(path) if path else ""
        raise ImageError(f"{name}: not an image that Pillow can decode{hint}") from error
    except (
        Exception
    ) as error:  # decoders raise anything on damaged data: OSError, SyntaxError, struct.error, …
        raise ImageError(f"{name}: damaged or cut short: {first_line(error)}") from error
