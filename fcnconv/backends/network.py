"""The result of opening a backend: a network that is ready to run, converted or on every crop.

Scores of crops are exact and slow. The classifier of any backend can score them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fcnconv.grid import Geometry
from fcnconv.provenance import FLOAT32, NO_CELLS, Arithmetic, CellHead, Identity
from fcnconv.scan.crops import CROP_BATCH, CROPS
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.progress import done


@dataclass(frozen=True)
class Network:
    """A model that is ready to run.

    Attributes:
        run: float32 (N, 3, H, W), normalised -> float32 logits (N, num_classes, rows, cols).
        geometry: the positions of its windows.
        identity: the identity of the model.
        parts: the network as one stage, and cut into stages.
        arithmetic: the number type of its computation.
        cell_head: its class activations.
        joint: returns the stages that compute class activations and logits, which can take seconds to make;
            None if the network has no activations.
    """

    run: Forward
    geometry: Geometry
    identity: Identity
    parts: Stages
    arithmetic: Arithmetic = FLOAT32
    cell_head: CellHead = NO_CELLS
    joint: Callable[[], Stages] | None = None


@dataclass(frozen=True)
class Needs:
    """What the work needs from a network in addition to logits, so that all plans are made before it begins.

    Attributes:
        activations: class activations.
        crops: the original network, for scoring crops.
    """

    activations: bool = False
    crops: bool = False


LOGITS_ALONE = Needs()


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
    part = Stage(run, num_classes, 1, 1, 0, 0, side - 1, side - 1, memory, 0.0)
    return Network(run, geometry, identity, Stages(part, lambda: (part,)))


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
