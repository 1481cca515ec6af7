"""Windows mode: a network that scores every window of a region as a crop.

Scores of crops are exact and slow. The original network of any backend can compute them.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fcnconv.grid import Geometry
from fcnconv.provenance import Identity
from fcnconv.scan.crops import CROP_BATCH, CROPS
from fcnconv.scan.network import Network
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.progress import done


def of_crops(classify: Forward, window: int, stride: int, num_classes: int, identity: Identity) -> Network:
    """The network that scores every window of a region as a crop.

    Each crop contains only its window. Memory holds a batch of crops, the region and its logits.

    Args:
        classify: float32 (N, 3, window, window) -> logits (N, num_classes).
        window: side of a window, in pixels.
        stride: pixels between the crops.
        num_classes: number of classes.
        identity: identity of the model.
    """
    geometry = Geometry(window, stride, window, halo=0, local=True)
    run, side = windows_run(classify, window, stride), window / stride
    memory = 12.0 * stride**2 + 8.0 * num_classes
    stage = Stage(run, num_classes, 1, 1, 0, 0, side - 1, side - 1, memory, 0.0)
    return Network(run, geometry, identity, Stages(stage, lambda: (stage,)), mode="windows")


def windows_run(classify: Forward, window: int, stride: int, batch: int = CROP_BATCH) -> Forward:
    """The function that classifies every window of a region.

    The crops are views of the region until their batch is gathered, so memory depends only on the batch.

    Args:
        classify: as for `of_crops`.
        window: side of a window, in pixels.
        stride: pixels between the crops.
        batch: number of crops at a time.
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
            done(CROPS, len(n))
        # (N · rows · cols, K) -> (N, K, rows, cols)
        return np.concatenate(logits).reshape(count, rows, cols, -1).transpose(0, 3, 1, 2)

    return run
