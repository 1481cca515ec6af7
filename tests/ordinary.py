"""Networks with random weights whose logits are of ordinary size, so that comparing them proves something."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """float (count, 3, height, width): half of them noise, half smooth, as images differ in that."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count - count // 2, 3, height, width, generator=generator)
    smooth = F.interpolate(
        torch.randn(count // 2, 3, 7, 7, generator=generator), (height, width), mode="bicubic"
    )
    return torch.cat([noise, smooth])


def ordinary(model: nn.Module, window: int) -> nn.Module:
    """The model in evaluation mode, its batch normalisation set from what really flows through it.

    The random initialisation of a deep network alone shrinks its logits to 1e-14, where any two are equal.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.eval()
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(images(8, window, window, seed=1))
    return model.eval()
