"""The images that networks are compared on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fcnconv.convert.float64 import Float64
from fcnconv.convert.graph import device_of


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
    """How many channels the images of a network have: as its graph knows, as its first convolution takes, or
    3. Some have their first convolution after pixels were folded into channels (TResNet), so that one of
    others is tried.
    """
    known = vars(network).get("meta", {}).get("channels")
    if known is not None:
        return int(known)
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first = next((convolution.in_channels for convolution in convolutions), 3)
    if first != 3:
        try:
            with Float64(), torch.no_grad():  # forward: the call of a traced network would print its error
                network.forward(torch.zeros(1, 3, height, width, device=device_of(network)))
        except Exception:  # the network's own code raises whatever it likes
            return first
    return 3


def know_channels(network: nn.Module, channels: int) -> None:
    """Lets `channels_of` know how many channels a graph's images have, where its first layer may not tell."""
    vars(network).setdefault("meta", {})["channels"] = channels
