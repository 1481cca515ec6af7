"""Formats of arrays, which hold the exact scores: those of NumPy, which are filled while the map is computed,
and Zarr.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fcnconv.scores import ScoreStream
from fcnconv.system.scratch import scratch_array
from fcnconv.writers.output_spec import OutputSpec, keep, provenance
from fcnconv.writers.pyramids import TILE, cell_size, levels, planes, pyramid

log = logging.getLogger("fcnconv")


def write_npy(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the array without names: the .npy format has no room for them."""
    with path.open("w+b") as file:
        _write_npy(file, stream, output)


LARGE_MAP = 1 << 30
"""Size of a full map in bytes above which ``--store auto`` keeps only the best classes of each cell."""


def write_npz(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the array ``scores`` with its ``categories``, the mask ``exact`` of the cells that were scored
    as crops, and each item of the provenance as a scalar.

    If only the best classes are stored (``options.store``), the file contains the k best classes of each cell
    instead of the scores, best first: ``class_idx`` uint16 and ``probability`` float16, both (rows, cols, k).

    With ``--map activations`` the scores are the windows' scores, and the file also contains the class
    activations: ``activations`` float32 (h, w, n), with ``activation_window`` and ``activation_stride`` in
    pixels of the scanned image. Cell (i, j) begins at ``(j, i) · activation_stride``.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    if stream.info.kind == "activations":
        stream, arrays = _with_activations(stream, output)
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        if _only_best(stream, output):
            kept = keep(stream, (), output.options.top_k)
            assert kept.class_idx is not None  # because nothing was selected
            arrays |= {"class_idx": kept.class_idx, "probability": kept.probability.astype(np.float16)}
            exact = kept.exact
        else:
            with tempfile.TemporaryFile(dir=path.parent) as file:  # an archive is written sequentially
                exact = _write_npy(file, stream, output)
                file.seek(0)
                with archive.open("scores.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member, 1 << 20)
            arrays["values"] = np.array(output.options.values)
        arrays |= {"categories": np.array(output.names(stream.info)), "exact": exact}
        arrays |= {name: np.array(value) for name, value in provenance(stream).items()}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _only_best(stream: ScoreStream, output: OutputSpec) -> bool:
    options = output.options
    if options.store != "auto" or output.selections or options.values == "logits":
        return options.store == "top-k"
    size = 4 * math.prod(stream.info.shape)
    if size > LARGE_MAP:
        log.info(
            "the full map would have %.1f GB: keeping the %d best classes of each window (-k); --store all "
            "keeps every class",
            *(size / 1e9, options.top_k),
        )
    return size > LARGE_MAP


def _write_npy(file: IO[bytes], stream: ScoreStream, output: OutputSpec) -> npt.NDArray[np.bool_]:
    """Writes the scores while they are computed, and returns the mask of the exact cells.

    The file is written and not memory-mapped: a full disk then raises an error instead of killing the
    process.
    """
    shape = *stream.info.shape[:2], len(output.names(stream.info))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, exact = file.tell(), np.empty(shape[:2], np.bool_)
    for piece in stream.pieces():
        scores = output.scores(piece).astype("<f4", copy=False)
        for row, cells in enumerate(scores, start=piece.block.rows.start):
            file.seek(start + 4 * shape[2] * (row * shape[1] + piece.block.cols.start))
            file.write(np.ascontiguousarray(cells).data)
        exact[piece.slices] = piece.exact
    return exact


def _with_activations(
    stream: ScoreStream, output: OutputSpec
) -> tuple[ScoreStream, dict[str, npt.NDArray[Any]]]:
    """Returns the windows of a scan for which class activations were requested, and the arrays that receive
    the activations.
    """
    shape = *stream.info.shape[:2], len(output.names(stream.info))
    activations = scratch_array(shape)
    logits = replace(output, options=replace(output.options, values="logits"))
    for piece in stream.pieces():
        activations[piece.slices] = logits.scores(piece)
    grid = stream.info.grid
    geometry = {"activation_window": grid.window, "activation_stride": grid.stride}
    arrays = {name: np.array(value) for name, value in geometry.items()}
    return stream.info.others["windows"](), {"activations": activations, **arrays}


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
