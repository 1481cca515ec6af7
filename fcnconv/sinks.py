"""Maps that do not fit in memory: written block by block as the scan gives them.

Each sink fills a file under a temporary name, which gets its own when the last block is in: a scan that was
stopped leaves nothing that looks finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fcnconv.errors import OutputError, UsageError
from fcnconv.files import whole_file, whole_folder
from fcnconv.scores import Block, ScoreMap
from fcnconv.writers.contents import Choice, chosen_names, chosen_scores, provenance

Piece = Callable[[Block], ScoreMap]
"""A block as a small map of its own."""


def blocks_to_npy(path: Path, blocks: Iterable[Block], empty: ScoreMap, piece: Piece, choice: Choice) -> None:
    """The array of `writers.write_npy`, memory-mapped and filled as the blocks come.

    empty: a map of the whole grid without cells, for its geometry and names.
    """
    shape = (empty.grid.rows, empty.grid.cols, len(chosen_names(empty, choice)))
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for block in blocks:
        out[block.rows, block.cols] = chosen_scores(piece(block), choice)
    out.flush()


def blocks_to_zarr(
    path: Path, blocks: Iterable[Block], empty: ScoreMap, piece: Piece, choice: Choice
) -> None:
    """The group of `writers.write_zarr`, filled as the blocks come."""
    import zarr

    names = chosen_names(empty, choice)
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(provenance(empty))
    group.attrs.update({"values": choice.values, "categories": names})
    array = group.create_array(
        "scores",
        shape=(empty.grid.rows, empty.grid.cols, len(names)),
        dtype="float32",
        chunks=(1, min(64, empty.grid.cols), min(512, len(names))),  # a block never shares a row of chunks
        dimension_names=("row", "col", "class"),
    )
    for block in blocks:
        array[block.rows, block.cols] = chosen_scores(piece(block), choice)


def blocks_to_top_k(
    path: Path, blocks: Iterable[Block], empty: ScoreMap, piece: Piece, choice: Choice
) -> None:
    """An npz with the k best classes of each cell: ``class_idx`` uint16 and ``probability`` float16, both
    (rows, cols, k), best first; with ``categories`` and the provenance.
    """
    k = min(choice.k, len(empty.labels))
    class_idx = np.empty((empty.grid.rows, empty.grid.cols, k), np.uint16)
    probability = np.empty(class_idx.shape, np.float16)
    for block in blocks:
        found, scores = piece(block).top_k(k)
        class_idx[block.rows, block.cols] = found
        probability[block.rows, block.cols] = scores
    scalars = {name: np.array(value) for name, value in provenance(empty).items()}
    with path.open("wb") as file:
        np.savez(
            file,
            class_idx=class_idx,
            probability=probability,
            categories=np.array(empty.labels.categories),
            **scalars,  # type: ignore[arg-type]
        )


SINKS = {"npy": blocks_to_npy, "zarr": blocks_to_zarr, "npz": blocks_to_top_k}
"""What can be written as it comes, by the suffix; an npz holds the best classes of each cell."""


STORES = ("auto", "all", "top-k")

LARGE_MAP = 1 << 30
"""Bytes of a full map from which on `--store auto` keeps the best classes of each cell, or streams."""


def parse_store(text: str) -> str:
    """The store that `text` names. Raises UsageError."""
    if text not in STORES:
        raise UsageError(f"unknown store {text!r}; known: {', '.join(STORES)}")
    return text


def stream(
    blocks: Iterable[Block], empty: ScoreMap, piece: Piece, choice: Choice, path: Path, suffix: str
) -> None:
    """Writes the blocks of a scan to the file that a suffix of `SINKS` names. Raises OutputError."""
    place = whole_folder if suffix == "zarr" else whole_file
    try:
        with place(path) as temporary:
            SINKS[suffix](temporary, blocks, empty, piece, choice)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
