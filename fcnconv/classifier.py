"""The classifier that everything else uses: load one by name, then scan, map or classify images with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcnconv.backends import Mode, Network, Run, open_network, parse_mode
from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import Box, Geometry, Grid
from fcnconv.images import MAX_PIXELS, ImageLike, normalize, open_image
from fcnconv.labels import Labels
from fcnconv.models import DEFAULT_MODEL, ModelSpec, find_model
from fcnconv.models.own import describe
from fcnconv.options import Join, checked, parse_memory, parse_scales
from fcnconv.scan.blocks import scan
from fcnconv.scan.crops import score_crops
from fcnconv.scan.estimate import Estimate, announced, estimate, measure_pace, size_text
from fcnconv.scan.joins import finest_of, joined
from fcnconv.scan.tiles import Parts, Tiling, choose, default_memory
from fcnconv.scores import (
    Block,
    Classification,
    FloatArray,
    MapStream,
    Prediction,
    Provenance,
    ScoreMap,
    most_specific,
    softmax,
    sum_over,
    top_k,
)
from fcnconv.sources import ImageSource, MemorySource

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")

COARSE_SHARE = 0.4
"""Of the memory, what the coarser of several scales may take, as ONNX Runtime keeps it while the finest is
scanned (20000 × 20000 px at all scales: 2.6 GB in all instead of 3.7).
"""


@dataclass(frozen=True)
class Classifier:
    """A network that scores every window of an image, with the preprocessing that belongs to it.

    run: the backend. geometry: its windows. Make one with `load`.
    parts: what the network needs, and the parts that a scan in little memory computes one by one.
    memory: bytes that a scan may take. tile: pixels along the side of a tile, instead of a choice by memory.
    open_crops: opens the backend that scores real crops, when one is first needed.
    temperature: divides the logits of maps with more than one cell before their softmax.
    max_pixels: the largest image that is accepted, before and after it is resized.
    """

    labels: Labels
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    eval_size: int
    run: Run
    open_crops: Callable[[], Run]
    provenance: Provenance
    parts: Parts
    memory: float
    tile: int | None = None
    temperature: float = 1.0
    max_pixels: int = MAX_PIXELS

    def __call__(
        self, image: ImageLike | ImageSource, *, scales: str = "1", refine: float = 0, join: str = "max"
    ) -> ScoreMap:
        """The score map of an image: the logits of every window, at one scale or joined from several.

        image: a path (``-``: standard input), encoded bytes, a PIL image, or uint8 (H, W, 3) RGB.
        scales: ``1`` the image's own size, another factor, ``NNNpx`` its short side, or ``fit``.
        refine: share of the windows, 0 to 1, that are scored again as real crops: those whose dense answer is
            least sure. The map's `exact` tells which. One scale only.
        join: what a class scores where several scales meet, ``max`` or ``mean``; see `scales.joined`.
        """
        if not 0 <= refine <= 1:
            raise UsageError(f"a share of {refine:g} cannot be refined; choose one from 0 to 1")
        source = self.open(image)
        score_map = self.stream(source, scales=scales, join=join)
        if refine and score_map.scales:
            count = len(score_map.scales)
            raise UsageError(f"--refine takes one scale, and {scales!r} names {count}; choose one")
        collected = score_map.collect()
        if not refine or self.provenance.mode == "windows":
            return collected
        return self._refined(collected, source, refine)

    def stream(self, image: ImageLike | ImageSource, *, scales: str = "1", join: str = "max") -> MapStream:
        """The score map of an image as it comes, for maps that do not fit in memory. Arguments as for a call.

        Nothing is scanned until its pieces are read.
        """
        source, way = self.open(image), checked("join", join, Join)
        grids = self.grids(source, scales)
        temperature = self._temperature(grids)
        finest = finest_of(grids)
        order = [grid for grid in grids if grid != finest]
        tilings = self.tilings([*order, finest])
        blocks = self._scan(source, tilings)
        if order:
            blocks = joined(blocks, grids, way, temperature, len(self.labels))
        about = finest, self.labels, self._provenance(tilings.values()), temperature
        return MapStream(blocks, *about, scales=tuple(grids) if order else ())

    def dense(self, source: ImageSource, grid: Grid) -> FloatArray:
        """float32 (rows, cols, num_classes): the logits of every window of a grid, in one pass."""
        logits = np.empty((grid.rows, grid.cols, len(self.labels)), np.float32)
        for block in self._scan(source, self.tilings([grid])):
            logits[block.rows, block.cols] = block.logits
        return logits

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """float32 (len(cells), num_classes): the logits of single windows, cropped and scored one by one.

        cells: their numbers in the grid, row by row.
        """
        prepare = partial(normalize, mean=self.mean, std=self.std)
        return score_crops(source, grid, cells, self.open_crops(), prepare)

    def _refined(self, score_map: ScoreMap, source: ImageSource, share: float) -> ScoreMap:
        sure = score_map.probabilities().max(-1).ravel()
        cells = np.sort(np.argsort(sure, kind="stable")[: round(share * len(sure))])
        exact = np.zeros(score_map.logits.shape[:2], np.bool_)
        exact.flat[cells] = True
        if exact.any():
            score_map.logits[exact] = self.crops(source, score_map.grid, cells)
        return replace(score_map, exact=exact)

    def _temperature(self, grids: Sequence[Grid]) -> float:
        # One window alone is the classifier itself, whose probabilities are its own.
        return self.temperature if sum(grid.rows * grid.cols for grid in grids) > 1 else 1.0

    def classify(
        self,
        image: ImageLike | ImageSource,
        *,
        scales: str = "fit",
        k: int = 5,
        at_least: float | None = None,
    ) -> Classification:
        """The k most probable classes of a whole image, each with the window where it is most probable.

        Probabilities are the softmax of the mean logits, over the windows of a scale and then over the
        scales, divided by the temperature.

        at_least: give one answer instead, the most specific category or concept of at least this probability.
        """
        if at_least is not None and not self.labels.concepts:
            raise UsageError(f"{self.provenance.model} has classes of its own, above which are no concepts")
        selections = self.labels.selections() if at_least is not None else self.labels.all_categories()
        source = self.open(image, scales)
        grids = self.grids(source, scales)
        temperature = self._temperature(grids)
        mean, best = np.zeros(len(self.labels)), _Best(len(selections))
        for block in self._scan(source, self.tilings(grids)):
            windows = block.grid.rows * block.grid.cols
            mean += block.logits.sum((0, 1), dtype=np.float64) / (windows * len(grids))
            best.update(block, sum_over(softmax(block.logits / np.float32(temperature)), selections))
        probabilities = sum_over(softmax((mean / temperature).astype(np.float32)), selections)
        if at_least is None:
            ranking = top_k(probabilities, k).tolist()
        else:
            ranking = [most_specific(selections, probabilities, at_least)]
        return Classification(
            *source.size,
            self.provenance.model,
            tuple(grid.scale for grid in grids),
            temperature,
            tuple(
                Prediction(
                    rank,
                    selections[i].class_idx,
                    selections[i].wnid,
                    selections[i].name,
                    float(probabilities[i]),
                    best.box(i),
                )
                for rank, i in enumerate(ranking, start=1)
            ),
        )

    def scan(self, image: ImageLike | ImageSource, *, scales: str = "1") -> Iterator[Block]:
        """The logits of every window, block by block, for maps that do not fit in memory."""
        source = self.open(image)
        return self._scan(source, self.tilings(self.grids(source, scales)))

    def open(
        self, image: ImageLike | ImageSource, scales: str = "1", *, name: str | None = None
    ) -> ImageSource:
        """The image as a source of pixels, whatever it came as.

        scales: at which it will be read. name: what messages call it, if not by its path.
        """
        if isinstance(image, ImageSource):
            return image
        sides = [scale.pixels(self.eval_size, self.geometry.window) for scale in parse_scales(scales)]
        short_side = None if None in sides else max(side for side in sides if side)
        return open_image(image, max_pixels=self.max_pixels, short_side=short_side, name=name)

    def grids(self, source: ImageSource, scales: str) -> list[Grid]:
        """The windows of an image at each scale. An image smaller than the window is enlarged, and that is
        logged.
        """
        grids = []
        sizes = [
            size
            for scale in parse_scales(scales)
            for size in scale.scan_sizes(source.size, self.eval_size, self.geometry.window)
        ]
        for size in dict.fromkeys(sizes):
            if size[0] * size[1] > self.max_pixels and isinstance(source, MemorySource):
                width, height = size
                raise ImageError(
                    f"{source.name}: scanned at {width} × {height} it has {width * height:,} pixels, "
                    f"over the limit of {self.max_pixels:,}; choose a smaller scale, or raise --max-pixels"
                )
            g = self.geometry
            grids.append(Grid(g.window, g.stride, source.size, size, g.phases))
        if min(source.size) < self.geometry.window:
            log.info(
                "%s: %d × %d is smaller than the model's window of %d px; enlarged to %d × %d",
                *(source.name, *source.size, self.geometry.window, *grids[0].scan_size),
            )
        return grids

    def tilings(self, grids: Sequence[Grid]) -> dict[Grid, Tiling]:
        """How the grids of a scan will be computed: each whole if that fits in `memory`; or, if one does not,
        all in parts and blocks, as the network whole and in parts would each hold memory of its own.
        """
        tilings = {grid: self._tiling(grid) for grid in grids}
        if any(tiling.in_parts for tiling in tilings.values()):
            finest = finest_of(grids)
            tilings = {
                g: self._tiling(g, in_parts=True, share=1 if g == finest else COARSE_SHARE) for g in grids
            }
        return tilings

    def _tiling(self, grid: Grid, *, in_parts: bool = False, share: float = 1) -> Tiling:
        steps = (grid.rows - 1) // grid.phases, (grid.cols - 1) // grid.phases
        tile = None if self.tile is None else max(self.tile // self.geometry.step, 1)
        return choose(self.parts, steps, share * self.memory, tile, in_parts=in_parts)

    def _provenance(self, tilings: Iterable[Tiling]) -> Provenance:
        if self.geometry.local:
            return self.provenance
        return replace(self.provenance, tiles=max(tiling.tiles for tiling in tilings))

    def estimate(self, source: ImageSource, scales: str = "1") -> list[Estimate]:
        """What a scan at these scales is expected to cost, from the time of a small one."""
        pace = measure_pace(self.run, self.parts, self.geometry.window, self.geometry.step)
        tilings = self.tilings(self.grids(source, scales))
        return [estimate(grid, tiling, pace, len(self.labels)) for grid, tiling in tilings.items()]

    def _scan(self, source: ImageSource, tilings: dict[Grid, Tiling]) -> Iterator[Block]:
        prepare = partial(normalize, mean=self.mean, std=self.std)
        blocks = scan(source, tilings, prepare, lambda grid: self._told(tilings[grid]))
        return announced(blocks, tilings, source.name)

    def _told(self, tiling: Tiling) -> Tiling:
        if tiling.tiles > 1 and not self.geometry.local:
            log.warning(
                "%s looks at the whole image, and it is scanned in %d tiles: scores depend on the tiling",
                *(self.provenance.model, tiling.tiles),
            )
        if tiling.memory > self.memory and self.tile is None:
            log.warning(
                "%s of memory are not enough; this scan takes about %s, the least that it can",
                *(size_text(self.memory), size_text(tiling.memory)),
            )
        return tiling


def load(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    mode: str = "fcn",
    backend: str = "auto",
    temperature: float | None = None,
    device: str = "auto",
    max_pixels: int | None = None,
    stride: int | None = None,
    max_memory: str | None = None,
    tile: int | None = None,
    arch: str | None = None,
    categories: Sequence[str] | str | Path | None = None,
    window: int | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | str | None = None,
    eval_size: int | None = None,
    spec: str | Path | None = None,
) -> Classifier:
    """The classifier that `model` names, ready to scan.

    model: a name of the table, the path of a file of weights, or a classifier built in torch.
    mode: ``fcn`` converts the network and proves it equal to the original; ``windows`` runs the original on
        every real crop, exact and slow.
    backend: what runs it, a row of `backends.BACKENDS`, or ``auto``.
    device: where torch runs it: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``.
    temperature: divides the logits of maps with more than one cell; None takes the model's measured one, and
        1 in `windows` mode.
    stride: pixels between windows, the network's own divided by a power of two; None is its own.
    max_memory: for a scan, as in ``2GB``; None is half of what is free, or 2 GB where more is not faster.
    tile: pixels along the side of a tile, instead of a choice by memory.
    arch, categories, window, mean, std, eval_size, spec: of a model of one's own, see `models.own.describe`.

    Raises UsageError for an unknown name, ModelError for missing or altered weights, and ConversionError.
    """
    own = describe(
        arch=arch, categories=categories, window=window, mean=mean, std=std, eval_size=eval_size, spec=spec
    )
    found, chosen = find_model(model, own), parse_mode(mode)
    memory = parse_memory(max_memory) if max_memory else None
    network = open_network(found, chosen, backend, device, stride)
    return Classifier(
        labels=found.labels(),
        geometry=network.geometry,
        mean=found.mean,
        std=found.std,
        eval_size=found.eval_size,
        run=network.run,
        open_crops=cache(lambda: _crops_run(network, found, chosen, backend)),
        provenance=Provenance(found.name, network.weights_sha256, chosen, mean=found.mean, std=found.std),
        temperature=temperature or (found.temperature if chosen == "fcn" else 1.0),
        parts=network.parts,
        memory=memory or default_memory(network.geometry.local),
        tile=tile,
        max_pixels=max_pixels or MAX_PIXELS,
    )


def _crops_run(network: Network, spec: ModelSpec, mode: Mode, backend: str) -> Run:
    return network.run if mode == "windows" else open_network(spec, "windows", backend).run


class _Best:
    """Keeps, for each category or concept, the window where its probability is highest."""

    def __init__(self, count: int):
        self.probability = np.full(count, -1, np.float32)
        self.cell = np.zeros((count, 2), np.int64)
        self.grid: npt.NDArray[np.object_] = np.empty(count, object)

    def update(self, block: Block, probabilities: FloatArray) -> None:
        """Takes a block's probabilities, float32 (rows, cols, count)."""
        cols = probabilities.shape[1]
        probabilities = probabilities.reshape(-1, len(self.probability))
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
        row, col = self.cell[index].tolist()
        return grid.box(row, col)
