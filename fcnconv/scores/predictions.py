"""Predictions: rankings of classes for a whole image, each with the window where it is most probable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Grid
from fcnconv.labels import Labels, Selection
from fcnconv.scores import Block, Classification, Prediction, shown, sum_over, top_k
from fcnconv.scores.activations import ACTIVATIONS, FloatArray


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
    """Find the k most probable classes of a whole image, each with the window where it is most probable.

    The logits are averaged over the windows of a scale and then over the scales, and divided by the
    temperature. The activation of the labels turns them into probabilities.

    Args:
        blocks: the blocks of the uncorrected scan of all grids.
        grids: the grids, one per scan size.
        labels: the classes.
        model: the name of the model.
        temperature: number that divides the logits.
        k: how many classes to return.
        at_least: a probability. If given, the answer is the most specific category or concept that reaches
            this probability, instead of k classes.

    Raises:
        UsageError: `at_least` was given and there are no concepts.
    """
    if at_least is not None and not labels.concepts:
        raise UsageError(
            f"{model} has no concepts above its classes; leave out --level concept to list its classes"
        )
    activated = ACTIVATIONS[labels.activation].probabilities
    selections = labels.selections() if at_least is not None else ()  # () saves the sums over categories

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
    """The window with the highest probability of each category or concept, updated block by block."""

    def __init__(self, count: int):
        self.probability = np.full(count, -1, np.float32)
        self.cell = np.zeros((count, 2), np.int64)
        self.grid: npt.NDArray[np.object_] = np.empty(count, object)

    def update(self, block: Block, probabilities: FloatArray) -> None:
        """Add a block.

        probabilities: float32 (rows, cols, count); NaN for cells outside the region of interest.
        """
        cols = probabilities.shape[1]
        probabilities = shown(probabilities).reshape(-1, len(self.probability))
        cell = probabilities.argmax(0)
        highest = probabilities.max(0)
        better = highest > self.probability
        self.probability[better] = highest[better]
        self.cell[better] = np.stack(np.divmod(cell, cols), axis=1)[better] + (
            block.rows.start,
            block.cols.start,
        )
        self.grid[better] = block.grid

    def box(self, index: int) -> Box:
        """The window of a category or concept, (x0, y0, x1, y1) in pixels of the original image.

        index: its position along the last axis of the probabilities.
        """
        grid: Grid = self.grid[index]
        return grid.box(*self.cell[index].tolist())


def most_specific(selections: Sequence[Selection], probabilities: FloatArray, at_least: float) -> int:
    """Find the selection with the fewest classes whose probability is at least `at_least`.

    Args:
        selections: the categories and concepts.
        probabilities: their probabilities, float32 (len(selections),).
        at_least: the lowest probability.

    Returns:
        The index of the selection. Among selections with equally few classes, it is the most probable one. If
        no selection is probable enough, it is the selection with the most classes.
    """
    sizes = [len(selection.classes) for selection in selections]
    sure = np.flatnonzero(probabilities >= at_least).tolist()
    if not sure:
        return sizes.index(max(sizes))
    return min(sure, key=lambda i: (sizes[i], -probabilities[i]))
