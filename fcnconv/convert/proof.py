"""Proves that two networks are the same, by comparing their logits on images.

A conversion is correct or not by arithmetic, so the comparison runs in float64, where two ways to compute the
same value differ by 1e-15. In float32 they differ by 1e-7 in each layer, which a hundred layers amplify to
1e-4 and more, so that correct conversions would be refused. The network is run in float32, so its rounding in
float32 is measured as well, and reported with the proof.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import fx, nn

from fcnconv.convert.graph import layer_of, node_text
from fcnconv.convert.probes import Float64, precision_of, probe
from fcnconv.errors import WAY_OUT, ConversionError, ModelError, first_line
from fcnconv.grid import Geometry
from fcnconv.provenance import EXACT, Proof

log = logging.getLogger("fcnconv")

TOLERANCE = 1e-4
"""Maximum difference of logits in a proof that is only possible in float32, as a share of the largest logit.

A network whose logits change more by rounding alone is reported as such.
"""

ROUNDINGS, AT_MOST = 8, 1e-2
"""Limits for networks whose own rounding exceeds `TOLERANCE`.

Two ways to compute such a network in float32 may differ by `ROUNDINGS` times its own rounding, since each of
them is off by so much, more on one image than on another; but never by more than `AT_MOST`.
"""

MOST_ROUNDING = 1e-3
"""The limit for the conversion itself. The rounding of a usable network does not change its logits by
more.
"""

Logits = torch.Tensor | npt.NDArray[Any]


def difference(expected: Logits, found: Logits) -> float:
    """The largest difference between logits, as a share of the largest value of `expected`."""
    off, scale = _difference(expected, found)
    return off / scale if scale else float("inf")


def _difference(expected: Logits, found: Logits) -> tuple[float, float]:
    one, other = (torch.as_tensor(logits).to("cpu", torch.float64) for logits in (expected, found))
    return float((other - one).abs().max()), float(one.abs().max())


def compare(
    doubt: str, expected: Logits, found: Logits, tolerance: float, refusal: type[ModelError]
) -> float:
    """Compares logits.

    Args:
        doubt: the message if they differ, such as "the plan is not the network".
        expected, found: the logits.
        tolerance: maximum difference, as a share of the largest logit.
        refusal: the error to raise.

    Returns:
        The largest difference, as a share of the largest logit.

    Raises:
        refusal: the shapes differ, or the logits differ by more than `tolerance`.
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
    """Compares the logits of another program with a network, both in float32.

    The difference may be `TOLERANCE`, or a few times the network's own rounding if this is larger.

    Args:
        doubt: the message if they differ.
        network: the network.
        x: images.
        found: the other program's logits of `x`.
        refusal: the error to raise.
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
    """A traced classifier in two parts, before any replacement.

    Attributes:
        body: float (N, channels, H, W) -> the feature maps that the head collapses.
        head: the feature maps of one window -> logits (N, num_classes), for N = 2 as at the native size.
        axes: the axes of rows and columns, for each feature map.
        window: (height, width) of a window's features, in cells.
    """

    body: nn.Module
    head: nn.Module
    axes: tuple[tuple[int, int], ...]
    window: tuple[int, int]

    def windows(self, features: Sequence[torch.Tensor], rows: int, cols: int) -> torch.Tensor:
        """(1, num_classes, rows, cols): the original head on each window of an image's features."""
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

    Args:
        model: the classifier.
        network: the converted network.
        window: side of the native input, in pixels.
        spread: difference between the logits of different images.

    Returns:
        The largest difference of a logit as a share of the largest logit, and the classifier's logits of the
        first image of `probe`.

    Raises:
        ConversionError: the difference exceeds `EXACT`, or the logits hardly depend on the images.
    """
    x = probe(model, 1, window, window)
    with Float64():
        expected = logits_of(model, x)
        try:
            logits = network.forward(x)
        except Exception as error:  # a partly converted head can raise any kind of error
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
    """Compares the converted network with the classifier on images larger than the native size, in float64.

    On two images that are not square, it compares the features with the features of the original body, and
    each cell with the original head on its window of these features.

    Args:
        original: the classifier.
        network: float (N, channels, H, W) -> (logits, *feature maps).
        geometry: its geometry.

    Returns:
        The largest difference, as a share of the largest value compared.

    Raises:
        ConversionError: the difference exceeds `EXACT`, larger images are not accepted, or they give a number
            of cells that contradicts `geometry`.
    """
    errors = []
    for rows, cols in ((2, 3), (2, 1)):
        height, width = (geometry.window + geometry.stride * (cells - 1) for cells in (rows, cols))
        x = probe(original.body, 1, height, width)
        with Float64():
            try:
                expected = original.body.forward(x)
                logits, *features = network.forward(x)
            except Exception as error:  # a network tied to its native size can raise any kind of error
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
        doubt = f"at {width} × {height} px the converted body is not the classifier's body"
        pairs = zip(expected, features, strict=True)
        errors += [compare(doubt, one, other, EXACT, ConversionError) for one, other in pairs]
        doubt = f"at {width} × {height} px the map is not the classifier's head on each window"
        errors.append(compare(doubt, windows, logits, EXACT, ConversionError))
    return max(errors)


def logits_of(model: nn.Module, x: torch.Tensor) -> Any:
    """The output of a classifier for images, also if it drops the axis of a single image (``squeeze()``)."""
    given = model(x)
    return given[None] if isinstance(given, torch.Tensor) and given.ndim == len(x) == 1 else given


def check_answers(model: nn.Module, window: int) -> torch.Tensor:
    """The classifier's logits of the first image of `probe`, in float32. Raises ConversionError if it has
    none.
    """
    x = probe(model, 1, window, window)
    try:
        logits = logits_of(model, x)
    except Exception as error:  # the model's own code can raise any kind of error
        name = type(model).__name__
        raise ConversionError(
            f"{name} fails on images of {window} × {window} px ({first_line(error)})"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConversionError(f"the model returns {given}, not logits (N, num_classes)")
    return logits


def check_repeatable(model: nn.Module, logits: torch.Tensor, window: int) -> None:
    """Raises ConversionError if the logits of a classifier change from call to call.

    Args:
        model: the classifier.
        logits: its logits of the first image of `probe`.
        window: side of the native input, in pixels.
    """
    if not difference(logits, logits_of(model, probe(model, 1, window, window))) <= TOLERANCE:
        raise ConversionError(
            "the network answers differently each time; look for dropout that is always on (F.dropout "
            "without training=self.training) or other random numbers"
        )


def check_larger(model: nn.Module, traced: nn.Module, window: int) -> None:
    """Raises ConversionError if a classifier computes differently from its trace at a larger size.

    A classifier that does not accept images of this size passes.
    """
    height, width = window + LARGER[0], window + LARGER[1]
    x = probe(model, 1, height, width)
    try:
        expected = logits_of(model, x)
    except Exception:  # a head that flattens accepts only the native size
        return
    doubt = f"at {width} × {height} px the classifier's code does not compute the same as at its native size"
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
"""Pixels by which the larger images exceed the window. They are whole strides of nearly all networks."""


def spread_of(logits: torch.Tensor) -> float:
    """The difference between the logits of different images."""
    return float((logits.amax(0) - logits.amin(0)).max())


def measured(network: fx.GraphModule, window: int, error: float, exact: torch.Tensor, spread: float) -> Proof:
    """Completes the proof with the rounding of the network in float32. Large rounding is logged.

    Args:
        network: the converted network.
        window: side of the native input, in pixels.
        error, exact: the results of `prove`.
        spread: difference between the logits of different images.

    Raises:
        ConversionError: float32 changes the logits by more than `MOST_ROUNDING`.
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
    """The name of the layer where the difference between float32 and float64 grows most."""
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
    """Runs a network and keeps the output of every node."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network, garbage_collect_values=False)

    def of(self, x: torch.Tensor) -> dict[fx.Node, Any]:
        self.run(x)
        return self.env
