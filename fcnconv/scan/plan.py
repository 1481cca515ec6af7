"""The plan of a scan: everything that is decided about an image before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fcnconv.grid import Grid, finest_of
from fcnconv.images import ImageSource
from fcnconv.labels import Labels
from fcnconv.options import MapKind
from fcnconv.provenance import DENSE, Correction, Crops, Provenance
from fcnconv.scan.estimate import Estimate, estimate, measure_crop, measure_pace, scan_work
from fcnconv.scan.network import Network
from fcnconv.scan.roi.areas import WHOLE_IMAGE, Where
from fcnconv.scan.stages import Forward
from fcnconv.scan.tiling import Stages, Tiling, choose_all
from fcnconv.scores import Mask
from fcnconv.system.progress import Work


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
    roi: Where = WHOLE_IMAGE
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
    roi: Where = WHOLE_IMAGE,
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


def _inside(roi: Where, grids: Sequence[Grid]) -> dict[Grid, Mask]:
    """The windows of each grid that are inside the region of interest; empty if all are.

    In a coarser grid, these are the windows with which the finest grid's windows are joined.
    """
    finest = finest_of(grids)
    cells = roi.cells(finest)
    if cells is None:
        return {}
    from fcnconv.scan.multiscale import needed_between

    return {grid: cells if grid == finest else needed_between(grid, finest, cells) for grid in set(grids)}
