"""NumPy's formats, which hold the exact scores as an array and are filled while the map is computed."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fcnconv.scores import ScoreStream
from fcnconv.system.scratch import scratch_array
from fcnconv.writers.output_spec import OutputSpec, keep, provenance

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
