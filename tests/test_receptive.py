"""The receptive field and locality that tracing gives, against what a change of the input really reaches."""

from __future__ import annotations

import pytest
import torch
from ordinary import images, ordinary
from torch import nn

from fcnconv.convert import convolutionize
from fcnconv.models import find_model


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = x * self.gate(x)
        return scaled


HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
BODIES = {
    "plain": [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 5, 2, 2)],
    "dilated": [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 2, dilation=2)],
    "pooled": [nn.Conv2d(3, 6, 3, 1, 1), nn.AvgPool2d(4, 4), nn.Conv2d(6, 6, 3, 1, 1)],
    "padded apart": [nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(3, 6, 5, 2), nn.ConstantPad2d(1, 0.0),
                     nn.Conv2d(6, 6, 4, 2)],
    "oblong": [nn.Conv2d(3, 6, (1, 7), 4, (0, 3)), nn.Conv2d(6, 6, (3, 1), 1, (1, 0))],
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
