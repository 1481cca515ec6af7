"""Parquet: answers as rows of a table, for pandas, DuckDB and Spark (https://parquet.apache.org/docs/)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnconv.predictions import Classification
from fcnconv.scores import ScoreStream
from fcnconv.system.progress import done
from fcnconv.writers.contents import Choice, keep, provenance
from fcnconv.writers.expected import CELLS

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 100_000
"""Rows of a row group: what a reader takes at a time, a few megabytes."""

METADATA = b"fcnconv"
"""The key under which a file's metadata tell how its rows were made, as JSON."""


def image_schema() -> pyarrow.Schema:
    """The columns of a row for an image and a rank. The box is the window where the class is most probable,
    ``x0`` to ``y1`` in pixels of the image; ``class_idx`` and ``wnid`` are null for a concept.
    """
    import pyarrow as pa

    names = pa.dictionary(pa.int32(), pa.string())
    box = [(side, pa.int32()) for side in ("x0", "y0", "x1", "y1")]
    answer = [("class_idx", pa.int32()), ("wnid", names), ("category", names), ("probability", pa.float32())]
    return pa.schema(
        [
            ("path", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("model", names),
            ("rank", pa.int16()),
            *answer,
            *box,
        ]
    )


def cell_schema() -> pyarrow.Schema:
    """The columns of a row for a cell and a rank: those of an image, with the cell's ``row`` and ``col``, and
    whether it is ``exact``, the score of a real crop.
    """
    import pyarrow as pa

    schema = image_schema()
    for place, (name, kind) in enumerate((("row", pa.int32()), ("col", pa.int32()), ("exact", pa.bool_()))):
        schema = schema.insert(4 + place, pa.field(name, kind))
    return schema


def image_rows(path: str, found: Classification) -> dict[str, Any]:
    """The columns of an image's answer, by name. path: what it is called."""
    ranked = found.predictions
    columns = _constant(path, found.width, found.height, found.model, len(ranked))
    for name in ("rank", "class_idx", "wnid", "category", "probability"):
        columns[name] = [getattr(prediction, name) for prediction in ranked]
    for place, side in enumerate(("x0", "y0", "x1", "y1")):
        columns[side] = [prediction.box[place] for prediction in ranked]
    return columns


def cell_rows(path: str, stream: ScoreStream, choice: Choice) -> Iterator[dict[str, Any]]:
    """The columns of the cells of a map, by name, a row of the map at a time.

    path: what its image is called. Without a selection a cell's k best categories, else those that are
    chosen.
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
        columns = _constant(path, width, height, model, len(found))
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
        done(CELLS, about.shape[1])


def stored(path: str) -> str:
    """A name as a column holds it: one that is not UTF-8, which strings are, with its bytes written out."""
    return path.encode(errors="backslashreplace").decode()


def _constant(path: str, width: int, height: int, model: str, rows: int) -> dict[str, Any]:
    path = stored(path)
    return {
        "path": [path] * rows,
        "width": [width] * rows,
        "height": [height] * rows,
        "model": [model] * rows,
    }


class TableFile:
    """A Parquet file that is filled with rows as they come, in groups of `GROUP_ROWS`.

    about: how the rows were made, which the file's metadata tell; it may be completed until `close`.
    """

    def __init__(self, path: Path, schema: pyarrow.Schema, about: Mapping[str, Any]):
        import pyarrow.parquet as pq

        self.schema, self.rows = schema, 0
        self._about = about
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pyarrow.Table] = []
        self._count = 0

    def add(self, columns: Mapping[str, Any]) -> None:
        """Adds rows, by columns."""
        import pyarrow as pa

        table = pa.table(
            [pa.array(columns[field.name], field.type) for field in self.schema], schema=self.schema
        )
        self._waiting.append(table)
        self._count += len(table)
        self.rows += len(table)
        if self._count >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left, and how the rows were made."""
        self._flush()
        self._writer.add_key_value_metadata({METADATA: json.dumps(dict(self._about))})
        self._writer.close()

    def discard(self) -> None:
        """Lets the file go, which is not whole."""
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            whole = pa.concat_tables(self._waiting).unify_dictionaries()
            self._writer.write_table(whole.combine_chunks(), row_group_size=GROUP_ROWS)
        self._waiting, self._count = [], 0


def write_parquet(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """A row for each cell and rank, see `cell_schema`; the provenance is in the file's metadata."""
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
