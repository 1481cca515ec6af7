"""Weights whose tensors have the numbers of a network's children: fastai's learners, and encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fcnconv
from fcnconv.errors import ModelError
from fcnconv.models.checkpoint import read_checkpoint
from fcnconv.models.fitting import fill, fit
from fcnconv.models.spec import HeadActivation, WeightOptions
from fcnconv.models.torchvision import make_network

WINDOW = 64


class AdaptiveConcatPool2d(nn.Module):
    """As fastai writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.ap, self.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.mp(x), self.ap(x)], 1)


def fastai_head(features: int, classes: int, concat: bool = True, lin_first: bool = False) -> nn.Module:
    """fastai's `create_head`."""
    pooled = 2 * features if concat else features
    first: list[nn.Module] = [nn.BatchNorm1d(pooled), nn.Dropout(0.25)]
    second: list[nn.Module] = [nn.BatchNorm1d(32), nn.Dropout(0.5)]
    one, two = nn.Linear(pooled, 32, bias=False), nn.Linear(32, classes, bias=False)
    layers = [*first, one, nn.ReLU(), *second, two]
    if lin_first:
        layers = [nn.Dropout(0.25), one, nn.ReLU(), *second, two]
    return nn.Sequential(AdaptiveConcatPool2d() if concat else nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights and ordinary statistics, in evaluation mode."""
    torch.manual_seed(0)
    network = make()
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


def loaded(arch: str, path: Path, activation: HeadActivation | None = None) -> nn.Module:
    make = partial(make_network, arch, WINDOW)
    options = WeightOptions(head_activation=activation)
    fitted = fit(make, read_checkpoint(path).tensors, str(path), arch, options)
    return fill(fitted.network(make), fitted.tensors, str(path))


@pytest.mark.parametrize(
    ("arch", "cut", "features", "head"),
    [
        ("resnet18", -2, 512, {}),
        ("squeezenet1_1", -1, 512, {"concat": False, "lin_first": True}),
        ("shufflenet_v2_x0_5", -1, 1024, {}),
    ],
)
def test_a_learner_of_fastai(
    arch: str, cut: int, features: int, head: dict[str, Any], tmp_path: Path
) -> None:
    def make() -> nn.Module:
        body = nn.Sequential(*list(make_network(arch, WINDOW).children())[:cut])
        return nn.Sequential(body, fastai_head(features, 5, **head))

    model = seeded(make)
    torch.save({"model": model.state_dict(), "opt": {"hypers": [{"lr": 1e-3}]}}, tmp_path / "learner.pth")
    x = torch.randn(2, 3, WINDOW, WINDOW)
    activation: Any = "relu" if head.get("lin_first") else None
    torch.testing.assert_close(loaded(arch, tmp_path / "learner.pth", activation)(x), model(x))


def average() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


@pytest.mark.parametrize(
    "head",
    [
        [*average(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 3)],
        [*average(), nn.Dropout(), nn.Linear(512, 32), nn.Dropout(), nn.Linear(32, 3)],
        [*average(), nn.Linear(512, 32), nn.GELU(), nn.BatchNorm1d(32), nn.Linear(32, 3)],
        [AdaptiveConcatPool2d(), nn.Flatten(), nn.Linear(1024, 3)],
    ],
    ids=["tanh", "nothing between", "normalisation after", "pooled twice"],
)
def test_a_head_that_fastai_does_not_make_is_not_guessed(head: list[nn.Module], tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Sequential(*list(make_network("resnet18", WINDOW).children())[:-2]), nn.Sequential(*head)
    )
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"does not say how .* pooled.*--head-activation"):
        loaded("resnet18", tmp_path / "w.pth")


def test_a_head_whose_function_is_named_is_built(tmp_path: Path) -> None:
    head = [*average(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 3)]
    body = nn.Sequential(*list(make_network("resnet18", WINDOW).children())[:-2])
    model = seeded(lambda: nn.Sequential(body, nn.Sequential(*head)))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    x = torch.randn(2, 3, WINDOW, WINDOW)
    torch.testing.assert_close(loaded("resnet18", tmp_path / "w.pth", "tanh")(x), model(x))


def test_a_learner_of_timms_network(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="no timm: pip install 'fcnconv[timm]'")

    class TimmBody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = timm.create_model("resnet10t", num_classes=0, global_pool="")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.model.forward_features(x)
            return features

    model = seeded(lambda: nn.Sequential(TimmBody(), fastai_head(512, 5)))
    torch.save(model.state_dict(), tmp_path / "learner.pth")
    net = fcnconv.load(str(tmp_path / "learner.pth"), arch="timm/resnet10t", window=WINDOW, mode="windows")
    x = torch.randn(2, 3, WINDOW, WINDOW)
    torch.testing.assert_close(
        torch.from_numpy(net.run(x.numpy()))[..., 0, 0], model(x), atol=1e-4, rtol=1e-4
    )


def test_a_learner_converts() -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
    model = seeded(lambda: nn.Sequential(body, fastai_head(8, 5)))
    found = fcnconv.convolutionize(model, WINDOW)
    assert "MaxPool2d 16 × 16" in " ".join(found.conversion.changes)


def test_an_encoder_gets_the_names_of_its_children(tmp_path: Path) -> None:
    model = seeded(lambda: make_network("resnet18", WINDOW, 5))
    encoder = nn.Sequential(*list(model.children())[:-1])
    state = {f"net.encoder.{name}": value for name, value in encoder.state_dict().items()}
    state |= {f"net.head.{name}": value for name, value in model.fc.state_dict().items()}
    torch.save(state, tmp_path / "encoder.pth")
    x = torch.randn(2, 3, WINDOW, WINDOW)
    torch.testing.assert_close(loaded("resnet18", tmp_path / "encoder.pth")(x), model(x))


def test_an_encoder_of_a_network_that_is_no_sequence_is_refused(tmp_path: Path) -> None:
    """densenet121 rectifies its features between its two children."""
    model = make_network("densenet121", WINDOW, 5)
    encoder = nn.Sequential(*list(model.children())[:-1])
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save(state | {f"head.{n}": v for n, v in model.classifier.state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="as a sequence, which computes something else than densenet121"):
        loaded("densenet121", tmp_path / "w.pth")
