"""The content of an output file in any format: the selected scores, their names and their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fcnconv.errors import UsageError
from fcnconv.grid import Box
from fcnconv.images import ImageSource, Pixels, mean_side, read_within, seen
from fcnconv.images.georeference import GeoReference
from fcnconv.labels import Labels, Selection
from fcnconv.options import PLAIN_OUTPUT, OutputOptions
from fcnconv.provenance import correction_record
from fcnconv.scores import FloatArray, MapBlock, MapInfo, Mask, ScoreStream
from fcnconv.version import __version__

CellRecord = dict[str, str | int | float]
"""A record of named scalars."""


@dataclass(frozen=True)
class OutputSpec:
    """The part of a score map that is written.

    Attributes:
        selections: The categories and concepts, without duplicates; empty for all categories.
        options: The options of output.
    """

    selections: tuple[Selection, ...] = ()
    options: OutputOptions = PLAIN_OUTPUT

    def __post_init__(self) -> None:
        once = {selection.classes: selection for selection in reversed(self.selections)}
        object.__setattr__(self, "selections", tuple(reversed(once.values())))

    @classmethod
    def of(cls, options: OutputOptions, labels: Labels) -> OutputSpec:
        """Returns the choice that the options make for a map with these labels.

        Raises:
            UsageError: A selected class does not exist.
        """
        return cls(tuple(labels.find(name) for name in options.classes), options)

    def scores(self, piece: MapBlock) -> FloatArray:
        """Returns float32 (rows, cols, num_classes), or (rows, cols, len(selections)) with a selection."""
        values = self.options.values
        if piece.info.labels.activation == "none" and self.options.dtype in (None, "float32"):
            values = "logits"  # raw outputs need not be probabilities
        if self.selections:
            return piece.class_maps(self.selections, values)
        return piece.probabilities() if values == "probabilities" else piece.logits

    def names(self, info: MapInfo) -> list[str]:
        """Returns the name of each plane of `scores`."""
        return [selection.name for selection in self.selections] or list(info.labels.categories)


PICTURE_SIDE = 8192
"""Default for the longest side of a picture, in pixels."""


def photo_of(info: MapInfo, max_side: int) -> Pixels:
    """Returns the scanned image, uint8 (H, W, 3), with no side longer than `max_side` pixels.

    Raises:
        UsageError: The map has no image.
    """
    return read_within(source_of(info), max_side)


def source_of(info: MapInfo) -> ImageSource:
    """Returns the scanned image as it is displayed.

    Raises:
        UsageError: The map has no image.
    """
    if info.source is None:
        raise UsageError("a picture is drawn over the photo, and this map has no photo; write another format")
    return seen(info.source)


def place_of(info: MapInfo) -> GeoReference | None:
    """Returns the image's georeference, or None if its file has no georeference."""
    return info.source.info.georeference if info.source is not None else None


def optimises(info: MapInfo) -> bool:
    """Returns whether a map is written as a cloud-optimised GeoTIFF: the image is georeferenced and rasterio
    is installed.
    """
    return place_of(info) is not None and find_spec("rasterio") is not None


def told(stream: ScoreStream) -> str:
    """Returns a short description of a map's accuracy and settings. Call it after the map has been read."""
    info = stream.info
    sizes = [f"{width} × {height}" for width, height in (g.scan_size for g in info.scales or (info.grid,))]
    at = f"{', '.join(sizes[:-1])} and {sizes[-1]}" if len(sizes) > 1 else sizes[0]
    agreement = stream.finish().agreement
    true = f"{agreement}; " if agreement is not None else ""
    model = info.provenance.identity.model
    cells = f"{info.grid.rows} × {info.grid.cols} {info.unit}s of {info.grid.window} px"
    return f"{true}{cells} at {at} px; {model}"


def provenance(stream: ScoreStream) -> CellRecord:
    """Returns what a reader needs to locate each cell and to make the map again. Call it after the map has
    been read.
    """
    info, made = stream.info, stream.finish()
    grid = info.grid
    record: CellRecord = {
        "window": grid.window,
        "stride": grid.stride,
        "scale": grid.scale,
        "width": grid.image_size[0],
        "height": grid.image_size[1],
        "scan_width": grid.scan_size[0],
        "scan_height": grid.scan_size[1],
        "model": made.identity.model,
        "mode": made.mode,
        "tiles": made.tiles,
        "preprocessing": made.identity.preprocessing,
        "weights_sha256": made.identity.weights_sha256,
        "activation": info.labels.activation,
        "temperature": info.temperature,
        "backend": made.backend,
        "precision": made.arithmetic.number,
        **correction_record(made.correction),
        "exact_cells": made.exact_cells,
        "version": __version__,
    }
    if made.arithmetic.error:
        record["precision_error"] = made.arithmetic.error
    record.update(info.roi)
    if info.scales:
        record["scales"] = ",".join(
            f"{width}x{height}" for width, height in (g.scan_size for g in info.scales)
        )
    if info.join is not None:
        record["join"] = info.join
    if info.kind != "windows":
        record["map"] = info.kind
    if info.source is not None:
        if (size := mean_side(info.source.info.pixel_size)) is not None:
            record["pixel_size"] = size
        record.update(info.source.info.bands)
    if made.agreement is not None:
        record.update(made.agreement.record())
    return record


@dataclass(frozen=True)
class Kept:
    """Probabilities that are kept per cell: of the selections, or of the cell's best categories.

    Attributes:
        probability: float32 (rows, cols, n), 0 to 1.
        listed: The n selections; or if each cell has its own n best categories, all categories.
        class_idx: (rows, cols, n), the best categories of each cell, best first, uint16 if it can hold them;
            None if the probabilities belong to the selections, in their order.
        exact: bool (rows, cols), whether the cell was scored as a crop.
        best_scale: uint8 (rows, cols), if several scales are joined.
    """

    info: MapInfo
    probability: FloatArray
    listed: Sequence[Selection]
    class_idx: npt.NDArray[np.unsignedinteger] | None
    exact: Mask
    best_scale: npt.NDArray[np.uint8] | None

    def box(self, row: int, col: int) -> Box:
        """Returns (x0, y0, x1, y1) of a cell's window, see `MapInfo.box`."""
        return self.info.box(row, col, None if self.best_scale is None else int(self.best_scale[row, col]))

    def cells(self, row: int) -> npt.NDArray[np.intp]:
        """Returns the columns of a row's cells inside the region of interest."""
        return np.flatnonzero(~np.isnan(self.probability[row, :, 0]))

    def ranking(self, row: int, col: int) -> list[tuple[Selection, float]]:
        """Returns a cell's selections, or its best categories, with their probabilities."""
        found = self.listed
        if self.class_idx is not None:
            found = [found[i] for i in self.class_idx[row, col].tolist()]
        return list(zip(found, self.probability[row, col].tolist(), strict=True))

    def columns(self, row: int) -> dict[str, Sequence[Any]]:
        """Returns the table of a row's cells, with one line for each cell and rank, as columns by name."""
        cols = self.cells(row)
        ranked = [
            (rank, *found) for col in cols for rank, found in enumerate(self.ranking(row, col), start=1)
        ]
        ranks = self.probability.shape[2]
        boxes = [self.box(row, col) for col in cols.tolist()]
        columns: dict[str, Sequence[Any]] = {
            "row": [row] * len(ranked),
            "col": np.repeat(cols, ranks).tolist(),
            "exact": np.repeat(self.exact[row, cols], ranks).tolist(),
            "rank": [rank for rank, _, _ in ranked],
            "class_idx": [selection.class_idx for _, selection, _ in ranked],
            "wnid": [selection.wnid for _, selection, _ in ranked],
            "category": [selection.name for _, selection, _ in ranked],
            "probability": self.probability[row, cols].reshape(-1),
        }
        for place, side in enumerate(("x0", "y0", "x1", "y1")):
            columns[side] = [box[place] for box in boxes for _ in range(ranks)]
        return columns


def keep(stream: ScoreStream, selections: Sequence[Selection], k: int) -> Kept:
    """Reads the map once, and returns the probabilities for formats that do not hold every score. Memory
    grows with the number of cells, not of classes.

    Args:
        stream: The map.
        selections: The selections whose probabilities are kept. If it is empty, the k best categories of each
            cell are kept.
        k: The number of best categories.
    """
    info = stream.info
    rows, cols, num_classes = info.shape
    k = min(k, num_classes)
    probability = np.empty((rows, cols, len(selections) or k), np.float32)
    class_idx = None if selections else np.empty((rows, cols, k), np.min_scalar_type(max(num_classes, 256)))
    exact = np.empty((rows, cols), np.bool_)
    best_scale = np.empty((rows, cols), np.uint8) if info.has_best_scale else None
    for piece in stream.pieces():
        if class_idx is None:
            probability[piece.slices] = piece.class_maps(selections)
        else:
            class_idx[piece.slices], probability[piece.slices] = piece.top_k(k)
        exact[piece.slices] = piece.exact
        if best_scale is not None and piece.block.best_scale is not None:
            best_scale[piece.slices] = piece.block.best_scale
    listed = selections or info.labels.all_categories()
    return Kept(info, probability, listed, class_idx, exact, best_scale)


MADE_BY = f"fcnconv {__version__}"
"""The software name in the metadata of pictures and TIFFs."""


def is_map(path: Path) -> bool:
    """Returns whether fcnconv wrote a file, or Pillow cannot decode it."""
    try:
        with Image.open(path) as image:
            return str(image.getexif().get(ExifTags.Base.Software, "")).startswith("fcnconv")
    except OSError:  # UnidentifiedImageError is one
        return True
