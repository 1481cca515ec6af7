"""Zarr: the scores in chunks, and OME-Zarr for microscopy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fcnconv.scores import ScoreStream
from fcnconv.writers.output_spec import OutputSpec, provenance
from fcnconv.writers.pyramids import TILE, cell_size, levels, planes, pyramid

CHUNK = (16, 64, 64)
"""Largest chunk of a zarr array, in cells and classes: 256 kB. It suits reading a plane and reading a cell,
and spans few rows, because the map is computed in rows.
"""


def write_zarr(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes a group with the array ``scores`` in compressed chunks, and the mask ``exact`` of the cells that
    were scored as crops. Names and provenance are attributes.
    """
    # In a thread: zarr's own threads would go on writing after an interrupt. Leaving this one waits for them.
    with ThreadPoolExecutor(1) as thread:
        group, scores, exact = thread.submit(_new_zarr, path, stream, output).result()
        for piece in stream.pieces():
            thread.submit(scores.__setitem__, piece.slices, output.scores(piece)).result()
            thread.submit(exact.__setitem__, piece.slices, piece.exact).result()
        thread.submit(group.attrs.update, provenance(stream)).result()


def _new_zarr(path: Path, stream: ScoreStream, output: OutputSpec) -> tuple[Any, Any, Any]:
    import zarr

    names = output.names(stream.info)
    shape = *stream.info.shape[:2], len(names)
    chunks = tuple(min(pair) for pair in zip(CHUNK, shape, strict=True))
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update({"values": output.options.values, "categories": names})
    axes = ("row", "col", "class")
    scores = group.create_array("scores", shape=shape, dtype="float32", chunks=chunks, dimension_names=axes)
    exact = group.create_array(
        "exact", shape=shape[:2], dtype="bool", chunks=chunks[:2], dimension_names=axes[:2]
    )
    return group, scores, exact


def write_ome_zarr(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes OME-Zarr 0.5: arrays ``0``, ``1``, … of float32 (channel, y, x), each half the size of the one
    before, with the class names as channels.

    The size and place of a cell are in micrometres if the image records its pixel size, else in pixels. The
    attribute ``fcnconv`` contains the provenance.
    """
    found = planes(stream, output)
    with ThreadPoolExecutor(1) as thread:
        group = thread.submit(_new_ome_zarr, path, stream, output, found.shape).result()
        for level, smaller in enumerate(pyramid(found)):
            for channel, plane in enumerate(smaller):
                thread.submit(group[str(level)].__setitem__, channel, plane).result()


def _new_ome_zarr(path: Path, stream: ScoreStream, output: OutputSpec, shape: tuple[int, ...]) -> Any:
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    wide, high, x, y, known = cell_size(stream.info)
    unit = {"unit": "micrometer"} if known else {}
    datasets = []
    for level in range(levels(*shape[1:])):
        size = shape[0], *(-(-side // 2**level) for side in shape[1:])
        chunks = (1, *(min(TILE, side) for side in size[1:]))
        group.create_array(
            str(level), shape=size, dtype="float32", chunks=chunks, dimension_names=("c", "y", "x")
        )
        step = 2**level
        # the centre of the first cell, which covers several cells of the first level
        corner = [0.0, y + (step - 1) / 2 * high, x + (step - 1) / 2 * wide]
        place = [
            {"type": "scale", "scale": [1.0, high * step, wide * step]},
            {"type": "translation", "translation": corner},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": place})
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", **unit} for name in "yx")]
    window = {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0}
    channels = [
        {"label": name, "color": "FFFFFF", "active": i == 0, "window": window}
        for i, name in enumerate(output.names(stream.info))
    ]
    shown = {"channels": channels, "rdefs": {"model": "greyscale"}}
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], "omero": shown}
    values = {"values": output.options.values}
    group.attrs.update({"ome": ome, "fcnconv": provenance(stream) | values})
    return group
