"""Masks: the area where a mask image is not black, on the grid of its image; and the tissue on a slide.

A mask is read like any image. A georeferenced mask is warped to the grid of its georeferenced image. Any
other mask has the image's size or its proportions. Black, transparent, NaN and nodata pixels are outside.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fcnconv.errors import ImageError, first_line
from fcnconv.images import ImageSource, area, gdal, pillow, read_within, warn_of_lost_place
from fcnconv.images.georeference import GeoReference, georeference_of
from fcnconv.images.source import upright
from fcnconv.scan.roi.areas import Inside

MOST_PIXELS = 400_000_000
"""The maximum number of pixels of a mask that is read whole."""

MOST_BANDS = 100
"""The maximum number of bands of a mask. All of them are read."""

WARPED_SIDE = 8192
"""Pixels of the longest side of the grid that a mask is warped to. The cells of a scan are coarser."""


def read_mask(path: Path, source: ImageSource) -> Inside:
    """Reads a mask for an image.

    Returns:
        bool (h, w): where the mask is not black, stretched over the whole image.

    Raises:
        ImageError: for a file that is not an image, and for a mask that does not fit the image.
    """
    inside = _by_gdal(path, source) if gdal.is_there() else None
    if inside is None:
        inside = _by_pillow(path)
        warn_of_lost_place(path, str(path))
    (width, height), (own_height, own_width) = source.size, inside.shape
    # a smaller mask has the image's proportions as far as whole pixels can have them
    if abs(own_width - width * own_height / height) > 1 and abs(own_height - height * own_width / width) > 1:
        raise ImageError(
            f"{path}: a mask of {own_width} × {own_height} px does not fit an image of {width} × "
            f"{height} px; use a mask of the same size or the same proportions"
        )
    return inside


def _require_small(path: Path, size: tuple[int, int]) -> None:
    if area(size) > MOST_PIXELS:
        raise ImageError(
            f"{path}: a mask of {size[0]} × {size[1]} px is too large; use a smaller one of the same "
            "proportions"
        )


def _by_pillow(path: Path) -> Inside:
    try:
        with pillow.silence, path.open("rb") as file, pillow.opened(file) as image:
            _require_small(path, image.size)
            turned = pillow.orientation(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
            elif image.mode not in ("1", "L", "I", "I;16", "F"):
                image = image.convert("RGB")
            values = np.asarray(image)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise ImageError(f"{path}: cannot be read as a mask: {first_line(error)}") from error
    values = values if values.ndim == 3 else values[:, :, None]
    clear = values[:, :, 3] == 0 if values.shape[2] == 4 else np.zeros(values.shape[:2], np.bool_)
    inside = _not_black(values[:, :, :3].transpose(2, 0, 1)) & ~clear
    return np.ascontiguousarray(upright(inside, turned))


def _not_black(bands: npt.NDArray[Any]) -> Inside:
    """bool (H, W): where any band is neither 0 nor NaN. bands: (count, H, W)."""
    return np.asarray(((bands != 0) & (bands == bands)).any(0))


def _by_gdal(path: Path, source: ImageSource) -> Inside | None:
    """Reads a mask with GDAL, warped if the mask and the image are georeferenced; None if GDAL cannot open
    it.
    """
    from rasterio.errors import RasterioError

    image = source.info.georeference
    with gdal.gdal():
        try:
            dataset = gdal.gdal_open(path)
        except (RasterioError, OSError, ValueError):
            return None
        if dataset.count == 0:
            return None
        if dataset.count > MOST_BANDS:
            raise ImageError(
                f"{path}: has {dataset.count:,} bands; use a mask of one band, or a colour picture"
            )
        try:
            with dataset:
                place = georeference_of(dataset, str(path))
                if image is None or place is None:
                    _require_small(path, (dataset.width, dataset.height))
                    inside = _inside(dataset, dataset)
                    turned = 1 if place is not None else _orientation(path)
                    return np.ascontiguousarray(upright(inside, turned))
                return _warped(path, dataset, place, image, source)
        except ImageError:
            raise
        except Exception as error:  # rasterio's and GDAL's errors share no class
            raise ImageError(f"{path}: GDAL cannot read the mask: {first_line(error)}") from error


def _orientation(path: Path) -> int:
    with path.open("rb") as file:
        return pillow.orientation_of(file)


def _inside(dataset: Any, pixels: Any) -> Inside:
    """The pixels inside a mask: bool (H, W). pixels: the dataset, or the warped dataset."""
    declared = gdal.declared_by(dataset)
    bands = [band for band in range(1, dataset.count + 1) if band != declared.alpha]
    values, valid = pixels.read(bands), pixels.dataset_mask() > 0
    if declared.palette is None:
        return np.asarray(_not_black(values) & valid)
    colours = declared.palette[np.minimum(values[0], len(declared.palette) - 1)]
    inside = (colours[:, :, :3] > 0).any(-1) & (colours[:, :, 3] > 0) & valid
    # labels whose palette was left black
    return np.asarray(inside if (declared.palette[:, :3] > 0).any() else (values[0] != 0) & valid)


def _warped(
    path: Path, dataset: Any, place: GeoReference, image: GeoReference, source: ImageSource
) -> Inside:
    """A mask on the grid of an image, or on a coarser grid of the same proportions: bool (h, w)."""
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    width, height = source.size
    factor = max(max(width, height) / WARPED_SIDE, 1.0)
    wide, high = math.ceil(width / factor), math.ceil(height / factor)
    grid = image.of_part(0, 0, width / wide, height / high)
    system = image.system or place.system or "EPSG:3857"  # if neither is named, both are the same
    theirs = place.system or system
    options: dict[str, Any] = {"add_alpha": not gdal.declared_by(dataset).alpha and dataset.nodata is None}
    with WarpedVRT(
        dataset,
        src_crs=theirs,
        src_transform=Affine(*place.transform),
        crs=system,
        transform=Affine(*grid.transform),
        width=wide,
        height=high,
        resampling=Resampling.nearest,
        **options,
    ) as warped:
        inside = _inside(dataset, warped)
    if not inside.any() and not _overlap(dataset, place, theirs, image, system, source):
        raise ImageError(f"{path}: the mask does not overlap {source.name}; its coordinates lie elsewhere")
    return inside


def _overlap(
    dataset: Any, place: GeoReference, theirs: str, image: GeoReference, system: str, source: ImageSource
) -> bool:
    """Whether the bounds of a mask and of an image intersect."""
    from rasterio.warp import transform_bounds

    def bounds(where: GeoReference, width: int, height: int) -> tuple[float, float, float, float]:
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
        x, y = where.place_all(corners).T
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    try:
        left, bottom, right, top = transform_bounds(
            theirs, system, *bounds(place, dataset.width, dataset.height)
        )
    except Exception:  # coordinates that PROJ cannot convert do not overlap
        return False
    x0, y0, x1, y1 = bounds(image, *source.size)
    return bool(left < x1 and right > x0 and bottom < y1 and top > y0)


OVERVIEW_SIDE = 2048
"""Pixels of the longest side of the overview that tissue is searched in."""

MEDIAN, CLOSING = 7, 7
"""Side of the median filter that removes dust, and of the gaps that are closed, in pixels of the overview."""

LEAST_SATURATION = 8
"""The minimum saturation, of 255, that counts as tissue, however grey the slide is."""


def find_tissue(source: ImageSource) -> tuple[Inside, int]:
    """Finds the tissue of an image.

    The saturation of HSV, smoothed by a median, is split by Otsu's threshold ("A threshold selection method
    from gray-level histograms", 1979). Small gaps are closed, as CLAM does (Lu et al., 2021).

    Returns:
        bool (h, w) of an overview of the image: where it has tissue; and the minimum saturation, of 255.
    """
    overview = Image.fromarray(read_within(source, OVERVIEW_SIDE))
    saturation = overview.convert("HSV").getchannel("S").filter(ImageFilter.MedianFilter(MEDIAN))
    threshold = max(otsu(np.bincount(np.asarray(saturation).ravel(), minlength=256)), LEAST_SATURATION)
    tissue = saturation.point(lambda value: 255 * (value >= threshold))
    tissue = tissue.filter(ImageFilter.MaxFilter(CLOSING)).filter(ImageFilter.MinFilter(CLOSING))
    return np.asarray(tissue) > 0, threshold


def otsu(histogram: npt.NDArray[np.integer]) -> int:
    """The threshold that splits values into two classes whose means are as far apart as possible for their
    sizes.

    Args:
        histogram: int (n,), the number of times that each value 0 to n - 1 occurs.

    Returns:
        The lowest value of the upper class.
    """
    counts = histogram.astype(np.float64)
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * np.arange(len(counts))).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return int(np.nan_to_num(between).argmax()) + 1
