"""Every convolutional classifier of torchvision, converted: the right logits in every window."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from ordinary import images, ordinary
from torch import nn

from fcnconv.convert import EXACT, TOLERANCE, converted_geometry, convolutionize
from fcnconv.models import models
from fcnconv.models.checkpoint import skeleton
from fcnconv.models.torchvision import FROM_TENSORFLOW, make_network

BODIES = ("features", "trunk_output", "layer4", "Mixed_7c", "inception5b", "conv5", "layers")
"""What torchvision calls the part of a network that makes its last feature map."""

QUICK = ("resnet18", "squeezenet1_1", "mobilenet_v3_small")
"""The smallest network of each kind of head; the others run with ``pytest -m slow``."""

GIANT = (
    "efficientnet_v2_l efficientnet_v2_m efficientnet_b7 efficientnet_b6 efficientnet_b5 regnet_y_128gf "
    "regnet_y_32gf regnet_y_16gf regnet_y_8gf regnet_x_32gf regnet_x_16gf regnet_x_8gf resnext101_64x4d "
    "resnext101_32x8d wide_resnet101_2 wide_resnet50_2 resnet101 convnext_large convnext_base convnext_small "
    "densenet161 densenet201 vgg19_bn vgg19 vgg16_bn vgg16 vgg13_bn vgg13"
).split()
"""Those that take half a minute or more each, and differ from smaller ones in their sizes only: ``pytest -m
giant``.
"""


FIXED = ("alexnet", "vgg")
"""Beginnings of the names of networks that take features of one size only."""


def convolutional() -> Iterator[Any]:
    """Each model once. The quick and the giant ones take their smallest window, regnet_y_128gf 224 instead of
    384 pixels. The others take one of 96 to 159 px that is divided, with the same remainders, by each stride
    up to 64.
    """
    for arch in sorted({spec.arch for spec in models().values()} - {"efficientnet_lite0"}):
        specs = [spec for spec in models().values() if spec.arch == arch]
        if not specs[0].no_fcn:
            window = min(spec.window for spec in specs)
            if arch in QUICK or arch in GIANT:
                marks = [pytest.mark.giant] if arch in GIANT else []
                yield pytest.param(arch, window, marks=marks)
            else:
                small = window if arch.startswith(FIXED) else 96 + (window - 96) % 64
                yield pytest.param(arch, small, marks=pytest.mark.slow)


def logits_of_windows(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The classifier's own head on the six windows of its own last feature map, row by row.

    x: (1, 3, window + stride, window + 2 · stride), so that the map is one cell higher than a window.
    """
    body = next(getattr(model, name) for name in BODIES if hasattr(model, name))

    def cut(_module: nn.Module, _inputs: object, features: torch.Tensor) -> torch.Tensor:
        size = features.shape[2] - 1
        windows = [features[:, :, r : r + size, c : c + size] for r in range(2) for c in range(3)]
        return torch.cat(windows)

    handle = body.register_forward_hook(cut)
    try:
        result: torch.Tensor = model(x)
        return result
    finally:
        handle.remove()


@pytest.mark.parametrize(("arch", "window"), list(convolutional()))
def test_converts(arch: str, window: int) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        model = ordinary(make_network(arch, window), window)
        network = convolutionize(model, window)
        geometry = network.geometry
        assert network.proof.relative_error <= EXACT
        assert network.proof.scale > 1e-2
        assert geometry.stride == (16 if arch.startswith("squeezenet") else 32)

        # One larger region, not square: each cell is the classifier's own head on its window of features.
        x = images(1, window + geometry.stride, window + 2 * geometry.stride)
        expected = logits_of_windows(model, x).reshape(2, 3, -1)
        logits = network(x)[0].permute(1, 2, 0)
        allowed = max(TOLERANCE, 8 * network.proof.rounding)  # both are float32's
        assert (logits - expected).abs().max() <= allowed * expected.abs().max()

        # The grid's formula, where only shapes are computed.
        network.to("meta")
        for n in range(9):
            height, width = window + geometry.stride * n, window + geometry.stride * (n // 2)
            shape = network(torch.empty(1, 3, height, width, device="meta")).shape
            assert shape == (1, 1000, n + 1, n // 2 + 1)


def test_the_table_is_that_of_the_installed_torchvision() -> None:
    published = {
        f"{model}.{weights.name}": weights
        for model in torchvision.models.list_models(module=torchvision.models)
        for weights in torchvision.models.get_model_weights(model)
        if weights.meta["categories"] is not None
    }
    listed = {name: spec for name, spec in models().items() if "." in name}
    assert set(listed) == set(published)
    for name, weights in published.items():
        spec, preset = listed[name], weights.transforms()
        assert ([spec.window], [spec.eval_size]) == (preset.crop_size, preset.resize_size)
        assert (list(spec.mean), list(spec.std)) == (preset.mean, preset.std)
        assert spec.labels().categories == tuple(weights.meta["categories"])
        facts = spec.published
        assert facts is not None
        assert facts.parameters == weights.meta["num_params"]
        assert facts.accuracy == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert spec.weights.args == (weights.url,)  # type: ignore[attr-defined]
    for arch in {spec.arch for spec in listed.values()}:
        default = torchvision.models.get_model_weights(arch).DEFAULT
        assert models()[arch].published is listed[f"{arch}.{default.name}"].published


@pytest.mark.parametrize(
    "arch",
    [
        "squeezenet1_1",
        "vgg11",
        *(
            pytest.param(arch, marks=pytest.mark.slow)
            for arch in ("inception_v3", "efficientnet_b3", "convnext_tiny")
        ),
    ],
)
def test_the_tables_geometry_is_what_tracing_gives(arch: str) -> None:
    spec = models()[arch]
    found = converted_geometry(skeleton(lambda: make_network(arch, spec.window)).to("meta"), spec.window)
    assert spec.published is not None
    known = spec.published.stride, spec.published.receptive_field, spec.published.local
    assert (found.stride, found.receptive_field, found.local) == known


@pytest.mark.parametrize(
    "arch",
    [
        "googlenet",
        "densenet121",
        *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("inception_v3", "vit_b_32")),
    ],
)
def test_published_weights_build_the_network_of_torchvision(arch: str, tmp_path: Path) -> None:
    """A file like the published one, with its auxiliary heads and older names, in our way and in theirs."""
    torch.manual_seed(0)
    spec, more = models()[arch], {}
    if arch in FROM_TENSORFLOW:
        more = {"transform_input": True, "init_weights": False}  # what torchvision sets for its weights
    theirs = torchvision.models.get_model(arch, weights=None, **more).eval()
    state = theirs.state_dict()
    if arch == "densenet121":
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n): t for n, t in state.items()}
    torch.save(state, tmp_path / "w.pth")
    ours, x = spec.build(tmp_path / "w.pth"), images(1, spec.window, spec.window)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
