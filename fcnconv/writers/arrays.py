"""Formats that hold the scores as an array, to the last bit, filled as the map comes."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from fcnconv.scores import AnyMap
from fcnconv.sources.geo import GeoReference, tiff_tags
from fcnconv.writers.contents import Choice, chosen_names, chosen_scores, provenance
from fcnconv.writers.kept import keep


def write_npy(path: Path, score_map: AnyMap, choice: Choice) -> None:
    """The bare array: NumPy's format has no room for names."""
    with path.open("w+b") as file:
        _write_npy(file, score_map, choice)


def write_npz(path: Path, score_map: AnyMap, choice: Choice) -> None:
    """The array ``scores`` with its ``categories``, the mask ``exact`` of the cells that were scored as real
    crops, and each item of the provenance as a scalar.

    With ``choice.best_only``, instead of the scores the k best classes of each cell, best first:
    ``class_idx`` uint16 and ``probability`` float16, both (rows, cols, k).
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        if choice.best_only:
            kept = keep(score_map, (), choice.k)
            assert kept.class_idx is not None  # as nothing was selected
            arrays |= {"class_idx": kept.class_idx, "probability": kept.probability.astype(np.float16)}
            exact = kept.exact
        else:
            with tempfile.TemporaryFile(dir=path.parent) as file:  # an archive takes its bytes in order
                exact = _write_npy(file, score_map, choice)
                file.seek(0)
                with archive.open("scores.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member, 1 << 20)
            arrays["values"] = np.array(choice.values)
        names = score_map.labels.categories if choice.best_only else chosen_names(score_map, choice)
        arrays |= {"categories": np.array(names), "exact": exact}
        arrays |= {name: np.array(value) for name, value in provenance(score_map).items()}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_npy(file: IO[bytes], score_map: AnyMap, choice: Choice) -> npt.NDArray[np.bool_]:
    """Writes the scores as they come; returns the mask of the exact cells.

    Written and not memory-mapped: a full disk is then an error and not the end of the process.
    """
    shape = *score_map.shape[:2], len(chosen_names(score_map, choice))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, exact = file.tell(), np.empty(shape[:2], np.bool_)
    for piece in score_map.pieces():
        scores = chosen_scores(piece.map, choice).astype("<f4", copy=False)
        for row, cells in enumerate(scores, start=piece.rows.start):
            file.seek(start + 4 * shape[2] * (row * shape[1] + piece.cols.start))
            file.write(np.ascontiguousarray(cells).data)
        exact[piece.rows, piece.cols] = piece.map.exact_mask()
    return exact


IN_PIXELS = GeoReference((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), {})
"""The place of an image that has none. On a map y grows upwards."""

LARGE_TIFF = (1 << 32) - (1 << 24)
"""Bytes of scores from which on a TIFF is a BigTIFF, which ImageJ reads by a plugin only."""


def write_tif(path: Path, score_map: AnyMap, choice: Choice) -> None:
    """The scores in float32, a class after the other; a pixel covers the square of its cell.

    Of a GeoTIFF a GeoTIFF, with a band a class, where the image lies. Of other images an ImageJ stack, with a
    page a class and their names as labels, and for GIS in the image's pixels, x to the right and y downwards
    (negative); over 4 GB a BigTIFF with the same pages, as ImageJ's stacks end there.
    """
    import tifffile

    names = chosen_names(score_map, choice)
    rows, cols, _ = score_map.shape
    shape: tuple[int, ...] = (len(names), rows, cols)
    large = 4 * rows * cols * len(names) > LARGE_TIFF
    about = json.dumps(provenance(score_map) | {"values": choice.values})
    kind: dict[str, Any] = {"metadata": {"axes": "CYX", "Info": about}}
    if choice.place is not None:  # bands of one page, which share its place
        kind = {"metadata": None, "description": about}
        if len(names) > 1:
            kind["planarconfig"] = "separate"
    elif not large:
        shape = (1, 1, len(names), rows, cols, 1)
        labels = {"mode": "grayscale", "Labels": names, "Info": about}
        kind = {"imagej": True, "metadata": {"axes": "TZCYXS", **labels}}
    x0, y0, x1, y1 = score_map.grid.square(0, 0)
    place = (choice.place or IN_PIXELS).of_part(x0, y0, x1 - x0, y1 - y0)
    start, _ = tifffile.imwrite(
        path,
        shape=shape,
        dtype=np.float32,
        byteorder="<",
        bigtiff=large,
        photometric="minisblack",
        extratags=[*tiff_tags(place), (42112, "s", 0, _gdal_metadata(names), True)],
        returnoffset=True,
        **kind,
    )
    with path.open("r+b") as file:
        for piece in score_map.pieces():
            planes = chosen_scores(piece.map, choice).astype("<f4", copy=False).transpose(2, 0, 1)
            for plane, scores in enumerate(np.ascontiguousarray(planes)):
                for row, cells in enumerate(scores, start=piece.rows.start):
                    file.seek(start + 4 * ((plane * rows + row) * cols + piece.cols.start))
                    file.write(cells.data)


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


def write_zarr(path: Path, score_map: AnyMap, choice: Choice) -> None:
    """A group with the array ``scores`` in compressed chunks; names and provenance are its attributes."""
    # In a thread, since zarr's own would go on writing after an interrupt: leaving this one waits for them.
    with ThreadPoolExecutor(1) as thread:
        array = thread.submit(_new_zarr, path, score_map, choice).result()
        for piece in score_map.pieces():
            place = piece.rows, piece.cols
            thread.submit(array.__setitem__, place, chosen_scores(piece.map, choice)).result()


def _new_zarr(path: Path, score_map: AnyMap, choice: Choice) -> Any:
    import zarr

    names = chosen_names(score_map, choice)
    shape = *score_map.shape[:2], len(names)
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(provenance(score_map))
    group.attrs.update({"values": choice.values, "categories": names})
    return group.create_array(
        "scores",
        shape=shape,
        dtype="float32",
        chunks=tuple(min(pair) for pair in zip(CHUNK, shape, strict=True)),
        dimension_names=("row", "col", "class"),
    )
