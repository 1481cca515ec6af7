"""What goes into a file, whatever its format: the chosen scores, their names, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from fcnconv import __version__
from fcnconv.labels import Selection
from fcnconv.scores import AnyMap, FloatArray, Provenance, ScoreMap, Values
from fcnconv.sources import ImageSource, Placed
from fcnconv.sources.geo import GeoReference


@dataclass(frozen=True)
class Choice:
    """What of a score map is written.

    selections: the categories and concepts to write; empty for all categories (a picture needs one).
    values: probabilities (softmax over all classes) or logits.
    k: classes a cell in formats that list the best.
    best_only: whether an npz holds these alone.
    at_least: probability that a cell must reach in formats that list regions.
    photo: the image itself, for pictures and for its place on a map. max_side: pixels of the longest side
        that it is shown at.
    name: what the image is called, for pages.
    winners: whether a picture shows the most probable class of each cell.
    cells: whether a picture fills each cell's own square instead of running smoothly between them.
    """

    selections: tuple[Selection, ...] = ()
    values: Values = "probabilities"
    k: int = 5
    best_only: bool = False
    at_least: float = 0.5
    photo: ImageSource | None = None
    max_side: int = 8192
    name: str = "image"
    winners: bool = False
    cells: bool = False

    @property
    def place(self) -> GeoReference | None:
        """Where the image lies on a map, if its file says it."""
        return self.photo.georeference if isinstance(self.photo, Placed) else None


def chosen_scores(score_map: ScoreMap, choice: Choice) -> FloatArray:
    """float32 (rows, cols, num_classes), or (rows, cols, len(selections)) where some are chosen."""
    if choice.selections:
        return score_map.planes(choice.selections, choice.values)
    return score_map.probabilities() if choice.values == "probabilities" else score_map.logits


def chosen_names(score_map: AnyMap, choice: Choice) -> list[str]:
    """The name of each plane of `chosen_scores`."""
    return [selection.name for selection in choice.selections] or list(score_map.labels.categories)


def provenance(score_map: AnyMap) -> dict[str, str | int | float]:
    """What a reader needs to place each cell and to make the map again, as named scalars."""
    grid = score_map.grid
    return {
        "window": grid.window,
        "stride": grid.stride,
        "scale": grid.scale,
        "width": grid.image_size[0],
        "height": grid.image_size[1],
        "scan_width": grid.scan_size[0],
        "scan_height": grid.scan_size[1],
        "model": score_map.provenance.model,
        "mode": score_map.provenance.mode,
        "tiles": score_map.provenance.tiles,
        "preprocessing": _preprocessing(score_map.provenance),
        "weights_sha256": score_map.provenance.weights_sha256,
        "temperature": score_map.temperature,
        "exact_cells": score_map.exact_cells,
        "version": __version__,
    }


def _preprocessing(made: Provenance) -> str:
    """What was done to the pixels, in words that can be followed."""
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (made.mean, made.std))
    return f"RGB, bicubic resize, (pixels / 255 - [{mean}]) / [{std}]"
