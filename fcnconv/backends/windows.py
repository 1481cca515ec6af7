"""Running a classifier on every real crop of a region: exact, and slow. Any backend's classifier will do."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fcnconv.backends import Run
from fcnconv.grid import Geometry
from fcnconv.scan.parts import Part
from fcnconv.scan.tiles import Parts
from fcnconv.scores import FloatArray

WINDOW_BATCH = 32
"""Crops in one pass: enough to fill the cores of a small machine, at 20 MB of input."""


def windows_geometry(window: int, stride: int) -> Geometry:
    """The geometry of real crops, `stride` pixels apart: each sees its window and nothing else."""
    return Geometry(window, stride, window, halo=0, local=True)


def windows_run(classify: Run, window: int, stride: int, batch: int = WINDOW_BATCH) -> Run:
    """A backend that classifies every window of a region, `batch` crops at a time.

    classify: float32 (N, 3, window, window) -> logits (N, num_classes).

    The crops are views of the region until their batch is gathered, so that memory follows the batch.
    """

    def run(x: FloatArray) -> FloatArray:
        # (N, 3, H, W) -> (N, 3, rows, cols, window, window), without a copy
        views = sliding_window_view(x, (window, window), axis=(2, 3))[:, :, ::stride, ::stride]
        count, _, rows, cols = views.shape[:4]
        cells = np.array(list(np.ndindex(count, rows, cols)))
        logits = []
        for start in range(0, len(cells), batch):
            n, row, col = cells[start : start + batch].T
            logits.append(classify(np.ascontiguousarray(views[n, :, row, col])))
        # (N · rows · cols, K) -> (N, K, rows, cols)
        return np.concatenate(logits).reshape(count, rows, cols, -1).transpose(0, 3, 1, 2)

    return run


def crop_parts(run: Run, geometry: Geometry, num_classes: int) -> Parts:
    """What real crops need: a batch of them, beside which only the region is held, and its logits."""
    side = geometry.window / geometry.stride
    memory = 12.0 * geometry.stride**2 + 8.0 * num_classes
    part = Part(run, num_classes, 1, 1, 0, 0, side - 1, side - 1, memory, 0.0)
    return Parts(part, lambda: (part,))
