"""Formats that list the cells, one after another, in words and numbers."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fcnconv.grid import Grid
from fcnconv.labels import Labels, Selection
from fcnconv.scores import ScoreStream
from fcnconv.sources.geo import GeoReference
from fcnconv.system.progress import done
from fcnconv.writers.contents import Choice, Kept, keep, place_of, provenance
from fcnconv.writers.expected import CELLS

log = logging.getLogger("fcnconv")

AT_LEAST = 0.5
"""Probability that a cell must reach in a list of regions, if none is given."""

Ranking = list[tuple[Selection, float]]


def write_json(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The provenance, then a line a cell: row, col, box, whether it is exact, its best or chosen classes."""
    rows, cols, _ = stream.about.shape
    kept = keep(stream, choice.selections, choice.options.top_k)
    head = provenance(stream) | {"rows": rows, "cols": cols}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "cells": [')
        for number, (row, col, ranking) in enumerate(_cells(kept, stream.about.labels, choice)):
            cell = {
                "row": row,
                "col": col,
                "box": kept.box(row, col),
                "exact": bool(kept.exact[row, col]),
                "predictions": [
                    {"class_idx": s.class_idx, "wnid": s.wnid, "category": s.name, "probability": round(p, 6)}
                    for s, p in ranking
                ],
            }
            file.write((",\n" if number else "\n") + json.dumps(cell))
        file.write("\n]}\n")


def write_csv(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """A row a cell. Without a selection its k best categories, and whether it is a real crop (1 or 0); with
    some a column ``prob_NAME`` each, after the columns ``minx,miny,width,height`` and no others, as readers
    of WSInfer's tables expect.
    """
    kept = keep(stream, choice.selections, choice.options.top_k)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if choice.selections:
            table.writerow([*_BOX_COLUMNS, *(f"prob_{selection.name}" for selection in choice.selections)])
        else:
            ranks = range(1, min(choice.options.top_k, len(stream.about.labels)) + 1)
            best = [f"{column}_{rank}" for rank in ranks for column in ("category", "probability")]
            table.writerow(["row", "col", *_BOX_COLUMNS, *best, "exact"])
        for row, col, ranking in _cells(kept, stream.about.labels, choice):
            x0, y0, x1, y1 = kept.box(row, col)
            box = (x0, y0, x1 - x0, y1 - y0)
            if choice.selections:
                table.writerow([*box, *(f"{p:.6f}" for _, p in ranking)])
            else:
                pairs = (item for s, p in ranking for item in (s.name, f"{p:.6f}"))
                table.writerow([row, col, *box, *pairs, int(kept.exact[row, col])])


_BOX_COLUMNS = ("minx", "miny", "width", "height")


def write_geojson(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The cells where a chosen class, or else the best one, has at least ``options.at_least`` (else
    `AT_LEAST`): for each the square around its window's centre, classified as QuPath reads it. In pixels of
    the image; of a GeoTIFF in its map's coordinates, with their system named in the member ``crs`` of GeoJSON
    2008, which GIS read.
    """
    kept, place = keep(stream, choice.selections, 1), place_of(stream.about)
    at_least = AT_LEAST if choice.options.at_least is None else choice.options.at_least
    head: dict[str, object] = {"type": "FeatureCollection", "provenance": provenance(stream)}
    if place is not None and place.epsg:
        head["crs"] = {"type": "name", "properties": {"name": _crs_name(place.epsg)}}
    elif place is not None:
        log.warning("the image's coordinate system has no EPSG number: name it where you open the .geojson")
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "features": [')
        number = 0
        for row, col, ranking in _cells(kept, stream.about.labels, choice):
            for selection, probability in ranking:
                if probability >= at_least:
                    exact = bool(kept.exact[row, col])
                    feature = _feature(stream.about.grid, row, col, selection.name, probability, exact, place)
                    file.write((",\n" if number else "\n") + json.dumps(feature))
                    number += 1
        file.write("\n]}\n")


def _crs_name(epsg: int) -> str:
    """The name of a coordinate system. Of WGS 84's two orders of axes GeoJSON's is longitude first."""
    return "urn:ogc:def:crs:OGC:1.3:CRS84" if epsg == 4326 else f"urn:ogc:def:crs:EPSG::{epsg}"


def _feature(
    grid: Grid,
    row: int,
    col: int,
    name: str,
    probability: float,
    exact: bool,
    place: GeoReference | None,
) -> dict[str, object]:
    x0, y0, x1, y1 = (round(edge, 3) for edge in grid.square(row, col))
    ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    if place is not None:
        ring = [place.place(x, y) for x, y in ring]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "classification": {"name": name},
            "measurements": {"probability": round(probability, 6)},
            "row": row,
            "col": col,
            "exact": exact,
            "window": grid.box(row, col),
        },
    }


def _cells(kept: Kept, labels: Labels, choice: Choice) -> Iterator[tuple[int, int, Ranking]]:
    """The row and column of each cell that was looked at, with the chosen selections or else its best
    categories.
    """
    categories = labels.all_categories()
    rows, cols = kept.probability.shape[:2]
    for row in range(rows):
        for col in np.flatnonzero(~np.isnan(kept.probability[row, :, 0])).tolist():
            found: Sequence[Selection] = choice.selections
            if kept.class_idx is not None:
                found = [categories[i] for i in kept.class_idx[row, col].tolist()]
            yield row, col, list(zip(found, kept.probability[row, col].tolist(), strict=True))
        done(CELLS, cols)
