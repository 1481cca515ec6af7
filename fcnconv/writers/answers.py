"""Parquet: answers as rows of a table, for pandas, DuckDB and Spark (https://parquet.apache.org/docs/)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import OutputError, UsageError
from fcnconv.provenance import Identity
from fcnconv.system.files import STANDARD_OUTPUT, written

if TYPE_CHECKING:
    import pyarrow

    from fcnconv.predictions import Classification

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


def image_rows(path: str, found: Classification) -> dict[str, Any]:
    """The columns of an image's answer, by name. path: what it is called."""
    ranked = found.predictions
    columns = constant_columns(path, found.width, found.height, found.model, len(ranked))
    for name in ("rank", "class_idx", "wnid", "category", "probability"):
        columns[name] = [getattr(prediction, name) for prediction in ranked]
    for place, side in enumerate(("x0", "y0", "x1", "y1")):
        columns[side] = [prediction.box[place] for prediction in ranked]
    return columns


def stored(path: str) -> str:
    """A name as a column holds it: one that is not UTF-8, which strings are, with its bytes written out."""
    return path.encode(errors="backslashreplace").decode()


def constant_columns(path: str, width: int, height: int, model: str, rows: int) -> dict[str, Any]:
    """The columns that are the same in all rows of an image."""
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


def check_table(out: str) -> None:
    """Raises UsageError if a file of this name would be no table, OutputError without the package."""
    if out not in STANDARD_OUTPUT and Path(out).suffix.lower() != ".parquet":
        raise UsageError(f"{out}: the classes of images are written as .parquet; --json and pipes print them")
    if find_spec("pyarrow") is None:
        raise OutputError(".parquet needs the package pyarrow: pip install 'fcnconv[parquet]'")


@contextmanager
def table_of_images(out: str, identity: Identity) -> Iterator[Callable[[str, Classification], None]]:
    """What adds an image's answer to a table, which is in the file `out` once the block ends well.

    identity: of the network, which the file's metadata tell. Raises OutputError.
    """
    from fcnconv.version import __version__

    with written(out) as path:
        table = TableFile(path, image_schema(), {"version": __version__, **asdict(identity)})
        try:
            yield lambda name, found: table.add(image_rows(name, found))
        except BaseException:
            table.discard()
            raise
        table.close()
