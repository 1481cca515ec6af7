"""Parquet tables of classifications, for pandas, DuckDB and Spark (https://parquet.apache.org/docs/)."""

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

    from fcnconv.scores import Classification

GROUP_ROWS = 100_000
"""Rows per row group, the unit that a reader loads: a few megabytes."""

METADATA = b"fcnconv"
"""The metadata key of the provenance of a file's rows, as JSON."""


def image_schema() -> pyarrow.Schema:
    """Returns the columns of a row for one image and rank.

    The box ``x0`` to ``y1`` is the window where the class is most probable, in pixels of the image.
    ``class_idx`` and ``wnid`` are null for a concept.
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
    """Returns the columns of an image's classification, by name.

    Args:
        path: The image's name in the table.
        found: The classification.
    """
    ranked = found.predictions
    columns = constant_columns(path, found.width, found.height, found.model, len(ranked))
    for name in ("rank", "class_idx", "wnid", "category", "probability"):
        columns[name] = [getattr(prediction, name) for prediction in ranked]
    for place, side in enumerate(("x0", "y0", "x1", "y1")):
        columns[side] = [prediction.box[place] for prediction in ranked]
    return columns


def stored(path: str) -> str:
    """Returns a name as a string column stores it: bytes that are not UTF-8 are escaped."""
    return path.encode(errors="backslashreplace").decode()


def constant_columns(path: str, width: int, height: int, model: str, rows: int) -> dict[str, Any]:
    """Returns the columns that are the same in all rows of an image."""
    path = stored(path)
    return {
        "path": [path] * rows,
        "width": [width] * rows,
        "height": [height] * rows,
        "model": [model] * rows,
    }


class TableFile:
    """A Parquet file that rows are appended to, written in groups of `GROUP_ROWS`.

    Attributes:
        about: The provenance for the file's metadata. You may complete it until `close`.
    """

    def __init__(self, path: Path, schema: pyarrow.Schema, about: Mapping[str, Any]):
        import pyarrow.parquet as pq

        self.schema, self.rows = schema, 0
        self._about = about
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pyarrow.Table] = []
        self._count = 0

    def add(self, columns: Mapping[str, Any]) -> None:
        """Appends rows, given as columns."""
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
        """Writes the remaining rows and the provenance."""
        self._flush()
        self._writer.add_key_value_metadata({METADATA: json.dumps(dict(self._about))})
        self._writer.close()

    def discard(self) -> None:
        """Closes the file without completing it."""
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            whole = pa.concat_tables(self._waiting).unify_dictionaries()
            self._writer.write_table(whole.combine_chunks(), row_group_size=GROUP_ROWS)
        self._waiting, self._count = [], 0


def check_table(out: str) -> None:
    """Checks that a file name can hold a table of classifications.

    Raises:
        UsageError: The name does not end in .parquet.
        OutputError: pyarrow is not installed.
    """
    if out not in STANDARD_OUTPUT and Path(out).suffix.lower() != ".parquet":
        raise UsageError(
            f"{out}: classifications are written as .parquet only; name such a file, or print them with "
            "--json or to a pipe"
        )
    if find_spec("pyarrow") is None:
        raise OutputError(".parquet needs the package pyarrow: pip install 'fcnconv[parquet]'")


@contextmanager
def table_of_images(out: str, identity: Identity) -> Iterator[Callable[[str, Classification], None]]:
    """Yields a function that adds an image's classification to a table. The file `out` appears when the block
    ends without an error.

    Args:
        out: The path of the table.
        identity: The network's identity, recorded in the file's metadata.

    Raises:
        OutputError: The file cannot be written.
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
