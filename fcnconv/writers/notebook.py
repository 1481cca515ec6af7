"""Score maps in notebooks: an xarray DataArray, a pandas DataFrame, and the HTML that shows a map, with its
picture, the best windows and the provenance.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fcnconv.errors import OutputError
from fcnconv.scores import Prediction, ScoreStream
from fcnconv.writers.output_spec import OutputSpec, keep, provenance

if TYPE_CHECKING:
    import pandas
    import xarray


def labelled_array(stream: ScoreStream, output: OutputSpec) -> xarray.DataArray:
    """Returns the scores, float32, with the dimensions row, col and class. The attributes are the provenance.

    Coordinates:

    - ``class``: the names
    - ``x`` (col) and ``y`` (row): the centres of the windows in pixels of the image
    - ``exact`` (row, col): whether the cell was scored as a crop

    Raises:
        OutputError: xarray is not installed.
    """
    made = _needed("xarray")
    info = stream.info
    rows, cols, _ = info.shape
    scores = np.empty((rows, cols, len(output.names(info))), np.float32)
    exact = np.empty((rows, cols), np.bool_)
    for piece in stream.pieces():
        scores[piece.slices], exact[piece.slices] = output.scores(piece), piece.exact
    across = [info.grid.square(0, col) for col in range(cols)]
    down = [info.grid.square(row, 0) for row in range(rows)]
    return made.DataArray(
        scores,
        dims=("row", "col", "class"),
        coords={
            "class": output.names(info),
            "x": ("col", [(x0 + x1) / 2 for x0, _, x1, _ in across]),
            "y": ("row", [(y0 + y1) / 2 for _, y0, _, y1 in down]),
            "exact": (("row", "col"), exact),
        },
        name=output.options.values,
        attrs=provenance(stream),
    )


def best_classes_frame(stream: ScoreStream, k: int) -> pandas.DataFrame:
    """Returns one row for each of the k best classes of each cell inside the region of interest, best first.
    The ``attrs`` are the provenance.

    Columns:

    - row, col
    - x0, y0, x1, y1: the window in pixels of the image
    - rank, class_idx, wnid, category, probability
    - exact: whether the cell was scored as a crop

    Raises:
        OutputError: pandas is not installed.
    """
    made = _needed("pandas")
    kept = keep(stream, (), k)
    rows = [made.DataFrame(kept.columns(row)) for row in range(len(kept.probability))]
    columns = ["row", "col", "x0", "y0", "x1", "y1", "rank", "class_idx", "wnid", "category", "probability"]
    frame = made.concat(rows, ignore_index=True)[[*columns, "exact"]]
    frame.attrs = provenance(stream)
    return frame


def _needed(package: str) -> Any:
    """Imports a package that fcnconv does not install by default. The extra that installs it has the same
    name.

    Raises:
        OutputError: The package is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise OutputError(f"the package {package} is missing: pip install 'fcnconv[{package}]'") from error


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
