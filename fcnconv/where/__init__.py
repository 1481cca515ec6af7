"""Where to look: which windows of an image are scored, and which are left out.

A window is looked at if its centre lies in the region, the mask and the tissue that were asked for, and where
the image has data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import Box, Grid
from fcnconv.options import MapOptions
from fcnconv.sources import ImageSource, Placed, area, known_of, pillow
from fcnconv.where.areas import Area, Inside, Rings, cells_inside, polygons, raster, rectangle
from fcnconv.where.geojson import read_polygons, to_pixels
from fcnconv.where.tissue import find_tissue

MOST_PIXELS = 400_000_000
"""Of a mask. It is decoded whole."""

GEOJSON = (".geojson", ".json", ".geojson.gz")
"""What a mask's name ends in that holds polygons; others are images."""


@dataclass(frozen=True)
class Where:
    """Where an image is looked at: in all of some areas. record: how these were told."""

    areas: tuple[Area, ...] = ()
    record: Mapping[str, str] = field(default_factory=dict)

    def cells(self, grid: Grid) -> Inside | None:
        """bool (rows, cols): the windows that are looked at; None are all.

        Raises UsageError if there is none.
        """
        if not self.areas:
            return None
        found = cells_inside(self.areas, grid)
        if not found.any():
            asked = ", ".join(f"{name} {value}" for name, value in self.record.items())
            raise UsageError(
                f"no window of {grid.window} px has its centre where to look ({asked}); make that larger, or "
                "the windows denser with --stride or a larger --scales"
            )
        return None if found.all() else found


def where_of(source: ImageSource, options: MapOptions) -> Where:
    """Where the options ask to look, and where the image has data at all. Raises ImageError for what does
    not fit the image.
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
    known = known_of(source)
    if known is not None and not known.all():
        areas.append(raster(known, source.size))
        record["data"] = f"{known.mean():.4f} of the image"
    return Where(tuple(areas), record)


def _clipped(region: Box, source: ImageSource) -> Box:
    (x0, y0, x1, y1), (width, height) = region, source.size
    if x0 >= width or y0 >= height:
        raise ImageError(f"{source.name}: has {width} × {height} px, and --region begins at {x0},{y0}")
    return x0, y0, min(x1, width), min(y1, height)


def _mask(path: Path, source: ImageSource) -> Area:
    if path.name.lower().endswith(GEOJSON):
        return polygons(_placed(path, source))
    (width, height), mask = source.size, _raster(path)
    own_height, own_width = mask.shape
    # a smaller mask has the image's proportions as far as whole pixels can have them
    if abs(own_width - width * own_height / height) > 1 and abs(own_height - height * own_width / width) > 1:
        raise ImageError(
            f"{path}: a mask of {own_width} × {own_height} px does not lie over an image of {width} × "
            f"{height} px; it has the same size, or the same proportions"
        )
    return raster(mask, source.size)


def _raster(path: Path) -> Inside:
    """bool (h, w): where an image of any kind is not black."""
    try:
        with pillow.silence, path.open("rb") as file, pillow.opened(file) as image:
            if area(image.size) > MOST_PIXELS:
                raise ImageError(
                    f"{path}: a mask of {image.width} × {image.height} px is too large; a smaller one of the "
                    "same proportions does as well"
                )
            plain = image.mode in ("1", "L", "I", "I;16", "F")
            mask: Inside = np.asarray(image if plain else image.convert("L")) != 0
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise ImageError(f"{path}: no image that can be a mask: {error}") from error
    return mask


def _placed(path: Path, source: ImageSource) -> list[Rings]:
    """The polygons of a GeoJSON, in pixels of the image."""
    shapes, system = read_polygons(path)
    place = source.georeference if isinstance(source, Placed) else None
    if place is not None:
        shapes = [[to_pixels(ring, place, system) for ring in rings] for rings in shapes]
    points = np.concatenate([ring for rings in shapes for ring in rings])
    (left, top), (right, bottom) = points.min(0), points.max(0)
    if right < 0 or bottom < 0 or left >= source.size[0] or top >= source.size[1]:
        raise ImageError(
            f"{path}: its polygons lie at {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f} px, outside of "
            f"{source.name} ({source.size[0]} × {source.size[1]} px)"
        )
    return shapes
