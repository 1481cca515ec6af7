"""The receptive field and locality that tracing gives, against what a change of the input really reaches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ordinary import images, ordinary
from torch import nn

from fcnconv.convert import convolutionize
from fcnconv.convert.library_layers import plain
from fcnconv.errors import ConversionError
from fcnconv.models import find_model


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = x * self.gate(x)
        return scaled


class SamePadded(nn.Conv2d):
    """Pads as TensorFlow does, by the size of what comes, and standardises its weights each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            pad = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) * 2
        return F.conv2d(F.pad(x, pads), weight, self.bias, self.stride)


class NormAct(nn.BatchNorm2d):
    """A normalisation with its activation in it."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.ndim == 4, "not a batch of maps")
        result: torch.Tensor = self.act(super().forward(x))
        return result


class Careful(nn.Conv2d):
    """Pads what is too small for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] < 3:
            x = F.pad(x, (2, 2, 2, 2))
        return super().forward(x + 0)


class Meddling(nn.Conv2d):
    """Weights that follow from the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * x.mean().tanh(), self.bias, self.stride)


class ChannelMean(nn.Module):
    """What all channels of a cell say, also with the channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + x.square().mean(1, keepdim=True)
        last = x.permute(0, 2, 3, 1)
        return (last + last.mean(3, keepdim=True)).permute(0, 3, 1, 2)


HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
BODIES = {
    "plain": [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 5, 2, 2)],
    "dilated": [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 2, dilation=2)],
    "pooled": [nn.Conv2d(3, 6, 3, 1, 1), nn.AvgPool2d(4, 4), nn.Conv2d(6, 6, 3, 1, 1)],
    "padded apart": [nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(3, 6, 5, 2), nn.ConstantPad2d(1, 0.0),
                     nn.Conv2d(6, 6, 4, 2)],
    "oblong": [nn.Conv2d(3, 6, (1, 7), 4, (0, 3)), nn.Conv2d(6, 6, (3, 1), 1, (1, 0))],
    "same padding by size": [SamePadded(3, 6, 3, 2), NormAct(6), SamePadded(6, 6, 4, 2)],
    "decided by size": [nn.Conv2d(3, 6, 3, 2, 1), Careful(6, 6, 3, 2, 1)],
    "means of channels": [nn.Conv2d(3, 6, 3, 4, 1), ChannelMean()],
    "squeezed": [nn.Conv2d(3, 6, 3, 4, 1), SqueezeExcite(6)],
}  # fmt: skip


def reached(features: nn.Module, size: int, cell: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, and column, of the pixels whose gradient at a feature cell is not zero."""
    x = images(1, size, size).requires_grad_()
    features(x)[0, :, cell, cell].sum().backward()
    assert x.grad is not None
    rows, cols = torch.nonzero(x.grad.abs().sum((0, 1)), as_tuple=True)
    return (int(rows.min()), int(rows.max())), (int(cols.min()), int(cols.max()))


@pytest.mark.parametrize("name", BODIES)
def test_the_field_is_what_a_cell_sees(name: str) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(*BODIES[name])
    model = ordinary(nn.Sequential(body, *HEAD), 32)
    geometry = convolutionize(model, 32).geometry
    spans = reached(body, 96, 12)
    largest = max(last - first + 1 for first, last in spans)
    assert geometry.stride == 4
    if name == "squeezed":
        assert not geometry.local
        assert largest > 90 > geometry.receptive_field
    else:
        assert (geometry.local, geometry.receptive_field) == (True, largest)


@pytest.mark.parametrize("name", [name for name in BODIES if name != "squeezed"])
def test_the_halo_is_enough_and_rounded_up_from_what_is_needed(name: str) -> None:
    torch.manual_seed(0)
    model = ordinary(nn.Sequential(*BODIES[name], *HEAD), 32)
    network = convolutionize(model, 32).double()
    halo, stride = network.geometry.halo, network.geometry.stride
    x = images(1, 128, 128).double()
    start = 48
    with torch.no_grad():
        whole = network(x)[:, :, start // stride, start // stride]
        edge = slice(start - halo, start + 32 + halo)
        cell = halo // stride
        torch.testing.assert_close(network(x[:, :, edge, edge])[:, :, cell, cell], whole, rtol=0, atol=1e-12)
        less = slice(start - halo + stride, start + 32 + halo - stride)
        error = (network(x[:, :, less, less])[:, :, cell - 1, cell - 1] - whole).abs().max()
        assert error > 1e-6


def test_one_pixel_moves_the_cells_of_lite0_that_it_should() -> None:
    spec = find_model("efficientnet_lite0")
    network = convolutionize(spec.build(spec.weights()), spec.window)
    geometry = network.geometry
    assert (geometry.receptive_field, geometry.halo, geometry.local) == (851, 448, True)
    size = spec.window + 32 * 24
    x = images(1, 32 * 9, size)
    moved = x.clone()
    moved[:, :, :, 0] += 10
    with torch.no_grad():
        changed = (network(x) != network(moved)).any(1)[0].any(0)
    # Column 0 is read by the features up to (851 - 1) / 2 px right of it: cells 0 to 13, and none further.
    last = int(torch.nonzero(changed).max())
    assert 10 <= last <= geometry.halo // geometry.stride
    assert not changed[last + 1 :].any()


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_a_tile_of_an_enlarging_network_equals_the_whole(mode: str) -> None:
    """Of a map that was made smaller and larger again, cells differ in what they see by where they lie."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, 8, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode)]
    model = ordinary(nn.Sequential(*layers, nn.Conv2d(6, 6, 3, 2, 1), *HEAD), 32)
    network = convolutionize(model, 32).double()
    halo, stride = network.geometry.halo, network.geometry.stride
    assert (stride, network.geometry.local) == (8, True)
    x, tile = images(1, 192, 192).double(), slice(64 - halo, 64 + 32 + 3 * stride + halo)
    with torch.no_grad():
        whole = network(x)[:, :, 8:12, 8:12]
        found = network(x[:, :, tile, tile])[:, :, halo // 8 :, halo // 8 :][:, :, :4, :4]
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_cells_closer_than_the_largest_stride_are_refused() -> None:
    layers = [nn.Conv2d(3, 6, 3, 8, 1), nn.Upsample(scale_factor=2)]
    with pytest.raises(ConversionError, match="give 3 rows and 3 columns, not 2 and 3"):
        convolutionize(ordinary(nn.Sequential(*layers, *HEAD), 32), 32)


def test_sizes_that_do_not_divide_are_no_local_network() -> None:
    layers = [nn.Conv2d(3, 6, 3, 4, 1), nn.Upsample(scale_factor=1.5, mode="nearest"), nn.MaxPool2d(3, 3)]
    model = ordinary(nn.Sequential(*layers, *HEAD), 32)
    assert not convolutionize(model, 32).geometry.local


def test_weights_that_follow_from_the_image_are_left_as_they_are() -> None:
    assert plain(nn.Sequential(SamePadded(3, 6, 3, 2)), images(1, 32, 32))[0][1].weight.dtype == torch.float64
    layer = nn.Sequential(Meddling(3, 6, 3, 2))
    assert plain(layer, images(1, 32, 32)) is layer


def test_a_network_that_decides_otherwise_by_size_is_refused() -> None:
    class Fickle(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 2 if x.shape[2] > 40 else x)

    with pytest.raises(
        ConversionError, match="at 96 × 64 px the classifier's code does not compute the same"
    ):
        convolutionize(ordinary(nn.Sequential(Fickle(3, 6, 3, 4, 1), *HEAD), 32), 32)
