"""Formats to look at: the photo with a class's probability over it."""

from __future__ import annotations

from pathlib import Path

from fcnconv.errors import UsageError
from fcnconv.render import overlay
from fcnconv.scores import ScoreMap
from fcnconv.writers.contents import Choice


def write_picture(path: Path, score_map: ScoreMap, choice: Choice, format: str) -> None:
    """The photo with one selection over it. format: Pillow's name of the file format."""
    if choice.photo is None or len(choice.selections) != 1:
        raise UsageError(f"a picture shows one class, not {len(choice.selections)}; name one with --class")
    selection = choice.selections[0]
    picture = overlay(choice.photo, score_map.plane(selection), score_map.grid, selection.name)
    with path.open("wb") as file:
        picture.save(file, format, quality=90)
