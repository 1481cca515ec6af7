"""Activations: how a network's outputs become probabilities, for exclusive or for independent classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fcnconv.errors import UsageError
from fcnconv.provenance import Activation

log = logging.getLogger("fcnconv")

FloatArray = npt.NDArray[np.float32]
Floating = TypeVar("Floating", np.float32, np.float64)

BEYOND = 0.5
"""How far outside 0 to 1 the values may lie that a network returns as probabilities. Values that are
interpolated between crops overshoot by less. The outputs of a network without an activation exceed it soon.
"""


@dataclass(frozen=True)
class Activated:
    """The functions of one activation. Their arguments are (..., num_classes), float32 or float64.

    probabilities: the probability of each class, 0 to 1. logs: the logarithms of the probabilities.
    same: bool (...), whether two arrays of outputs give the same answer.
    margins: (...), how far the outputs are from the point where the answer changes.
    divergence: float64 (...), in nats: the Kullback-Leibler divergence of the second array's probabilities
        from the first array's; None if the activation does not say which probabilities belong together.
    """

    probabilities: Callable[[FloatArray], FloatArray]
    logs: Callable[[npt.NDArray[Floating]], npt.NDArray[Floating]]
    same: Callable[[FloatArray, FloatArray], npt.NDArray[np.bool_]]
    margins: Callable[[FloatArray], FloatArray]
    divergence: Callable[[FloatArray, FloatArray], npt.NDArray[np.float64]] | None = None


def softmax(logits: FloatArray) -> FloatArray:
    """The softmax over the last axis: float32, 0 to 1, in the shape of `logits`."""
    probabilities: FloatArray = logits - logits.max(axis=-1, keepdims=True)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities


def log_softmax(logits: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """The logarithm of the softmax over the last axis, in the type and shape of `logits`."""
    result: npt.NDArray[Floating] = logits - logits.max(axis=-1, keepdims=True)
    result -= np.log(np.exp(result).sum(axis=-1, keepdims=True))
    return result


def log_sigmoid(logits: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """The logarithm of the sigmoid, in the type and shape of `logits`."""
    return -np.logaddexp(logits.dtype.type(0), -logits)


def sigmoid(logits: FloatArray) -> FloatArray:
    """The sigmoid: float32, 0 to 1, in the shape of `logits`. Small values keep the precision of float32."""
    probabilities: FloatArray = np.exp(log_sigmoid(logits))
    return probabilities


def _as_they_are(outputs: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """Returns outputs that already are probabilities, clipped to 0 to 1. Raises UsageError for others."""
    low, high = float(outputs.min(initial=0)), float(outputs.max(initial=1))
    if low < -BEYOND or high > 1 + BEYOND:
        raise UsageError(
            f"--activation none: outputs from {low:.3g} to {high:.3g} are no probabilities; write them "
            "unchanged to an .npy, .npz, .tif or .zarr, or choose --activation softmax or sigmoid"
        )
    return np.clip(outputs, 0, 1)


def _log_as_they_are(outputs: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    result: npt.NDArray[Floating] = np.log(np.maximum(_as_they_are(outputs), np.finfo(outputs.dtype).tiny))
    return result


def check_outputs(outputs: FloatArray, activation: Activation, model: str) -> None:
    """Warns if a network seems to apply an activation itself: if all outputs lie between 0 and 1.

    Args:
        outputs: float32 (..., num_classes), the outputs for many windows; windows with NaN are ignored.
        activation: the activation that will be applied. ``none`` is not checked.
        model: the name of the model, for the message.

    Raises:
        UsageError: the outputs surely are probabilities, because they sum to 1 in each window.
    """
    outputs = outputs[~np.isnan(outputs).any(-1)]
    if activation == "none" or outputs.size < _ENOUGH or outputs.min() < 0 or outputs.max() > 1:
        return
    if outputs.shape[-1] > 1 and np.abs(outputs.sum(-1) - 1).max() < 1e-3:
        raise UsageError(
            f"{model}: its outputs sum to 1 in every window, because the network ends in a softmax; add "
            "--activation none"
        )
    hint = "if the network ends in a sigmoid, add --activation none"
    log.warning("%s: all outputs lie between 0 and 1; %s", model, hint)


_ENOUGH = 16
"""The least number of outputs to check. So many logits hardly ever lie between 0 and 1 by chance."""


def _same_first(one: FloatArray, other: FloatArray) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = one.argmax(-1) == other.argmax(-1)
    return same


def _same_present(one: FloatArray, other: FloatArray) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = ((one > 0) == (other > 0)).all(-1)
    return same


def _lead(outputs: FloatArray) -> FloatArray:
    """The difference between the highest and the second highest output; infinite for a single output."""
    flat = outputs.reshape(-1, *outputs.shape[-2:])
    margins = np.full(flat.shape[:-1], np.inf, np.float32)
    if outputs.shape[-1] > 1:
        for row, line in enumerate(flat):  # line by line, because partition copies its argument
            second, first = np.partition(line, -2, axis=-1)[:, -2:].T
            margins[row] = first - second
    return margins.reshape(outputs.shape[:-1])


def _distance_to_half(logits: FloatArray) -> FloatArray:
    distance: FloatArray = np.abs(logits).min(-1)
    return distance


def divergence(crops: FloatArray, logits: FloatArray) -> npt.NDArray[np.float64]:
    """The Kullback-Leibler divergence of the softmax of `logits` from the softmax of `crops`.

    crops, logits: float32 (n, num_classes). Returns float64 (n,), in nats.
    """
    true, claimed = (log_softmax(each.astype(np.float64)) for each in (crops, logits))
    result: npt.NDArray[np.float64] = (np.exp(true) * (true - claimed)).sum(-1)
    return np.maximum(result, 0)


def independent_divergence(crops: FloatArray, logits: FloatArray) -> npt.NDArray[np.float64]:
    """The same divergence for independent classes, each present or absent: the sum over the classes."""
    x, y = (each.astype(np.float64) for each in (crops, logits))
    is_there = np.exp(log_sigmoid(x)) * (log_sigmoid(x) - log_sigmoid(y))
    is_not = np.exp(log_sigmoid(-x)) * (log_sigmoid(-x) - log_sigmoid(-y))
    result: npt.NDArray[np.float64] = (is_there + is_not).sum(-1)
    return np.maximum(result, 0)


ACTIVATIONS: dict[Activation, Activated] = {
    "softmax": Activated(softmax, log_softmax, _same_first, _lead, divergence),
    "sigmoid": Activated(sigmoid, log_sigmoid, _same_present, _distance_to_half, independent_divergence),
    "none": Activated(_as_they_are, _log_as_they_are, _same_first, _lead),
}
"""The activations by name.

``softmax``: classes exclude each other and probabilities sum to 1. The answer is the most probable class.
``sigmoid``: each class is present or absent, independently of the others. The answer is every class with a
probability above 1/2.
``none``: the outputs already are probabilities, or are not probabilities at all.
"""
