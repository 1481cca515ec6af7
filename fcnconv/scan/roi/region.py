"""The region of interest: which windows of an image are scored, and which are left out.

A window is scored if its centre lies in the region, the mask and the tissue that the options name, and where
the image has data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcnconv.errors import ImageError
from fcnconv.grid import Box
from fcnconv.images import ImageSource
from fcnconv.options import ScanOptions
from fcnconv.scan.roi.areas import Area, RegionOfInterest, Rings, polygons, raster, rectangle
from fcnconv.scan.roi.mask import find_tissue, read_mask
from fcnconv.scan.roi.vector import is_vector, read_polygons, to_pixels


def region_of_interest(source: ImageSource, options: ScanOptions) -> RegionOfInterest:
    """The region of interest that the options ask for, restricted to where the image has data.

    Raises:
        ImageError: for an option that does not fit the image.
    """
    areas: list[Area] = []
    record: dict[str, str] = {}
    if options.region is not None:
        areas.append(rectangle(_clipped(options.region, source)))
        record["region"] = ",".join(map(str, options.region))
    if options.mask is not None:
        areas.append(_mask(Path(options.mask), source))
        record["mask"] = options.mask
    if options.tissue:
        tissue, threshold = find_tissue(source)
        areas.append(raster(tissue, source.size))
        record["tissue"] = f"saturation from {threshold} of 255"
    known = source.valid_mask()
    if known is not None and not known.all():
        areas.append(raster(known, source.size))
        record["data"] = f"{known.mean():.4f} of the image"
    return RegionOfInterest(tuple(areas), record)


def _clipped(region: Box, source: ImageSource) -> Box:
    (x0, y0, x1, y1), (width, height) = region, source.size
    if x0 >= width or y0 >= height:
        raise ImageError(f"{source.name}: has {width} × {height} px, but --region begins at {x0},{y0}")
    return x0, y0, min(x1, width), min(y1, height)


def _mask(path: Path, source: ImageSource) -> Area:
    if is_vector(path):
        return _placed(path, source)
    return raster(read_mask(path, source), source.size)


def _placed(path: Path, source: ImageSource) -> Area:
    """The area of a file's polygons, in pixels of the image, without the polygons to ignore."""
    drawn = read_polygons(path)
    place = source.info.georeference

    def placed(shapes: Sequence[Rings]) -> list[Rings]:
        if place is None:
            return list(shapes)
        return [
            [to_pixels(ring, place, drawn.system, path, source.size) for ring in rings] for rings in shapes
        ]

    shapes, ignored = placed(drawn.shapes), placed(drawn.ignored)
    if shapes:
        points = np.concatenate([ring for rings in shapes for ring in rings])
        (left, top), (right, bottom) = points.min(0), points.max(0)
        if not (right >= 0 and bottom >= 0 and left < source.size[0] and top < source.size[1]):
            raise ImageError(
                f"{path}: its polygons lie at {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f} px, outside "
                f"of {source.name} ({source.size[0]} × {source.size[1]} px)"
            )
    inside = polygons(shapes) if shapes else rectangle((0, 0, *source.size))
    if not ignored:
        return inside
    outside = polygons(ignored)
    return lambda x, y: inside(x, y) & ~outside(x, y)
