"""Joining the score maps of several scales: one map on the finest grid, and the scale of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fcnconv.errors import UsageError
from fcnconv.scores import FloatArray, Grid

Join = Literal["max", "mean"]


def parse_join(text: str) -> Join:
    """The way to join that `text` names. Raises UsageError."""
    for known in get_args(Join):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown join {text!r}; known: {', '.join(get_args(Join))}")


def join_scales(
    maps: Sequence[FloatArray], grids: Sequence[Grid], join: Join
) -> tuple[FloatArray, Grid, npt.NDArray[np.uint8]]:
    """The joined logits on the finest grid, that grid, and the best scale of each of its cells.

    maps: float32 (rows, cols, num_classes), the logits at each scale, which give way to log-probabilities.
    join: for each class and cell, the highest log-probability of all scales, or the mean. A cell meets at
        each other scale the window whose centre is nearest to its own.

    The best scale, uint8 (rows, cols), counts in `grids`: where the joined first class is most probable.
    """
    finest = max(range(len(grids)), key=lambda i: grids[i].rows * grids[i].cols)
    grid = grids[finest]
    joined = np.empty((grid.rows, grid.cols, maps[finest].shape[2]), np.float32)
    best = np.empty((grid.rows, grid.cols), np.uint8)
    places = [
        (
            [other.nearest(grid, row, 0)[0] for row in range(grid.rows)],
            [other.nearest(grid, 0, col)[1] for col in range(grid.cols)],
        )
        for other in grids
    ]
    for row in range(grid.rows):  # a row at a time: memory follows the maps
        found = [
            _log_softmax(scores[rows[row], cols]) for scores, (rows, cols) in zip(maps, places, strict=True)
        ]
        stacked = np.stack(found)  # (scales, cols, K)
        joined[row] = stacked.max(0) if join == "max" else stacked.mean(0)
        first = joined[row].argmax(-1)
        best[row] = np.take_along_axis(stacked, first[None, :, None], -1)[..., 0].argmax(0)
    return joined, grid, best


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
