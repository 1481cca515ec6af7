"""The plan of a scan: everything that is decided about an image before anything is computed, and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from fcnconv.grid import Grid, finest_of
from fcnconv.images import ImageSource
from fcnconv.labels import Labels
from fcnconv.options import MapKind
from fcnconv.provenance import DENSE, Correction, Crops, Provenance
from fcnconv.scan.crops import CROP_BATCH, CROPS
from fcnconv.scan.network import Network
from fcnconv.scan.rectangles import work
from fcnconv.scan.roi.areas import WHOLE_IMAGE, RegionOfInterest
from fcnconv.scan.stages import SCANNING, Forward, Stage
from fcnconv.scan.tiling import Stages, Tiling, choose, choose_all
from fcnconv.scores import Mask
from fcnconv.system.progress import Work, counted, duration


@dataclass(frozen=True)
class ScanPlan:
    """The decisions about a scan of an image. `plan_scan` makes them, and `execute.execute` follows them.

    Attributes:
        source: the image.
        network: the network.
        labels: its classes.
        grids: the windows, one grid per scale, in the order of the scales.
        tilings: how each grid is computed, in the order of the scan: the finest grid last.
        memory: bytes that the scan was planned for.
        correction: how far the dense map is corrected by crops.
        kind: the kind of map that is wanted; for all but windows, class activations are computed as well.
        roi: the region of interest.
        inside: for each grid, bool (rows, cols), the windows inside the region of interest; empty if all are.
    """

    source: ImageSource
    network: Network
    labels: Labels
    grids: tuple[Grid, ...]
    tilings: Mapping[Grid, Tiling]
    memory: float
    correction: Correction = DENSE
    kind: MapKind = "windows"
    roi: RegionOfInterest = WHOLE_IMAGE
    inside: Mapping[Grid, Mask] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Whether the dense map is computed. It is not if every window is scored as a crop."""
        return not isinstance(self.correction, Crops)

    @property
    def finest(self) -> Grid:
        """The grid with the most windows."""
        return finest_of(self.grids)

    @property
    def windows(self) -> int:
        """The number of windows of all grids."""
        return sum(grid.rows * grid.cols for grid in self.grids)

    @property
    def crops(self) -> dict[Grid, int]:
        """The approximate number of crops that are scored on each grid."""
        if self.correction == DENSE:
            return dict.fromkeys(self.tilings, 0)
        from fcnconv.scan.correction import crops_of  # a classification needs no correction

        return {grid: crops_of(self.correction, grid, self.inside.get(grid)) for grid in self.tilings}

    @property
    def provenance(self) -> Provenance:
        """The provenance of the scores, without the facts that only the scan will show."""
        made = replace(self.network.provenance, correction=self.correction)
        if self.is_dense and not self.network.geometry.local:
            made = replace(made, tiles=max(tiling.tiles for tiling in self.tilings.values()))
        return made

    @property
    def stages(self) -> Stages:
        """The stages of the network that the scan runs."""
        return self.network.stages_of(self.kind)

    def works(self) -> list[Work]:
        """The amounts of work, for the progress."""
        g, dense = self.network.geometry, self.tilings if self.is_dense else {}
        return scan_work(dense, self.stages.whole, g.window, g.step, sum(self.crops.values()))

    def estimate(self, open_crops: Callable[[], Forward]) -> list[Estimate]:
        """The expected cost of each grid, from the measured time of a small scan and of some crops.

        Args:
            open_crops: opens the network that scores crops, if the plan needs it.
        """
        network, crops, g = self.network, self.crops, self.network.geometry
        pace = measure_pace(network.run, network.stages, network.channels, g.window, g.step)
        crop = pace.window
        if network.mode == "fcn" and any(crops.values()):
            crop = measure_crop(open_crops(), network.channels, g.window)
        return [
            estimate(grid, tiling, pace, self.stages.whole, len(self.labels), crops=crops[grid], crop=crop)
            for grid, tiling in self.tilings.items()
        ]


def plan_scan(
    source: ImageSource,
    grids: Sequence[Grid],
    network: Network,
    labels: Labels,
    memory: float,
    *,
    correction: Correction = DENSE,
    kind: MapKind = "windows",
    roi: RegionOfInterest = WHOLE_IMAGE,
) -> ScanPlan:
    """Plans the scan of an image within `memory` bytes.

    Args:
        source: the image.
        grids: its grids of windows, see `sizes.Sizing.grids`.
        network: the network. One that depends on the whole image gets all of it, whatever the region of
            interest.
        labels: its classes.
        memory: bytes.
        correction: how far the dense map is corrected. The windows that it needs are computed as well.
        kind: the kind of map that is wanted.
        roi: the region of interest.

    Raises:
        UsageError: if no window is inside the region of interest.
    """
    finest, inside = finest_of(grids), _inside(roi, grids)
    order = [*(grid for grid in grids if grid != finest), finest]
    needed = {}
    if inside and network.geometry.local:
        from fcnconv.scan.correction import needed_cells

        needed = {grid: needed_cells(correction, grid, cells) for grid, cells in inside.items()}
    tilings = choose_all(network.stages_of(kind), order, memory, needed)
    return ScanPlan(source, network, labels, tuple(grids), tilings, memory, correction, kind, roi, inside)


def _inside(roi: RegionOfInterest, grids: Sequence[Grid]) -> dict[Grid, Mask]:
    """The windows of each grid that are inside the region of interest; empty if all are.

    In a coarser grid, these are the windows with which the finest grid's windows are joined.
    """
    finest = finest_of(grids)
    cells = roi.cells(finest)
    if cells is None:
        return {}
    from fcnconv.scan.multiscale import needed_between

    return {grid: cells if grid == finest else needed_between(grid, finest, cells) for grid in set(grids)}


BYTE = 8
"""The number of multiply-adds that take as long as the work on one byte of a stage's largest maps. This makes
the first stage, whose maps are large, 1.8 times as slow (measured).
"""

PROBES, ENOUGH = (4, 16, 16), 1.0
"""Sides of the small scans that are timed, in steps; and the seconds after which no further scan is timed."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the scan of one grid.

    Attributes:
        grid: the grid.
        tiling: how the grid is computed.
        multiply_adds: multiply-adds of the converted network.
        crops: number of crops that are scored.
        seconds: expected time, from the measured times of a small scan and of some crops.
        map_bytes: size of the full map in float32.
    """

    grid: Grid
    tiling: Tiling
    multiply_adds: float
    crops: int
    seconds: float
    map_bytes: int

    def __str__(self) -> str:
        t, g = self.tiling, self.grid
        cut = "in one piece" if t.tiles == 1 else f"in {t.tiles} tiles"
        if t.in_stages:
            cut += f", the network in {len(t.stages)} stages"
        work = f", {self.multiply_adds / 1e9:,.0f} billion multiply-adds" if self.multiply_adds else ""
        if self.crops:
            work += f", {counted(self.crops, 'crop')}"
        return (
            f"{g.scan_size[0]} × {g.scan_size[1]} px, stride {g.stride}: {g.rows} × {g.cols} windows {cut}; "
            f"about {duration(self.seconds)}, {size_text(t.memory)} of memory{work}; "
            f"the full map has {size_text(self.map_bytes)}"
        )


@dataclass(frozen=True)
class Pace:
    """The measured time of a small scan: seconds per multiply-add, and seconds per window."""

    multiply_add: float
    window: float


def measure_pace(run: Forward, stages: Stages, channels: int, window: int, step: int) -> Pace:
    """The best pace of a few small scans. The first scan also warms up what is slow at first."""
    paces = []
    for n in PROBES:
        pixels = np.zeros((1, channels, window + n * step, window + n * step), np.float32)
        start = time.perf_counter()
        run(pixels)
        seconds = time.perf_counter() - start
        multiply_adds = choose(stages, (n, n), inf).multiply_adds
        paces.append(Pace(seconds / (multiply_adds or inf), seconds / (n + 1) ** 2))
        if seconds > ENOUGH:
            break
    return min(paces, key=lambda pace: pace.window)


def measure_crop(run: Forward, channels: int, window: int) -> float:
    """Seconds per crop, measured on a batch of crops."""
    pixels = np.zeros((CROP_BATCH, channels, window, window), np.float32)
    run(pixels)  # warms up
    start = time.perf_counter()
    run(pixels)
    return (time.perf_counter() - start) / CROP_BATCH


def estimate(
    grid: Grid, tiling: Tiling, pace: Pace, whole: Stage, num_classes: int, *, crops: int, crop: float
) -> Estimate:
    """The expected cost of a grid that is computed with a tiling and corrected by some crops.

    If the work of a network is unknown, only the work of its crops counts.

    Args:
        grid: the grid.
        tiling: how the grid is computed.
        pace: the pace that was measured for `whole`.
        whole: the network as a single stage.
        num_classes: number of classes.
        crops: number of crops that are scored.
        crop: seconds per crop.
    """
    stages = work(grid, tiling.stages, tiling.blocks, tiling.needed)
    effort = sum(n * _effort(stage) for n, stage in zip(stages, tiling.stages, strict=True))
    seconds = pace.multiply_add * effort / _effort(whole) + crop * crops
    return Estimate(grid, tiling, sum(stages), crops, seconds, 4 * grid.rows * grid.cols * num_classes)


def scan_work(tilings: Mapping[Grid, Tiling], whole: Stage, window: int, step: int, crops: int) -> list[Work]:
    """The stages of a scan's progress, measured in megapixels that the network sees, including halos and
    crops.

    Args:
        tilings: the tiling of each grid that is scanned densely.
        whole: the network as a single stage.
        window: pixels across a crop.
        step: pixels between the cells of `whole`.
        crops: number of crops that are scored.
    """
    works = []
    multiply_adds = sum(sum(work(grid, t.stages, t.blocks, t.needed)) for grid, t in tilings.items())
    if multiply_adds:
        megapixel = whole.multiply_adds / step**2 * 1e6
        works.append(Work(SCANNING, "scanning", multiply_adds, each=1 / megapixel))
    if crops:
        works.append(Work(CROPS, "scoring crops", crops, each=window**2 / 1e6))
    return works


def _effort(stage: Stage) -> float:
    """How long a stage's multiply-adds take, relative to the fastest possible stage."""
    return 1 + BYTE * stage.memory / stage.multiply_adds if stage.multiply_adds else 1.0


def size_text(count: float) -> str:
    """Formats a number of bytes for a message."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
