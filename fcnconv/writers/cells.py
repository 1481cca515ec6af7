"""Formats that list the cells, one after another, in words and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fcnconv.labels import Selection
from fcnconv.scores import ScoreMap
from fcnconv.writers.contents import Choice, provenance

Ranking = list[tuple[Selection, float]]


def write_json(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    """The provenance, then a line a cell: row, col, box, whether it is exact, its best or chosen classes."""
    rows, cols, _ = score_map.shape
    exact = score_map.exact_mask()
    head = provenance(score_map) | {"rows": rows, "cols": cols}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "cells": [')
        for number, (row, col, ranking) in enumerate(_cells(score_map, choice)):
            cell = {
                "row": row,
                "col": col,
                "box": score_map.grid.box(row, col),
                "exact": bool(exact[row, col]),
                "predictions": [
                    {"class_idx": s.class_idx, "wnid": s.wnid, "category": s.name, "probability": round(p, 6)}
                    for s, p in ranking
                ],
            }
            file.write((",\n" if number else "\n") + json.dumps(cell))
        file.write("\n]}\n")


def _cells(score_map: ScoreMap, choice: Choice) -> Iterator[tuple[int, int, Ranking]]:
    """Each cell's row and column, with the chosen selections or else its k best categories."""
    rows, cols, _ = score_map.shape
    if choice.selections:
        planes = score_map.planes(choice.selections)
        for row, col in np.ndindex(rows, cols):
            yield row, col, list(zip(choice.selections, planes[row, col].tolist(), strict=True))
    else:
        categories = [score_map.labels.category(i) for i in range(len(score_map.labels))]
        class_idx, probabilities = score_map.top_k(choice.k)
        for row, col in np.ndindex(rows, cols):
            best = map(categories.__getitem__, class_idx[row, col].tolist())
            yield row, col, list(zip(best, probabilities[row, col].tolist(), strict=True))
