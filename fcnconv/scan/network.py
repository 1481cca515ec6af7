"""A network that is ready to run: what a backend opens, and a scan runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fcnconv.grid import Geometry
from fcnconv.images import Pixels
from fcnconv.images.reading import normalize
from fcnconv.options import MapKind
from fcnconv.provenance import FLOAT32, NO_CELLS, Arithmetic, CellHead, Identity, Mode, Provenance
from fcnconv.scan.stages import Forward
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray


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
