"""What `classify` answers: the top classes of a whole image, each with its best window."""

from __future__ import annotations

from dataclasses import dataclass

from fcnconv.grid import Box


@dataclass(frozen=True)
class Prediction:
    """One class of a ranking, or the concept that an image shows.

    class_idx: None for a concept, whose name `category` holds.
    box: the window where it is most probable, (x0, y0, x1, y1) in pixels of the original image.
    """

    rank: int
    class_idx: int | None
    wnid: str | None
    category: str
    probability: float
    box: Box


@dataclass(frozen=True)
class Classification:
    """The answer about a whole image: its size in pixels, the scales scanned, the temperature of the
    probabilities, and the top classes, best first.
    """

    width: int
    height: int
    model: str
    scales: tuple[float, ...]
    temperature: float
    predictions: tuple[Prediction, ...]
