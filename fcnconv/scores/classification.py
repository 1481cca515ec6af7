"""The result of `classify`: the top classes of a whole image, each with its best window."""

from __future__ import annotations

from dataclasses import dataclass

from fcnconv.grid import Box


@dataclass(frozen=True)
class Prediction:
    """One class of a ranking, or the concept that an image shows.

    class_idx: the index of the class; None for a concept, whose name is in `category`.
    box: the window where the class is most probable, (x0, y0, x1, y1) in pixels of the original image.
    """

    rank: int
    class_idx: int | None
    wnid: str | None
    category: str
    probability: float
    box: Box


@dataclass(frozen=True)
class Classification:
    """The classes of a whole image.

    width, height: the size of the image, in pixels. model: the name of the model.
    scales: the scanned scales, as factors of the image's own size.
    temperature: the number that divided the logits before they became probabilities.
    predictions: the top classes, best first.
    """

    width: int
    height: int
    model: str
    scales: tuple[float, ...]
    temperature: float
    predictions: tuple[Prediction, ...]
