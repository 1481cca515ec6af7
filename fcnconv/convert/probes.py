"""The images on which networks are compared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fcnconv.convert.float64 import Float64
from fcnconv.convert.graph import device_of


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
