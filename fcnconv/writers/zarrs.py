"""Zarr: the scores in chunks, and OME-Zarr for microscopy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fcnconv.scores import ScoreStream
from fcnconv.writers.output_spec import Choice, provenance
from fcnconv.writers.pyramids import TILE, cell_size, levels, planes, pyramid

CHUNK = (16, 64, 64)
"""Cells and classes of a zarr chunk, at most: 256 kB, for reading a plane and a cell alike, and few rows, as
the map comes in rows."""


def write_zarr(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """A group with the array ``scores`` in compressed chunks, and the mask ``exact`` of the cells that were
    scored as real crops; names and provenance are its attributes.
    """
    # In a thread, since zarr's own would go on writing after an interrupt: leaving this one waits for them.
    with ThreadPoolExecutor(1) as thread:
        group, scores, exact = thread.submit(_new_zarr, path, stream, choice).result()
        for piece in stream.pieces():
            thread.submit(scores.__setitem__, piece.place, choice.scores(piece)).result()
            thread.submit(exact.__setitem__, piece.place, piece.exact).result()
        thread.submit(group.attrs.update, provenance(stream)).result()


def _new_zarr(path: Path, stream: ScoreStream, choice: Choice) -> tuple[Any, Any, Any]:
    import zarr

    names = choice.names(stream.about)
    shape = *stream.about.shape[:2], len(names)
    chunks = tuple(min(pair) for pair in zip(CHUNK, shape, strict=True))
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update({"values": choice.options.values, "categories": names})
    axes = ("row", "col", "class")
    scores = group.create_array("scores", shape=shape, dtype="float32", chunks=chunks, dimension_names=axes)
    exact = group.create_array(
        "exact", shape=shape[:2], dtype="bool", chunks=chunks[:2], dimension_names=axes[:2]
    )
    return group, scores, exact


def write_ome_zarr(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """OME-Zarr 0.5: arrays ``0``, ``1``, … of float32 (channel, y, x), each half of the one before, with the
    names of the classes as channels; how large a cell is and where it lies, in micrometres if the image tells
    how large its pixels are, else in its pixels. The provenance is the attribute ``fcnconv``.
    """
    found = planes(stream, choice)
    with ThreadPoolExecutor(1) as thread:
        group = thread.submit(_new_ome_zarr, path, stream, choice, found.shape).result()
        for level, smaller in enumerate(pyramid(found)):
            for channel, plane in enumerate(smaller):
                thread.submit(group[str(level)].__setitem__, channel, plane).result()


def _new_ome_zarr(path: Path, stream: ScoreStream, choice: Choice, shape: tuple[int, ...]) -> Any:
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    wide, high, x, y, known = cell_size(stream.about)
    unit = {"unit": "micrometer"} if known else {}
    datasets = []
    for level in range(levels(*shape[1:])):
        size = shape[0], *(-(-side // 2**level) for side in shape[1:])
        chunks = (1, *(min(TILE, side) for side in size[1:]))
        group.create_array(
            str(level), shape=size, dtype="float32", chunks=chunks, dimension_names=("c", "y", "x")
        )
        step = 2**level
        # of the first of its cells, which covers several of the first level's, the centre
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
        for i, name in enumerate(choice.names(stream.about))
    ]
    shown = {"channels": channels, "rdefs": {"model": "greyscale"}}
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], "omero": shown}
    values = {"values": choice.options.values}
    group.attrs.update({"ome": ome, "fcnconv": provenance(stream) | values})
    return group
