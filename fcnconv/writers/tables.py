"""Parquet tables of the cells of a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnconv.scores import ScoreStream
from fcnconv.system.progress import written
from fcnconv.writers.answers import TableFile, constant_columns, image_schema
from fcnconv.writers.output_spec import Choice, keep, provenance

if TYPE_CHECKING:
    import pyarrow


def cell_schema() -> pyarrow.Schema:
    """Returns the columns of a row for one cell and rank: the columns of an image, the cell's ``row`` and
    ``col``, and ``exact``, whether the cell was scored as a crop.
    """
    import pyarrow as pa

    schema = image_schema()
    for place, (name, kind) in enumerate((("row", pa.int32()), ("col", pa.int32()), ("exact", pa.bool_()))):
        schema = schema.insert(4 + place, pa.field(name, kind))
    return schema


def cell_rows(path: str, stream: ScoreStream, choice: Choice) -> Iterator[dict[str, Any]]:
    """Yields the columns of a map's cells by name, one row of the map at a time.

    Args:
        path: The name of the image.
        stream: The map.
        choice: The selections. Without a selection, a cell has its k best categories.
    """
    about = stream.about
    kept = keep(stream, choice.selections, choice.options.top_k)
    (width, height), model = about.grid.image_size, about.provenance.identity.model
    categories = about.labels.all_categories()
    for row in range(about.shape[0]):
        cols = np.flatnonzero(~np.isnan(kept.probability[row, :, 0]))
        ranks = kept.probability.shape[2]
        if kept.class_idx is None:
            found = list(choice.selections) * len(cols)
        else:
            found = [categories[i] for i in kept.class_idx[row, cols].reshape(-1).tolist()]
        boxes = np.repeat(
            np.array([kept.box(row, col) for col in cols.tolist()]).reshape(-1, 4), ranks, axis=0
        )
        columns = constant_columns(path, width, height, model, len(found))
        columns |= {
            "row": np.full(len(found), row),
            "col": np.repeat(cols, ranks),
            "exact": np.repeat(kept.exact[row, cols], ranks),
            "rank": np.tile(np.arange(1, ranks + 1), len(cols)),
            "class_idx": [selection.class_idx for selection in found],
            "wnid": [selection.wnid for selection in found],
            "category": [selection.name for selection in found],
            "probability": kept.probability[row, cols].reshape(-1),
        }
        columns |= {side: boxes[:, place] for place, side in enumerate(("x0", "y0", "x1", "y1"))}
        yield columns
        written(row + 1, of=about.shape[0])


def write_parquet(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """Writes one row for each cell and rank, see `cell_schema`. The provenance is in the file's metadata."""
    name = stream.about.source.name if stream.about.source is not None else ""
    about: dict[str, Any] = {}
    table = TableFile(path, cell_schema(), about)
    try:
        for columns in cell_rows(name, stream, choice):
            table.add(columns)
        about |= provenance(stream)
    except BaseException:
        table.discard()
        raise
    table.close()
