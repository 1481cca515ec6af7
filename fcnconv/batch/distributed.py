"""One huge image on many workers: rows of its blocks, and its crops, are computed wherever a worker is free.

One process assembles, corrects and writes the map from the same blocks that it would compute alone, so the
map is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.batch.folders import MapFolder
from fcnconv.batch.inputs import Input
from fcnconv.batch.job import Job
from fcnconv.batch.packed import Pack
from fcnconv.grid import Grid
from fcnconv.images import ImageSource, resize
from fcnconv.images.reading import picture_size
from fcnconv.options import MapKind
from fcnconv.scan.blocks import regions_of, scan_region
from fcnconv.scan.crops import CROP_BATCH
from fcnconv.scan.plan import ScanPlan
from fcnconv.scan.rectangles import RectangleGroup
from fcnconv.scan.tiling import Tiling
from fcnconv.scores import Block, FloatArray, Mask

HUGE = 100_000_000
"""Number of pixels from which many workers share an image: half a minute for one process."""

BANDS = 4
"""Approximate number of bands of rows per worker. There are few, because each band has a halo, and more than
one, because bands take different times.
"""

Way = tuple[MapKind, bool, tuple[tuple[int, int], ...], Mask | None]
"""How a grid is computed: the kind of map, and `Tiling.in_parts`, `blocks` and `needed`."""

Each = Callable[[str, Sequence[tuple[Any, ...]]], Iterator[Any]]
"""(method, arguments of each call) -> the results, in order. The method is a name of a method of `Rows`."""


def is_huge(item: Input, target: MapFolder | Pack, pixels: int) -> bool:
    """Returns whether many workers share an image: it has at least so many pixels, is scanned at its own
    size, and the network's tiles equal the whole image.
    """
    folder = target.folder if isinstance(target, Pack) else target
    sizes = folder.scan.sizes
    if not folder.classifier.geometry.local or not any(scale.factor for scale in sizes):
        return False
    width, height = (picture_size(item.image) if isinstance(item.image, str) else None) or (0, 0)
    return width * height >= pixels


@dataclass(frozen=True)
class DistributedExecutor:
    """Runs the network on many workers, for one image.

    Attributes:
        item: The image.
        each: Makes the calls on the workers.
        workers: The number of workers.
    """

    item: Input
    each: Each
    workers: int

    def get_ready(self, plan: ScanPlan) -> None:
        """Does nothing: the workers open what they need."""

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """Scores crops, see `Executor.crops`."""
        count = min(self.workers, -(-len(cells) // CROP_BATCH))
        calls = [(self.item, grid, some) for some in np.array_split(cells, count)]
        return np.concatenate(list(self.each("crops", calls)))

    def blocks(self, plan: ScanPlan) -> Iterator[Block]:
        """Yields the dense blocks, see `Executor.blocks`."""
        for grid, tiling in plan.tilings.items():
            bands = [
                band for region in regions_of(grid, tiling) for band in _bands(region, BANDS * self.workers)
            ]
            way = plan.kind, tiling.in_stages, tiling.blocks, tiling.needed
            for block in chain.from_iterable(self.each("blocks", [(self.item, grid, way, b) for b in bands])):
                # arrays from other processes are read-only
                yield replace(block, logits=np.array(block.logits))


def _bands(region: RectangleGroup, count: int) -> list[RectangleGroup]:
    """Divides a region into about so many bands of whole rows of blocks."""
    rows = [tuple(pieces) for _, pieces in groupby(region.pieces, key=lambda piece: piece.place[0].start)]
    size = -(-len(rows) // count)
    return [replace(region, pieces=sum(rows[i : i + size], ())) for i in range(0, len(rows), size)]


class Rows:
    """The work of a worker on images of other processes."""

    def __init__(self, job: Job, open_target: Callable[[Job], MapFolder | Pack]):
        self.job, self.open_target = job, open_target
        self.opened: tuple[Input, ImageSource] | None = None

    @cached_property
    def folder(self) -> MapFolder:
        """The folder that opens images and the network."""
        target = self.open_target(self.job)
        return target.folder if isinstance(target, Pack) else target

    def source(self, item: Input) -> ImageSource:
        """Returns the image, which is opened once."""
        if self.opened is None or self.opened[0] != item:
            self.opened = item, self.folder.open(item)
        return self.opened[1]

    def crops(self, item: Input, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """Scores crops, see `Executor.crops`."""
        return self.folder.share.crops(self.source(item), grid, cells)

    def blocks(self, item: Input, grid: Grid, way: Way, band: RectangleGroup) -> list[Block]:
        """Returns the dense blocks of a band."""
        kind, in_stages, blocks, needed = way
        network = self.folder.share.network
        stages = network.stages_of(kind)
        tiling = Tiling(stages.cut() if in_stages else (stages.whole,), blocks, 0, 0, 0, needed)
        scaled = resize(self.source(item), grid.scan_size)
        return list(scan_region(grid, scaled, network.prepare, tiling, band))
