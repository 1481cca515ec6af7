"""The summary of a map: the highest probability of each class, and the plane of the class that shows most.

It is computed while the blocks of the map pass through to a writer, so that the map is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fcnconv.labels import Selection
from fcnconv.scores import (
    PIECE_VALUES,
    Block,
    FloatArray,
    MapBlock,
    MapInfo,
    ScoreStream,
    shown,
    strength,
    strips,
    sum_over,
    top_k,
)

LEAST, MOST = 0.05, 20
"""The lowest peak of a class that is listed for an image, and the largest number of such classes."""


@dataclass(frozen=True)
class Peak:
    """The highest probability of a class in an image. class_idx: None for a concept."""

    class_idx: int | None
    category: str
    probability: float


class MapSummary:
    """The summary of a map, computed while the map is read.

    One class counts as the foremost: the one that shows most, see `scores.strength`, among the requested
    ones, or else among all categories. It is known only at the end, and a report can be searched for any
    class, so a plane of each class is kept, in 8 bits on a square-root scale: first the categories, then the
    requested selections. In large maps one value stands for a square of cells and is the highest of their
    values, so that all planes together have no more values than a block.

    Attributes:
        chosen: The categories and concepts that were requested.
    """

    def __init__(self, info: MapInfo, chosen: Sequence[Selection]):
        rows, cols, num_classes = info.shape
        self.info = info
        self.selections = tuple(chosen)
        self.highest = np.zeros(num_classes, np.float32)
        self.highest_chosen = np.zeros(len(chosen), np.float32)
        self.strong = np.zeros(num_classes + len(chosen))
        count, step = num_classes + len(chosen), 1
        while -(-rows // step) * -(-cols // step) * count > PIECE_VALUES and step < max(rows, cols):
            step += 1
        self._step = step
        self._planes: npt.NDArray[np.uint8] = np.zeros((-(-rows // step), -(-cols // step), count), np.uint8)

    def watching(self, stream: ScoreStream) -> ScoreStream:
        """Returns the stream for reading instead of `stream`. The blocks that are read from it are
        summarised.
        """

        def passing() -> Iterator[Block]:
            for block in stream.blocks:
                for strip in strips(block):
                    self._see(MapBlock(stream.info, strip))
                    yield strip

        return replace(stream, blocks=passing())

    def _see(self, piece: MapBlock) -> None:
        probabilities = shown(piece.probabilities())
        np.maximum(self.highest, probabilities.max((0, 1)), out=self.highest)
        if self.selections:
            chosen = sum_over(probabilities, self.selections)
            np.maximum(self.highest_chosen, chosen.max((0, 1)), out=self.highest_chosen)
            probabilities = np.concatenate([probabilities, chosen], axis=-1)
        self.strong += strength(probabilities)
        for axis, cells in enumerate(piece.slices):
            edges = np.arange(cells.start, cells.stop)
            first = np.flatnonzero((edges % self._step == 0) | (edges == cells.start))
            probabilities = np.maximum.reduceat(probabilities, first, axis=axis)
        rows, cols = (
            slice(cells.start // self._step, -(-cells.stop // self._step)) for cells in piece.slices
        )
        seen = np.round(255 * np.sqrt(probabilities)).astype(np.uint8)
        np.maximum(self._planes[rows, cols], seen, out=self._planes[rows, cols])

    def peaks(self) -> tuple[Peak, ...]:
        """Returns the peaks that are listed, highest first: the first class and those that reach `LEAST`, at
        most `MOST`, and all requested selections, or else the foremost class.
        """
        labels = self.info.labels
        first, *others = top_k(self.highest, MOST).tolist()
        listed = [first, *(i for i in others if self.highest[i] >= LEAST)]
        if not self.selections:
            listed.append(self._foremost())
        found = {labels.category(i): self.highest[i] for i in listed}
        found.update(zip(self.selections, self.highest_chosen, strict=True))
        peaks = (Peak(s.class_idx, s.name, round(float(highest), 6)) for s, highest in found.items())
        return tuple(sorted(peaks, key=lambda peak: -peak.probability))

    def foremost(self) -> tuple[Selection, FloatArray]:
        """Returns the class that shows most in the image, with its plane, float32 (rows, cols), 0 to 1."""
        index = self._foremost()
        num_classes = len(self.highest)
        labels = self.info.labels
        chosen = index >= num_classes
        return self.selections[index - num_classes] if chosen else labels.category(index), self._plane(index)

    def plane(self, peak: Peak) -> FloatArray:
        """Returns float32 (rows, cols), 0 to 1: the probability of one of `peaks` in each cell."""
        if peak.class_idx is not None:
            return self._plane(peak.class_idx)
        place = [(s.class_idx, s.name) for s in self.selections].index((None, peak.category))
        return self._plane(len(self.highest) + place)

    def _foremost(self) -> int:
        """Returns the index of the class that shows most, among the requested ones if there are any."""
        first = len(self.highest) if self.selections else 0
        return first + int(self.strong[first:].argmax())

    def _plane(self, index: int) -> FloatArray:
        rows, cols, _ = self.info.shape
        plane = self._planes[:, :, index][
            np.ix_(np.arange(rows) // self._step, np.arange(cols) // self._step)
        ]
        return np.square(plane / np.float32(255))
