"""Proofs that two networks are the same: one comparison, and one maker of images to compare on.

Whether a conversion is right is a matter of arithmetic, and is told in float64, where two ways to compute the
same differ by 1e-15. In float32 they differ by 1e-7 in each layer, which a hundred layers magnify to 1e-4 and
more: right conversions would be refused. How much that is for a network is measured too, since it is run in
float32, and told beside the proof.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fcnconv.convert.graph import device_of
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

Logits = torch.Tensor | npt.NDArray[Any]


class Float64(TorchFunctionMode):
    """Inside, everything is computed in float64, whatever type weights, constants and code ask for.

    Weights are widened where they are used and not before, so that a network needs no second copy of them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = {torch.Tensor.float: torch.Tensor.double, torch.conv2d: _conv2d}.get(func, func)
        return tree_map(_widened, func(*tree_map(_widened, args), **tree_map(_widened, kwargs or {})))


def _conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """torch.conv2d; of depthwise ones a sum of shifted maps, for which torch has nothing but a call for each
    channel in float64 (an EfficientNet-Lite0 takes 3.6 s so, and 1.0 s like this).
    """
    depthwise = 1 < groups == x.shape[-3] == len(weight) and x.ndim == 4
    if not depthwise or isinstance(padding, str):
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    (sy, sx), (py, px), (dy, dx) = map(_pair, (stride, padding, dilation))
    x = F.pad(x, (px, px, py, py))
    height, width = weight.shape[2:]
    rows = (x.shape[2] - dy * (height - 1) - 1) // sy + 1
    cols = (x.shape[3] - dx * (width - 1) - 1) // sx + 1
    sums = x.new_zeros((*x.shape[:2], rows, cols))
    for i in range(height):
        for j in range(width):
            down = slice(i * dy, i * dy + (rows - 1) * sy + 1, sy)
            across = slice(j * dx, j * dx + (cols - 1) * sx + 1, sx)
            sums.addcmul_(x[:, :, down, across], weight[:, 0, i, j, None, None])
    return sums if bias is None else sums + bias[:, None, None]


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[-1]) if isinstance(value, (tuple, list)) else (value, value)


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.dtype is torch.float32 else value
    return torch.float64 if value is torch.float32 else value


def probe(network: nn.Module, count: int, height: int, width: int) -> torch.Tensor:
    """float (count, channels, height, width): images to compare networks on, always the same, of the channels
    that this one takes, and where it is. Noise and smooth ones take turns, as they excite it differently.
    """
    generator, channels = torch.Generator().manual_seed(0), channels_of(network, height, width)
    x = torch.randn(count, channels, height, width, generator=generator)
    coarse = torch.randn(count // 2, channels, 7, 7, generator=generator)
    if len(coarse):
        x[1::2] = F.interpolate(coarse, (height, width), mode="bicubic")
    return x.to(device_of(network))


def channels_of(network: nn.Module, height: int, width: int) -> int:
    """How many channels the images of a network have: as its first convolution takes, or 3. Some have their
    first convolution after pixels were folded into channels (TResNet), so that one of others is tried.
    """
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first = next((convolution.in_channels for convolution in convolutions), 3)
    if first != 3:
        try:
            with Float64(), torch.no_grad():  # forward: the call of a traced network would print its error
                network.forward(torch.zeros(1, 3, height, width, device=device_of(network)))
        except Exception:  # the network's own code raises whatever it likes
            return first
    return 3


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


def check_grid(network: nn.Module, geometry: Geometry, device: torch.device) -> None:
    """Raises ConversionError if a larger image does not give the cells that the geometry says."""
    height, width = geometry.window + geometry.stride, geometry.window + 2 * geometry.stride
    try:
        # forward: the call of a traced network would print its error
        channels = channels_of(network, height, width)
        shape = tuple(network.forward(torch.zeros(1, channels, height, width, device=device)).shape[2:])
    except Exception as error:  # a network tied to its native size fails in its own way
        raise ConversionError(
            f"the network accepts no image larger than {geometry.window} px; {WAY_OUT}"
        ) from error
    if shape != (2, 3):
        raise ConversionError(
            f"{width} × {height} px give {shape[0]} rows and {shape[1]} columns, not 2 and 3; {WAY_OUT}"
        )


def prove(
    model: nn.Module, network: nn.Module, window: int, device: torch.device
) -> tuple[float, torch.Tensor]:
    """The largest difference of a logit between a classifier and its converted network, computed in float64,
    as a share of the largest logit; and the classifier's logits of `probe`'s two images.

    Raises ConversionError over `EXACT`, or if the logits hardly depend on the images.
    """
    x = probe(model, 2, window, window)
    with Float64():
        expected = _logits(model(x))
        try:
            logits = network.forward(x)
        except Exception as error:  # a head that was converted only in part fails in its own way
            raise ConversionError(
                f"the converted head does not run ({first_line(error)}); {WAY_OUT}"
            ) from error
    scale, spread = float(expected.abs().max()), spread_of(expected)
    if not spread > max(1e-3 * scale, 1e-6):
        raise ConversionError(
            f"the logits hardly depend on the input (size {scale:.1e}, spread {spread:.1e}), "
            "so that equality would prove nothing; load trained weights"
        )
    doubt = "the converted network is not the classifier"
    return compare(doubt, expected[:, :, None, None], logits, EXACT, ConversionError), expected


def spread_of(logits: torch.Tensor) -> float:
    """How far the logits of different images lie apart."""
    return float((logits.amax(0) - logits.amin(0)).max())


def measured(network: nn.Module, window: int, error: float, exact: torch.Tensor) -> Proof:
    """The whole proof, with the rounding of the network as it will be run, which is told if it is large.

    error, exact: as `prove` gives them.
    """
    x = probe(network, 2, window, window)
    rounding, scale = difference(exact[:, :, None, None], network(x)), float(exact.abs().max())
    if not rounding <= TOLERANCE:
        log.warning(
            "float32 changes this network's logits by %.1e of the largest, over %.0e; "
            "the conversion itself is exact",
            *(rounding, TOLERANCE),
        )
    return Proof(error * scale, scale, spread_of(exact), rounding)


def _logits(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise ConversionError(f"the model returns {type(output).__name__}, not logits (N, num_classes)")
    return output
