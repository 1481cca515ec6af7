"""One huge image on many workers: rows of its blocks, and its crops, are computed wherever a worker is free.

One process assembles, corrects and writes the map from the same blocks that it would compute alone, so the
map is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.batch.inputs import Input
from fcnconv.batch.job import Job
from fcnconv.batch.map_folder import MapFolder
from fcnconv.batch.packed import Pack
from fcnconv.classifier import Classifier
from fcnconv.grid import Grid
from fcnconv.images import ImageSource, resize
from fcnconv.images.reading import picture_size
from fcnconv.scan.blocks import regions_of, scan_region
from fcnconv.scan.crops import CROP_BATCH
from fcnconv.scan.rectangles import RectangleGroup
from fcnconv.scan.tiling import Tiling
from fcnconv.scores import Block, FloatArray, Mask

HUGE = 100_000_000
"""Number of pixels from which many workers share an image: half a minute for one process."""

BANDS = 4
"""Approximate number of bands of rows per worker. There are few, because each band has a halo, and more than
one, because bands take different times.
"""

Each = Callable[[str, Sequence[tuple[Any, ...]]], Iterator[Any]]
"""(method, arguments of each call) -> the results, in order. The method is a name of a method of `Rows`."""


def is_huge(item: Input, target: MapFolder | Pack, pixels: int) -> bool:
    """Returns whether many workers share an image: it has at least so many pixels, is scanned at its own
    size, and the network's tiles equal the whole image.
    """
    folder = target.folder if isinstance(target, Pack) else target
    sizes = folder.choice.options.sizes
    if not folder.classifier.geometry.local or not any(scale.factor for scale in sizes):
        return False
    width, height = (picture_size(item.image) if isinstance(item.image, str) else None) or (0, 0)
    return width * height >= pixels


@dataclass(frozen=True, repr=False)
class Spread(Classifier):
    """A classifier that distributes its computation.

    Attributes:
        item: The image.
        each: Makes the calls on the workers.
        workers: The number of workers.
    """

    item: Input | None = None
    each: Each = field(default=lambda what, calls: iter(()))
    workers: int = 1

    @classmethod
    def of(cls, classifier: Classifier, item: Input, each: Each, workers: int) -> Spread:
        """Returns the classifier with its computation distributed."""
        return cls(**vars(classifier), item=item, each=each, workers=workers)

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """Scores crops, see `Classifier.crops`."""
        count = min(self.workers, -(-len(cells) // CROP_BATCH))
        calls = [(self.item, grid, some) for some in np.array_split(cells, count)]
        return np.concatenate(list(self.each("crops", calls)))

    def _blocks(self, source: ImageSource, tilings: dict[Grid, Tiling]) -> Iterator[Block]:
        for grid, tiling in tilings.items():
            self._told(tiling)
            bands = [
                band for region in regions_of(grid, tiling) for band in _bands(region, BANDS * self.workers)
            ]
            calls = [(self.item, grid, tiling.in_parts, tiling.blocks, tiling.needed, band) for band in bands]
            for place, logits in chain.from_iterable(self.each("blocks", calls)):
                own = np.array(logits)  # arrays from other processes are read-only
                yield Block(grid, place[0], place[1], own)


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
        """Scores crops, see `Classifier.crops`."""
        return self.folder.share.crops(self.source(item), grid, cells)

    def blocks(
        self,
        item: Input,
        grid: Grid,
        in_parts: bool,
        blocks: tuple[tuple[int, int], ...],
        needed: Mask | None,
        band: RectangleGroup,
    ) -> list[tuple[tuple[slice, slice], FloatArray]]:
        """Returns the places and logits of a band's blocks. in_parts, blocks, needed: of the tiling."""
        classifier = self.folder.share
        parts = classifier.parts.cut() if in_parts else (classifier.parts.whole,)
        tiling = Tiling(parts, blocks, 0, 0, 0, needed)
        scaled = resize(self.source(item), grid.scan_size)
        scanned = scan_region(grid, scaled, classifier.prepare, tiling, band)
        return [((block.rows, block.cols), block.logits) for block in scanned]
