"""A network that is ready to run: what a backend opens, and a scan runs. It is a converted network, or the
original one, which scores every window of a region as a crop (windows mode), exactly and slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fcnconv.grid import Geometry
from fcnconv.images import Pixels
from fcnconv.images.reading import normalize
from fcnconv.options import MapKind
from fcnconv.provenance import FLOAT32, NO_CELLS, Arithmetic, CellHead, Identity, Mode, Provenance
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
        stages: the network as one stage, and cut into stages.
        mode: whether it is converted, or scores every window as a crop.
        arithmetic: the number type of its computation.
        cell_head: its class activations.
        joint: returns the stages that compute class activations and logits, which can take seconds to make;
            None if the network has no activations.
        backend: the library that runs it, an entry of `backends.BACKENDS`.
    """

    run: Forward
    geometry: Geometry
    identity: Identity
    stages: Stages
    mode: Mode = "fcn"
    arithmetic: Arithmetic = FLOAT32
    cell_head: CellHead = NO_CELLS
    joint: Callable[[], Stages] | None = None
    backend: str = ""

    @property
    def channels(self) -> int:
        """Number of channels of the images that it takes."""
        return len(self.identity.mean)

    def prepare(self, pixels: Pixels) -> FloatArray:
        """Normalizes pixels: uint8 (H, W, channels) -> float32 (1, channels, H, W)."""
        return normalize(pixels, self.identity.mean, self.identity.std)

    def stages_of(self, kind: MapKind) -> Stages:
        """The stages that compute a map of a kind: with class activations for all but windows."""
        return self.stages if kind == "windows" or self.joint is None else self.joint()

    @property
    def provenance(self) -> Provenance:
        """The provenance of its dense scores."""
        return Provenance(self.identity, self.mode, arithmetic=self.arithmetic, backend=self.backend)


@dataclass(frozen=True)
class Needs:
    """The needs of the work in addition to logits. All plans for them are made before it begins.

    Attributes:
        activations: class activations.
        crops: the original network, for scoring crops.
        images: the number of images that will be processed at least, as far as it is known.
    """

    activations: bool = False
    crops: bool = False
    images: int = 0


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
