"""A page to look at every class with: the map in the browser viewer."""

from __future__ import annotations

from pathlib import Path

from fcnconv.errors import UsageError
from fcnconv.scores import ScoreMap
from fcnconv.viewer import viewer_page
from fcnconv.writers.contents import Choice, provenance


def write_viewer(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """The viewer, with the chosen selections offered first."""
    if choice.photo is None:
        raise UsageError("the viewer shows the map over the photo, and no photo was given")
    page = viewer_page(
        score_map, choice.photo, provenance(score_map), name=choice.name, shown=choice.selections
    )
    path.write_text(page, encoding="utf-8")
