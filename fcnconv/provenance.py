"""Provenance: which network made the scores and how. Every map, file and answer carries this record.

Nothing here imports numpy, so that listing models does not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcnconv.grid import Geometry

Mode = Literal["fcn", "windows"]
"""How a network is run: converted, with features shared between windows; or the original on every crop."""

Activation = Literal["softmax", "sigmoid", "none"]
"""How a network's outputs become probabilities, see `activations.ACTIVATIONS`."""

Channels = tuple[float, ...]
"""One number per channel of a network's input, such as red, green and blue."""


@dataclass(frozen=True)
class Identity:
    """A network, its weights and its preprocessing.

    model: the name for `load` and ``--model``.
    weights_sha256: the SHA-256 of the file of weights.
    mean, std: the mean and standard deviation of each channel that normalize intensities from 0 to 1.
    """

    model: str
    weights_sha256: str
    mean: Channels
    std: Channels

    @property
    def preprocessing(self) -> str:
        """A description of the preprocessing, exact enough to repeat it."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        channels = "RGB" if len(self.mean) == 3 else f"{len(self.mean)} bands"
        return f"{channels}, bicubic resize, (pixels / 255 - [{mean}]) / [{std}]"


@dataclass(frozen=True)
class Agreement:
    """How far a map agrees with crops.

    cells: number of cells of the map.
    exact: number of cells that were scored as crops.
    compared: number of these cells that form the random sample.
    same: number of cells in the sample whose dense score had the top class of the crop.
    first_class: estimated share of all windows that have the top class of their crop; the interval is `low`
        to `high`.
    sure: number of cells in the sample whose crop is at least 50 % sure.
    sure_same: number of these cells that had the top class of the crop.
    total_variation: estimated mean over all windows of the total variation distance between the map's
        probabilities and the crops' probabilities, 0 to 1.
    divergence: estimated mean over all windows of the Kullback-Leibler divergence of the map's probabilities
        from the crops' probabilities, in nats; the interval is `divergence_low` to `divergence_high`.
    """

    cells: int
    exact: int
    compared: int
    same: int
    first_class: float
    low: float
    high: float
    divergence: float
    divergence_low: float
    divergence_high: float
    sure: int = 0
    sure_same: int = 0
    total_variation: float = 0.0

    def record(self) -> dict[str, float]:
        """The estimates and the counts behind them, as named numbers."""
        return {
            "agreement": round(self.first_class, 4),
            "agreement_low": round(self.low, 4),
            "agreement_high": round(self.high, 4),
            "divergence": round(self.divergence, 4),
            "divergence_low": round(self.divergence_low, 4),
            "divergence_high": round(self.divergence_high, 4),
            "compared": self.compared,
            "sure": self.sure,
            "sure_same": self.sure_same,
            "total_variation": round(self.total_variation, 4),
        }

    def __str__(self) -> str:
        if self.exact == self.cells:
            return "has a crop for every window"
        distance = f"total variation distance {self.total_variation:.2f}"
        if not self.sure:
            return f"was compared with crops, but no crop is at least 50 % sure; {distance}"
        share = round(100 * self.sure_same / self.sure)
        return (
            f"has the same top class as the crop in {share} % of the windows whose crop is at least "
            f"50 % sure ({self.sure_same} of {self.sure} compared); {distance}"
        )


EXACT = 1e-9
"""The largest difference of a logit that a proof accepts, in float64, as a share of the largest logit."""


@dataclass(frozen=True)
class Proof:
    """The difference between a converted network and its classifier at the native size.

    max_error: largest difference of a logit, with both networks computed in float64. It measures the
        conversion.
    scale: largest logit.
    spread: how much the logits of different inputs differ. Near 0, the comparison would prove nothing.
    rounding: largest difference of a logit when the network runs in float32, as a share of `scale`. It is a
        property of the network, does not depend on the program that runs it, and grows with its depth.
    """

    max_error: float
    scale: float
    spread: float
    rounding: float

    @property
    def relative_error(self) -> float:
        """`max_error` as a share of `scale`."""
        return self.max_error / self.scale if self.scale else float("inf")


@dataclass(frozen=True)
class Arithmetic:
    """The type of numbers with which a network is computed.

    number: ``float32``, ``float16`` or ``bfloat16``.
    error: the largest difference of a logit from float32, as a share of the largest logit, measured on this
        network; 0 for float32.
    """

    number: str = "float32"
    error: float = 0.0

    def __str__(self) -> str:
        if not self.error:
            return f"computed in {self.number}"
        return (
            f"computed in {self.number}: logits differ from float32 by up to {self.error:.1e} of the largest"
        )


FLOAT32 = Arithmetic()


@dataclass(frozen=True)
class CellHead:
    """How a network's class activations relate to its logits.

    cells: K, the number of feature cells of a window along an axis; 0 if the network has no class
        activations.
    error: largest difference between a logit and the mean of its K × K activations, as a share of the largest
        logit, computed in float64.
    reason: why there are no class activations; empty if there are.
    """

    cells: int
    error: float = 0.0
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether logits are the means of activations. If not, the activations are approximate."""
        return bool(self.cells) and self.error <= EXACT


NO_CELLS = CellHead(0, reason="every window was scored as a crop")
"""The `CellHead` of an original network, which scores a window as a whole."""


@dataclass(frozen=True)
class Conversion:
    """The result of converting a classifier to a fully convolutional network.

    geometry: where the windows of the network lie.
    proof: the measured difference from the classifier.
    changes: the replaced parts of the network, one line each.
    cell_head: how its class activations relate to its logits.
    """

    geometry: Geometry
    proof: Proof
    changes: tuple[str, ...]
    cell_head: CellHead = NO_CELLS


@dataclass(frozen=True)
class Dense:
    """The map of the converted network. refine: share of the windows that are scored as crops anyway."""

    refine: float = 0.0


@dataclass(frozen=True)
class Anchored:
    """A map that is corrected by crops.

    every: K: every K-th window is scored as a crop, at least 2.
    refine: share of the windows that are scored as crops in addition: the least sure ones.
    agreement: windows are scored as crops until the map agrees with crops in this share of the windows; None
        is off.
    seed: seed of the random sample of windows that estimates the agreement.
    """

    every: int
    refine: float = 0.0
    agreement: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Crops:
    """A map of crops only."""


Correction = Dense | Anchored | Crops
"""How far a map is corrected by crops."""

DENSE = Dense()
"""The map of the converted network, without any crop."""


def correction_record(correction: Correction) -> dict[str, float]:
    """A correction as the options that ask for it: ``anchors``, 0 for a dense map and 1 for crops only;
    ``refine`` and ``seed``.
    """
    match correction:
        case Dense(refine):
            return {"anchors": 0, "refine": refine, "seed": 0}
        case Anchored(every, refine, _, seed):
            return {"anchors": every, "refine": refine, "seed": seed}
        case Crops():
            return {"anchors": 1, "refine": 0.0, "seed": 0}


@dataclass(frozen=True)
class Provenance:
    """The origin of scores, in enough detail to compute them again.

    identity: the network, its weights and its preprocessing.
    mode: how the network was run.
    tiles: number of tiles for a network that depends on the whole image, because its scores depend on the
        tiling; 1 for all other networks.
    correction: how far the map was corrected by crops.
    exact_cells: number of cells that were scored as crops.
    agreement: how far the map agrees with crops; None if nothing was compared.
    arithmetic: the type of numbers with which the network was computed.
    backend: the library that computed it, an entry of `backends.BACKENDS`.
    """

    identity: Identity
    mode: Mode = "fcn"
    tiles: int = 1
    correction: Correction = DENSE
    exact_cells: int = 0
    agreement: Agreement | None = None
    arithmetic: Arithmetic = FLOAT32
    backend: str = ""
