"""Proofs that two networks are the same: one comparison, and one maker of images to compare on.

Whether a conversion is right is a matter of arithmetic, and is told in float64, where two ways to compute the
same differ by 1e-15. In float32 they differ by 1e-7 in each layer, which a hundred layers magnify to 1e-4 and
more: right conversions would be refused. How much that is for a network is measured too, since it is run in
float32, and told beside the proof.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import fx, nn

from fcnconv.convert.float64 import Float64, precision_of
from fcnconv.convert.graph import layer_of, node_text
from fcnconv.convert.probes import probe
from fcnconv.errors import WAY_OUT, ConversionError, ModelError, first_line
from fcnconv.grid import Geometry
from fcnconv.provenance import EXACT, Proof

log = logging.getLogger("fcnconv")

TOLERANCE = 1e-4
"""Largest difference of logits that passes a proof in float32, as a share of the largest logit, for what can
be had in nothing better. A network that rounding alone changes by more is told to be such a one.
"""

ROUNDINGS, AT_MOST = 8, 1e-2
"""How many times a network's own rounding two ways to compute it in float32 may lie apart, where that is over
`TOLERANCE`: each of them is off by so much, on one image more than on another. And the most that passes."""

MOST_ROUNDING = 1e-3
"""The same for the conversion itself: no rounding of a usable network changes its logits by more."""

Logits = torch.Tensor | npt.NDArray[Any]


def difference(expected: Logits, found: Logits) -> float:
    """The largest difference of a logit, as a share of the largest of `expected`."""
    off, scale = _difference(expected, found)
    return off / scale if scale else float("inf")


def _difference(expected: Logits, found: Logits) -> tuple[float, float]:
    one, other = (torch.as_tensor(logits).to("cpu", torch.float64) for logits in (expected, found))
    return float((other - one).abs().max()), float(one.abs().max())


def compare(
    doubt: str, expected: Logits, found: Logits, tolerance: float, refusal: type[ModelError]
) -> float:
    """The largest difference of a logit, as a share of the largest one.

    doubt: what is said if they differ, such as "the plan is not the network".

    Raises `refusal` where the shapes differ, or the logits by more than `tolerance`.
    """
    if tuple(found.shape) != tuple(expected.shape):
        raise refusal(f"{doubt}: logits have shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    off, scale = _difference(expected, found)
    if not off <= tolerance * scale:
        raise refusal(f"{doubt}: logits differ by {off:.1e} of {scale:.1e}, over {tolerance:.0e} of it")
    return off / scale if scale else 0.0


def compare_float32(
    doubt: str, network: nn.Module, x: torch.Tensor, found: Logits, refusal: type[ModelError]
) -> float:
    """The same for what another program made of a network and an image in float32: it may differ by
    `TOLERANCE`; or, in a network whose own rounding is over that, by a few times as much.

    found: logits of `x`.
    """
    with torch.inference_mode():
        expected = network(x)
        tolerance = TOLERANCE
        if found.shape == expected.shape and not difference(expected, found) <= TOLERANCE:
            with Float64():
                exact = network(x)
            own = difference(exact, expected)
            tolerance = max(TOLERANCE, min(ROUNDINGS * own, AT_MOST))
    return compare(doubt, expected, found, tolerance, refusal)


@dataclass(frozen=True)
class Original:
    """A traced classifier in two parts, as it was before anything was replaced.

    body: float (N, channels, H, W) -> the feature maps that the head collapses. head: those of one window ->
    logits (N, num_classes), for N = 2 as at the native size. axes: of each feature map, those of its rows and
    columns.
    window: (height, width) of a window's features, in cells.
    """

    body: nn.Module
    head: nn.Module
    axes: tuple[tuple[int, int], ...]
    window: tuple[int, int]

    def windows(self, features: Sequence[torch.Tensor], rows: int, cols: int) -> torch.Tensor:
        """(1, num_classes, rows, cols): the original head on each window of the features of an image."""
        places = [(i, j) for i in range(rows) for j in range(cols)]
        logits = []
        for pair in zip(places[::2], [*places[1::2], places[-1]], strict=False):
            parts = [
                torch.cat([self._window(feature, axes, place) for place in pair])
                for feature, axes in zip(features, self.axes, strict=True)
            ]
            logits.append(self.head(*parts))
        together = torch.cat(logits)[: len(places)]  # (rows · cols, num_classes)
        return together.T.reshape(1, -1, rows, cols)

    def _window(self, feature: torch.Tensor, axes: tuple[int, int], place: tuple[int, int]) -> torch.Tensor:
        for axis, start, length in zip(axes, place, self.window, strict=True):
            feature = feature.narrow(axis, start, length)
        return feature


def prove(model: nn.Module, network: nn.Module, window: int, spread: float) -> tuple[float, torch.Tensor]:
    """Compares a classifier and its converted network at the native size, in float64.

    spread: how far the logits of different images lie apart.

    Returns the largest difference of a logit as a share of the largest logit, and the classifier's logits of
    `probe`'s first image.

    Raises ConversionError over `EXACT`, or if the logits hardly depend on the images.
    """
    x = probe(model, 1, window, window)
    with Float64():
        expected = logits_of(model, x)
        try:
            logits = network.forward(x)
        except Exception as error:  # a head that was converted only in part fails in its own way
            raise ConversionError(
                f"the converted head does not run ({first_line(error)}); {WAY_OUT}"
            ) from error
    scale = float(expected.abs().max())
    if not spread > max(1e-3 * scale, 1e-6):
        raise ConversionError(
            f"the logits hardly depend on the input (size {scale:.1e}, spread {spread:.1e}), "
            "so that equality would prove nothing; load trained weights"
        )
    doubt = f"the converted network is not the classifier at {window} × {window} px"
    return compare(doubt, expected[:, :, None, None], logits, EXACT, ConversionError), expected


def prove_windows(original: Original, network: nn.Module, geometry: Geometry) -> float:
    """Compares the converted network with the classifier beyond the native size, in float64: on two images,
    not square, the features with those of the original body, and each cell with the original head on its
    window of these features.

    network: float (N, channels, H, W) -> (logits, *feature maps).

    Returns the largest difference, as a share of the largest value compared. Raises ConversionError over
    `EXACT`, or if larger images are not accepted or give other cells than `geometry` says.
    """
    errors = []
    for rows, cols in ((2, 3), (2, 1)):
        height, width = (geometry.window + geometry.stride * (cells - 1) for cells in (rows, cols))
        x = probe(original.body, 1, height, width)
        with Float64():
            try:
                expected = original.body.forward(x)
                logits, *features = network.forward(x)
            except Exception as error:  # a network tied to its native size fails in its own way
                raise ConversionError(
                    f"the network accepts no image larger than {geometry.window} px ({first_line(error)}); "
                    f"{WAY_OUT}"
                ) from error
            if tuple(logits.shape[2:]) != (rows, cols):
                raise ConversionError(
                    f"{width} × {height} px give {logits.shape[2]} rows and {logits.shape[3]} columns, not "
                    f"{rows} "
                    f"and {cols}; {WAY_OUT}"
                )
            windows = original.windows(expected, rows, cols)
        doubt = f"at {width} × {height} px the converted body is not that of the classifier"
        pairs = zip(expected, features, strict=True)
        errors += [compare(doubt, one, other, EXACT, ConversionError) for one, other in pairs]
        doubt = f"at {width} × {height} px the map is not the classifier's head on each window"
        errors.append(compare(doubt, windows, logits, EXACT, ConversionError))
    return max(errors)


def logits_of(model: nn.Module, x: torch.Tensor) -> Any:
    """What a classifier gives for images; of a single one also where it drops the axis of images
    (``squeeze()``)."""
    given = model(x)
    return given[None] if isinstance(given, torch.Tensor) and given.ndim == len(x) == 1 else given


def check_answers(model: nn.Module, window: int) -> torch.Tensor:
    """A classifier's logits of `probe`'s first image, in float32. Raises ConversionError if it gives none."""
    x = probe(model, 1, window, window)
    try:
        logits = logits_of(model, x)
    except Exception as error:  # the model's own code raises whatever it likes
        name = type(model).__name__
        raise ConversionError(
            f"{name} fails on images of {window} × {window} px ({first_line(error)})"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConversionError(f"the model returns {given}, not logits (N, num_classes)")
    return logits


def check_repeatable(model: nn.Module, logits: torch.Tensor, window: int) -> None:
    """Raises ConversionError if a classifier gives other logits each time. logits: of `probe`'s first
    image."""
    if not difference(logits, logits_of(model, probe(model, 1, window, window))) <= TOLERANCE:
        raise ConversionError(
            "the network answers differently each time; look for dropout that is always on (F.dropout "
            "without training=self.training) or other random numbers"
        )


def check_larger(model: nn.Module, traced: nn.Module, window: int) -> None:
    """Raises ConversionError if a classifier computes otherwise at a larger size than what was traced at the
    native one; not if it takes no images of that size.
    """
    height, width = window + LARGER[0], window + LARGER[1]
    x = probe(model, 1, height, width)
    try:
        expected = logits_of(model, x)
    except Exception:  # a head that flattens takes the native size alone
        return
    doubt = f"at {width} × {height} px the classifier's code computes otherwise than at its native size"
    try:
        with precision_of(traced):
            found = logits_of(traced, x)
    except Exception as error:  # as above
        raise ConversionError(f"{doubt} ({first_line(error)}); {WAY_OUT}") from error
    if found.shape == expected.shape and difference(expected, found) <= TOLERANCE:
        return
    with Float64():
        compare(doubt, logits_of(model, x), logits_of(traced, x), EXACT, ConversionError)


LARGER = (32, 64)
"""By how many pixels images are larger that must decide alike: whole strides of nearly all networks."""


def spread_of(logits: torch.Tensor) -> float:
    """How far the logits of different images lie apart."""
    return float((logits.amax(0) - logits.amin(0)).max())


def measured(network: fx.GraphModule, window: int, error: float, exact: torch.Tensor, spread: float) -> Proof:
    """The whole proof, with the rounding of the network as it will be run, which is logged if it is large.

    error, exact: as `prove` gives them. spread: how far the logits of different images lie apart.

    Raises ConversionError if float32 changes the logits by more than `MOST_ROUNDING`.
    """
    x = probe(network, 1, window, window)
    rounding, scale = difference(exact[:, :, None, None], network(x)), float(exact.abs().max())
    if not rounding <= MOST_ROUNDING:
        raise ConversionError(
            f"float32 changes this network's logits by {rounding:.1e} of the largest, over "
            f"{MOST_ROUNDING:.0e}; "
            f"it starts at {rounding_layer(network, x)}; {WAY_OUT}"
        )
    if not rounding <= TOLERANCE:
        log.warning(
            "float32 changes this network's logits by %.1e of the largest, over %.0e; "
            "the conversion itself is exact",
            *(rounding, TOLERANCE),
        )
    return Proof(error * scale, scale, spread, rounding)


def rounding_layer(network: fx.GraphModule, x: torch.Tensor) -> str:
    """The name of the layer at which the difference between float32 and float64 grows most."""
    modules = dict(network.named_modules())
    with Float64():
        exact = Values(network).of(x)
    rounded = Values(network).of(x)
    errors: dict[fx.Node, float] = {}
    worst, name = 0.0, "no single layer"
    for node, value in rounded.items():
        wide = exact.get(node)
        if not (
            isinstance(value, torch.Tensor) and isinstance(wide, torch.Tensor) and value.is_floating_point()
        ):
            continue
        errors[node] = difference(wide, value) if wide.shape == value.shape and wide.numel() else 0.0
        before = max((errors.get(source, 0.0) for source in node.all_input_nodes), default=0.0)
        growth = errors[node] / max(before, 1e-7)
        if errors[node] > TOLERANCE / 10 and not growth <= worst:
            worst, name = growth, node_text(node, layer_of(node, modules))
    return name


class Values(fx.Interpreter):
    """Runs a network and keeps what every node gives."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network, garbage_collect_values=False)

    def of(self, x: torch.Tensor) -> dict[fx.Node, Any]:
        self.run(x)
        return self.env
