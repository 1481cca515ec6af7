"""A small network, and what names it as a model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fcnconv.labels import numbered
from fcnconv.models import ModelSpec


class Tiny(nn.Module):
    """A three-layer classifier with a 32-px window: float (N, 3, 32, 32) -> logits (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits


def tiny_spec(folder: Path) -> ModelSpec:
    """The network as a model, whose weights are a file in a folder."""
    weights = folder / "tiny.pth"
    torch.save(Tiny().state_dict(), weights)

    def build(path: Path) -> nn.Module:
        model = Tiny()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    mean = std = (0.5, 0.5, 0.5)
    return ModelSpec(
        "tiny", 32, 32, mean, std, lambda: numbered(5), lambda: weights, build, stride=8, arch="tiny"
    )
