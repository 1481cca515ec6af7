"""What a network is, and how scores came from it: told once, and carried by whatever is made of it.

Nothing here imports numpy, so that models can be listed without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcnconv.grid import Geometry

Mode = Literal["fcn", "windows"]
"""How a network is run: converted, with features shared between windows; or as it is, on every real crop."""

Activation = Literal["softmax", "sigmoid", "none"]
"""How a network's outputs become probabilities, see `activations.ACTIVATIONS`."""

Channels = tuple[float, ...]
"""One number for each channel of a network's input: red, green and blue."""


@dataclass(frozen=True)
class Identity:
    """Which network, with which weights, on pixels prepared how.

    model: what `load` and ``--model`` call it. weights_sha256: of the file that its weights came from.
    mean, std: what pixels are centred on and divided by, of each channel, for intensities 0 to 1.
    """

    model: str
    weights_sha256: str
    mean: Channels
    std: Channels

    @property
    def preprocessing(self) -> str:
        """What is done to the pixels, in words that can be followed."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        channels = "RGB" if len(self.mean) == 3 else f"{len(self.mean)} bands"
        return f"{channels}, bicubic resize, (pixels / 255 - [{mean}]) / [{std}]"


@dataclass(frozen=True)
class Agreement:
    """How a map agrees with real crops.

    cells: of the map. exact: those scored as real crops. compared: of these, the random sample. same: of the
        sample, those of the same first class before they were put in.
    first_class: share of all windows that have the first class of their crop, estimated; `low` to `high`.
    sure: of the sample, those whose crop is at least 50 % sure; sure_same: of these, those of the same first
        class. total_variation: mean over all windows of the total variation distance between the map's
        probabilities and their crop's, 0 to 1, estimated.
    divergence: mean over all windows of the Kullback-Leibler divergence of the map's probabilities from their
        crop's, in nats, estimated; from `divergence_low` to `divergence_high`.
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
        """The estimates and what they rest on, as named numbers."""
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
            return f"was compared with crops, none of which is at least 50 % sure; {distance}"
        share = round(100 * self.sure_same / self.sure)
        return (
            f"has the same top class as the crop in {share} % of the windows whose crop is at least "
            f"50 % sure ({self.sure_same} of {self.sure} compared); {distance}"
        )


EXACT = 1e-9
"""Largest difference of logits in float64 that passes a proof, as a share of the largest logit."""


@dataclass(frozen=True)
class Proof:
    """How far a converted network is from its classifier at the native size.

    max_error: largest difference of a logit, both computed in float64: the arithmetic of the conversion.
    scale: largest logit.
    spread: how far the logits of different inputs lie apart; near 0 the comparison would say nothing.
    rounding: largest difference of a logit that float32 makes, in which the network is run, as a share of
        `scale`. It is the network's own, whoever runs it, and grows with its depth.
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
    """In which numbers a network is computed.

    number: ``float32``, ``float16`` or ``bfloat16``. error: the largest difference of a logit from float32,
    as a share of the largest, as it was measured on this network; 0 for float32 itself.
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
    """How a network's class activations are related to its logits.

    cells: K, the feature cells of a window along an axis; 0 where the network has no class activations.
    error: largest difference between a logit and the mean of its K × K activations, as a share of the largest
        logit, computed in float64.
    reason: why there are no class activations; empty where there are.
    """

    cells: int
    error: float = 0.0
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether logits are the means of activations. If not, activations are an approximation."""
        return bool(self.cells) and self.error <= EXACT


NO_CELLS = CellHead(0, reason="every window was scored as a crop")
"""Of the original network, which sees a window as a whole."""


@dataclass(frozen=True)
class Conversion:
    """What came of turning a classifier into a fully convolutional network.

    geometry: where its windows lie. proof: that it still is the classifier. changes: what was replaced in it,
    a line each. cell_head: its class activations.
    """

    geometry: Geometry
    proof: Proof
    changes: tuple[str, ...]
    cell_head: CellHead = NO_CELLS


@dataclass(frozen=True)
class Provenance:
    """Where scores come from: enough to make them again.

    tiles: pieces that a network which looks at the whole image was run in, so that the scores depend on them;
        1 for all others.
    anchors: K, of the real crops at every K-th window that the map was corrected by; 0 is the network's plain
        map, 1 that of real crops alone. refine: share of the windows that were scored exactly beside them.
    seed: of the random windows that tell the agreement.
    agreement: how the map agrees with real crops; None where nothing was compared.
    arithmetic: in which numbers the network was computed.
    """

    identity: Identity
    mode: Mode = "fcn"
    tiles: int = 1
    anchors: int = 0
    refine: float = 0.0
    seed: int = 0
    agreement: Agreement | None = None
    arithmetic: Arithmetic = FLOAT32
