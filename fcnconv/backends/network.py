"""What every backend makes: a network that is ready to run, converted or on every real crop.

Real crops are exact, and slow. Any backend's classifier will do for them.
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

    run: float32 (N, 3, H, W), normalised -> float32 logits (N, num_classes, rows, cols).
    geometry: where its windows lie. identity: what it is. parts: what it needs, whole or in parts.
    arithmetic: in which numbers it is computed.
    cell_head: its class activations. joint: gives what computes them beside the logits, which may take
        seconds to make; None where it has none.
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
    """What work will need of a network beside its logits, so that all plans can be made before it begins.

    activations: class activations. crops: the original network, for real crops.
    """

    activations: bool = False
    crops: bool = False


LOGITS_ALONE = Needs()


def of_crops(classify: Forward, window: int, stride: int, num_classes: int, identity: Identity) -> Network:
    """The network that scores every window of a region as a real crop, `stride` pixels apart.

    classify: float32 (N, 3, window, window) -> logits (N, num_classes).

    Each crop sees its window and nothing else. Beside a batch of crops only the region is held, and its
    logits.
    """
    geometry = Geometry(window, stride, window, halo=0, local=True)
    run, side = windows_run(classify, window, stride), window / stride
    memory = 12.0 * stride**2 + 8.0 * num_classes
    part = Stage(run, num_classes, 1, 1, 0, 0, side - 1, side - 1, memory, 0.0)
    return Network(run, geometry, identity, Stages(part, lambda: (part,)))


def windows_run(classify: Forward, window: int, stride: int, batch: int = CROP_BATCH) -> Forward:
    """What classifies every window of a region, `batch` crops at a time. classify: as for `of_crops`.

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
            done(CROPS, len(n))
        # (N · rows · cols, K) -> (N, K, rows, cols)
        return np.concatenate(logits).reshape(count, rows, cols, -1).transpose(0, 3, 1, 2)

    return run
