"""Formats that list the cells one after another: JSON, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import printable
from fcnconv.labels import Selection
from fcnconv.scores import ScoreStream
from fcnconv.system.progress import written
from fcnconv.writers.answers import TableFile, constant_columns, image_schema
from fcnconv.writers.output_spec import Kept, OutputSpec, keep, provenance

if TYPE_CHECKING:
    import pyarrow


Ranking = list[tuple[Selection, float]]


def write_json(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the provenance, then one line per cell: row, col, box, whether it is exact, and its best or
    selected classes.
    """
    rows, cols, _ = stream.info.shape
    kept = keep(stream, output.selections, output.options.top_k)
    head = provenance(stream) | {"rows": rows, "cols": cols}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "cells": [')
        for number, (row, col, ranking) in enumerate(_cells(kept)):
            cell = {
                "row": row,
                "col": col,
                "box": kept.box(row, col),
                "exact": bool(kept.exact[row, col]),
                "predictions": [
                    {"class_idx": s.class_idx, "wnid": s.wnid, "category": s.name, "probability": round(p, 6)}
                    for s, p in ranking
                ],
            }
            file.write((",\n" if number else "\n") + json.dumps(cell))
        file.write("\n]}\n")


def write_csv(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes one row per cell.

    Without a selection, a row contains the k best categories and whether the cell was scored as a crop (1 or
    0). With a selection, it contains one column ``prob_NAME`` per selected class after the columns
    ``minx,miny,width,height``, and no other columns, as readers of WSInfer's tables expect. Names that a
    spreadsheet would evaluate get an apostrophe, see `_as_text`.
    """
    kept = keep(stream, output.selections, output.options.top_k)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if output.selections:
            table.writerow(
                [*_BOX_COLUMNS, *(f"prob_{printable(selection.name)}" for selection in output.selections)]
            )
        else:
            ranks = range(1, min(output.options.top_k, len(stream.info.labels)) + 1)
            best = [f"{column}_{rank}" for rank in ranks for column in ("category", "probability")]
            table.writerow(["row", "col", *_BOX_COLUMNS, *best, "exact"])
        for row, col, ranking in _cells(kept):
            x0, y0, x1, y1 = kept.box(row, col)
            box = (x0, y0, x1 - x0, y1 - y0)
            if output.selections:
                table.writerow([*box, *(f"{p:.6f}" for _, p in ranking)])
            else:
                pairs = (item for s, p in ranking for item in (_as_text(s.name), f"{p:.6f}"))
                table.writerow([row, col, *box, *pairs, int(kept.exact[row, col])])


_FORMULA = ("=", "+", "-", "@")
"""First characters that make a spreadsheet evaluate a cell as a formula. A formula could send the table's
content to a third party.
"""


def _as_text(name: str) -> str:
    """Returns a class name as a spreadsheet cell that is read as text, on one line.

    A name that begins like a formula gets an apostrophe in front, as OWASP advises ("CSV Injection"), and
    control characters are escaped. Names come with the model, which may come from anybody.
    """
    return f"'{printable(name)}" if name.startswith(_FORMULA) else printable(name)


_BOX_COLUMNS = ("minx", "miny", "width", "height")


def _cells(kept: Kept) -> Iterator[tuple[int, int, Ranking]]:
    """Yields the row, the column and the ranking of each cell inside the region of interest."""
    rows = len(kept.probability)
    for row in range(rows):
        for col in kept.cells(row).tolist():
            yield row, col, kept.ranking(row, col)
        written(row + 1, of=rows)


def cell_schema() -> pyarrow.Schema:
    """Returns the columns of a row for one cell and rank: the columns of an image, the cell's ``row`` and
    ``col``, and ``exact``, whether the cell was scored as a crop.
    """
    import pyarrow as pa

    schema = image_schema()
    for place, (name, kind) in enumerate((("row", pa.int32()), ("col", pa.int32()), ("exact", pa.bool_()))):
        schema = schema.insert(4 + place, pa.field(name, kind))
    return schema


def cell_rows(path: str, stream: ScoreStream, output: OutputSpec) -> Iterator[dict[str, Any]]:
    """Yields the columns of a map's cells by name, one row of the map at a time.

    Args:
        path: The name of the image.
        stream: The map.
        output: The selections. Without a selection, a cell has its k best categories.
    """
    info = stream.info
    kept = keep(stream, output.selections, output.options.top_k)
    (width, height), model = info.grid.image_size, info.provenance.identity.model
    for row in range(info.shape[0]):
        columns = kept.columns(row)
        yield constant_columns(path, width, height, model, len(columns["rank"])) | columns
        written(row + 1, of=info.shape[0])


def write_parquet(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes one row for each cell and rank, see `cell_schema`. The provenance is in the file's metadata."""
    name = stream.info.source.name if stream.info.source is not None else ""
    info: dict[str, Any] = {}
    table = TableFile(path, cell_schema(), info)
    try:
        for columns in cell_rows(name, stream, output):
            table.add(columns)
        info |= provenance(stream)
    except BaseException:
        table.discard()
        raise
    table.close()
