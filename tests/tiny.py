"""Small score maps, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnconv.api.maps import ScoreMap
from fcnconv.grid import Grid
from fcnconv.images import ImageSource
from fcnconv.labels import Labels
from fcnconv.options import OutputOptions
from fcnconv.provenance import Identity, Provenance
from fcnconv.scores import Block, MapInfo
from fcnconv.writers import OutputSpec

MADE = Provenance(Identity("m", "c0de", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


def make_map(
    logits: np.ndarray,
    grid: Grid,
    labels: Labels,
    *,
    source: ImageSource | None = None,
    temperature: float = 1.0,
    exact: np.ndarray | None = None,
    scales: tuple[Grid, ...] = (),
    best_scale: np.ndarray | None = None,
) -> ScoreMap:
    """A map of these logits, float32 (rows, cols, num_classes)."""
    rows, cols, _ = logits.shape
    about = MapInfo(grid, labels, MADE, temperature, scales, source)
    return ScoreMap(about, Block(grid, slice(0, rows), slice(0, cols), logits, exact, best_scale))


def choose(*selections: Any, **options: Any) -> OutputSpec:
    """What is written: some selections, and options of a map."""
    return OutputSpec(selections, OutputOptions(**options))
