"""The scores of a map in the form that the viewer's page stores.

A probability is stored in 8 bits on a square-root scale, which spends most of its steps on small
probabilities, and then deflated. A map with too many values stores only the best classes of each cell.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fcnconv.labels import Selection
from fcnconv.scores import FloatArray, Mask, ScoreStream, shown, strength, top_k

MAX_VALUES = 20_000_000
"""Largest number of cells × classes for which a page stores every class. Such a page has 5 to 10 MB."""

MIN_KEPT = 16
"""Classes stored per cell in the largest maps. A map just above `MAX_VALUES` stores a quarter of its values,
which with their indices take as much room.
"""


_AS_MUCH = 3
"""Bytes of a class that is stored with its index, relative to a class without an index."""

_LEVEL = 4
"""zlib level: the default 6 takes five times as long for 5 % fewer bytes."""


@dataclass(frozen=True)
class Packed:
    """The probabilities of a map as the page stores them.

    Attributes:
        kept: Classes per cell, best first; 0 if every class is stored, in index order.
        data: With every class, uint8 (num_classes, rows, cols). Otherwise class indices (kept, rows, cols),
            uint16 or uint32 little-endian according to `index_bytes`, followed by their uint8 (kept, rows,
            cols). A byte q represents the probability (q / 255)².
        error: The measured largest difference from the map's own probabilities for a class. A class that is
            not stored in a cell counts as 0 there.
        concept_error: The same for a concept.
        exact: bool (rows, cols), whether the cell was scored as a crop.
        inside: bool (rows, cols), whether the cell has scores.
        foremost: The class that shows most, see `scores.strength`.
        best_scale: uint8 (rows, cols), if scales are joined, the scale of the best class of each cell; else
            zeros.
    """

    kept: int
    index_bytes: int
    data: bytes
    error: float
    concept_error: float
    exact: Mask
    inside: Mask
    best_scale: npt.NDArray[np.uint8]
    foremost: int


def pack(stream: ScoreStream, max_values: int = MAX_VALUES, most_kept: int | None = None) -> Packed:
    """Returns the map's probabilities as a page stores them, deflated, with the error that this causes.

    Args:
        stream: The map.
        max_values: Cells × classes up to which every class is stored.
        most_kept: The most classes stored per cell; None stores all of them, up to `max_values`.
    """
    rows, cols, num_classes = stream.info.shape
    kept = _kept(rows * cols, num_classes, max_values)
    if most_kept is not None and num_classes > _AS_MUCH * most_kept:
        kept = min(kept or most_kept, most_kept)
    member = _membership(stream.info.labels.concepts, num_classes)
    index_type = np.dtype("<u2" if num_classes <= 1 << 16 else "<u4")
    index = np.zeros((kept, rows, cols), index_type)
    value = np.zeros((kept or num_classes, rows, cols), np.uint8)
    inside = np.zeros((rows, cols), np.bool_)
    exact, best_scale = np.zeros((rows, cols), np.bool_), np.zeros((rows, cols), np.uint8)
    error = concept_error = 0.0
    strong = np.zeros(num_classes)
    for piece in stream.pieces():
        exact[piece.slices], inside[piece.slices] = piece.exact, ~np.isnan(piece.logits[:, :, 0])
        if piece.block.best_scale is not None:
            best_scale[piece.slices] = piece.block.best_scale
        for row, probabilities in enumerate(shown(piece.probabilities()), start=piece.block.rows.start):
            strong += strength(probabilities)
            quantised = np.round(255 * np.sqrt(probabilities)).astype(np.uint8)
            if kept:
                best = top_k(probabilities, kept)
                index[:, row, piece.block.cols] = best.T  # (cols, kept) -> (kept, cols)
                only_best = np.zeros_like(quantised)
                np.put_along_axis(only_best, best, np.take_along_axis(quantised, best, axis=-1), axis=-1)
                value[:, row, piece.block.cols] = np.take_along_axis(quantised, best, axis=-1).T
                quantised = only_best
            else:
                value[:, row, piece.block.cols] = quantised.T  # (cols, K) -> (K, cols)
            difference = np.square(quantised / np.float32(255)) - probabilities
            error = max(error, float(np.abs(difference).max()))
            concept_error = max(concept_error, float(np.abs(difference @ member).max(initial=0)))
    data = zlib.compress(index.tobytes() + value.tobytes(), _LEVEL)
    return Packed(
        *(kept, index_type.itemsize, data, error, concept_error),
        *(exact, inside, best_scale, int(strong.argmax())),
    )


def _kept(cells: int, num_classes: int, max_values: int) -> int:
    if cells * num_classes <= max_values:
        return 0
    return min(max(MIN_KEPT, max_values // (4 * cells)), num_classes)


@lru_cache(maxsize=1)  # a batch calls this for every image
def _membership(concepts: tuple[Selection, ...], num_classes: int) -> FloatArray:
    """Returns float32 (num_classes, concepts): 1 if a class belongs to a concept, else 0."""
    member: npt.NDArray[np.float32] = np.zeros((num_classes, len(concepts)), np.float32)
    for column, concept in enumerate(concepts):
        member[list(concept.classes), column] = 1
    return member
