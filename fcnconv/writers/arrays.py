"""Formats that hold the scores as an array, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from fcnconv.scores import ScoreMap
from fcnconv.writers.contents import Choice, chosen_names, chosen_scores, provenance


def write_npy(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """The bare array: NumPy's format has no room for names."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(chosen_scores(score_map, choice)), allow_pickle=False)


def write_npz(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """The array ``scores`` with its ``categories``, the mask ``exact`` of the cells that were scored as real
    crops, and each item of the provenance as a scalar.
    """
    with path.open("wb") as file:
        np.savez(
            file,
            scores=chosen_scores(score_map, choice),
            categories=np.array(chosen_names(score_map, choice)),
            values=np.array(choice.values),
            exact=score_map.exact_mask(),
            **{name: np.array(value) for name, value in provenance(score_map).items()},  # type: ignore[arg-type]
        )


def write_tif(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """A float32 page a class, as an ImageJ stack whose slices bear the names, placed for GIS over the image:
    a pixel covers the square of its cell, x to the right and y downwards (negative) in the image's pixels.
    """
    import tifffile

    scores, names = chosen_scores(score_map, choice), chosen_names(score_map, choice)
    x0, y0, x1, y1 = score_map.grid.square(0, 0)
    geotiff = [
        (33550, "d", 3, (x1 - x0, y1 - y0, 0.0), True),  # ModelPixelScale
        (33922, "d", 6, (0.0, 0.0, 0.0, x0, -y0, 0.0), True),  # ModelTiepoint: pixel (0, 0) -> (x0, -y0)
        (42112, "s", 0, _gdal_metadata(names), True),
    ]
    tifffile.imwrite(
        path,
        scores.transpose(2, 0, 1)[None, None, ..., None],  # (rows, cols, K) -> (1, 1, K, rows, cols, 1)
        imagej=True,
        photometric="minisblack",
        metadata={
            "axes": "TZCYXS",
            "mode": "grayscale",
            "Labels": names,
            "Info": json.dumps(provenance(score_map) | {"values": choice.values}),
        },
        extratags=geotiff,
    )


def _gdal_metadata(names: list[str]) -> str:
    items = (
        f'<Item name="DESCRIPTION" sample="{band}" role="description">{escape(name)}</Item>'
        for band, name in enumerate(names)
    )
    xml = f"<GDALMetadata>{''.join(items)}</GDALMetadata>"
    return xml.encode("ascii", "xmlcharrefreplace").decode()  # a TIFF's text is ASCII


CHUNK = (64, 64, 64)
"""Cells and classes of a zarr chunk, at most: 1 MiB, for reading a plane and a cell alike."""


def write_zarr(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """A group with the array ``scores`` in compressed chunks; names and provenance are its attributes."""
    import zarr

    scores = chosen_scores(score_map, choice)
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(provenance(score_map))
    group.attrs.update({"values": choice.values, "categories": chosen_names(score_map, choice)})
    array = group.create_array(
        "scores",
        shape=scores.shape,
        dtype=scores.dtype,
        chunks=tuple(min(pair) for pair in zip(CHUNK, scores.shape, strict=True)),
        dimension_names=("row", "col", "class"),
    )
    array[:] = scores
