"""The scan against a naive loop, with a small local network in place of a real one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnconv.backends.torch import torch_run
from fcnconv.convert import convolutionize
from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource, resize
from fcnconv.options.parsing import parse_scales
from fcnconv.scan.blocks import scan
from fcnconv.scan.crops import CropBatcher, score_crops
from fcnconv.scan.network import windows_run
from fcnconv.scan.rectangles import spans
from fcnconv.scan.stages import Stage
from fcnconv.scan.tiling import Stages, choose

torch.manual_seed(0)
WINDOW = 16
MODEL = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1),
    nn.ReLU(),
    nn.Conv2d(8, 8, 3, 2, 1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(8, 5),
).eval()
NETWORK = convolutionize(MODEL, WINDOW)
PIXELS = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def prepare(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 64 - 2


def tiled(run, halo: int, tile: int | None):
    """Cuts every grid into tiles of so many cells; None: one piece."""
    before, window = halo // 4, WINDOW / 4
    part = Stage(run, 5, 1, 1, before, before, window + 2 * before - 1, window - 1, 1.0, 1.0)
    parts = Stages(part, lambda: (part,))
    return lambda grid: choose(parts, (grid.rows - 1, grid.cols - 1), 1e12, tile)


def whole(width: int, height: int, run, halo: int, tile: int | None) -> tuple[Grid, np.ndarray]:
    grid = Grid(WINDOW, 4, (width, height), (width, height))
    logits = np.full((grid.rows, grid.cols, 5), np.nan, np.float32)
    source = MemorySource(np.ascontiguousarray(PIXELS[:height, :width]))
    for block in scan(source, [grid], prepare, tiled(run, halo, tile)):
        assert np.isnan(logits[block.rows, block.cols]).all(), "a cell came twice"
        logits[block.rows, block.cols] = block.logits
    return grid, logits


SIZES = {"width": st.integers(WINDOW, 90), "height": st.integers(WINDOW, 90), "tile": st.integers(1, 20)}


@settings(max_examples=40)
@given(**SIZES)
def test_windows_mode_is_a_loop_over_crops(width: int, height: int, tile: int) -> None:
    grid, logits = whole(width, height, windows_run(torch_run(MODEL), WINDOW, 4, batch=7), 0, tile)
    crops = [
        prepare(PIXELS[y : y + WINDOW, x : x + WINDOW])
        for y in range(0, height - WINDOW + 1, 4)
        for x in range(0, width - WINDOW + 1, 4)
    ]
    with torch.no_grad():
        expected = MODEL(torch.from_numpy(np.concatenate(crops))).numpy()
    assert np.abs(logits - expected.reshape(grid.rows, grid.cols, 5)).max() <= 1e-5


@settings(max_examples=40)
@given(**SIZES)
def test_tiled_scores_equal_untiled_scores(width: int, height: int, tile: int) -> None:
    run, halo = torch_run(NETWORK), NETWORK.geometry.halo
    _, expected = whole(width, height, run, halo, None)
    _, logits = whole(width, height, run, halo, tile)
    assert np.abs(logits - expected).max() <= 1e-6


def test_a_smaller_halo_would_not_do() -> None:
    run, halo = torch_run(NETWORK), NETWORK.geometry.halo
    _, expected = whole(90, 90, run, halo, None)
    _, logits = whole(90, 90, run, halo - 4, 5)
    assert np.abs(logits - expected).max() > 1e-3


@given(count=st.integers(1, 500), size=st.integers(1, 100))
def test_spans_partition_the_grid(count: int, size: int) -> None:
    covered = [i for span in spans(count, size) for i in range(span.start, span.stop)]
    assert covered == list(range(count))


@pytest.mark.parametrize(("length", "cells"), [(224, 1), (255, 1), (256, 2), (500, 9), (1024, 26)])
def test_only_whole_windows_count(length: int, cells: int) -> None:
    grid = Grid(224, 32, (length, 224), (length, 224))
    assert (grid.rows, grid.cols) == (1, cells)


@given(
    image=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    scan_short=st.integers(224, 2000),
    data=st.data(),
)
def test_boxes_lie_in_the_image(image: tuple[int, int], scan_short: int, data: st.DataObject) -> None:
    (scale,) = parse_scales(f"{scan_short}px")
    grid = Grid(224, 32, image, scale.scan_size(image, 256, 224))
    row = data.draw(st.integers(0, grid.rows - 1))
    col = data.draw(st.integers(0, grid.cols - 1))
    x0, y0, x1, y1 = grid.box(row, col)
    assert 0 <= x0 < x1 <= image[0] and 0 <= y0 < y1 <= image[1]


def test_scales_are_read() -> None:
    sizes = [scale.scan_size((600, 400), 256, 224) for scale in parse_scales("1, 2,0.5 ,fit,320px,0.1")]
    # 0.5 and 0.1 would make the short side less than the window
    assert sizes == [(600, 400), (1200, 800), (336, 224), (384, 256), (480, 320), (336, 224)]


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "0px", "px", "1,", "nan", "1e3", "100", "256 px"])
def test_unknown_scales_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown scale"):
        parse_scales(text)


def test_a_resized_source_is_scanned_at_its_new_size() -> None:
    grid = Grid(WINDOW, 4, (300, 200), (60, 40))
    (block,) = scan(
        MemorySource(PIXELS), [grid], prepare, tiled(torch_run(NETWORK), NETWORK.geometry.halo, None)
    )
    resized = resize(MemorySource(PIXELS), (60, 40)).read((0, 0, 60, 40))
    with torch.no_grad():
        expected = NETWORK(torch.from_numpy(prepare(resized)))[0].permute(1, 2, 0).numpy()
    assert np.abs(block.logits - expected).max() < 1e-5


@settings(max_examples=40)
@given(cells=st.lists(st.integers(0, 72 * 47 - 1), min_size=1, max_size=80), ordered=st.booleans())
def test_crops_from_strips_are_crops(cells: list[int], ordered: bool) -> None:
    grid = Grid(WINDOW, 4, (300, 200), (300, 200))
    assert (grid.rows, grid.cols) == (47, 72)
    cells = sorted(cells) if ordered else cells
    corners = [(cell % 72 * 4, cell // 72 * 4) for cell in cells]
    crops = [prepare(PIXELS[y : y + WINDOW, x : x + WINDOW]) for x, y in corners]
    run = torch_run(NETWORK)
    logits = score_crops(MemorySource(PIXELS), grid, cells, run, prepare)
    assert np.abs(logits - run(np.concatenate(crops))[:, :, 0, 0]).max() < 1e-5


def test_crops_that_overlap_are_read_once() -> None:
    grid = Grid(WINDOW, 4, (300, 200), (300, 200))
    boxes = []

    class Watched(MemorySource):
        def read(self, box: tuple[int, int, int, int]) -> np.ndarray:
            boxes.append(box)
            return super().read(box)

    # 0, 4 and 8 touch or overlap; 30 lies alone; the next row begins anew
    cells = np.array([0, 3, 4, 8, 30, 72])
    score_crops(Watched(PIXELS), grid, cells, torch_run(NETWORK), prepare)
    assert boxes == [(0, 0, 48, 16), (120, 0, 136, 16), (0, 4, 16, 20)]


@given(
    st.sets(st.integers(0, 300), max_size=60),
    st.lists(st.sets(st.integers(0, 300), min_size=1, max_size=9), max_size=20),
    st.integers(1, 20),
)
def test_cells_that_are_known_ahead_are_scored_once_and_in_batches(
    known: set[int], asked: list[set[int]], batch: int
) -> None:
    scored: list[int] = []

    def score(cells: np.ndarray) -> np.ndarray:
        scored.extend(cells.tolist())
        return np.stack([cells, -cells], axis=1).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcnconv.scan.crops.AHEAD", batch)
        ahead = CropBatcher(score, np.array(sorted(known), np.int64))
        seen: set[int] = set()
        for cells in asked:
            fresh = sorted(cells - seen)
            if fresh:
                seen |= cells
                assert ahead(np.array(fresh))[:, 0].tolist() == fresh
    assert len(scored) == len(set(scored)), "a cell was scored twice"
    assert set(scored) - known == seen - known


@given(
    window=st.integers(1, 300),
    stride=st.integers(1, 64),
    count=st.integers(1, 50),
)
def test_a_cells_centre_is_the_middle_of_its_window(window: int, stride: int, count: int) -> None:
    side = window + (count - 1) * stride
    grid = Grid(window, stride, (side, side), (side, side))
    centres = grid.centre(np.arange(count, dtype=np.float64))
    boxes = [grid.box(cell, cell) for cell in range(count)]
    assert centres.tolist() == [(box[0] + box[2]) / 2 for box in boxes]
    assert np.allclose(grid.cell_at(centres), np.arange(count))
    assert [grid.nearest(grid, cell, cell) for cell in range(count)] == [
        (cell, cell) for cell in range(count)
    ]
