"""Scales, stores and estimates: through small maps, and through the command on the embedded model."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.ops import SqueezeExcitation

from fcnconv.api.classifier import Classifier
from fcnconv.api.loading import load
from fcnconv.backends import BACKENDS
from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource
from fcnconv.labels import numbered
from fcnconv.options import OWN_SIZE, ScanOptions
from fcnconv.options.parsing import parse_memory, parse_scales
from fcnconv.scan.multiscale import Join, joined
from fcnconv.scan.rectangles import block_cells, spans
from fcnconv.scan.stages import KeptCells, PixelCells, Stage, chain
from fcnconv.scan.tiling import FIXED, KEPT_SLACK, Stages, _tiling, choose, choose_all
from fcnconv.scores import Block, FloatArray
from fcnconv.scores.activations import softmax


@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(64, 200), st.integers(64, 200)),
    factors=st.lists(st.sampled_from([1.0, 0.7, 0.5, 0.33]), min_size=2, max_size=3, unique=True),
    seed=st.integers(0, 99),
)
@example(size=(170, 160), factors=[0.5, 1.0, 0.33], seed=67)  # a centre on the end of a window
def test_a_joined_map_takes_the_best_of_the_nearest_windows(
    size: tuple[int, int], factors: list[float], seed: int
) -> None:
    grids = [Grid(16, 8, size, tuple(max(round(side * factor), 16) for side in size)) for factor in factors]
    rng = np.random.default_rng(seed)
    maps = [rng.normal(0, 3, (grid.rows, grid.cols, 4)).astype(np.float32) for grid in grids]
    grid = max(grids, key=lambda grid: grid.rows * grid.cols)
    highest, best = collected(maps, grids, "max")
    mean, _ = collected(maps, grids, "mean")
    finest, best_finest = collected(maps, grids, "finest")
    row, col = rng.integers(grid.rows), rng.integers(grid.cols)
    found = []
    for other, scores in zip(grids, maps, strict=True):  # by looking at every window's centre
        y = ((row * 8 + 8) * other.scan_size[1] / grid.scan_size[1] - 8) / 8
        x = ((col * 8 + 8) * other.scan_size[0] / grid.scan_size[0] - 8) / 8
        rows, cols = abs(np.arange(other.rows) - y), abs(np.arange(other.cols) - x)
        near = [
            scores[i, j]
            for i in np.flatnonzero(rows <= rows.min() + 1e-9)
            for j in np.flatnonzero(cols <= cols.min() + 1e-9)
        ]
        found.append([softmax(cell) for cell in near])
    if all(len(cells) == 1 for cells in found):
        cells = np.array([cells[0] for cells in found])
        assert np.allclose(np.exp(highest[row, col]), cells.max(0), atol=1e-5)
        assert np.allclose(np.exp(mean[row, col]), cells.mean(0), atol=1e-5)
        first = highest[row, col].argmax()
        assert np.isclose(cells[best[row, col], first], cells[:, first].max(), atol=1e-5)
    k, centre = int(rng.integers(4)), [(8 * n + 8) for n in (row, col)]
    told = [softmax(maps[grids.index(grid)])[row, col, k]]
    for other, scores in zip(grids, maps, strict=True):
        if other != grid:
            kept = np.array(
                [
                    [
                        softmax(scores)[i, j, k] * (1 - known(k, other, (i, j), grids, maps) ** 4)
                        for j in range(other.cols)
                    ]
                    for i in range(other.rows)
                ]
            )
            y, x = (
                (at * theirs / ours - 8) / 8
                for at, theirs, ours in zip(centre, other.scan_size[::-1], grid.scan_size[::-1], strict=True)
            )
            down = [np.interp(y, range(other.rows), column) for column in kept.T]
            told.append(np.interp(x, range(other.cols), down))
    assert np.isclose(np.exp(finest[row, col, k]), max(told), atol=1e-5)
    assert best_finest.max() < len(grids)


def known(k: int, grid: Grid, cell: tuple[int, int], grids: list[Grid], maps: list[FloatArray]) -> float:
    """How far finer windows in a window of a coarser grid, or in windows that are in it, have class k too."""
    order = sorted(grids, key=lambda other: other.rows * other.cols)
    finest, probabilities = order[-1], {g: softmax(m) for g, m in zip(grids, maps, strict=True)}

    def highest_in(level: int, row: int, col: int) -> float:
        """Of class k, in finer windows whose centres lie in this one."""
        if order[level] == finest:
            return 0.0
        mine, finer = order[level], order[level + 1]
        inside = [
            max(float(probabilities[finer][i, j, k]), highest_in(level + 1, i, j))
            for i in range(finer.rows)
            for j in range(finer.cols)
            if all(
                8 * at / ours <= (8 * n + 8) / theirs < (8 * at + 16) / ours
                for at, n, ours, theirs in zip(
                    (col, row), (j, i), mine.scan_size, finer.scan_size, strict=True
                )
            )
        ]
        return max(inside, default=0.0)

    own = float(probabilities[grid][cell][k])
    return min(highest_in(order.index(grid), *cell) / min(own, 0.5), 1)


def collected(maps: list[FloatArray], grids: list[Grid], join: Join) -> tuple[FloatArray, ...]:
    """The joined logits and best scales, the finest map given in blocks of two rows and three columns."""
    order = sorted(range(len(grids)), key=lambda i: maps[i].size)
    blocks = [
        Block(grids[i], rows, cols, maps[i][rows, cols])
        for i in order
        for rows in spans(grids[i].rows, 2)
        for cols in spans(grids[i].cols, 3)
    ]
    finest = maps[order[-1]]
    logits, best = np.full_like(finest, np.nan), np.full(finest.shape[:2], 99, np.uint8)
    for block in joined(blocks, grids, join, 1.0, numbered(finest.shape[2])):
        logits[block.rows, block.cols], best[block.rows, block.cols] = block.logits, block.best_scale
    return logits, best


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((2000, 1100), [(2000, 1100), (1000, 550), (465, 256)]),
        ((640, 480), [(704, 512), (341, 256)]),  # enlarged a little, to whole windows
        ((320, 240), [(544, 416), (341, 256)]),  # enlarged to seven windows
        ((100, 80), [(384, 320), (320, 256)]),  # four times at most
        ((20, 20), [(256, 256)]),
    ],
)
def test_auto_scales_halve_down_to_the_evaluation_size(
    size: tuple[int, int], sizes: list[tuple[int, int]]
) -> None:
    (scale,) = parse_scales("auto")
    assert scale.scan_sizes(size, 256, 224, 32) == sizes


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("500M", 5e8), ("1.5 GiB", 1.5 * 2**30), ("4096", 4096)]
)
def test_amounts_of_memory_are_read(text: str, size: float) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "0", "-1GB", "2XB"])
def test_unknown_amounts_of_memory_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown amount of memory"):
        parse_memory(text)


def part(memory: float, halo: float) -> Stage:
    return Stage(lambda x: x, 4, 1, 1, 0, 0, halo, 7, memory, 1e6)


@settings(max_examples=40)
@given(rows=st.integers(0, 400), cols=st.integers(0, 400), limit=st.floats(3e6, 1e9), halo=st.integers(0, 40))
def test_a_tiling_keeps_to_the_limit_or_is_the_least_there_is(
    rows: int, cols: int, limit: float, halo: int
) -> None:
    parts = Stages(part(2e4, halo), lambda: (part(2e4, 2), part(3e3, 8)))
    tiling = choose(parts, (rows, cols), limit)
    smallest = choose(parts, (rows, cols), 1.0)
    assert tiling.memory <= max(limit, smallest.memory)
    assert choose(parts, (rows, cols), 1e15).tiles == 1


def test_coarse_scales_are_not_cut_into_smaller_blocks_than_the_finest() -> None:
    """A photo of 4 megapixels in the memory that a batch gives it, of which `FIXED` is half."""
    parts = Stages(part(2e5, 60), lambda: (part(5e4, 2), part(5e4, 8), part(5e4, 8)))
    sizes = (384, 256), (612, 408), (1224, 817), (2449, 1634)
    grids = [Grid(224, 32, sizes[-1], size) for size in sizes]
    *coarse, finest = choose_all(parts, grids, 2 * FIXED).values()
    assert all(each.in_stages and each.memory <= 2 * FIXED for each in (*coarse, finest))
    assert sum(each.multiply_adds for each in coarse) < finest.multiply_adds


def test_a_cat_of_any_size_is_found_by_auto_scales(lite0: Classifier) -> None:
    """One cat at three sizes on a plain ground; each is cat where it lies, at a scale of its own."""
    canvas = Image.new("RGB", (2000, 1000), (92, 96, 102))
    with Image.open(SAMPLES / "chelsea.png") as photo:
        cat = photo.convert("RGB").crop((75, 0, 375, 300))
    places = {1000: (0, 0), 500: (1060, 40), 250: (1660, 620)}
    for side, place in places.items():
        canvas.paste(cat.resize((side, side), Image.Resampling.LANCZOS), place)
    score_map = lite0(canvas, scales="auto")
    probabilities = score_map.probabilities()[:, :, 281:286].sum(-1)  # tabby to Egyptian cat
    used = set()
    for side, (x, y) in places.items():
        rows = [r for r in range(score_map.grid.rows) if y <= r * 32 + 112 < y + side]
        cols = [c for c in range(score_map.grid.cols) if x <= c * 32 + 112 < x + side]
        part = probabilities[np.ix_(rows, cols)]
        assert part.max() > 0.5, f"the cat of {side} px"
        row, col = np.unravel_index(part.argmax(), part.shape)
        assert score_map.best_scale is not None
        used.add(int(score_map.best_scale[rows[row], cols[col]]))
        x0, y0, x1, y1 = score_map.box(rows[row], cols[col])
        assert x0 < x + side and x1 > x and y0 < y + side and y1 > y
    assert len(used) >= 2


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.slow if name != "onnx" else ()) for name in BACKENDS]
)
def test_a_map_in_little_memory_is_that_of_one_piece(backend: str) -> None:
    lite0 = load("efficientnet_lite0", backend=backend)
    pixels = np.asarray(Image.open(SAMPLES / "collage.jpg").convert("RGB"))
    memory = 400e6
    if backend == "openvino":  # of a large photo it would be a thousand tiles, each nearly all halo
        pixels, memory = pixels[:480, :640], 60e6
    small = replace(lite0, memory=memory)
    (grid,) = lite0.grids(MemorySource(pixels), OWN_SIZE)
    (tiling,) = small.plan_dense(MemorySource(pixels), [grid]).tilings.values()
    if backend == "openvino":  # whose parts would each hold memory of their own
        assert tiling.tiles > 1
    else:
        assert len(tiling.stages) > 1 and tiling.blocks[0] < tiling.blocks[-1]
    whole = lite0(pixels, anchors=0).logits
    close = 0 if backend == "torch" else 1e-5 * np.abs(whole).max()
    assert np.abs(small(pixels, anchors=0).logits - whole).max() <= close


def test_memory_that_is_not_enough_is_told(lite0: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.zeros((256, 288, 3), np.uint8)
    list(replace(lite0, memory=1e6).scan(pixels))
    assert "1 MB of memory are not enough; this scan takes about" in caplog.text
    caplog.clear()
    list(lite0.scan(pixels))
    assert not caplog.records


def test_a_store_keeps_the_best_classes(fcnconv: Command, tmp_path: Path) -> None:
    image = SAMPLES / "coffee.png"
    done = fcnconv("heatmap", image, "-o", tmp_path / "top.npz", "--store", "top-k", "-k", "3")
    assert done.returncode == 0, done.stderr
    assert fcnconv("heatmap", image, "-o", tmp_path / "all.npz").returncode == 0
    with np.load(tmp_path / "top.npz") as top, np.load(tmp_path / "all.npz") as whole:
        assert top["class_idx"].dtype == np.uint16 and top["probability"].dtype == np.float16
        expected = np.sort(whole["scores"], -1)[:, :, :-4:-1]
        assert np.allclose(top["probability"], expected, atol=1e-3)
        picked = np.take_along_axis(whole["scores"], top["class_idx"].astype(int), -1)
        assert np.allclose(picked, expected)
        assert int(top["stride"]) == int(whole["stride"])


def test_parts_that_hold_their_memory_are_counted_together(lite0: Classifier) -> None:
    parts = lite0.network.stages.cut()
    holding = replace(lite0.network.stages, cut=lambda: tuple(replace(part, holds=True) for part in parts))
    shared = choose(lite0.network.stages, (400, 400), 1e9, in_stages=True)
    held = choose(holding, (400, 400), 1e9, in_stages=True)
    assert shared.memory <= 1e9 and held.memory <= 1e9
    assert held.multiply_adds > shared.multiply_adds  # its blocks are smaller
    alike = replace(shared, stages=holding.cut())
    assert _tiling(alike.stages, (400, 400), alike.blocks).memory > 1.5 * shared.memory


def test_a_dry_run_says_what_it_would_cost(fcnconv: Command) -> None:
    dry = ("heatmap", SAMPLES / "coffee.png", "--dry-run", "--precision", "float32")
    done = fcnconv(*dry, "--scales", "1,2")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.decode().splitlines()
    assert "600 × 400 px, stride 32: 6 × 12 windows in one piece" in first
    assert "1200 × 800 px" in second and "multiply-adds" in second
    done = fcnconv(*dry, "--mode", "windows", "-o", "map.json")
    (scanning,) = done.stdout.decode().splitlines()
    assert "72 crops" in scanning


def test_an_estimate_grows_with_the_work(lite0: Classifier) -> None:
    source = MemorySource(np.zeros((1024, 2048, 3), np.uint8))
    small, large = lite0.plan(source, ScanOptions(scales=parse_scales("0.5,1"), anchors=0)).estimate(
        lite0.open_crops
    )
    ratio = (64 * 32) / (32 * 16)  # whole images, in strides: all that is computed
    assert large.tiling.multiply_adds / small.tiling.multiply_adds == pytest.approx(ratio)
    assert large.seconds / small.seconds == pytest.approx(ratio)
    (cut,) = replace(lite0, memory=400e6).plan(source, ScanOptions(anchors=0)).estimate(lite0.open_crops)
    assert cut.tiling.multiply_adds > large.tiling.multiply_adds  # the halos


def test_the_finer_map_of_a_photo_contains_the_coarse_one(lite0: Classifier) -> None:
    fine = load("efficientnet_lite0", stride=16)(SAMPLES / "coffee.png", anchors=0)
    coarse = lite0(SAMPLES / "coffee.png", anchors=0)
    assert fine.logits.shape[:2] == (12, 24)  # a row more than twice the coarse one's
    assert np.abs(fine.logits[::2, ::2] - coarse.logits).max() <= 1e-5


@given(rows=st.integers(1, 300), cols=st.integers(1, 300), limit=st.floats(1e5, 1e8))
@settings(max_examples=25)
def test_what_is_kept_between_stages_is_what_was_expected(rows: int, cols: int, limit: float) -> None:
    """Parts that pass their input on, two cells of halo on either side: no run of one sees a cell twice in a
    row of blocks, and the arrays that keep rows have the bytes of the estimate.
    """
    parts = tuple(
        Stage(lambda x: x, 3, 5, 1, 2, 2, 4, 5, memory, work)
        for memory, work in ((9e3, 1e3), (3e3, 2e3), (1e3, 4e3))
    )
    whole = replace(parts[0], memory=1e9)
    tiling = choose(Stages(whole, lambda: parts), (rows - 1, cols - 1), FIXED + limit)
    assume(len(tiling.stages) > 1)
    pixels = np.random.default_rng(0).random((3, rows + 4, cols + 4), np.float32)
    image = PixelCells(lambda box: pixels[None, :, box[1] : box[3], box[0] : box[2]], 5, 1)
    high, wide = block_cells(tiling.stages, tiling.blocks)
    rects = [(down, across) for down in spans(rows + 4, high) for across in spans(cols + 4, wide)]
    top = chain(image, tiling.stages, tiling.blocks, (rows - 1, cols - 1), rects)
    found = np.full_like(pixels, np.nan)
    for down, across in rects:
        found[:, down, across] = top.compute(down.start, down.stop, across.start, across.stop)
    assert np.array_equal(found, pixels)
    kept, below = 0, top.below
    while isinstance(below, KeptCells):
        kept, below = kept + below.kept.nbytes, below.below
    assert tiling.memory >= KEPT_SLACK * kept + FIXED


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_scan_takes_the_memory_that_it_was_given() -> None:
    """In a process of its own, of which the system tells the peak."""
    script = """
import re, fcnconv.options, numpy as np
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
lite0 = fcnconv.load(backend="torch", max_memory="800MB")
lite0(np.zeros((256, 256, 3), np.uint8))
before, pixels = peak(), np.random.default_rng(0).integers(0, 256, (2500, 4000, 3), np.uint8)
(grid,) = lite0.grids(source := lite0.open(pixels), fcnconv.options.OWN_SIZE)
assert lite0.plan_dense(source, [grid]).tilings[grid].in_stages
for block in lite0.scan(source):
    del block
print(peak() - before - pixels.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 100e6 < int(done.stdout) <= 800e6


def test_a_network_that_sees_the_whole_image_is_marked_when_it_is_cut(caplog) -> None:
    """Squeeze-and-excitation in a small network of its own: tiles change its scores, and that is said."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        SqueezeExcitation(8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    own = load(model, window=32, categories=list("abcde"), backend="torch")
    assert not own.geometry.local
    pixels = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    assert own(pixels, anchors=0).provenance.tiles == 1 and not caplog.records
    cut = replace(own, memory=1e5)
    score_map = cut(pixels, anchors=0)
    tiles = score_map.provenance.tiles
    assert tiles > 1
    assert own.network.stages.cut() == (own.network.stages.whole,)
    assert f"is scanned in {tiles} tiles" in caplog.text and "avgpool (AdaptiveAvgPool2d)" in caplog.text
