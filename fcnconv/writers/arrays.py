"""Formats that hold the scores as an array, to the last bit, filled as the map comes."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from fcnconv.scores import ScoreStream
from fcnconv.sources.geo import GeoReference, tiff_tags
from fcnconv.system.progress import done
from fcnconv.writers.contents import MADE_BY, Choice, keep, place_of, provenance
from fcnconv.writers.expected import FILE

log = logging.getLogger("fcnconv")


def write_npy(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The bare array: NumPy's format has no room for names."""
    with path.open("w+b") as file:
        _write_npy(file, stream, choice)


LARGE_MAP = 1 << 30
"""Bytes of a full map over which ``--store auto`` keeps the best classes of each cell."""


def write_npz(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The array ``scores`` with its ``categories``, the mask ``exact`` of the cells that were scored as real
    crops, and each item of the provenance as a scalar.

    Where only the best are stored (``options.store``), instead of the scores the k best classes of each cell,
    best first: ``class_idx`` uint16 and ``probability`` float16, both (rows, cols, k).
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        if _only_best(stream, choice):
            kept = keep(stream, (), choice.options.top_k)
            assert kept.class_idx is not None  # as nothing was selected
            arrays |= {"class_idx": kept.class_idx, "probability": kept.probability.astype(np.float16)}
            exact = kept.exact
        else:
            with tempfile.TemporaryFile(dir=path.parent) as file:  # an archive takes its bytes in order
                exact = _write_npy(file, stream, choice)
                file.seek(0)
                with archive.open("scores.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member, 1 << 20)
                done(FILE)
            arrays["values"] = np.array(choice.options.values)
        arrays |= {"categories": np.array(choice.names(stream.about)), "exact": exact}
        arrays |= {name: np.array(value) for name, value in provenance(stream).items()}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _only_best(stream: ScoreStream, choice: Choice) -> bool:
    options = choice.options
    if options.store != "auto" or choice.selections or options.values == "logits":
        return options.store == "top-k"
    size = 4 * math.prod(stream.about.shape)
    if size > LARGE_MAP:
        log.info(
            "the full map would have %.1f GB: keeping the %d best classes of each window (-k); --store all "
            "keeps every class",
            *(size / 1e9, options.top_k),
        )
    return size > LARGE_MAP


def _write_npy(file: IO[bytes], stream: ScoreStream, choice: Choice) -> npt.NDArray[np.bool_]:
    """Writes the scores as they come; returns the mask of the exact cells.

    Written and not memory-mapped: a full disk is then an error and not the end of the process.
    """
    shape = *stream.about.shape[:2], len(choice.names(stream.about))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, exact = file.tell(), np.empty(shape[:2], np.bool_)
    for piece in stream.pieces():
        scores = choice.scores(piece).astype("<f4", copy=False)
        for row, cells in enumerate(scores, start=piece.block.rows.start):
            file.seek(start + 4 * shape[2] * (row * shape[1] + piece.block.cols.start))
            file.write(np.ascontiguousarray(cells).data)
        exact[piece.place] = piece.exact
    return exact


IN_PIXELS = GeoReference((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), {})
"""The place of an image that has none. On a map y grows upwards."""

LARGE_TIFF = (1 << 32) - (1 << 24)
"""Bytes of scores from which on a TIFF is a BigTIFF, which ImageJ reads by a plugin only."""


def write_tif(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The scores in float32, a class after the other; a pixel covers the square of its cell.

    Of a GeoTIFF a GeoTIFF, with a band a class, where the image lies. Of other images an ImageJ stack, with a
    page a class and their names as labels, and for GIS in the image's pixels, x to the right and y downwards
    (negative); over 4 GB a BigTIFF with the same pages, as ImageJ's stacks end there.
    """
    import tifffile

    about, names = stream.about, choice.names(stream.about)
    rows, cols, _ = about.shape
    shape: tuple[int, ...] = (len(names), rows, cols)
    large = 4 * rows * cols * len(names) > LARGE_TIFF
    place, info = place_of(about), _info(stream, choice)
    kind: dict[str, Any] = {"metadata": {"axes": "CYX", "Info": info}}
    if place is not None:  # bands of one page, which share its place
        kind = {"metadata": None, "description": info}
        if len(names) > 1:
            kind["planarconfig"] = "separate"
    elif not large:
        shape = (1, 1, len(names), rows, cols, 1)
        labels = {"mode": "grayscale", "Labels": names, "Info": info}
        kind = {"imagej": True, "metadata": {"axes": "TZCYXS", **labels}}
    x0, y0, x1, y1 = about.grid.square(0, 0)
    start, _ = tifffile.imwrite(
        path,
        shape=shape,
        dtype=np.float32,
        byteorder="<",
        bigtiff=large,
        photometric="minisblack",
        software=MADE_BY,
        extratags=[
            *tiff_tags((place or IN_PIXELS).of_part(x0, y0, x1 - x0, y1 - y0)),
            (42112, "s", 0, _gdal_metadata(names), True),
        ],
        returnoffset=True,
        **kind,
    )
    with path.open("r+b") as file:
        for piece in stream.pieces():
            planes = choice.scores(piece).astype("<f4", copy=False).transpose(2, 0, 1)
            for plane, scores in enumerate(np.ascontiguousarray(planes)):
                for row, cells in enumerate(scores, start=piece.block.rows.start):
                    file.seek(start + 4 * ((plane * rows + row) * cols + piece.block.cols.start))
                    file.write(cells.data)
        _amend(file, start, info, _info(stream, choice))


def _info(stream: ScoreStream, choice: Choice) -> str:
    """The provenance as text of one length, whatever the scan still finds out."""
    return json.dumps(provenance(stream) | {"values": choice.options.values}).ljust(_INFO_LENGTH)


_INFO_LENGTH = 2000


def _amend(file: IO[bytes], size: int, before: str, after: str) -> None:
    """Replaces a text in the first `size` bytes of a TIFF, in whichever way it was written there."""
    file.seek(0)
    head = file.read(size)
    for encode in (
        lambda text: text.encode("utf-16-le"),  # ImageJ's own tag
        lambda text: json.dumps(text)[1:-1].encode(),  # inside tifffile's description
        lambda text: text.encode(),
    ):
        old, new = encode(before), encode(after)
        if len(old) == len(new) and (place := head.find(old)) >= 0:
            file.seek(place)
            file.write(new)


def _gdal_metadata(names: list[str]) -> str:
    items = (
        f'<Item name="DESCRIPTION" sample="{band}" role="description">{escape(name)}</Item>'
        for band, name in enumerate(names)
    )
    xml = f"<GDALMetadata>{''.join(items)}</GDALMetadata>"
    return xml.encode("ascii", "xmlcharrefreplace").decode()  # a TIFF's text is ASCII


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
