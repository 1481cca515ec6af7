"""Reads all formats of GDAL through rasterio: GeoTIFF, JPEG 2000, VRT, ERDAS, pictures with sidecar files.

GDAL recognises a file by its content, and reads its sidecars: world files, ``.aux.xml``, ``.msk``, ``.ovr``.
This module applies the declarations of the file: georeference, control points, masks, nodata, opacity,
palettes and bit depths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.images.bands import BandSource, Values
from fcnconv.images.gdal import (
    FrameMissing,
    container_of,
    count_pages,
    declared_by,
    gdal,
    gdal_open,
    require_sound,
    root_cause,
)
from fcnconv.images.georeference import GeoReference, georeference_of, ground_size
from fcnconv.images.pixel_size import PixelSize, of_resolution, sound
from fcnconv.images.samples import PLAIN, Asked, Samples, choose_samples, exact_nodata
from fcnconv.images.source import Blocks

SIDE = 512
"""Pixels of a side of the blocks that are read from GDAL at once. Smaller blocks cost more calls. Larger
blocks are read twice, because a scan's tiles begin anywhere in them.
"""


class RasterSource(BandSource):
    """A raster of GDAL, or a level of its overviews.

    Attributes:
        dataset: of rasterio.
        samples: which bands are used, and how.
        frames: number of pages in the file.
        decoder: decodes the blocks faster than GDAL; None if there is no such reader.

    Args:
        place: whether to read the georeference. Overviews cover the same area as the whole image.
    """

    def __init__(self, dataset: Any, name: str, samples: Samples, frames: int = 1, place: bool = True):
        size, georeference, pixel_size = (dataset.width, dataset.height), None, None
        if place:
            georeference = georeference_of(dataset, name)
            pixel_size = _pixel_size(dataset, georeference, size)
        super().__init__(name, size, _block(dataset), samples, frames, georeference, pixel_size)
        self.dataset = dataset
        self.nodata = [
            exact_nodata(dataset.nodatavals[band - 1], samples.declared.dtype) for band in samples.bands
        ]
        flags = {flag.name for band in samples.bands for flag in dataset.mask_flag_enums[band - 1]}
        self.has_nodata = "nodata" in flags
        self.has_mask = "per_dataset" in flags and "alpha" not in flags
        self.decoder: BandSource | None = None

    @classmethod
    def open(
        cls, content: Path | bytes, name: str, asked: Asked = PLAIN, premultiplied: bool = False
    ) -> RasterSource | None:
        """Opens the raster in a file.

        Args:
            content: a path, or an encoded file.
            name: of the image, for messages.
            asked: the options for the pixels.
            premultiplied: whether the colours are multiplied by the opacity, which GDAL does not report.

        Returns:
            The raster; None if GDAL does not know the file.

        Raises:
            ImageError: if the file is damaged, or does not fit the options.
        """
        from rasterio.errors import RasterioError

        with gdal():
            try:
                dataset = gdal_open(content, asked.frame or 1)
            except FrameMissing as error:
                raise ImageError(f"{name}: has no frame {asked.frame}, only {error.count}") from error
            except (RasterioError, OSError, ValueError):
                return None
            if dataset.count == 0:
                raise ImageError(container_of(name, dataset))
            require_sound(dataset, content, name, asked.max_pixels)
            samples = choose_samples(name, declared_by(dataset, premultiplied, name), asked)
            source = cls(dataset, name, samples, count_pages(dataset))
            source.levels = (source, *source._overviews(content, asked.frame or 1))
            source.settle(asked.rescale)
        return source

    def _overviews(self, content: Path | bytes, frame: int) -> Iterator[RasterSource]:
        from rasterio.errors import RasterioError

        for level in range(len(self.dataset.overviews(1))):
            try:
                dataset = gdal_open(content, frame, overview_level=level)
            except (RasterioError, OSError, ValueError):
                return
            if dataset.count == self.dataset.count:
                yield RasterSource(dataset, self.name, self.samples, place=False)

    def decode_by(self, opening: Callable[[Samples], BandSource | None]) -> None:
        """Reads values with another reader of the same file from now on.

        GDAL still decodes a file with nodata, because codecs differ by a level and nodata is an exact value.

        Args:
            opening: samples -> the reader, or None if it does not understand the file as GDAL does.
        """
        plain = self.samples.declared.palette is None and not self.has_nodata
        decoder = opening(self.samples) if plain else None
        if decoder and decoder.size == self.size:
            self.decoder = decoder
            self.blocks = Blocks(self.size, decoder.blocks.block, self._block)

    def _values(self, box: Box) -> Values:
        with gdal():
            try:
                values = self.decoder._values(box)[0] if self.decoder else self._decoded(box)
                return values, self._known(values, _window(box))
            except ImageError:
                raise
            except Exception as error:  # rasterio's and GDAL's errors share no class
                raise ImageError(
                    f"{self.name}: GDAL cannot read its pixels: {first_line(root_cause(error))}"
                ) from error

    def _decoded(self, box: Box) -> npt.NDArray[Any]:
        (x0, y0, x1, y1), needed = box, list(self.samples.needed)
        values = np.empty((y1 - y0, x1 - x0, len(needed)), self.samples.declared.dtype)
        # GDAL interleaves the bands as it copies them, twice as fast as NumPy does afterwards
        self.dataset.read(
            needed, window=_window(box), out=values.transpose(2, 0, 1)
        )  # (H, W, C) -> (C, H, W)
        return values

    def _known(self, values: npt.NDArray[Any], window: Any) -> npt.NDArray[np.bool_] | None:
        """Where any of the bands has data, by GDAL's masks: bool (H, W); None if it is everywhere."""
        bands = list(self.samples.bands)
        if self.has_nodata:
            if self.samples.declared.dtype.kind not in "ui":
                return np.asarray(self.dataset.read_masks(bands, window=window).any(0))
            known = np.zeros(values.shape[:2], np.bool_)
            for band, nodata in enumerate(self.nodata):
                if nodata is None:
                    return None
                known |= values[:, :, band] != nodata
                if known.all():
                    return None
            return known
        return np.asarray(self.dataset.read_masks(bands[0], window=window) > 0) if self.has_mask else None

    @property
    def _is_partial(self) -> bool:
        return self.has_nodata or self.has_mask or super()._is_partial

    @property
    def _small_level(self) -> BandSource:
        return self if self.has_mask else super()._small_level  # overviews may lack the mask

    def _seen(self, box: Box) -> npt.NDArray[np.bool_]:
        if super()._is_partial or self.has_nodata:
            return super()._seen(box)
        with gdal():  # only the mask decides
            try:
                return np.asarray(self.dataset.read_masks(self.samples.bands[0], window=_window(box)) > 0)
            except Exception as error:
                raise ImageError(
                    f"{self.name}: GDAL cannot read its mask: {first_line(root_cause(error))}"
                ) from error


def _pixel_size(dataset: Any, georeference: GeoReference | None, size: tuple[int, int]) -> PixelSize | None:
    """Metres across and down a pixel: on the ground, or by the resolution in the file."""
    if georeference is not None:
        found = ground_size(georeference, size)
        return sound(*found) if found else None
    tags = dataset.tags()
    try:
        x, y = (float(tags[f"TIFFTAG_{axis}RESOLUTION"]) for axis in "XY")
        return of_resolution(x, y, int(tags.get("TIFFTAG_RESOLUTIONUNIT", "")[:1]))
    except (KeyError, ValueError):
        return None


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    x0, y0, x1, y1 = box
    return (y0, y1), (x0, x1)


def _block(dataset: Any) -> tuple[int, int]:
    """(width, height) of the blocks to read: whole blocks of the file, with sides of about `SIDE` pixels."""
    high, wide = dataset.block_shapes[0]
    wide, high = min(wide, dataset.width), min(high, dataset.height)
    if wide == dataset.width:
        return wide, min(high * max(4 * SIDE * SIDE // (wide * high), 1), dataset.height)
    return wide * max(SIDE // wide, 1), high * max(SIDE // high, 1)
