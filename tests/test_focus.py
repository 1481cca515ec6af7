"""Class activations, and focused maps: against a loop over windows, and what must be true of any."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_network import Tiny
from torch import nn

from fcnconv.api.loading import load, open_classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.convert import convolutionize
from fcnconv.convert.probes import Float64
from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.models import ModelSpec
from fcnconv.options import ALL_SIZES, NetworkOptions, OutputOptions, ScanOptions, Values
from fcnconv.scan.focus import CELL_TEMPERATURE, ScannedScale, ScannedScales, evidence, focused_blocks
from fcnconv.scores.activations import ACTIVATIONS, softmax
from fcnconv.writers import find_writer

K, CLASSES = 3, 4


def a_level(rows: int, cols: int, seed: int = 0, scale: float = 3.0) -> ScannedScale:
    """Random activations, and the windows' logits, which are their means. Three cells of 10 px a window."""
    random = np.random.default_rng(seed)
    activations = scale * random.standard_normal((rows + K - 1, cols + K - 1, CLASSES)).astype(np.float32)
    logits = np.stack(
        [[activations[i : i + K, j : j + K].mean((0, 1)) for j in range(cols)] for i in range(rows)]
    )
    size = (cols + K - 1) * 10, (rows + K - 1) * 10
    windows = Grid(10 * K, 10, size, size)
    return ScannedScale(windows, windows.cells(K), logits.astype(np.float32), activations)


def naive(level: ScannedScale, temperature: float) -> np.ndarray:
    """The focused map of one scale, window by window, as its definition says."""
    a = level.activations
    p, e = softmax(level.logits / temperature), np.maximum(a - a.mean(-1, keepdims=True), 0)
    own = softmax(a / CELL_TEMPERATURE)
    out = np.zeros_like(a)
    for y, x, k in np.ndindex(p.shape):
        inside = e[y : y + K, x : x + K, k]
        if (top := inside.max()) > 0:
            part = out[y : y + K, x : x + K, k]
            np.maximum(part, p[y, x, k] * inside / top, out=part)
    return out * own / own.max((0, 1))


def values(blocks: Any) -> np.ndarray:
    return np.exp(np.concatenate([block.logits for block in blocks]))


@pytest.mark.parametrize("strip", [1, 10_000_000])
def test_a_focused_map_is_what_a_loop_over_windows_gives(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.scores.PIECE_VALUES", strip)  # row by row, and in one
    level = a_level(4, 6)
    found = values(focused_blocks([level], 0.75, "softmax"))
    np.testing.assert_allclose(found, naive(level, 0.75), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_no_value_exceeds_the_surest_window_around_it(activation: Any) -> None:
    level = a_level(5, 4, seed=1)
    found = values(focused_blocks([level], 1.0, activation))
    p = ACTIVATIONS[activation].probabilities(level.logits)
    for i, j in np.ndindex(found.shape[:2]):
        around = p[max(i - K + 1, 0) : i + 1, max(j - K + 1, 0) : j + 1].max((0, 1))
        assert (found[i, j] <= around * (1 + 1e-5)).all()
    assert found.max() > 0.5 * p.max()  # and it is no map of nothing


def test_the_mean_over_scales_counts_those_that_cover_a_cell() -> None:
    fine = a_level(6, 6, seed=2)
    whole = values(focused_blocks([fine], 1.0, "softmax"))
    grid = Grid(10 * K, 10, fine.windows.image_size, (44, 40))  # its last 4 columns lie in no window
    small = a_level(2, 2, seed=3)
    coarse = ScannedScale(grid, grid.cells(K), small.logits, small.activations)
    assert (grid.rows, grid.cols) == (2, 2)
    both = values(focused_blocks([fine, coarse], 1.0, "softmax"))
    own = softmax(coarse.activations / CELL_TEMPERATURE).max((0, 1))
    ours = softmax(fine.activations / CELL_TEMPERATURE).max((0, 1))
    np.testing.assert_allclose(both[:, -1], whole[:, -1] * ours / np.maximum(own, ours), rtol=1e-4, atol=1e-7)
    assert np.abs(both[:, 0] - whole[:, 0]).max() > 1e-3


def test_cells_that_are_not_looked_at_stay_empty() -> None:
    level = a_level(4, 4, seed=4)
    level.logits[:, 2:] = np.nan
    found = values(focused_blocks([level], 1.0, "softmax"))
    assert np.isnan(found[:, 4:]).all() and not np.isnan(found[:, :4]).any()
    inside = np.zeros(found.shape[:2], np.bool_)
    inside[1:3, 1:3] = True
    found = values(focused_blocks([level], 1.0, "softmax", inside))
    assert (np.isnan(found[:, :, 0]) == ~inside).all()


def test_evidence_of_a_single_class_is_not_nothing() -> None:
    assert (evidence(np.zeros((1, 1, 1), np.float32), "sigmoid") > 0).all()


class Hidden(nn.Module):
    """A head with a layer that is not linear between the average and the logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 8, 8, 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.Hardswish(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return out


class Flat(nn.Module):
    """A head that gives each place in the window weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x).flatten(1))
        return out


@pytest.mark.parametrize("stride", [None, 2])
def test_the_mean_of_a_windows_activations_is_its_logit(stride: int | None) -> None:
    network = convolutionize(Tiny(), 32, stride)
    head, phases = network.conversion.cell_head, network.geometry.phases
    assert head.exact and head.cells == 8 and network.joint is not None
    x = torch.randn(1, 3, 32 + 4 * 3, 32 + 4 * 2)
    with Float64(), torch.no_grad():
        logits, joint = network.network(x), network.joint(x)
    activations, beside = joint.chunk(2, dim=1)
    rows, cols = logits.shape[2:]
    assert float((beside[:, :, :rows, :cols] - logits).abs().max()) < 1e-9
    for i, j in np.ndindex(rows, cols):
        of_window = activations[:, :, i : i + 8 * phases : phases, j : j + 8 * phases : phases]
        assert float((of_window.mean((2, 3)) - logits[:, :, i, j]).abs().max()) < 1e-9


def test_logits_are_means_of_activations_only_where_float32_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def layers() -> set[str]:
        joint = convolutionize(Tiny(), 32).joint
        assert joint is not None
        return {name for name, _ in joint.named_children()}

    assert "mean_of_activations" in layers()
    monkeypatch.setattr("fcnconv.convert.class_activations.TOLERANCE", -1)
    assert "mean_of_activations" not in layers()


def test_a_head_that_is_not_linear_is_marked_approximate() -> None:
    head = convolutionize(Hidden(), 32).conversion.cell_head
    assert head.cells == 4 and not head.exact and 1e-4 < head.error < 1


def test_a_head_without_an_average_has_no_activations() -> None:
    network = convolutionize(Flat(), 32)
    assert network.joint is None and not network.conversion.cell_head.exact
    assert "average" in network.conversion.cell_head.reason


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    small.resize((120, 91), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("stride", [None, 2])
def test_activations_do_not_depend_on_the_tiling(
    spec: ModelSpec, photo: Path, backend: Any, stride: int | None
) -> None:
    classifier = open_classifier(spec, NetworkOptions(backend=backend, stride=stride))
    plain = classifier(photo)
    whole = classifier(photo, map="activations")
    grid, cells = plain.grid, classifier.network.cell_head.cells
    phases = grid.phases
    assert whole.shape[:2] == (grid.rows + (cells - 1) * phases, grid.cols + (cells - 1) * phases)
    for i, j in ((0, 0), (grid.rows - 1 - (grid.rows - 1) % phases, 0), (grid.rows // 2, grid.cols // 2)):
        of_window = whole.logits[i : i + cells * phases : phases, j : j + cells * phases : phases]
        np.testing.assert_allclose(of_window.mean((0, 1)), plain.logits[i, j], rtol=1e-3, atol=1e-5)
    same = {"onnx": np.testing.assert_array_equal, "torch": partial(np.testing.assert_allclose, atol=1e-6)}
    for memory in (400e6, 1e5):
        small = replace(classifier, memory=memory)(photo, map="activations")
        same[backend](small.logits, whole.logits)
        windows = ScoreMap.collect(small.info.others["windows"]())  # means of activations
        np.testing.assert_allclose(windows.logits, plain.logits, rtol=1e-3, atol=1e-5)


def test_cells_lie_where_the_image_is(spec: ModelSpec, photo: Path) -> None:
    classifier = open_classifier(spec, NetworkOptions())
    grid = classifier(photo, map="focused").grid
    assert grid.square(0, 0)[:2] == (0, 0)
    assert grid.square(grid.rows - 1, grid.cols - 1)[2:] == (120, 88)  # whole windows of 32 px, 4 px apart


def test_a_focused_map_answers_as_classify_does(spec: ModelSpec, photo: Path) -> None:
    classifier = open_classifier(spec, NetworkOptions())
    expected = classifier.classify(photo).predictions[0]
    for options in (
        ScanOptions(map="focused", scales=None).for_display(),
        ScanOptions(region=(0, 0, 60, 60)),
    ):
        found = ScoreMap.collect(classifier.stream(photo, options))
        assert found.info.answer is not None
        first = found.info.answer().predictions[0]
        assert (first.category, round(first.probability, 4)) == (
            expected.category,
            round(expected.probability, 4),
        )


def test_the_results_of_a_scan_are_freed_with_its_map(spec: ModelSpec, photo: Path) -> None:
    """At once: cycles of references would hold the arrays of many images."""
    classifier = open_classifier(spec, NetworkOptions())
    gc.collect()
    gc.disable()
    try:
        score_map = classifier(photo, map="focused", scales="auto")
        score_map.save(photo.with_suffix(".html"))  # reads maps of all kinds
        held = [weakref.ref(each) for each in gc.get_objects() if type(each) is ScannedScales]
        assert held
        del score_map
        assert not any(each() for each in held)
    finally:
        gc.enable()


def test_crops_alone_have_no_activations(
    spec: ModelSpec, photo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = open_classifier(spec, NetworkOptions(mode="windows"))
    with caplog.at_level("INFO", "fcnconv"):
        maps = [classifier(photo, map="focused") for _ in range(2)]
    assert maps[0].info.kind == "windows"
    assert sum("shows windows" in record.message for record in caplog.records) == 1


def test_the_arrays_of_activations_lie_beside_those_of_the_windows(spec: ModelSpec, photo: Path) -> None:
    out = photo.with_suffix(".npz")
    classifier = open_classifier(spec, NetworkOptions())
    classifier(photo, map="activations").save(out)
    plain = classifier(photo)
    with np.load(out) as arrays:
        assert arrays["scores"].shape == plain.shape and arrays["activation_window"] == 4
        cells = int(plain.grid.window / arrays["activation_stride"])
        assert arrays["activations"].shape[:2] == tuple(n + cells - 1 for n in plain.shape[:2])
        np.testing.assert_allclose(
            arrays["activations"][:cells, :cells].mean((0, 1)), plain.logits[0, 0], rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    ("scan", "values"),
    [
        (ScanOptions(map="focused", join="max"), "probabilities"),
        (ScanOptions(map="focused"), "logits"),
        (ScanOptions(map="activations", scales=ALL_SIZES), "probabilities"),
    ],
)
def test_what_a_kind_of_map_cannot_have_is_refused(scan: ScanOptions, values: Values) -> None:
    with pytest.raises(UsageError, match=r"--map|focused"):
        find_writer("map.npy", options=OutputOptions(values=values), scan=scan)


def test_an_approximate_network_gives_maps_too(photo: Path) -> None:
    classifier = load(Hidden(), window=32, mean=(0.5,) * 3, std=(0.5,) * 3, categories=list("abcde"))
    found = classifier(photo, map="focused")
    assert found.info.kind == "focused" and np.isfinite(found.probabilities()).all()


def test_a_large_jpeg_is_answered_as_classify_answers_it(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).resize((600, 400), Image.Resampling.NEAREST).save(path, quality=60)
    classifier = open_classifier(spec, NetworkOptions())
    for options in (ScanOptions(), ScanOptions().for_display()):
        found = ScoreMap.collect(classifier.stream(path, options)).info.answer
        assert found is not None and found() == classifier.classify(path)  # which decodes it at an eighth
