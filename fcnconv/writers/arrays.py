"""Formats that hold the scores as an array, to the last bit."""

from __future__ import annotations

from pathlib import Path

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
