"""What writing a map takes: the stages of each format, for whoever tells how long it will take.

The seconds were measured on one core; against the others' they hold better than by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcnconv.render.sheet import sheet_shape
from fcnconv.scores import MAP, About
from fcnconv.system.progress import Work
from fcnconv.viewer import MAX_VALUES, PHOTO, page_pixels
from fcnconv.writers.contents import PICTURE_SIDE, Choice, optimises


@dataclass(frozen=True)
class Cost:
    """One stage of writing a format, which reports its `name`.

    of: what it grows with: the map's scores or cells; the scores that a GeoTIFF is optimised with, where the
        image lies on the map; the image's pixels, of which the picture shows less;
        the page's pixels of the photo; the picture's, in all its panels; or the scores as a page packs them.
    seconds: for one of these.
    """

    name: str
    of: Literal["scores", "cells", "optimised", "reduced", "page", "picture", "packed"]
    seconds: float


CELLS, DRAWING, FILE = "cells", "drawing", "file"
"""Stages after the map has come. Cells are counted one by one, all else at once."""

NPY = (Cost(MAP, "scores", 6e-9),)
NPZ = (*NPY, Cost(FILE, "scores", 3e-9))
PLANES = (Cost(MAP, "scores", 3e-8),)
TIF = (*PLANES, Cost(FILE, "optimised", 1.8e-7))
OME_TIF = (*PLANES, Cost(FILE, "scores", 1.4e-7))
OME_ZARR = (*PLANES, Cost(FILE, "scores", 2.7e-7))
JSON = (Cost(MAP, "scores", 6e-8), Cost(CELLS, "cells", 2.2e-5))
CSV = (Cost(MAP, "scores", 6e-8), Cost(CELLS, "cells", 1.1e-5))
GEOJSON = (Cost(MAP, "scores", 6e-8), Cost(CELLS, "cells", 5.5e-5))
GPKG = (Cost(MAP, "scores", 6e-8), Cost(CELLS, "cells", 1.5e-5))
VIEWER = (Cost(MAP, "scores", 3e-8), Cost(FILE, "packed", 4e-7), Cost(PHOTO, "page", 1.5e-7))


def picture(encoding: float) -> tuple[Cost, ...]:
    """The stages of a picture. encoding: seconds for each of its pixels."""
    return (
        Cost(PHOTO, "reduced", 1e-8),
        Cost(MAP, "scores", 5e-9),
        Cost(DRAWING, "picture", 3.5e-8),
        Cost(FILE, "picture", encoding),
    )


def expected(costs: tuple[Cost, ...], about: About, choice: Choice) -> list[Work]:
    """The stages of writing a map."""
    rows, cols, num_classes = about.shape
    width, height = about.grid.image_size
    pixels, longest = width * height, max(width, height)
    asked = choice.options.max_side
    side = asked or PICTURE_SIDE
    panels = max(len(choice.selections), 1) * (2 if choice.options.raw else 1)
    across, down = sheet_shape(panels, (width, height))
    amounts = {
        "scores": rows * cols * num_classes,
        "cells": rows * cols,
        "optimised": rows * cols * num_classes if optimises(about) else 0,
        "reduced": pixels if longest > side else 0,
        "page": page_pixels((width, height), asked),
        "picture": pixels * min(side / max(across * width, down * height), 1) ** 2 * panels,
        "packed": min(rows * cols * num_classes, MAX_VALUES),
    }
    return [_work(cost, amounts[cost.of]) for cost in costs if amounts[cost.of]]


def _work(cost: Cost, amount: float) -> Work:
    if cost.name in (MAP, CELLS) or cost.of == "page":
        return Work(cost.name, "writing", amount, cost.seconds)
    return Work(cost.name, "writing", 1, amount * cost.seconds)
