"""The classifier that everything else uses: load one by name, then scan, map or classify images with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fcnconv.backends import Run, open_network, parse_mode
from fcnconv.errors import ImageError, UsageError
from fcnconv.images import MAX_PIXELS, ImageLike, ImageSource, normalize, open_image
from fcnconv.labels import Labels
from fcnconv.models import DEFAULT_MODEL, find_model
from fcnconv.scan import Geometry, parse_scales, scan
from fcnconv.scores import (
    Block,
    Box,
    Classification,
    Grid,
    Prediction,
    Provenance,
    ScoreMap,
    softmax,
    top_k,
)

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Classifier:
    """A network that scores every window of an image, with the preprocessing that belongs to it.

    run: the backend. geometry: its windows. Make one with `load`.
    max_pixels: the largest image that is accepted, before and after it is resized.
    """

    labels: Labels
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    eval_size: int
    run: Run
    provenance: Provenance
    max_pixels: int = MAX_PIXELS

    def __call__(self, image: ImageLike | ImageSource, *, scales: str = "1") -> ScoreMap:
        """The score map of an image: the logits of every window, at one scale.

        image: a path (``-``: standard input), encoded bytes, a PIL image, or uint8 (H, W, 3) RGB.
        scales: ``1`` the image's own size, another factor, ``NNNpx`` its short side, or ``fit``.
        """
        source = self.open(image)
        grids = self.grids(source, scales)
        if len(grids) > 1:
            raise UsageError(f"a score map has one scale, and {scales!r} names {len(grids)}; choose one")
        grid = grids[0]
        logits = np.empty((grid.rows, grid.cols, len(self.labels)), np.float32)
        for block in self._scan(source, grids):
            logits[block.rows, block.cols] = block.logits
        return ScoreMap(logits, grid, self.labels, self.provenance)

    def classify(self, image: ImageLike | ImageSource, *, scales: str = "fit", k: int = 5) -> Classification:
        """The k most probable classes of a whole image, each with the window where it is most probable.

        Probabilities are the softmax of the mean logits: over the windows of a scale, then over the scales.
        """
        source = self.open(image, scales)
        grids = self.grids(source, scales)
        mean, best = np.zeros(len(self.labels)), _Best(len(self.labels))
        for block in self._scan(source, grids):
            windows = block.grid.rows * block.grid.cols
            mean += block.logits.sum((0, 1), dtype=np.float64) / (windows * len(grids))
            best.update(block)
        probabilities = softmax(mean.astype(np.float32))
        return Classification(
            *source.size,
            self.provenance.model,
            tuple(grid.scale for grid in grids),
            tuple(
                Prediction(
                    rank,
                    i,
                    self.labels.wnid(i),
                    self.labels.categories[i],
                    float(probabilities[i]),
                    best.box(i),
                )
                for rank, i in enumerate(top_k(probabilities, k).tolist(), start=1)
            ),
        )

    def scan(
        self, image: ImageLike | ImageSource, *, scales: str = "1", tile: int | None = None
    ) -> Iterator[Block]:
        """The logits of every window, block by block, for maps that do not fit in memory.

        tile: cells along the side of a block; None gives one block a scale.
        """
        source = self.open(image)
        return self._scan(source, self.grids(source, scales), tile)

    def open(self, image: ImageLike | ImageSource, scales: str = "1") -> ImageSource:
        """The image as a source of pixels, whatever it came as. scales: at which it will be read."""
        if isinstance(image, ImageSource):
            return image
        sides = [scale.pixels(self.eval_size, self.geometry.window) for scale in parse_scales(scales)]
        short_side = None if None in sides else max(side for side in sides if side)
        return open_image(image, max_pixels=self.max_pixels, short_side=short_side)

    def grids(self, source: ImageSource, scales: str) -> list[Grid]:
        """The windows of an image at each scale. An image smaller than the window is enlarged, and that is
        logged.
        """
        grids = []
        for scale in parse_scales(scales):
            size = scale.scan_size(source.size, self.eval_size, self.geometry.window)
            if size[0] * size[1] > self.max_pixels:
                width, height = size
                raise ImageError(
                    f"{source.name}: scanned at {width} × {height} it has {width * height:,} pixels, "
                    f"over the limit of {self.max_pixels:,}; choose a smaller scale, or raise --max-pixels"
                )
            grids.append(Grid(self.geometry.window, self.geometry.stride, source.size, size))
        if min(source.size) < self.geometry.window:
            log.info(
                "%s: %d × %d is smaller than the model's window of %d px; enlarged to %d × %d",
                *(source.name, *source.size, self.geometry.window, *grids[0].scan_size),
            )
        return grids

    def _scan(self, source: ImageSource, grids: Iterable[Grid], tile: int | None = None) -> Iterator[Block]:
        prepare = partial(normalize, mean=self.mean, std=self.std)
        return scan(source, grids, self.run, prepare, self.geometry.halo, tile)


def load(
    model: str = DEFAULT_MODEL,
    *,
    mode: str = "fcn",
    backend: str = "auto",
    device: str = "auto",
    max_pixels: int | None = None,
) -> Classifier:
    """The classifier that `model` names, ready to scan.

    mode: ``fcn`` converts the network and proves it equal to the original; ``windows`` runs the original on
        every real crop, exact and slow.
    backend: what runs it, a row of `backends.BACKENDS`, or ``auto``.
    device: where torch runs it: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``.

    Raises UsageError for an unknown name, ModelError for missing or altered weights, and ConversionError.
    """
    spec, chosen = find_model(model), parse_mode(mode)
    network = open_network(spec, chosen, backend, device)
    return Classifier(
        labels=spec.labels(),
        geometry=network.geometry,
        mean=spec.mean,
        std=spec.std,
        eval_size=spec.eval_size,
        run=network.run,
        provenance=Provenance(spec.name, network.weights_sha256, chosen),
        max_pixels=max_pixels or MAX_PIXELS,
    )


class _Best:
    """Keeps, for each class, the window where its probability is highest."""

    def __init__(self, num_classes: int):
        self.probability = np.full(num_classes, -1, np.float32)
        self.cell = np.zeros((num_classes, 2), np.int64)
        self.grid: npt.NDArray[np.object_] = np.empty(num_classes, object)

    def update(self, block: Block) -> None:
        cols = block.logits.shape[1]
        probabilities = softmax(block.logits).reshape(-1, len(self.probability))
        cell = probabilities.argmax(0)
        found = probabilities.max(0)
        better = found > self.probability
        self.probability[better] = found[better]
        self.cell[better] = np.stack(np.divmod(cell, cols), axis=1)[better] + (
            block.rows.start,
            block.cols.start,
        )
        self.grid[better] = block.grid

    def box(self, class_idx: int) -> Box:
        grid: Grid = self.grid[class_idx]
        row, col = self.cell[class_idx].tolist()
        return grid.box(row, col)
