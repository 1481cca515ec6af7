"""Every convolutional classifier of torchvision, converted: one vector of logits a window, and the right one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from fcnconv.convert import TOLERANCE, convolutionize
from fcnconv.models import models
from fcnconv.models.torchvision import make_network

from ordinary import images, ordinary

BODIES = ("features", "trunk_output", "layer4", "Mixed_7c", "inception5b", "conv5", "layers")
"""What torchvision calls the part of a network that makes its last feature map."""

LARGE = {"regnet_y_128gf", "efficientnet_b7", "efficientnet_v2_l", "regnet_y_32gf", "vgg19_bn"}


def convolutional() -> Iterator[Any]:
    """Each model once, at its smallest window: regnet_y_128gf at 224 instead of 384 pixels."""
    for arch in sorted({spec.arch for spec in models().values()} - {"efficientnet_lite0"}):
        specs = [spec for spec in models().values() if spec.arch == arch]
        if not specs[0].no_fcn:
            window = min(spec.window for spec in specs)
            yield pytest.param(arch, window, marks=[pytest.mark.slow] if arch in LARGE else [])


def logits_of_windows(model: nn.Module, x: torch.Tensor, size: int) -> torch.Tensor:
    """The classifier's own head on every `size` × `size` window of its own last feature map, row by row."""
    body = next(getattr(model, name) for name in BODIES if hasattr(model, name))

    def cut(_module: nn.Module, _inputs: object, features: torch.Tensor) -> torch.Tensor:
        rows, cols = (length - size + 1 for length in features.shape[2:])
        windows = [features[:, :, r : r + size, c : c + size] for r in range(rows) for c in range(cols)]
        return torch.cat(windows)

    handle = body.register_forward_hook(cut)
    try:
        result: torch.Tensor = model(x)
        return result
    finally:
        handle.remove()


def feature_size(model: nn.Module, window: int) -> int:
    body, sizes = next(getattr(model, name) for name in BODIES if hasattr(model, name)), []
    handle = body.register_forward_hook(lambda _m, _i, features: sizes.append(features.shape[-1]))
    model(torch.zeros(1, 3, window, window))
    handle.remove()
    return int(sizes[0])


@pytest.mark.parametrize(("arch", "window"), list(convolutional()))
def test_converts(arch: str, window: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        model = ordinary(make_network(arch, window), window)
        network = convolutionize(model, window)
        geometry = network.geometry
        assert network.proof.relative_error <= TOLERANCE
        assert network.proof.scale > 1e-2
        assert geometry.stride == (16 if arch.startswith("squeezenet") else 32)

        # One larger region, not square: each cell is the classifier's own head on its window of features.
        x = images(1, window + geometry.stride, window + 2 * geometry.stride)
        expected = logits_of_windows(model, x, feature_size(model, window)).reshape(2, 3, -1)
        logits = network(x)[0].permute(1, 2, 0)
        assert (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()

        # The grid's formula, where only shapes are computed.
        network.to("meta")
        for n in range(9):
            height, width = window + geometry.stride * n, window + geometry.stride * (n // 2)
            shape = network(torch.empty(1, 3, height, width, device="meta")).shape
            assert shape == (1, 1000, n + 1, n // 2 + 1)
