"""OME-Zarr: microscopy images as folders of chunks, with a pyramid and any number of channels (NGFF 0.4,
0.5).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.images.bands import BandSource, Values
from fcnconv.images.pixel_size import UNITS, PixelSize, sound
from fcnconv.images.samples import PLAIN, WHITE, Asked, Declared, Samples, choose_samples
from fcnconv.images.source import BLOCK

log = logging.getLogger("fcnconv")

_METADATA = ("zarr.json", ".zattrs")
"""One of these files lies in the folder of a zarr group."""


def is_store(path: Path) -> bool:
    """Whether a path is the folder of a zarr group."""
    with suppress(OSError):  # a name that no file can have
        return any(path.joinpath(name).is_file() for name in _METADATA)
    return False


class ZarrSource(BandSource):
    """A level of an OME-Zarr image, at its first time and depth.

    Args:
        array: of zarr.
        axes: the names of its axes.
        name: of the image, for messages.
        samples: which of its channels are used, and how.
        pixel_size: metres across and down a pixel; None if it is unknown.
    """

    def __init__(
        self,
        array: Any,
        axes: Sequence[str],
        name: str,
        samples: Samples,
        pixel_size: PixelSize | None = None,
    ):
        self.array, self.axes = array, tuple(axes)
        high, wide = (_block_side(array.chunks[self.axes.index(axis)]) for axis in "yx")
        width, height = (array.shape[self.axes.index(axis)] for axis in "xy")
        super().__init__(name, (width, height), (wide, high), samples, pixel_size=pixel_size)

    @classmethod
    def open(cls, path: Path, name: str, asked: Asked = PLAIN) -> ZarrSource:
        """Opens the first image of a group.

        Raises:
            ImageError: if it cannot be read.
        """
        try:
            import zarr
        except ImportError as error:
            raise ImageError(f"{name}: reading it needs zarr; run: pip install 'fcnconv[zarr]'") from error
        from fcnconv.images.blosc import CheckedStore

        try:
            path, series = _image_in(path)
            if series:
                log.info("%s: %s; only its first image %s is used", name, series, path)
            group = zarr.open_group(CheckedStore(path, read_only=True), mode="r")
            metadata: Mapping[str, Any] = group.attrs.asdict()
            image = metadata.get("ome", metadata)["multiscales"][0]
            axes = [axis["name"] if isinstance(axis, dict) else axis for axis in image["axes"]]
            arrays = [group[dataset["path"]] for dataset in image["datasets"]]
            for array in arrays:
                _require_numbers(array, axes)
                if "c" in axes and array.shape[axes.index("c")] != arrays[0].shape[axes.index("c")]:
                    raise ValueError("its levels differ in their channels")
            group.store.packed = tuple(f"{array.path}/" for array in arrays if "blosc" in _described(array))
            size = _pixel_size(image, axes)
        except Exception as error:  # stores and codecs raise anything on damaged data
            raise ImageError(
                f"{name}: a folder of zarr, but not an OME-Zarr image ({first_line(error)})"
            ) from error
        samples = choose_samples(name, _declared(arrays[0], axes), asked)
        source, *smaller = (cls(array, axes, name, samples, size) for array in arrays)
        source.levels = (source, *smaller)
        source.settle(asked.rescale)
        return source

    def _values(self, box: Box) -> Values:
        x0, y0, x1, y1 = box
        regions: dict[str, Any] = {"x": slice(x0, x1), "y": slice(y0, y1), "c": slice(None)}
        try:
            values = np.asarray(self.array[tuple(regions.get(axis, 0) for axis in self.axes)])
        except Exception as error:  # stores and codecs raise anything on damaged data
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        order = [axis for axis in self.axes if axis in regions]
        if "c" not in order:
            order, values = ["c", *order], values[None]
        values = values.transpose([order.index(axis) for axis in "yxc"])
        return values[:, :, [band - 1 for band in self.samples.needed]], None


def _declared(array: Any, axes: Sequence[str]) -> Declared:
    """The channels that an array declares: one is grey, three of 8 bits are red, green and blue."""
    count = int(array.shape[axes.index("c")]) if "c" in axes else 1
    usual = {1: (1,), 3: (1, 2, 3) if array.dtype == np.uint8 else None}.get(count)
    return Declared(count, array.dtype, usual, WHITE.get(str(array.dtype)))


def _metadata(folder: Path) -> Mapping[str, Any]:
    """OME's metadata of a group, of either version of zarr; empty for a folder that is not a group."""
    for name in _METADATA:
        if (folder / name).is_file():
            metadata = json.loads((folder / name).read_text(encoding="utf-8"))
            attributes = metadata.get("attributes", {}) if name == "zarr.json" else metadata
            return dict(attributes.get("ome", attributes))
    return {}


def _image_in(path: Path) -> tuple[Path, str]:
    """Finds the first image of a store, in the layouts of bioformats2raw and of plates with wells that NGFF
    defines.

    Returns:
        The folder of the image, and a description of the store if it holds several images.

    Raises:
        ValueError: if the image lies outside of the store.
    """
    metadata, series = _metadata(path), ""
    if "plate" in metadata:
        series = f"a plate of {len(metadata['plate']['wells'])} wells"
        path = _below(path, metadata["plate"]["wells"][0]["path"])
        metadata = _metadata(path)
    if "well" in metadata:
        series = series or f"a well of {len(metadata['well']['images'])} fields"
        return _below(path, metadata["well"]["images"][0]["path"]), series
    if "bioformats2raw.layout" in metadata and "multiscales" not in metadata:
        names = _metadata(path / "OME").get("series") or ["0"]
        return _below(path, names[0]), f"holds {len(names)} series"
    return path, series


def _below(folder: Path, name: str) -> Path:
    """A folder inside a store by its name.

    Raises:
        ValueError: if the name leads out of the store.
    """
    below = folder / name
    if not isinstance(name, str) or not below.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"its image {name!r} lies outside of it")
    return below


MOST_BLOCK = 1 << 28
"""The maximum number of bytes that are read at once: chunks, with all channels. Blocks of slides have some
MB.
"""


def _block_side(chunk: int) -> int:
    """The side of a block of whole chunks, in pixels. chunk: the side of a chunk."""
    return chunk * max(BLOCK // chunk, 1)


def _described(array: Any) -> str:
    """The file's complete description of an array, including its codecs, as JSON."""
    return json.dumps(array.metadata.to_dict(), default=str)


def _require_numbers(array: Any, axes: Sequence[str]) -> None:
    """Checks that an array is an image.

    An array of Python objects is pickled, and a pickle can run any code, so it is refused before any of it is
    read. Codecs that unpickle their data, which early versions of numcodecs have, are refused too.

    Raises:
        ValueError: for an array that has no values, whose values are not numbers, or whose chunks alone claim
            to fill the memory.
    """
    if array.dtype.kind not in "biuf" or re.search(r'"(numcodecs\.)?pickle"|Pickle\(', _described(array)):
        raise ValueError("its values are not numbers")
    if len(array.shape) != len(axes) or min(array.shape) < 1 or min(array.chunks) < 1:
        raise ValueError(f"an array of {array.shape} in chunks of {array.chunks}")
    chunk = dict(zip(axes, array.chunks, strict=True))
    chunk |= {axis: _block_side(chunk[axis]) for axis in "yx"}
    chunk |= {axis: size for axis, size in zip(axes, array.shape, strict=True) if axis == "c"}
    if math.prod(chunk.values()) * array.dtype.itemsize > MOST_BLOCK:
        raise ValueError(f"its chunks of {array.chunks} need more than {MOST_BLOCK >> 20:,} MB at once")


def _pixel_size(image: Mapping[str, Any], axes: Sequence[str]) -> PixelSize | None:
    """Metres across and down a pixel of the largest level."""
    units = [axis.get("unit", "") if isinstance(axis, dict) else "" for axis in image["axes"]]
    x, y = axes.index("x"), axes.index("y")
    if units[x] not in UNITS or units[y] not in UNITS:
        return None
    steps = [
        *image["datasets"][0].get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ]
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    if not scales:
        return None
    across, down = (float(np.prod([scale[axis] for scale in scales])) * UNITS[units[axis]] for axis in (x, y))
    return sound(across, down)
