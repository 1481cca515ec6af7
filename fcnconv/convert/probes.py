"""The images on which networks are compared, and their computation in float64, so that proofs compare
arithmetic and not rounding.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fcnconv.convert.graph import device_of


class Float64(TorchFunctionMode):
    """Inside this mode, everything is computed in float64, whatever types weights, constants and code have.

    Weights are widened only where they are used, so that a network needs no second copy of them.
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
    """torch.conv2d in float64, with depthwise convolutions as a sum of shifted maps.

    For depthwise convolutions in float64, torch makes one call per channel. An EfficientNet-Lite0 takes 3.6 s
    that way, and 1.0 s this way.
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


def precision_of(network: nn.Module) -> AbstractContextManager[Any]:
    """The context to run a network in: `Float64` if some of its weights were computed in float64, else a null
    context.
    """
    wide = any(parameter.dtype is torch.float64 for parameter in network.parameters())
    return Float64() if wide else nullcontext()


def probe(network: nn.Module, count: int, height: int, width: int) -> torch.Tensor:
    """float (count, channels, height, width): images for comparing networks, the same in each call.

    They have the channels that the network accepts, on its device. Noise and smooth images alternate, because
    they excite a network differently.
    """
    generator, channels = torch.Generator().manual_seed(0), channels_of(network, height, width)
    x = torch.randn(count, channels, height, width, generator=generator)
    coarse = torch.randn(count // 2, channels, 7, 7, generator=generator)
    if len(coarse):
        x[1::2] = F.interpolate(coarse, (height, width), mode="bicubic")
    return x.to(device_of(network))


def channels_of(network: nn.Module, height: int, width: int) -> int:
    """The number of channels in a network's images: as recorded for its graph, else from its first
    convolution, else 3.

    In some networks the first convolution comes after pixels were folded into channels (TResNet). So the
    number is verified on an image.
    """
    known = vars(network).get("meta", {}).get("channels")
    if known is not None:
        return int(known)
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first = next((convolution.in_channels for convolution in convolutions), 3)
    if first != 3:
        try:
            with Float64(), torch.no_grad():  # forward: calling a traced network would print its error
                network.forward(torch.zeros(1, 3, height, width, device=device_of(network)))
        except Exception:  # the network's own code can raise any kind of error
            return first
    return 3


def know_channels(network: nn.Module, channels: int) -> None:
    """Records the number of channels in a graph's images for `channels_of`, in case its first layer does not
    show it.
    """
    vars(network).setdefault("meta", {})["channels"] = channels
