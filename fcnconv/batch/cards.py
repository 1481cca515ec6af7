"""The cards of the report: the summary of each map, with the thumbnails of its image, one per class.

`MapSummary` is computed while the blocks of the map pass through to a writer, so that the map is read once.

A card is one JPEG file. Its EXIF image description contains the data as JSON. The thumbnails are stacked in
it, so that the report can show the map of any class that is searched for. One file appears complete, machines
that share a folder need no common log, and the report can be made from the folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fcnconv.images import Pixels
from fcnconv.labels import Selection
from fcnconv.render.draw import draw_plane
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
from fcnconv.system.records import parse_json
from fcnconv.writers.output_spec import MADE_BY

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


SIDE = 320
"""Longest side of a thumbnail in pixels."""


@dataclass(frozen=True)
class Card:
    """The data of the report about an image.

    Attributes:
        path: The image's path as the user named it.
        width, height: The image's size in pixels.
        peaks: See `MapSummary.peaks`.
        shown: The index of the peak whose map the thumbnail shows.
        agreement: The estimated agreement with crops, 0 to 1; None if nothing was compared.
        panels: The number of thumbnails in the file: one for each of `peaks`, or a single one for the class
            `shown`.
    """

    path: str
    width: int
    height: int
    peaks: tuple[Peak, ...]
    shown: int
    agreement: float | None
    panels: int = 1


def draw_card(
    name: str, photo: Pixels, glance: MapSummary, agreement: float | None
) -> tuple[Card, Image.Image]:
    """Returns the card of an image, and its thumbnails: one for each of its peaks, stacked.

    Args:
        name: The name of the image.
        photo: uint8 (H, W, 3), in the size of a thumbnail.
        glance: The summary of the map.
        agreement: See `Card`.
    """
    (shown, _), peaks, grid = glance.foremost(), glance.peaks(), glance.info.grid
    place = [(peak.class_idx, peak.category) for peak in peaks].index((shown.class_idx, shown.name))
    height, width, _ = photo.shape
    column = Image.new("RGB", (width, len(peaks) * height))
    for number, peak in enumerate(peaks):
        column.paste(draw_plane(photo, glance.plane(peak), grid), (0, number * height))
    return Card(name, *grid.image_size, peaks, place, agreement, len(peaks)), column


def write_card(path: Path, card: Card, thumbnails: Image.Image) -> None:
    """Writes a card. Raises OSError."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(asdict(card))
    exif[ExifTags.Base.Software] = MADE_BY
    with path.open("wb") as file:
        thumbnails.save(file, "JPEG", quality=85, exif=exif)


def read_card(path: Path) -> Card | None:
    """Returns the data of a card; None if the file is not a card, or is damaged."""
    try:
        with Image.open(path) as image:
            fields = parse_json(image.getexif()[ExifTags.Base.ImageDescription])
        peaks = tuple(Peak(**peak) for peak in fields.pop("peaks"))
        return Card(**fields, peaks=peaks)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
