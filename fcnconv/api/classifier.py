"""The classifier: load one by name, then scan images with it, map them or classify them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError
from fcnconv.grid import Box, Geometry, Grid, Scale
from fcnconv.images import ImageSource, MemorySource, ReducedSource
from fcnconv.images.reading import ImageLike, open_image
from fcnconv.labels import Labels
from fcnconv.options import (
    EVALUATION_SIZE,
    OWN_SIZE,
    PLAIN_READING,
    PLAIN_SCAN,
    Join,
    MapKind,
    ReadOptions,
    ScanOptions,
)
from fcnconv.options.parsing import (
    as_scales,
    checked,
    parse_region,
)
from fcnconv.provenance import DENSE, Crops, Dense, Provenance
from fcnconv.scan.execute import Executor, LocalExecutor, execute
from fcnconv.scan.network import Network
from fcnconv.scan.plan import ScanPlan, plan_scan
from fcnconv.scan.sizes import Sizing, log_enlarged
from fcnconv.scan.stages import Forward
from fcnconv.scores import Block, Classification, FloatArray, ScoreStream
from fcnconv.scores.activations import check_outputs
from fcnconv.scores.predictions import answer
from fcnconv.system.once import once

if TYPE_CHECKING:
    from fcnconv.api.maps import ScoreMap
    from fcnconv.scan.focus import ScannedScales

log = logging.getLogger("fcnconv")

FEW_CELLS = 4
"""With up to so many feature cells along its side, most of a window's cells see the padding of a crop. For a
network trained on tiles of 2 × 2 cells, 15 % of the dense map's windows had the class of their crops.
"""


@dataclass(frozen=True, repr=False)
class Classifier:
    """A network that scores every window of an image, with its preprocessing. Make one with `load`.

    Attributes:
        labels: the classes of the network.
        network: the network, ready to run.
        open_crops: opens the network that scores crops, when the first crop is needed.
        sizing: how an image's scan sizes follow from its own size.
        memory: bytes that a scan may use.
        temperature: number that divides the logits of maps with more than one cell before they become
            probabilities.
        answer_temperature: the same for the mean logits of several windows, the answer for a whole image.
        reading: how images are read.
        channels: number of channels of the images that the network takes.
        executor: where the network runs; None is this process.
        log_windows: logs, once, that maps show windows because there are no class activations.
        log_padding: logs, once, that crops may have other classes than the dense map.
    """

    labels: Labels
    network: Network
    open_crops: Callable[[], Forward]
    sizing: Sizing
    memory: float
    temperature: float = 1.0
    answer_temperature: float = 1.0
    reading: ReadOptions = PLAIN_READING
    channels: int = 3
    executor: Executor | None = None
    log_windows: Callable[[], None] = lambda: None
    log_padding: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        g, network = self.geometry, self.network
        return (
            f"<Classifier {network.identity.model}: {len(self.labels)} classes, window {g.window} px, "
            f"stride {g.stride} px, {network.mode} mode>"
        )

    @property
    def geometry(self) -> Geometry:
        """The windows of the network."""
        return self.network.geometry

    @property
    def provenance(self) -> Provenance:
        """The network and how it is run."""
        return self.network.provenance

    @property
    def run(self) -> Forward:
        """The network: float32 (N, channels, H, W), normalized -> logits (N, num_classes, rows, cols)."""
        return self.network.run

    def share(self, count: int) -> Classifier:
        """The same classifier with the memory for one of `count` images that are scanned at the same time."""
        return replace(self, memory=self.memory / count)

    def __call__(
        self,
        image: ImageLike | ImageSource,
        *,
        scales: str | Sequence[Scale] | None = None,
        region: Box | None = None,
        mask: str | Path | None = None,
        tissue: bool = False,
        map: MapKind | None = None,
        join: Join = "finest",
        anchors: int | None = None,
        refine: float = 0.0,
        agreement: float | None = None,
        seed: int = 0,
    ) -> ScoreMap:
        """Make the score map of an image: the logits of every window.

        Args:
            image: a path (``-``: standard input), encoded bytes, a PIL image, or uint8 (H, W, 3) RGB.
            scales: sizes to scan at: ``1`` (the image's own size), another factor, ``NNNpx`` (the short
                side), ``fit`` or ``auto``. By default ``1``; ``auto`` in pictures and regions of the map.
            region: (x0, y0, x1, y1) in pixels; only windows whose centres lie inside are scanned.
            mask: the path of an image or a GeoJSON file; only windows whose centres lie where the image is
                not black, or inside the polygons, are scanned.
            tissue: whether to scan only where a slide shows tissue.
            map: what the cells are: ``"windows"``; ``"focused"``, feature cells that show where in its
                windows a class is; ``"activations"``, feature cells with their own scores. By default
                ``"windows"``; ``"focused"`` in pictures and regions of the map.
            join: how several scales are combined: ``"finest"``, ``"max"`` or ``"mean"``.
            anchors: K: score every K-th window as a crop, and correct the dense map between them. By default
                0, the dense map; 4 with `agreement`; 1 in ``windows`` mode.
            refine: share of the windows to score as crops as well, 0 to 1, the least certain first.
            agreement: score windows as crops until this share of all windows, 0 to 1, has the top class of
                its crop, as estimated from a random sample.
            seed: seed of that sample.

        Returns:
            The map. Its `exact` marks the cells that were scored as crops.

        Raises:
            ImageError: the image cannot be read, or is too large.
            UsageError: an argument is not valid, or does not apply to this network or image.
        """
        from fcnconv.api.maps import ScoreMap  # imports all writers, which a classification does not need

        options = ScanOptions(
            scales=None if scales is None else as_scales(scales),
            region=None if region is None else parse_region(",".join(str(side) for side in region)),
            mask=None if mask is None else str(mask),
            tissue=tissue,
            map=None if map is None else checked("map", map, MapKind),
            join=checked("join", join, Join),
            anchors=anchors,
            refine=refine,
            agreement=agreement,
            seed=seed,
        )
        source, to_display = self.open(image, options.sizes), options.for_display()
        score_map = ScoreMap.collect(self.stream(source, options))
        if to_display == options:
            return score_map
        display = once(lambda: ScoreMap.collect(self.stream(source, to_display)))
        return replace(score_map, info=replace(score_map.info, display=display))

    def stream(self, image: ImageLike | ImageSource, options: ScanOptions = PLAIN_SCAN) -> ScoreStream:
        """Stream the score map of an image while it is scanned, for maps that do not fit in memory.

        Nothing is scanned until the pieces of the map are read.

        Args:
            image: the image, as for a call.
            options: how to scan the image.
        """
        from fcnconv.scan.stream import stream_plan  # a classification needs no correction and no focus

        plan, g = self.plan(image, options), self.geometry
        uncorrected = plan.correction == DENSE and options.anchors is None
        if uncorrected and plan.windows > 1 and g.window <= FEW_CELLS * g.step:
            self.log_padding()
        # A single window is the classifier itself, so its probabilities need no correction.
        several = plan.windows > 1 and isinstance(plan.correction, Dense)
        temperature = self.temperature if several else 1.0
        return stream_plan(
            plan, self._executor, options.join, temperature, partial(self._answer, plan.source)
        )

    def plan(self, image: ImageLike | ImageSource, options: ScanOptions = PLAIN_SCAN) -> ScanPlan:
        """Plan the scan of an image: its grids, its region of interest, and how they are computed.

        Args:
            image: the image, as for a call.
            options: how to scan the image.

        Raises:
            ImageError: the image cannot be read.
            UsageError: an option is not valid, or does not apply to this network or image.
        """
        from fcnconv.scan.correction import correction_of  # a classification needs no correction
        from fcnconv.scan.roi.region import region_of_interest

        correction = correction_of(options, self.network.mode, self.labels.activation)
        source = self.open(image, options.sizes)
        kind = options.map or "windows"
        if kind != "windows" and (self.network.joint is None or isinstance(correction, Crops)):
            self.log_windows()
            kind = "windows"
        return plan_scan(
            source,
            self.grids(source, options.sizes),
            self.network,
            self.labels,
            self.memory,
            correction=correction,
            kind=kind,
            roi=region_of_interest(source, options),
        )

    def plan_dense(self, source: ImageSource, grids: Sequence[Grid]) -> ScanPlan:
        """Plan the scan of all windows of some grids, without a correction."""
        correction = Crops() if self.network.mode == "windows" else DENSE
        return plan_scan(source, grids, self.network, self.labels, self.memory, correction=correction)

    @property
    def _executor(self) -> Executor:
        return self.executor or LocalExecutor(self.network, self.open_crops)

    def _answer(self, source: ImageSource, levels: ScannedScales | None = None) -> Classification:
        """The answer of `classify` for the whole image, taken from the scanned scales where possible.

        A large JPEG is decoded again at a reduced size, as `classify` does it: the pixels differ a little.
        """
        side = self.sizing.short_side(EVALUATION_SIZE, self.geometry.window)
        if isinstance(source, MemorySource) and source.reduced and side and self.sizing.pixel_size is None:
            smaller = source.reduced(side)
            if isinstance(smaller, ReducedSource):
                return self.classify(smaller)
        (grid,) = self.sizing.grids(source, EVALUATION_SIZE, self.geometry)
        if levels is None or grid not in levels.levels:
            return self.classify(source)
        return self._ranked([levels.windows(grid)], [grid])

    def _ranked(
        self, blocks: Iterable[Block], grids: Sequence[Grid], k: int = 5, at_least: float | None = None
    ) -> Classification:
        """The answer for a whole image, from the blocks of the uncorrected scan of its grids."""
        several = sum(grid.rows * grid.cols for grid in grids) > 1
        return answer(
            blocks,
            grids,
            self.labels,
            model=self.network.identity.model,
            # A single window is the classifier itself, so its probabilities need no correction.
            temperature=self.answer_temperature if several else 1.0,
            k=k,
            at_least=at_least,
        )

    def dense(self, source: ImageSource, grid: Grid) -> FloatArray:
        """Compute the logits of every window of a grid, in one pass: float32 (rows, cols, num_classes)."""
        logits = np.empty((grid.rows, grid.cols, len(self.labels)), np.float32)
        for block in execute(self.plan_dense(source, [grid]), self._executor):
            logits[block.rows, block.cols] = block.logits
        return logits

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """Score single windows as crops.

        Args:
            source: the image.
            grid: the grid of the windows.
            cells: the numbers of the windows in the grid, counted row by row.

        Returns:
            The logits, float32 (len(cells), num_classes).
        """
        logits = self._executor.crops(source, grid, cells)
        check_outputs(logits, self.labels.activation, self.network.identity.model)
        return logits

    @overload
    def classify(
        self,
        image: ImageLike | ImageSource,
        *,
        scales: str | Sequence[Scale] = EVALUATION_SIZE,
        k: int = 5,
        at_least: float | None = None,
    ) -> Classification: ...

    @overload
    def classify(
        self,
        image: list[ImageLike],
        *,
        scales: str | Sequence[Scale] = EVALUATION_SIZE,
        k: int = 5,
        at_least: float | None = None,
    ) -> list[Classification]: ...

    def classify(
        self,
        image: ImageLike | ImageSource | list[ImageLike],
        *,
        scales: str | Sequence[Scale] = EVALUATION_SIZE,
        k: int = 5,
        at_least: float | None = None,
    ) -> Classification | list[Classification]:
        """Classify a whole image, or each image of a list.

        Args:
            image: a path (``-``: standard input), encoded bytes, a PIL image, or uint8 (H, W, 3) RGB; or a
                list of these.
            scales: sizes to scan at, as for a call. The default is the model's evaluation size.
            k: how many classes to return.
            at_least: a probability. If given, the answer is the most specific category or concept that
                reaches this probability, instead of the k best categories.

        Returns:
            The answer for the image; for a list, a list with one answer per image, in the same order.

        Raises:
            ImageError: an image cannot be read. In a list, the images after it are not classified.
            UsageError: a scale or a number is not valid.
        """
        if isinstance(image, list):
            return [self.classify(each, scales=scales, k=k, at_least=at_least) for each in image]
        scales = as_scales(scales)
        source = self.open(image, scales)
        plan = self.plan_dense(source, self.grids(source, scales))
        return self._ranked(execute(plan, self._executor), plan.grids, k, at_least)

    def scan(
        self, image: ImageLike | ImageSource, *, scales: str | Sequence[Scale] = OWN_SIZE
    ) -> Iterator[Block]:
        """Yield the logits of every window, block by block, for maps that do not fit in memory.

        Args:
            image: the image, as for a call.
            scales: sizes to scan at, as for a call. The default is the image's own size. The
                size with the most windows is scanned last.
        """
        scales = as_scales(scales)
        source = self.open(image, scales)
        return execute(self.plan_dense(source, self.grids(source, scales)), self._executor)

    def open(
        self,
        image: ImageLike | ImageSource,
        scales: str | Sequence[Scale] = OWN_SIZE,
        *,
        name: str | None = None,
        frame: int | None = None,
    ) -> ImageSource:
        """Open an image of any accepted type as a source of pixels.

        Args:
            image: the image, as for a call; or a source, which is checked and returned.
            scales: the scales at which the image will be read.
            name: the name of the image in messages. By default its path.
            frame: the frame of an animation or the page of a TIFF, from 1.

        Raises:
            ImageError: the image cannot be read, or does not have the channels that the network takes.
        """
        if isinstance(image, ImageSource):
            channels = image.info.channels
            if channels != self.channels:
                raise ImageError(
                    f"{image.name}: has {channels} channels, and the network takes {self.channels}"
                )
            return image
        return open_image(
            image,
            max_pixels=self.sizing.max_pixels,
            short_side=self.sizing.short_side(as_scales(scales), self.geometry.window),
            name=name,
            frame=frame,
            bands=self.reading.bands,
            rescale=self.reading.rescale,
            channels=self.channels,
        )

    def grids(self, source: ImageSource, scales: Sequence[Scale]) -> list[Grid]:
        """List the grids of an image, one per scan size.

        An image that is smaller than the window is enlarged, which is logged. For a network that was trained
        on pixels of a certain size, see `scan.sizes.true_size`.
        """
        grids = self.sizing.grids(source, scales, self.geometry)
        log_enlarged(source, grids[0])
        return grids
