"""The viewer: one HTML file with the photo and the probability of every class in every window.

The page needs no network and no server. Its template, with the style and the script, is
``data/viewer.html``; here the scores are packed for it. A probability is kept in 8 bits on a square-root
scale, which spends most of its steps on small probabilities, then deflated. Maps of too many values keep only
the best classes of each cell.
"""

from __future__ import annotations

import base64
import html
import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.labels import Selection
from fcnconv.pages import filled, readable, script_json
from fcnconv.render.colours import colour_map
from fcnconv.render.draw import OPACITY
from fcnconv.scores import FloatArray, ScoreStream, top_k
from fcnconv.sources import Pixels

MAX_VALUES = 20_000_000
"""Cells × classes up to which a page holds every class: such a page has 5 to 10 MB."""

MIN_KEPT = 16
"""Classes kept of each cell in the largest maps. A map just over `MAX_VALUES` keeps a quarter of as many
values, which with their indices take as much room.
"""

MAX_SIDE = 2048
"""Pixels of the photo's longer side in the page; a larger photo is reduced."""


@dataclass(frozen=True)
class Packed:
    """The probabilities of a map as the page keeps them.

    kept: classes a cell, best first; 0 where every class is kept, in index order.
    data: with every class, uint8 (num_classes, rows, cols); else class indices (kept, rows, cols), uint16 or
        uint32 little-endian as `index_bytes` says, followed by their uint8 (kept, rows, cols). A byte q is
        the probability (q / 255)².
    error, concept_error: largest difference from the map's own probabilities, of a class and of a concept;
        measured. A class that is not kept in a cell counts as 0 there.
    """

    kept: int
    index_bytes: int
    data: bytes
    error: float
    concept_error: float


def viewer_page(
    stream: ScoreStream,
    photo: Pixels,
    provenance: Callable[[], Mapping[str, str | int | float]],
    *,
    shown: Sequence[Selection] = (),
    max_values: int = MAX_VALUES,
) -> str:
    """The whole page: HTML, to be written as UTF-8.

    photo: uint8 (H, W, 3), the image that was scanned, at its own size.
    provenance: gives what the page's foot tells of the map's origin, as named scalars, once the map is read.
    shown: what the page offers first; it opens with the first of them, or else with the class that is most
        probable in a window.
    max_values: cells × classes over which only the best classes of each cell are kept.
    """
    rows, cols, num_classes = stream.about.shape
    grid, labels, source = stream.about.grid, stream.about.labels, stream.about.source
    packed = pack(stream, max_values)
    name = readable(PurePath(source.name).name) if source else "image"
    facts = {
        "name": name,
        "imageSize": grid.image_size,
        "scanSize": grid.scan_size,
        "window": grid.window,
        "stride": grid.stride,
        "rows": rows,
        "cols": cols,
        "kept": packed.kept,
        "indexBytes": packed.index_bytes,
        "categories": labels.categories,
        "wnids": labels.wnids,
        "concepts": [_listed(concept) for concept in labels.concepts],
        "shown": [_listed(selection) for selection in shown],
        "colours": colour_map().tobytes().hex(),
        "opacity": OPACITY,
    }
    return filled(
        "viewer.html",
        {
            "name": html.escape(name),
            "photo": _photo_uri(photo),
            "width": str(grid.image_size[0]),
            "height": str(grid.image_size[1]),
            "subtitle": _subtitle(grid),
            "storage": _storage(packed, rows * cols, num_classes, bool(labels.concepts)),
            "provenance": "".join(_row(key, value) for key, value in provenance().items()),
            "facts": script_json(facts),
            "data": base64.b64encode(packed.data).decode(),
        },
    )


def pack(stream: ScoreStream, max_values: int = MAX_VALUES) -> Packed:
    """The map's probabilities as a page keeps them, deflated, with the error that this costs."""
    rows, cols, num_classes = stream.about.shape
    kept = _kept(rows * cols, num_classes, max_values)
    member = _membership(stream.about.labels.concepts, num_classes)
    index_type = np.dtype("<u2" if num_classes <= 1 << 16 else "<u4")
    index = np.zeros((kept, rows, cols), index_type)
    value = np.zeros((kept or num_classes, rows, cols), np.uint8)
    error = concept_error = 0.0
    for piece in stream.pieces():
        for row, probabilities in enumerate(piece.probabilities(), start=piece.block.rows.start):
            quantised = np.round(255 * np.sqrt(probabilities)).astype(np.uint8)
            if kept:
                best = top_k(probabilities, kept)
                index[:, row, piece.block.cols] = best.T  # (cols, kept) -> (kept, cols)
                only_best = np.zeros_like(quantised)
                np.put_along_axis(only_best, best, np.take_along_axis(quantised, best, axis=-1), axis=-1)
                value[:, row, piece.block.cols] = np.take_along_axis(quantised, best, axis=-1).T
                quantised = only_best
            else:
                value[:, row, piece.block.cols] = quantised.T  # (cols, K) -> (K, cols)
            difference = np.square(quantised / np.float32(255)) - probabilities
            error = max(error, float(np.abs(difference).max()))
            concept_error = max(concept_error, float(np.abs(difference @ member).max(initial=0)))
    data = zlib.compress(index.tobytes() + value.tobytes(), 9)
    return Packed(kept, index_type.itemsize, data, error, concept_error)


def _kept(cells: int, num_classes: int, max_values: int) -> int:
    if cells * num_classes <= max_values:
        return 0
    return min(max(MIN_KEPT, max_values // (4 * cells)), num_classes)


def _membership(concepts: Sequence[Selection], num_classes: int) -> FloatArray:
    """float32 (num_classes, concepts): 1 where a class belongs to a concept."""
    member: npt.NDArray[np.float32] = np.zeros((num_classes, len(concepts)), np.float32)
    for column, concept in enumerate(concepts):
        member[list(concept.classes), column] = 1
    return member


def _listed(selection: Selection) -> tuple[str, tuple[int, ...], str | None, tuple[str, ...]]:
    return selection.name, selection.classes, selection.wnid, selection.also


def _subtitle(grid: Grid) -> str:
    width, height = grid.image_size
    windows = f"{grid.rows:,} × {grid.cols:,} windows of {grid.window} px, {grid.stride} px apart"
    scanned = (
        "" if grid.scan_size == grid.image_size else ", scanned at {:,} × {:,} px".format(*grid.scan_size)
    )
    return f"{width:,} × {height:,} px · {windows}{scanned}"


def _storage(packed: Packed, cells: int, num_classes: int, has_concepts: bool) -> str:
    """A sentence about what the page keeps and how far it is from the map."""
    kept = (
        f"the {packed.kept} best of {num_classes:,} classes"
        if packed.kept
        else f"all {num_classes:,} classes"
    )
    rest = f"; a class outside a window’s {packed.kept} best counts as 0 there" if packed.kept else ""
    summed = f", of a concept’s sum {_rounded_up(packed.concept_error)}" if has_concepts else ""
    return (
        f"This page holds {kept} of each of {cells:,} windows, in 8 bits on a square-root scale{rest}. "
        f"Largest error of a probability here: {_rounded_up(packed.error)}{summed}."
    )


def _rounded_up(error: float) -> str:
    return f"{math.ceil(error * 10_000) / 10_000:.4f}"


def _row(key: str, value: str | int | float) -> str:
    """A term of the page's foot and its value."""
    told = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"<div><dt>{html.escape(key.replace('_', ' '))}</dt><dd>{html.escape(told)}</dd></div>"


def _photo_uri(photo: Pixels) -> str:
    """The photo as a data URI, its longer side at most `MAX_SIDE` pixels."""
    image = Image.fromarray(photo)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
