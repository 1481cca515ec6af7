"""Finer strides and parts, on small seeded networks: the finer map contains the coarse one, its other cells
are those of the shifted image, and a scan in blocks and parts gives the scores of the whole.
"""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnconv.backends.torch import torch_run
from fcnconv.convert import FullyConvolutional, convolutionize
from fcnconv.convert.partition import cut, whole
from fcnconv.errors import ConversionError, UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource
from fcnconv.scan.blocks import scan
from fcnconv.scan.tiling import Stages, Tiling, choose

WINDOW = 32
PIXELS = np.random.default_rng(0).integers(0, 256, (160, 180, 3), dtype=np.uint8)


class Residual(nn.Module):
    """Two branches that are strided at once, as in ResNet; the pool of one is functional."""

    def __init__(self, channels: int):
        super().__init__()
        self.long = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.Hardswish()
        )
        self.short = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.long(x) + self.short(nn.functional.avg_pool2d(x, 2))
        return y


def network(kind: str) -> nn.Module:
    torch.manual_seed(3)
    body = {
        "residual": [nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), Residual(8), Residual(8)],
        "ceil": [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 8, 3)],
        "same": [
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.ReLU()),
            nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(8, 8, 5, 2, groups=8), nn.ReLU()),
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2), nn.ReLU()),
        ],
        "four": [nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)],
    }[kind]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with torch.no_grad():
        model[-1].weight.mul_(30)
    return model.eval()


OWN_STRIDES = {"residual": 8, "ceil": 4, "same": 8, "four": 8}


@cache
def converted(kind: str, stride: int | None = None) -> FullyConvolutional:
    return convolutionize(network(kind), WINDOW, stride)


def prepare(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 64 - 2


def scores(
    pixels: np.ndarray, net: FullyConvolutional, tile: int | None = None, parts: bool = False
) -> np.ndarray:
    g = net.geometry
    height, width, _ = pixels.shape
    grid = Grid(WINDOW, g.stride, (width, height), (width, height), g.phases)

    def tiling(grid: Grid) -> Tiling:
        steps = (grid.rows - 1) // g.phases, (grid.cols - 1) // g.phases
        if parts:
            pieces = cut(net.network, g, lambda part, _: torch_run(part))
            size = tile or 1
            return Tiling(pieces, tuple((size + i, 2 * size - i % 2) for i, _ in enumerate(pieces)), 0, 0, 0)
        part = whole(net.network, g, torch_run(net))
        return choose(Stages(part, lambda: (part,)), steps, 1e12, tile)

    out = np.full((grid.rows, grid.cols, 5), np.nan, np.float32)
    for block in scan(MemorySource(pixels), [grid], prepare, tiling):
        assert np.isnan(out[block.rows, block.cols]).all(), "a cell came twice"
        out[block.rows, block.cols] = block.logits
    assert not np.isnan(out).any()
    return out


STRIDES = [(kind, stride) for kind, own in OWN_STRIDES.items() for stride in (4, 2) if own > stride]
SIZES = {"height": st.integers(WINDOW, 120), "width": st.integers(WINDOW, 120)}


@pytest.mark.parametrize(("kind", "stride"), STRIDES)
@settings(max_examples=6)
@given(**SIZES)
def test_a_finer_map_contains_the_coarse_one_at_every_size(
    kind: str, stride: int, height: int, width: int
) -> None:
    pixels = np.ascontiguousarray(PIXELS[:height, :width])
    net = converted(kind, stride)
    coarse, fine = scores(pixels, converted(kind)), scores(pixels, net)
    q = net.geometry.phases
    assert q == OWN_STRIDES[kind] // stride > 1
    assert fine.shape[:2] == ((height - WINDOW) // stride + 1, (width - WINDOW) // stride + 1)
    assert np.abs(fine[::q, ::q] - coarse).max() <= 1e-5


@pytest.mark.parametrize(("kind", "stride"), STRIDES)
def test_cells_far_from_the_edges_are_those_of_the_shifted_image(kind: str, stride: int) -> None:
    net, coarse = converted(kind, stride), converted(kind)
    fine, own = scores(PIXELS, net), coarse.geometry.stride
    far = -(-coarse.geometry.halo // stride)
    for y in range(0, own, stride):
        for x in range(0, own, stride):
            shifted = scores(np.ascontiguousarray(PIXELS[y:, x:]), coarse)
            q = net.geometry.phases
            stitched = fine[y // stride :: q, x // stride :: q][: len(shifted), : shifted.shape[1]]
            margin = -(-far // q) + 1
            inside = slice(margin, -margin)
            assert shifted[inside, inside].size, "the image is too small to tell"
            assert np.abs(stitched[inside, inside] - shifted[inside, inside]).max() <= 1e-5


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize(("kind", "stride"), [*STRIDES, *((kind, None) for kind in OWN_STRIDES)])
@settings(max_examples=4)
@given(**SIZES, tile=st.integers(1, 9))
def test_blocks_and_parts_give_the_scores_of_the_whole(
    kind: str, stride: int | None, parts: bool, height: int, width: int, tile: int
) -> None:
    pixels = np.ascontiguousarray(PIXELS[:height, :width])
    net = converted(kind, stride)
    assert np.abs(scores(pixels, net, tile, parts) - scores(pixels, net)).max() <= 1e-5


def test_a_stage_costs_what_its_layers_do() -> None:
    net = converted("residual")
    part = whole(net.network, net.geometry, torch_run(net))
    # for each step of 8 px: 16 cells of the first convolution, 4 and 1 of each branch; then pool and head
    expected = 16 * 8 * 3 * 25 + (4 + 1) * (8 * 8 * 9 + 8 * 8) + 8 * 5
    assert part.multiply_adds == expected


def test_strides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        UsageError,
        match="stride 3 is not the network's own, 8, divided by a power of two; choose one of 8, 4, 2",
    ):
        converted("residual", 3)


def test_a_layer_that_cannot_be_split_is_named() -> None:
    class Interleaved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool2d(x, 3, 3)

    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), Interleaved(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    with pytest.raises(ConversionError, match=r"AvgPool2d.*has stride 3 × 3, which cannot be halved"):
        convolutionize(model, 36, 3)
