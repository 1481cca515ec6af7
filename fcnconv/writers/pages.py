"""A page to look at every class with: the map in the browser viewer."""

from __future__ import annotations

from pathlib import Path

from fcnconv.errors import UsageError
from fcnconv.scores import AnyMap
from fcnconv.sources import read_within
from fcnconv.viewer import MAX_SIDE, viewer_page
from fcnconv.writers.contents import Choice, provenance


def write_viewer(path: Path, score_map: AnyMap, choice: Choice) -> None:
    """The viewer, with the chosen selections offered first."""
    if choice.photo is None:
        raise UsageError("the viewer shows the map over the photo, and no photo was given")
    photo = read_within(choice.photo, min(MAX_SIDE, choice.max_side))
    page = viewer_page(score_map, photo, provenance(score_map), name=choice.name, shown=choice.selections)
    path.write_text(page, encoding="utf-8")
