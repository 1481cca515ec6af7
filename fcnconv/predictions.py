"""Answers in words: rankings of classes, each with the window where it is most probable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fcnconv.activations import ACTIVATIONS, FloatArray
from fcnconv.classification import Classification as Classification
from fcnconv.classification import Prediction as Prediction
from fcnconv.errors import UsageError
from fcnconv.grid import Box, Grid
from fcnconv.labels import Labels, Selection
from fcnconv.scores import Block, shown, sum_over, top_k


def answer(
    blocks: Iterable[Block],
    grids: Sequence[Grid],
    labels: Labels,
    *,
    model: str,
    temperature: float,
    k: int,
    at_least: float | None,
) -> Classification:
    """The k most probable classes of a whole image, each with the window where it is most probable.

    Probabilities are those of the mean logits, over the windows of a scale and then over the scales, divided
    by the temperature, under the activation of the labels.

    blocks: of the plain scan of all grids. at_least: give one answer instead, the most specific category or
    concept of at least this probability. Raises UsageError where there are no concepts.
    """
    if at_least is not None and not labels.concepts:
        raise UsageError(f"{model} has classes of its own, above which are no concepts")
    activated = ACTIVATIONS[labels.activation].probabilities
    selections = labels.selections() if at_least is not None else ()  # else the categories, which are many

    def of_each(probabilities: FloatArray) -> FloatArray:
        return sum_over(probabilities, selections) if selections else probabilities

    mean, best = np.zeros(len(labels)), Peaks(len(selections) or len(labels))
    for block in blocks:
        windows = block.grid.rows * block.grid.cols
        mean += block.logits.sum((0, 1), dtype=np.float64) / (windows * len(grids))
        best.update(block, of_each(activated(block.logits / np.float32(temperature))))
    probabilities = of_each(activated((mean / temperature).astype(np.float32)))
    if at_least is None:
        ranking = top_k(probabilities, k).tolist()
    else:
        ranking = [most_specific(selections, probabilities, at_least)]
    answers = ((i, selections[i] if selections else labels.category(i)) for i in ranking)
    predictions = (
        Prediction(rank, one.class_idx, one.wnid, one.name, float(probabilities[i]), best.box(i))
        for rank, (i, one) in enumerate(answers, start=1)
    )
    scales = tuple(grid.scale for grid in grids)
    return Classification(*grids[0].image_size, model, scales, temperature, tuple(predictions))


class Peaks:
    """For each category or concept the window where its probability is highest, of blocks as they come."""

    def __init__(self, count: int):
        self.probability = np.full(count, -1, np.float32)
        self.cell = np.zeros((count, 2), np.int64)
        self.grid: npt.NDArray[np.object_] = np.empty(count, object)

    def update(self, block: Block, probabilities: FloatArray) -> None:
        """Takes a block's probabilities, float32 (rows, cols, count), NaN where it was not looked at."""
        cols = probabilities.shape[1]
        probabilities = shown(probabilities).reshape(-1, len(self.probability))
        cell = probabilities.argmax(0)
        found = probabilities.max(0)
        better = found > self.probability
        self.probability[better] = found[better]
        self.cell[better] = np.stack(np.divmod(cell, cols), axis=1)[better] + (
            block.rows.start,
            block.cols.start,
        )
        self.grid[better] = block.grid

    def box(self, index: int) -> Box:
        """The window of a category or concept, by its place in the order of the probabilities."""
        grid: Grid = self.grid[index]
        return grid.box(*self.cell[index].tolist())


def most_specific(selections: Sequence[Selection], probabilities: FloatArray, at_least: float) -> int:
    """The index of the selection of the fewest classes whose probability is at least `at_least`, the most
    probable of equally small ones; of the widest selection if none is so probable.

    probabilities: float32 (len(selections),).
    """
    sizes = [len(selection.classes) for selection in selections]
    sure = np.flatnonzero(probabilities >= at_least).tolist()
    if not sure:
        return sizes.index(max(sizes))
    return min(sure, key=lambda i: (sizes[i], -probabilities[i]))
