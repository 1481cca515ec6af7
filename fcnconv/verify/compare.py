"""The difference between the dense map and crops, measured on the user's own images.

With padding, a dense cell differs from the crop's score: a crop has zeros beyond its border, where the dense
network has the neighbouring pixels. This module compares the two on a sample of windows, fits the one
temperature that brings the dense probabilities closest to the crops' probabilities, and tries several ways to
correct the map by crops.

`prove` proves a conversion, for people and for programs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from fcnconv.api.classifier import Classifier
from fcnconv.errors import UsageError
from fcnconv.grid import Scale
from fcnconv.images import ImageSource
from fcnconv.images.reading import ImageLike
from fcnconv.models import ModelSpec
from fcnconv.options import OWN_SIZE
from fcnconv.options.parsing import as_scales
from fcnconv.provenance import EXACT, Activation, Conversion
from fcnconv.scores.activations import ACTIVATIONS, FloatArray, sigmoid, softmax
from fcnconv.system.progress import counted
from fcnconv.verify.ways import HEADING, Tried, try_ways

log = logging.getLogger("fcnconv")

CONFIDENCE_BINS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""Edges of the ranges of the crop's own confidence for which agreement is reported."""

_TOP = 5


@dataclass(frozen=True)
class Distance:
    """The distance of dense probabilities q from the crops' probabilities p, over a set of windows.

    Attributes:
        agreement: Fraction of windows with the same answer: the top class, or for independent classes the
            classes above 1/2.
        kl: Mean of KL(p ‖ q), in nats.
        tv: Mean total variation, 0 to 1; for independent classes the mean over the classes.
        confidence: Mean probability of the dense answer.
    """

    agreement: float
    kl: float
    tv: float
    confidence: float


@dataclass(frozen=True)
class Bin:
    """Agreement on windows where the crop's own confidence is in [low, high)."""

    low: float
    high: float
    windows: int
    agreement: float


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a dense map with crops.

    Attributes:
        windows: The number of compared windows.
        images: The number of compared images.
        all: The distance over all windows, without a temperature.
        in_top5: Fraction of windows whose crop's top class is among the five best dense classes; None if
            there are no more than five classes, or if classes are independent.
        correlation: Mean over windows of the correlation of dense and crop logits over the classes.
        logit_spread: Standard deviation of the dense logits, divided by the standard deviation of the crops'
            logits.
        crop_confidence: Mean probability of the crops' answer.
        bins: Agreement by the crop's confidence.
        temperature: Fitted on one half of the windows. The other half gives `before` and `after`.
        before: The distance on the other half without the temperature.
        after: The distance on the other half with the temperature.
        ways: The accuracy and the cost of each way to make a map.
    """

    windows: int
    images: int
    all: Distance
    in_top5: float | None
    correlation: float
    logit_spread: float
    crop_confidence: float
    bins: tuple[Bin, ...]
    temperature: float
    before: Distance
    after: Distance
    ways: tuple[Tried, ...] = ()

    def text(self) -> str:
        """Returns the measures as lines for people."""
        rows = [
            f"dense map against crops, {counted(self.windows, 'window')} of {counted(self.images, 'image')}",
            f"  same top class               {self.all.agreement:7.1%}",
            *(
                f"    crop {b.low:.0%} to {b.high:.0%} sure".ljust(31) + f"{b.agreement:7.1%}  of {b.windows}"
                for b in self.bins
            ),
            *([] if self.in_top5 is None else [f"  crop's class in dense top {_TOP}  {self.in_top5:7.1%}"]),
            f"  correlation of logits        {self.correlation:7.2f}",
            f"  spread of logits             {self.logit_spread:7.2f}  of the crops'",
            f"  mean confidence              {self.all.confidence:7.2f}  (crops {self.crop_confidence:.2f})",
            f"  total variation              {self.all.tv:7.2f}",
            f"  KL divergence                {self.all.kl:7.2f}  nats",
            f"temperature {self.temperature:.2f}, fitted on one half; on the other half",
            f"  KL divergence                {self.after.kl:7.2f}  (without {self.before.kl:.2f})",
            f"  mean confidence              {self.after.confidence:7.2f}"
            f"  (without {self.before.confidence:.2f})",
            *(["", HEADING, *map(str, self.ways)] if self.ways else []),
        ]
        return "\n".join(rows)


def measure(
    classifier: Classifier,
    images: Sequence[ImageLike | ImageSource],
    *,
    scales: str | Sequence[Scale] = OWN_SIZE,
    max_windows: int = 500,
    seed: int = 0,
    temperature: float = 1.0,
) -> Comparison:
    """Compares a classifier in `fcn` mode with crops on windows of some images.

    Args:
        classifier: The classifier.
        images: The images.
        scales: Sizes to scan at.
        max_windows: If the images have more windows, a random sample of this size, drawn uniformly with
            `seed`, is compared. As many windows are used to try the ways to make a map.
        seed: The seed of the random sample.
        temperature: The temperature of the dense map among these ways.

    Raises:
        UsageError: The classifier has no activation, or there are too few windows.
    """
    activation = classifier.labels.activation
    if activation == "none":
        raise UsageError(
            "with --activation none there are no probabilities to compare; run verify without images"
        )
    dense, crops = _sample(classifier, images, as_scales(scales), max_windows, np.random.default_rng(seed))
    if len(dense) < 4:
        raise UsageError(f"{counted(len(dense), 'window')}: too few to compare; give larger or more images")
    sources = [classifier.open(image, as_scales(scales)) for image in images]
    ways = try_ways(classifier, sources, as_scales(scales), temperature, max_windows)
    found = compare(dense, crops, images=len(images), seed=seed, activation=activation)
    return replace(found, ways=ways)


def compare(
    dense: FloatArray, crops: FloatArray, *, images: int, seed: int = 0, activation: Activation = "softmax"
) -> Comparison:
    """Computes a `Comparison` of dense and crop logits, each float32 (windows, num_classes)."""
    read = ACTIVATIONS[activation]
    same, sure = read.same(dense, crops), _confidence(crops, activation)
    ranked = activation == "softmax" and crops.shape[1] > _TOP
    # With one output, logits vary over the windows only.
    pairs = zip(dense, crops, strict=True) if crops.shape[1] > 1 else [(dense[:, 0], crops[:, 0])]
    order = np.random.default_rng(seed).permutation(len(dense))
    fitted, held = order[::2], order[1::2]
    temperature = fit_temperature(dense[fitted], crops[fitted], activation)
    return Comparison(
        windows=len(dense),
        images=images,
        all=_distance(crops, dense, activation),
        in_top5=_in_top(dense, crops) if ranked else None,
        correlation=float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])),
        logit_spread=float(dense.std() / crops.std()),
        crop_confidence=float(sure.mean()),
        bins=tuple(
            Bin(low, high, int(inside.sum()), float(same[inside].mean()))
            for low, high in pairwise(CONFIDENCE_BINS)
            if (inside := (sure >= low) & ((sure < high) | (high == 1))).any()
        ),
        temperature=temperature,
        before=_distance(crops[held], dense[held], activation),
        after=_distance(crops[held], dense[held] / np.float32(temperature), activation),
    )


def fit_temperature(logits: FloatArray, crops: FloatArray, activation: Activation = "softmax") -> float:
    """Returns the T for which the probabilities of ``logits / T`` have the least mean KL from the
    probabilities of `crops` (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    It uses golden-section search over log T from 1/8 to 8, where that KL is unimodal.
    """
    divergence = ACTIVATIONS[activation].divergence
    assert divergence is not None  # loaded only for comparisons

    def off(log_temperature: float) -> float:
        return float(divergence(crops, logits * np.float32(np.exp(-log_temperature))).mean())

    ratio = (5**0.5 - 1) / 2
    low, high = -np.log(8), np.log(8)
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if off(left) < off(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _confidence(logits: FloatArray, activation: Activation) -> FloatArray:
    """Returns float32 (windows,): the probability of the answer; for independent classes, of the least
    certain class.
    """
    if activation == "sigmoid":
        return sigmoid(np.abs(logits).min(1))
    confidence: FloatArray = softmax(logits).max(1)
    return confidence


def _in_top(dense: FloatArray, crops: FloatArray) -> float:
    top = crops.argmax(1)[:, None]
    rank = (dense > np.take_along_axis(dense, top, 1)).sum(1)
    return float((rank < _TOP).mean())


def _distance(crops: FloatArray, dense: FloatArray, activation: Activation) -> Distance:
    read = ACTIVATIONS[activation]
    assert read.divergence is not None  # loaded only for comparisons
    apart = np.abs(read.probabilities(crops) - read.probabilities(dense))
    return Distance(
        agreement=float(read.same(crops, dense).mean()),
        kl=float(read.divergence(crops, dense).mean()),
        tv=float(apart.mean() if activation == "sigmoid" else apart.sum(1).mean() / 2),
        confidence=float(_confidence(dense, activation).mean()),
    )


def _sample(
    classifier: Classifier,
    images: Sequence[ImageLike | ImageSource],
    scales: Sequence[Scale],
    max_windows: int,
    random: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Returns dense and crop logits of sampled windows: two arrays (windows, num_classes)."""
    sources = [classifier.open(image, scales) for image in images]
    scans = [(source, grid) for source in sources for grid in classifier.grids(source, scales)]
    counts = [grid.rows * grid.cols for _, grid in scans]
    total = sum(counts)
    chosen = np.sort(random.permutation(total)[:max_windows])
    dense, crops = [], []
    first = 0
    for (source, grid), count in zip(scans, counts, strict=True):
        cells = chosen[(chosen >= first) & (chosen < first + count)] - first
        first += count
        if len(cells):
            dense.append(classifier.dense(source, grid).reshape(count, -1)[cells])
            crops.append(classifier.crops(source, grid, cells))
            log.info("%s: compared %d of %d windows", source.name, len(cells), count)
    if total == 0:
        raise UsageError("no image is left to compare on")
    return np.concatenate(dense), np.concatenate(crops)


def prove(spec: ModelSpec) -> Conversion:
    """Converts a model and proves the conversion. Raises ConversionError if that fails."""
    spec.require_fcn()
    from fcnconv.convert import convolutionize

    return convolutionize(spec.build(spec.weights()), spec.window).conversion


def proof_text(model: str, conversion: Conversion) -> str:
    """Returns a proof as lines for people. model: its name."""
    geometry, proof = conversion.geometry, conversion.proof
    local = "local" if geometry.local else f"not local: {geometry.cause} looks at the whole image"
    return "\n".join(
        [
            f"{model}: proved equal to the classifier at {geometry.window} × {geometry.window} px, and "
            "window by "
            "window on larger images",
            f"  max |Δlogit|      {proof.max_error:.1e} of {proof.scale:.1f} in float64: "
            f"{proof.relative_error:.1e}, at most {EXACT:.0e} allowed",
            f"  rounding          {proof.rounding:.1e} of the largest logit, by float32",
            f"  stride            {geometry.stride} px",
            f"  receptive field   {geometry.receptive_field} px, halo {geometry.halo} px, {local}",
            *(f"  {change}" for change in conversion.changes),
        ]
    )


def proof_record(conversion: Conversion) -> dict[str, Any]:
    """Returns a proof for programs: the fields of the geometry and of the proof, ``tolerance``, and
    ``changes``.
    """
    geometry, proof = asdict(conversion.geometry), asdict(conversion.proof)
    return {**geometry, **proof, "tolerance": EXACT, "changes": conversion.changes}
