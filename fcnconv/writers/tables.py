"""Parquet tables of the cells of a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.scores import ScoreStream
from fcnconv.system.progress import written
from fcnconv.writers.answers import TableFile, constant_columns, image_schema
from fcnconv.writers.output_spec import OutputSpec, keep, provenance

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
