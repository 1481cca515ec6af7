"""How far work is: times left against known paces, all work counted, and what a terminal shows of it."""

import logging
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import PATIENCE, wait_until
from terminals import in_terminal, until_there
from tiny import choose, make_map
from torch import nn

from fcnconv.api.classifier import Classifier
from fcnconv.api.loading import load
from fcnconv.api.maps import save_map
from fcnconv.batch.inputs import from_paths
from fcnconv.batch.workers import each
from fcnconv.cli.progress_bar import Counter, ProgressKind, _looks, described, shown
from fcnconv.errors import ImageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource
from fcnconv.labels import numbered
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_scales
from fcnconv.scan.blocks import scan
from fcnconv.scan.crops import CROPS
from fcnconv.scan.rectangles import work
from fcnconv.scan.stages import SCANNING, Stage
from fcnconv.scan.tiling import FIXED, Stages
from fcnconv.scan.tiling import choose as choose_tiling
from fcnconv.system.progress import Progress, Work, done, during, expect, following
from fcnconv.writers import WRITERS, find_writer

COFFEE = SAMPLES / "coffee.png"
PIXELS = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    pace=st.floats(0.01, 30),
    crops=st.lists(st.integers(1, 4), min_size=20, max_size=20),
    tile=st.integers(1, 20),
)
def test_the_time_left_is_right_after_the_first_tenth(pace: float, crops: list[int], tile: int) -> None:
    """A network of any speed: for the same pixels, crops take as long as the dense scan."""
    clock = Clock()
    progress = Progress(clock)
    progress.expect(Work("scanning", "scanning", 200 * tile, each=0.5 / tile))
    progress.expect(Work("crops", "scoring", sum(crops), each=0.25))
    told = []
    for few in crops:
        for _ in range(10):
            clock.now += 0.5 * pace
            progress.done("scanning", tile)
        clock.now += 0.25 * few * pace
        progress.done("crops", few)
        told.append((clock.now, progress.left()))
    assert progress.left() is None and progress.share() == 1
    for passed, left in told[:-1]:
        if passed > clock.now / 10:
            assert left is not None and passed + left == pytest.approx(clock.now, rel=0.05)


def test_what_has_not_begun_goes_at_the_pace_of_its_like() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now = 5  # of opening the image, which says nothing of the pace
    progress.expect(Work("scanning", "scanning", 100, each=0.3))
    progress.expect(Work("crops", "scoring", 60, each=0.05))
    clock.now = 35
    progress.done("scanning", 100)
    assert progress.left() == pytest.approx(3) and progress.doing() == "scoring"
    assert progress.measure() == "30.0 of 33.0 megapixels"


@given(
    reports=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 9), st.floats(-2, 5)), min_size=1, max_size=20),
    rows=st.integers(0, 5),
)
def test_the_bar_moves_and_never_goes_back_nor_to_the_end(
    reports: list[tuple[float, float, float]], rows: int
) -> None:
    """However slow the work, and whatever of it turns out to be more than expected."""
    clock = Clock()
    progress = Progress(clock)
    progress.written(0, of=rows)
    progress.expect(Work("scanning", "scanning", 50), Work("crops", "scoring", 10, each=0.05))
    shown: list[float] = []

    def look() -> None:
        total, completed = (_looks(progress).get(name) for name in ("total", "completed"))
        if total is None:
            assert not shown, "a bar that has begun to count goes on"
            return
        shown.append(completed)
        assert total == 1 and 0 < completed <= 0.99 and shown == sorted(shown)

    for seconds, scanned, more in reports:
        progress.done("scanning", scanned)
        progress.more("crops", more)
        look()
        for _ in range(3):
            clock.now += seconds / 3
            look()
    progress.finished("scanning")
    progress.finished("crops")
    for row in range(rows):
        clock.now += 1
        progress.written(row + 1, of=rows)
        look()


def test_between_two_reports_the_bar_goes_on_at_the_pace_so_far() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.left() is None and progress.doing() == "opening"
    progress.expect(Work("scanning", "scanning", 100))
    assert progress.share() is None and described(progress) == "scanning: 1 s so far"
    clock.now = 10
    progress.done("scanning", 10)
    assert progress.left() == pytest.approx(90) and progress.share() == pytest.approx(0.1)
    seen = [progress.share()]
    for _ in range(200):
        clock.now += 2  # of one tile that takes minutes
        seen.append(progress.share())
    assert all(before < after < 1 for before, after in pairwise(seen[:21]))
    assert seen[1] == pytest.approx(0.12, abs=0.001) and seen[-1] <= 1
    assert described(progress).startswith("scanning: 99 %, 10.0 of 100.0 megapixels, about ")


def test_the_bar_moves_before_the_first_report_of_a_scan_in_one_piece() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.expect(Work("scanning", "scanning", 20))
    shares = []
    for _ in range(5):
        clock.now += 2
        shares.append(progress.share() or 0.0)
    assert shares[0] >= 0.01 and all(before < after < 0.1 for before, after in pairwise(shares))
    assert progress.left() is None, "there is no pace yet"
    assert described(progress) == "scanning: 6 %, 0.0 of 20.0 megapixels, 10 s so far"
    clock.now += 50
    progress.done("scanning", 20)
    assert progress.share() == 1


def test_a_file_is_written_after_its_map_was_scanned() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.expect(Work("scanning", "scanning", 10))
    progress.written(0, of=2000)
    clock.now = 9
    progress.done("scanning", 10)
    assert progress.share() == pytest.approx(0.9) and progress.doing() == "writing"
    progress.written(1500, of=2000)
    assert described(progress) == "writing: 98 %, 1,500 of 2,000 rows, about 1 s left, 9 s so far"
    progress.written(2000, of=2000)
    assert progress.left() is None
    assert described(progress) == "writing: 99 %, 2,000 of 2,000 rows, nearly done, 9 s so far"


def test_what_cannot_be_measured_is_named_while_it_lasts() -> None:
    with following(Progress()) as progress, during("making tiny"):
        assert progress.doing() == "making tiny" and progress.share() is None
    assert progress.doing() == "opening"


def test_maps_that_were_there_do_not_spoil_the_pace() -> None:
    clock = Clock()
    progress = Progress(clock)
    counter = Counter(progress, "mapping", None)
    counter.total = 100
    for _ in range(40):
        clock.now += 0.1
        counter.count("there", new=False)
    assert progress.left() is None and progress.note == "40 of 100"
    for number in range(10):
        clock.now += 7
        counter.count(ImageError("bad") if number == 3 else "new")
    assert progress.left() == pytest.approx(50 * 7)
    assert described(progress).startswith(
        "mapping: 50 of 100, 1 failed, 0.1 a second: 17 %, about 6 min left"
    )


def test_images_that_come_as_a_stream_are_counted_with_their_rate() -> None:
    clock = Clock()
    progress = Progress(clock)
    counter = Counter(progress, "classifying", None)
    for _ in range(10):
        clock.now += 0.5
        counter.count("new")
    assert described(progress) == "classifying: 10, 2.0 a second: 5 s so far"


def test_inputs_that_can_be_looked_through_are_counted_beforehand() -> None:
    looked = threading.Event()

    def inputs() -> Iterator[int]:
        yield from range(7)
        looked.set()

    progress = Progress()
    counter = Counter(progress, "mapping", inputs)
    assert looked.wait(PATIENCE)
    while counter.total is None:
        pass
    counter.count("new")
    assert progress.note.startswith("1 of 7, ") and progress.left() is not None


@given(
    rows=st.integers(1, 120),
    cols=st.integers(1, 120),
    limit=st.floats(1e4, 1e7),
    cut=st.booleans(),
    tile=st.none() | st.integers(1, 30),
)
@settings(max_examples=60)
def test_a_scan_does_the_work_that_was_expected_of_it(
    rows: int, cols: int, limit: float, cut: bool, tile: int | None
) -> None:
    """To the last multiply-add: whole, in tiles and in parts that see two cells around."""
    passing = [Stage(lambda x: x, 3, 5, 1, 2, 2, 4, 4, 1e3 / i, 1e3 * i) for i in (1, 2)]
    last = Stage(lambda x: x[..., 2:-2, 2:-2], 3, 1, 1, 0, 0, 4, 4, 1e2, 3e3)
    parts = Stages(replace(last, memory=1e9 if cut else 1e2), lambda: (*passing, last))
    grid = Grid(5, 1, (cols + 4, rows + 4), (cols + 4, rows + 4))
    tiling = choose_tiling(parts, (rows - 1, cols - 1), FIXED + limit, None if cut else tile)
    source = MemorySource(np.zeros((rows + 4, cols + 4, 3), np.uint8))
    progress, expected = Progress(), work(grid, tiling.stages, tiling.blocks)
    with following(progress):
        expect(Work(SCANNING, "scanning", sum(expected)))
        for _ in scan(
            source, [grid], lambda x: x.transpose(2, 0, 1)[None].astype(np.float32), lambda _: tiling
        ):
            pass
    assert progress.stages[SCANNING].done == pytest.approx(sum(expected))


@pytest.fixture(scope="module")
def own() -> dict[str, Classifier]:
    """A small network in both modes, and at half its stride."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5)).eval()
    kinds: dict[str, dict[str, Any]] = {"fcn": {}, "windows": {"mode": "windows"}, "finer": {"stride": 2}}
    return {
        name: load(model, window=32, categories=list("abcde"), backend="torch", **kind)
        for name, kind in kinds.items()
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("fcn", ScanOptions()),
        ("fcn", ScanOptions(anchors=0)),
        ("fcn", ScanOptions(anchors=0, refine=0.1)),
        ("fcn", ScanOptions(refine=0.1)),
        ("fcn", ScanOptions(anchors=1)),
        ("fcn", ScanOptions(scales=parse_scales("0.5,1"))),
        ("finer", ScanOptions()),
        ("windows", ScanOptions()),
        ("windows", ScanOptions(anchors=3)),
    ],
)
def test_a_map_takes_what_was_expected(own: dict[str, Classifier], kind: str, options: ScanOptions) -> None:
    progress = Progress()
    with following(progress):
        stream = own[kind].stream(PIXELS, options)
        expected = {name: stage.expected for name, stage in progress.stages.items()}
        for _ in stream.pieces():
            pass
    assert progress.left() is None
    found = {name: stage.done for name, stage in progress.stages.items()}
    assert found == pytest.approx(expected, rel=0.02, abs=16) and any(found.values())
    assert found.get(CROPS, 0) == stream.finish().exact_cells or options.scales != ScanOptions().scales


def test_windows_that_are_scored_until_a_map_is_good_enough_are_counted(own: dict[str, Classifier]) -> None:
    told: list[float] = []

    class Told(Progress):
        def done(self, name: str, amount: float = 1.0) -> None:
            super().done(name, amount)
            told.extend(stage.expected for stage in self.stages.values() if stage.work.name == CROPS)

    progress = Told()
    with following(progress):
        stream = own["fcn"].stream(PIXELS, ScanOptions(agreement=0.99))
        (block,) = stream.blocks
    assert block.exact is not None
    assert len(set(told)) > 2, "corrected as it is known"
    assert progress.stages[CROPS].done == progress.stages[CROPS].expected == block.exact.sum()


BY_ROWS = {"csv", "json", "parquet", "geojson", "geojson.gz", "gpkg"}
"""Formats that are written row by row, when the map is complete."""


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("chosen", [True, False])
def test_writing_reports_the_rows_of_the_map(suffix: str, chosen: bool, tmp_path: Path) -> None:
    if needs := WRITERS[suffix].needs:
        pytest.importorskip(needs[0])
    grid = Grid(32, 16, (300, 200), (300, 200))
    logits = np.random.default_rng(0).normal(0, 3, (grid.rows, grid.cols, 5)).astype(np.float32)
    score_map = make_map(logits, grid, numbered(5), source=MemorySource(PIXELS))
    selections = [score_map.labels.category(2)] if chosen else []
    reported: list[tuple[int, int] | None] = []

    class Reported(Progress):
        def written(self, rows: int, of: int) -> None:
            super().written(rows, of)
            reported.append(self.rows)

    with following(Reported()):
        out = str(tmp_path / f"map.{suffix}")
        save_map(score_map.stream(), out, find_writer(out), choose(*selections, max_side=128))
    rows = range(grid.rows + 1) if suffix in BY_ROWS else [0]
    assert reported == [(row, grid.rows) for row in rows]


def test_images_in_other_threads_do_not_count_as_the_one_that_is_followed() -> None:
    progress = Progress()
    progress.expect(Work("images", "mapping", 3))
    with following(progress):
        list(each(from_paths("abc"), lambda _: done("images")))
    assert progress.stages["images"].done == 0


def test_a_line_now_and_then_for_a_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fcnconv.cli.progress_bar.FIRST_LINE", 0.0)
    monkeypatch.setattr("fcnconv.cli.progress_bar.NEXT_LINE", 0.01)
    caplog.set_level(logging.INFO, "fcnconv")
    threads = set(threading.enumerate())
    kinds: list[tuple[ProgressKind, bool]] = [("none", False), ("plain", True), ("auto", False)]
    for kind, quiet in kinds:  # no terminal here
        with shown(kind, quiet=quiet):
            assert set(threading.enumerate()) <= threads
    assert not caplog.records
    with shown("plain", quiet=False):
        expect(Work("scanning", "scanning", 2000))
        done("scanning", 1)
        line = r"scanning: \d+ %, 1\.0 of 2,000\.0 megapixels, about [\w.]+ \w+ left, \d+ s so far"
        wait_until(lambda: any(re.fullmatch(line, said) for said in caplog.messages), "a line")
    count = len(caplog.records)
    with shown("none", quiet=False):
        pass
    assert len(caplog.records) == count


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize("command", ["heatmap -f npy -o -", "classify"])
def test_a_terminal_shows_a_bar_and_the_output_is_clean(command: str, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    line = f"({until_there(shown)}; cat '{COFFEE}') | fcnconv {command}"  # the image comes after the bar
    done = in_terminal(line, stdout=False, await_text=("━", shown))
    assert done.status == 0
    assert "opening" in done.terminal and "s so far" in done.terminal and "━" in done.terminal
    if command == "classify":
        assert done.stdout.count(b"\t") == 20 and b"opening" not in done.stdout
    else:
        assert done.stdout[:6] == b"\x93NUMPY" and len(done.stdout) == 128 + 6 * 12 * 1000 * 4


IMPATIENT = (
    "import sys, fcnconv.cli.progress_bar as shown; from fcnconv.cli.app import main\n"
    "shown.LONG = shown.REFRESH = shown.FIRST_LINE = shown.NEXT_LINE = 0.05\n"
    "sys.argv = ['fcnconv', *sys.argv[1:]]; main()"
)
"""The command, which shows its progress at once."""


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize("off", ["--quiet", "--progress none"])
def test_a_terminal_shows_no_bar_that_nobody_wants(off: str) -> None:
    line = f"(sleep 1; cat '{COFFEE}') | {sys.executable} -c \"{IMPATIENT}\" classify {off}"
    done = in_terminal(line, stdout=False)
    assert done.status == 0 and "opening" not in done.terminal and "━" not in done.terminal


@pytest.mark.usefixtures("lite0")
def test_batch_counts_on_a_terminal_what_is_done_and_what_failed(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    listed = f"(printf '{COFFEE}\\nmissing.jpg\\n'; {until_there(shown)})"
    line = f"{listed} | fcnconv batch --files-from - -o '{tmp_path}' --anchors 0"
    done = in_terminal(line, stdout=False, await_text=("mapping 2, 1 failed", shown))
    assert done.status == 1 and "mapping 2, " in done.terminal and "1 failed" in done.terminal
    (tmp_path / "list").write_text(f"{COFFEE}\nmissing.jpg\n")
    fast = in_terminal(
        f"fcnconv batch --files-from '{tmp_path}/list' -o '{tmp_path}/maps' -f json", stdout=False
    )
    assert fast.status == 1 and fast.stdout.count(b"\n") == 1


@pytest.mark.usefixtures("lite0")
def test_where_there_is_no_terminal_nothing_is_told_unless_lines_are_asked_for(
    fcnconv: Command, tmp_path: Path
) -> None:
    messages = tmp_path / "messages"
    command = f"{sys.executable} -c \"{IMPATIENT}\" heatmap --anchors 4 -o '{tmp_path}/map.npz'"
    silent = in_terminal(f"(sleep 1; cat '{COFFEE}') | {command} 2>&1 | cat", stdout=False)
    assert silent.status == 0 and b"windows whose crop" in silent.stdout.splitlines()[-1]
    assert b"opening" not in silent.stdout
    four = f"touch '{messages}'; until [ $(wc -l < '{messages}') -ge 4 ]; do sleep 0.05; done"
    line = f"({four}; cat '{COFFEE}') | {command} --progress plain 2> '{messages}'"
    assert in_terminal(line, stdout=False).status == 0
    assert re.match(r"fcnconv: opening: \d+ s so far\n", messages.read_text())
