"""The notebook view of a score map: the picture, the best windows, and the provenance."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from fcnconv.scores.predictions import Prediction

MAX_SIDE = 800
"""Longest side of the picture in pixels: it fits the width of a notebook and adds little to its file."""


def map_html(
    title: str,
    picture: Image.Image | None,
    best: Iterable[Prediction],
    made: Mapping[str, object],
) -> str:
    """Returns HTML without scripts or external resources. It contains only text and the picture, a JPEG.

    Args:
        title: The heading.
        picture: The map, if it can be drawn.
        best: The predictions of the table, each with its window.
        made: The provenance, shown in a collapsed section.
    """
    head = ("class", "probability", "box")
    rows = [(p.category, f"{p.probability:.3f}", ", ".join(map(str, p.box))) for p in best]
    return (
        f"<div><p>{html.escape(title)}</p>{_image(picture) if picture else ''}{_table([head, *rows])}"
        f"<details><summary>provenance</summary>{_table([*made.items()])}</details></div>"
    )


def _image(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="score map" style="max-width:100%" src="data:image/jpeg;base64,{data}">'


def _table(rows: Sequence[Sequence[object]]) -> str:
    cells = ("".join(f"<td>{html.escape(str(value))}</td>" for value in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
