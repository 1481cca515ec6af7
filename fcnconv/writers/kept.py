"""The part of a score map that a format shows, gathered while the map comes: it follows the cells, not the
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box, Grid, window_box
from fcnconv.labels import Selection
from fcnconv.scores import AnyMap, FloatArray


@dataclass(frozen=True)
class Kept:
    """Some probabilities of each cell: of chosen categories and concepts, or of its best categories.

    probability: float32 (rows, cols, n), 0 to 1.
    class_idx: (rows, cols, n), the categories that are best in each cell, best first, uint16 where that holds
        them; None where the probabilities are those of the selections, in their order.
    exact: bool (rows, cols), the cells whose scores are those of real crops.
    """

    grid: Grid
    probability: FloatArray
    class_idx: npt.NDArray[np.unsignedinteger] | None
    exact: npt.NDArray[np.bool_]
    scales: tuple[Grid, ...]
    best_scale: npt.NDArray[np.uint8] | None

    def box(self, row: int, col: int) -> Box:
        """(x0, y0, x1, y1) of a cell's window, as `ScoreMap.box` gives it."""
        return window_box(self.grid, self.scales, self.best_scale, row, col)


def keep(score_map: AnyMap, selections: Sequence[Selection], k: int) -> Kept:
    """What formats need that do not hold every score. Reads the map once.

    selections: whose probabilities are kept; if there are none, the k best categories of each cell.
    """
    rows, cols, num_classes = score_map.shape
    k = min(k, num_classes)
    probability = np.empty((rows, cols, len(selections) or k), np.float32)
    class_idx = None if selections else np.empty((rows, cols, k), np.min_scalar_type(max(num_classes, 256)))
    exact = np.empty((rows, cols), np.bool_)
    best_scale = np.empty((rows, cols), np.uint8) if score_map.scales else None
    for piece in score_map.pieces():
        place = piece.rows, piece.cols
        if class_idx is None:
            probability[place] = piece.map.planes(selections)
        else:
            class_idx[place], probability[place] = piece.map.top_k(k)
        exact[place] = piece.map.exact_mask()
        if best_scale is not None and piece.map.best_scale is not None:
            best_scale[place] = piece.map.best_scale
    return Kept(score_map.grid, probability, class_idx, exact, score_map.scales, best_scale)
