"""The classifier: load one by name, then scan images with it, map them or classify them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from fcnconv.activations import check_outputs
from fcnconv.backends import open_network
from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import Box, Geometry, Grid, Scale, finest_of
from fcnconv.images import ImageSource, MemorySource, Pixels, ReducedSource, channels_in
from fcnconv.images.reading import MAX_PIXELS, ImageLike, normalize, open_image
from fcnconv.labels import Labels
from fcnconv.models import DEFAULT_MODEL, ModelSpec, OwnModel, find_model
from fcnconv.models.weight_options import HeadActivation
from fcnconv.options import (
    EVALUATION_SIZE,
    OWN_SIZE,
    PLAIN_MAP,
    PLAIN_NETWORK,
    Backend,
    Join,
    MapKind,
    MapOptions,
    NetworkOptions,
    Precision,
)
from fcnconv.parsing import (
    Rescale,
    as_scales,
    checked,
    parse_bands,
    parse_device,
    parse_memory,
    parse_region,
    parse_rescale,
)
from fcnconv.predictions import Classification, answer
from fcnconv.provenance import FLOAT32, NO_CELLS, Activation, CellHead, Mode, Provenance
from fcnconv.roi import Where, where_of
from fcnconv.scan.blocks import scan
from fcnconv.scan.crops import CROPS, crops_alone, score_crops
from fcnconv.scan.estimate import Estimate, estimate, measure_crop, measure_pace, scan_work, size_text
from fcnconv.scan.focus import ScannedScales, level_stream
from fcnconv.scan.multiscale import joined, needed_between
from fcnconv.scan.network import Needs
from fcnconv.scan.sizes import as_factor, tell_enlarged, true_size
from fcnconv.scan.stages import Forward
from fcnconv.scan.tiling import Stages, Tiling, choose_all, default_memory
from fcnconv.scores import Block, FloatArray, MapInfo, Mask, ScoreStream
from fcnconv.system.once import once
from fcnconv.system.progress import expect, finished

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.maps import ScoreMap
    from fcnconv.scan.agreement import AgreementEstimator
    from fcnconv.scan.correction import Correction

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
        geometry: the windows of the network.
        eval_size: short side, in pixels, to which `classify` resizes an image.
        run: the backend.
        open_crops: opens the backend that scores crops, when the first crop is needed.
        provenance: the network and how it is run.
        parts: the memory that the network needs, and the stages that a scan in little memory runs one by one.
        memory: bytes that a scan may use.
        temperature: number that divides the logits of maps with more than one cell before they become
            probabilities.
        max_pixels: the largest image that is accepted, before and after it is resized.
        bands, rescale: how the samples of a TIFF become pixels, as in `options.NetworkOptions`.
        pixel_size: metres per pixel of the images that the network was trained on. Images are scanned at this
            size; None is any size.
        image_pixel_size: metres per pixel of images whose files do not record it.
        channels: number of channels of the images that the network takes.
        cell_head: how the network's class activations relate to its logits.
        joint: returns the stages that compute the class activations as well as the logits; None for a network
            without class activations.
        tell_windows: logs, once, that maps show windows because there are no class activations.
        tell_padding: logs, once, that crops may have other classes than the dense map.
    """

    labels: Labels
    geometry: Geometry
    eval_size: int
    run: Forward
    open_crops: Callable[[], Forward]
    provenance: Provenance
    parts: Stages
    memory: float
    temperature: float = 1.0
    max_pixels: int = MAX_PIXELS
    bands: tuple[int, ...] | None = None
    rescale: Rescale | None = None
    pixel_size: float | None = None
    image_pixel_size: float | None = None
    channels: int = 3
    cell_head: CellHead = NO_CELLS
    joint: Callable[[], Stages] | None = None
    tell_windows: Callable[[], None] = lambda: None
    tell_padding: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        g, made = self.geometry, self.provenance
        return (
            f"<Classifier {made.identity.model}: {len(self.labels)} classes, window {g.window} px, "
            f"stride {g.stride} px, {made.mode} mode>"
        )

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
        from fcnconv.maps import ScoreMap  # imports all writers, which a classification does not need

        options = MapOptions(
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
        source, to_display = self.open(image, options.sizes), options.looked_at()
        score_map = ScoreMap.collect(self.stream(source, options))
        if to_display == options:
            return score_map
        display = once(lambda: ScoreMap.collect(self.stream(source, to_display)))
        return replace(score_map, about=replace(score_map.about, display=display))

    def stream(self, image: ImageLike | ImageSource, options: MapOptions = PLAIN_MAP) -> ScoreStream:
        """Stream the score map of an image while it is scanned, for maps that do not fit in memory.

        Nothing is scanned until the pieces of the map are read.

        Args:
            image: the image, as for a call.
            options: the options of the map. Only those that say how to scan the image count.
        """
        from fcnconv.scan.agreement import AgreementEstimator
        from fcnconv.scan.correction import correction_of

        correction = correction_of(options, self.provenance.mode, self.labels.activation)
        source = self.open(image, options.sizes)
        grids = self.grids(source, options.sizes)
        finest = finest_of(grids)
        order = [grid for grid in grids if grid != finest]
        where = where_of(source, options)
        inside = self._inside(where, grids)
        several = any(grid.rows * grid.cols > 1 for grid in grids)
        few = several and self.geometry.window <= FEW_CELLS * self.geometry.step
        if few and options.anchors is None and correction.is_plain:
            self.tell_padding()
        kind = self._kind(options, correction)
        parts = self._parts(kind)
        tilings = self.tilings([*order, finest], inside, correction, parts)
        tally = AgreementEstimator(activation=self.labels.activation)
        crops = sum(correction.crops(grid, inside.get(grid)) for grid in tilings if grid.rows * grid.cols > 1)
        if crops:
            self.open_crops()  # before the scan: making its plan takes seconds
        g = self.geometry
        expect(*scan_work(tilings if correction.dense else {}, parts.whole, g.window, g.step, crops))
        temperature = 1.0 if correction.anchors else self._temperature(grids)
        made = replace(
            self._provenance(tilings.values()) if correction.dense else self.provenance,
            anchors=correction.anchors,
            refine=correction.refine,
            seed=correction.seed,
        )
        scales = tuple(grids) if order else ()
        join = options.join if order else None
        about = MapInfo(finest, self.labels, made, temperature, scales, source, join, where.record)
        if kind == "windows":
            blocks = self._corrected(source, tilings, correction, tally, inside)
            if order:
                blocks = joined(blocks, grids, options.join, temperature, self.labels)
            about = replace(about, answer=once(partial(self._answer, source)))
            return ScoreStream(about, blocks, tally.agreement)
        levels = ScannedScales(list(tilings), self.cell_head.cells, len(self.labels))
        blocks = self._corrected(source, tilings, correction, tally, inside, levels.take)
        known = None if inside or correction.anchors or correction.refine else levels
        about = replace(about, answer=once(partial(self._answer, source, known)))
        return level_stream(kind, about, levels, blocks, where.cells, tally.agreement)

    def _kind(self, options: MapOptions, correction: Correction) -> MapKind:
        """The kind of map to make: the kind in the options, or windows if there are no class activations."""
        if options.map in (None, "windows"):
            return "windows"
        if self.joint is None or not correction.dense:
            self.tell_windows()
            return "windows"
        return options.map

    def _parts(self, kind: MapKind) -> Stages:
        """The stages that compute a map of this kind."""
        if kind == "windows" or self.joint is None:
            return self.parts
        return self.joint()

    def _answer(self, source: ImageSource, levels: ScannedScales | None = None) -> Classification:
        """The answer of `classify` for the whole image, taken from the scanned scales where possible.

        A large JPEG is decoded again at a reduced size, as `classify` does it: the pixels differ a little.
        """
        side = EVALUATION_SIZE[0].pixels(self.eval_size, self.geometry.window)
        if isinstance(source, MemorySource) and source.reduced and side and self.pixel_size is None:
            smaller = source.reduced(side)
            if isinstance(smaller, ReducedSource):
                return self.classify(smaller)
        (grid,) = self._grids(source, EVALUATION_SIZE)
        if levels is None or grid not in levels.levels:
            return self.classify(source)
        return answer(
            [levels.windows(grid)],
            [grid],
            self.labels,
            model=self.provenance.identity.model,
            temperature=self._temperature([grid]),
            k=5,
            at_least=None,
        )

    @staticmethod
    def _inside(where: Where, grids: Sequence[Grid]) -> dict[Grid, Mask]:
        """The windows of each grid that are inside the region of interest; empty if all are.

        In a coarser grid, these are the windows with which the finest grid's windows are joined.
        """
        finest = finest_of(grids)
        cells = where.cells(finest)
        if cells is None:
            return {}
        return {grid: cells if grid == finest else needed_between(grid, finest, cells) for grid in set(grids)}

    def _corrected(
        self,
        source: ImageSource,
        tilings: dict[Grid, Tiling],
        correction: Correction,
        tally: AgreementEstimator,
        inside: dict[Grid, Mask],
        take: Callable[[Block], Block] | None = None,
    ) -> Iterator[Block]:
        """Yields the blocks of a scan, corrected. take: receives each block of the network and returns it."""
        from fcnconv.scan.correction import correct

        windows = self.provenance.mode == "windows"
        if windows and correction.anchors == 1:
            if inside:
                for grid in tilings:
                    score = partial(self.crops, source, grid)
                    yield from crops_alone(grid, len(self.labels), inside[grid], score)
            else:
                yield from self._scan(source, tilings)
            finished(CROPS)
            return
        scanned: Iterator[tuple[Grid, Iterator[Block] | None]] = ((grid, None) for grid in tilings)
        if correction.dense and not windows:
            dense = self._scan(source, tilings)
            scanned = groupby(map(take, dense) if take else dense, key=lambda block: block.grid)
        for grid, blocks in scanned:
            score = partial(self.crops, source, grid)
            yield from correct(grid, len(self.labels), blocks, score, correction, tally, inside.get(grid))
        finished(CROPS)

    def dense(self, source: ImageSource, grid: Grid) -> FloatArray:
        """Compute the logits of every window of a grid, in one pass: float32 (rows, cols, num_classes)."""
        logits = np.empty((grid.rows, grid.cols, len(self.labels)), np.float32)
        for block in self._scan(source, self.tilings([grid])):
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
        return self._checked(score_crops(source, grid, cells, self.open_crops(), self.prepare))

    def _temperature(self, grids: Sequence[Grid]) -> float:
        # A single window is the classifier itself, so its probabilities need no correction.
        return self.temperature if sum(grid.rows * grid.cols for grid in grids) > 1 else 1.0

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
        grids = self.grids(source, scales)
        tilings = self.tilings(grids)
        windows = sum(grid.rows * grid.cols for grid in grids)
        g, crops = self.geometry, windows if self.provenance.mode == "windows" else 0
        expect(*scan_work(tilings, self.parts.whole, g.window, g.step, crops))
        return answer(
            self._scan(source, tilings),
            grids,
            self.labels,
            model=self.provenance.identity.model,
            temperature=self._temperature(grids),
            k=k,
            at_least=at_least,
        )

    def scan(
        self, image: ImageLike | ImageSource, *, scales: str | Sequence[Scale] = OWN_SIZE
    ) -> Iterator[Block]:
        """Yield the logits of every window, block by block, for maps that do not fit in memory.

        Args:
            image: the image, as for a call.
            scales: sizes to scan at, as for a call. The default is the image's own size.
        """
        scales = as_scales(scales)
        source = self.open(image, scales)
        return self._scan(source, self.tilings(self.grids(source, scales)))

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
            if channels_in(image) != self.channels:
                raise ImageError(
                    f"{image.name}: has {channels_in(image)} channels, and the network takes {self.channels}"
                )
            return image
        sides = [scale.pixels(self.eval_size, self.geometry.window) for scale in as_scales(scales)]
        short_side = None if None in sides else max(side for side in sides if side)
        return open_image(
            image,
            max_pixels=self.max_pixels,
            short_side=short_side,
            name=name,
            frame=frame,
            bands=self.bands,
            rescale=self.rescale,
            channels=self.channels,
        )

    def grids(self, source: ImageSource, scales: Sequence[Scale]) -> list[Grid]:
        """List the grids of an image, one per scan size.

        An image that is smaller than the window is enlarged, which is logged. For a network that was trained
        on pixels of a certain size, see `scan.sizes.true_size`.
        """
        grids = self._grids(source, scales)
        tell_enlarged(source, grids[0])
        return grids

    def _grids(self, source: ImageSource, scales: Sequence[Scale]) -> list[Grid]:
        g, grids, own_size = self.geometry, [], source.size
        if self.pixel_size is not None:
            own_size = true_size(source, self.pixel_size, self.image_pixel_size, g.window)
            scales = [as_factor(scale) for scale in scales]
        sizes = [
            size for scale in scales for size in scale.scan_sizes(own_size, self.eval_size, g.window, g.step)
        ]
        for size in dict.fromkeys(sizes):
            if size[0] * size[1] > self.max_pixels and isinstance(source, MemorySource):
                width, height = size
                raise ImageError(
                    f"{source.name}: scanned at {width} × {height} it has {width * height:,} pixels, "
                    f"over the limit of {self.max_pixels:,}; choose a smaller scale, or raise --max-pixels"
                )
            grids.append(Grid(g.window, g.stride, source.size, size, g.phases))
        return grids

    def tilings(
        self,
        grids: Sequence[Grid],
        inside: Mapping[Grid, Mask] | None = None,
        correction: Correction | None = None,
        parts: Stages | None = None,
    ) -> dict[Grid, Tiling]:
        """Choose how to compute the grids of a scan within `memory`.

        Args:
            grids: the grids of the scan.
            inside: for each grid, the windows inside the region of interest, bool (rows, cols); empty if all
                windows are inside. A network that depends on the whole image gets all of it.
            correction: how the map will be corrected. The windows that it needs are computed as well.
            parts: the stages that compute the map. By default those that compute only logits.
        """
        needed = {}
        if inside and self.geometry.local:
            needed = {
                grid: correction.needed(grid, cells) if correction else cells
                for grid, cells in inside.items()
            }
        return choose_all(parts or self.parts, grids, self.memory, needed)

    def _provenance(self, tilings: Iterable[Tiling]) -> Provenance:
        if self.geometry.local:
            return self.provenance
        return replace(self.provenance, tiles=max(tiling.tiles for tiling in tilings))

    def estimate(self, source: ImageSource, options: MapOptions = PLAIN_MAP) -> list[Estimate]:
        """Estimate the cost of a scan at each scale, from the measured time of a small scan."""
        from fcnconv.scan.correction import correction_of

        correction = correction_of(options, self.provenance.mode, self.labels.activation)
        grids = self.grids(source, options.sizes)
        inside = self._inside(where_of(source, options), grids)
        parts = self._parts(self._kind(options, correction))
        tilings = self.tilings(grids, inside, correction, parts)
        window, windows = self.geometry.window, self.provenance.mode == "windows"
        pace = measure_pace(self.run, self.parts, window, self.geometry.step)
        crops = [correction.crops(grid, inside.get(grid)) for grid in tilings]
        crop = pace.window if windows or not any(crops) else measure_crop(self.open_crops(), window)
        return [
            estimate(grid, tiling, pace, parts.whole, len(self.labels), crops=count, crop=crop)
            for (grid, tiling), count in zip(tilings.items(), crops, strict=True)
        ]

    def prepare(self, pixels: Pixels) -> FloatArray:
        """Normalize pixels for the network: from uint8 (H, W, channels) to float32 (1, channels, H, W)."""
        return normalize(pixels, self.provenance.identity.mean, self.provenance.identity.std)

    def _scan(self, source: ImageSource, tilings: dict[Grid, Tiling]) -> Iterator[Block]:
        checked = False
        for block in self._blocks(source, tilings):
            if not checked and not np.isnan(block.logits).all():
                self._checked(block.logits)
                checked = True
            yield block

    def _blocks(self, source: ImageSource, tilings: dict[Grid, Tiling]) -> Iterator[Block]:
        return scan(source, tilings, self.prepare, lambda grid: self._told(tilings[grid]))

    def _checked(self, logits: FloatArray) -> FloatArray:
        check_outputs(logits, self.labels.activation, self.provenance.identity.model)
        return logits

    def _told(self, tiling: Tiling) -> Tiling:
        if tiling.tiles > 1 and not self.geometry.local:
            log.warning(
                "%s looks at the whole image (%s), which is scanned in %d tiles: scores depend on the "
                "tiling; raise --max-memory for a single tile",
                *(
                    self.provenance.identity.model,
                    self.geometry.cause or "one of its operations",
                    tiling.tiles,
                ),
            )
        if tiling.memory > self.memory:
            log.warning(
                "%s of memory are not enough; this scan takes about %s, which is the minimum",
                *(size_text(self.memory), size_text(tiling.memory)),
            )
        return tiling


def load(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    mode: Mode | None = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    temperature: float | None = None,
    device: str = "auto",
    max_pixels: int | None = None,
    bands: Sequence[int] | str | None = None,
    rescale: Rescale | str | None = None,
    stride: int | None = None,
    max_memory: str | float | None = None,
    arch: str | None = None,
    categories: Sequence[str] | str | Path | None = None,
    window: int | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | str | None = None,
    eval_size: int | None = None,
    activation: Activation | None = None,
    mpp: float | None = None,
    gsd: float | None = None,
    image_mpp: float | None = None,
    image_gsd: float | None = None,
    ema: bool | None = None,
    head_activation: HeadActivation | None = None,
    allow_torchscript: bool = False,
    spec: str | Path | None = None,
) -> Classifier:
    """Load a classifier by its name, from a file of weights, or from a torch module.

    When a network is first loaded, it is converted, proved equal to the original and cached. This takes a few
    seconds. Every argument except `model` has a default that suits published models.

    Args:
        model: the name of a model (``fcnconv models`` lists them), ``timm/NAME``, ``hf-hub:USER/REPO``, the
            path of a file of weights or of a folder, or a `torch.nn.Module`.
        mode: ``"fcn"`` converts the network; ``"windows"`` scores each window as a crop, exactly and slowly.
            By default ``"fcn"``, or ``"windows"`` for a network that has no fully convolutional form.
        backend: the library that runs the network: ``"onnx"``, ``"openvino"`` or ``"torch"``. By default
            ``"auto"``: ONNX Runtime, or torch if no plan can be made.
        precision: ``"float32"`` or ``"bfloat16"``. By default ``"auto"``: float32, and 16 bits on a GPU.
        temperature: number above 0 that divides the logits of maps with several windows. By default the value
            that was measured for the model, and 1 in ``windows`` mode.
        device: where torch runs the network: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"`` or ``"auto"``
            (the default).
        max_pixels: the largest image that is decoded whole, in pixels. By default 178,956,970.
        bands: bands of a multi-band image to use as channels, in order, counted from 1: ``(4, 3, 2)`` or
            ``"4,3,2"``. By default those that the file declares as red, green and blue.
        rescale: the range of values that becomes 0 to 255: ``"0,3000"`` or ``"percentile:2,98"``. By default
            the range of the file's number type.
        stride: pixels between neighbouring windows: the network's own stride divided by 2, 4, 8 or 16. By
            default the network's own, usually 32.
        max_memory: memory for a scan, in bytes or as text such as ``"2GB"``. By default 2 GB, or half of the
            free memory if that is less.
        arch: the architecture of a file of weights: ``"resnet18"`` (torchvision) or ``"timm/resnet18d"``.
        categories: the class names in index order, or the path of a file with them. By default the names in
            the file of weights, the names of ImageNet, or numbers.
        window: side of the network's native input, in pixels. By default the architecture's, usually 224.
        mean: mean of each channel, for intensities 0 to 1: ``(0.5, 0.5, 0.5)`` or ``"0.5,0.5,0.5"``.
        std: standard deviation of each channel, likewise. By default both are the architecture's.
        eval_size: short side, in pixels, to which `classify` resizes an image. By default the model's own.
        activation: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent ones, ``"none"`` for a
            network that returns probabilities. By default softmax, or sigmoid for a single output.
        mpp: micrometres per pixel of the slides that the network was trained on. By default any.
        gsd: metres per pixel of the aerial images that the network was trained on. By default any.
        image_mpp: micrometres per pixel of images whose files do not say it.
        image_gsd: metres per pixel of images whose files do not say it.
        ema: whether to use averaged weights of a file that has both kinds. By default they are used.
        head_activation: the function between the linear layers of a custom head, such as ``"relu"`` or
            ``"gelu"``, which no file of weights contains.
        allow_torchscript: whether to run the code in a TorchScript file. Only for files that you trust.
        spec: the path of a JSON file with any of the arguments from `arch` on.

    Returns:
        The classifier. Call it to get a `ScoreMap`; its `classify` returns the most probable classes.

    Raises:
        UsageError: the name is unknown, or an argument is not valid or does not apply.
        ModelError: the weights are missing, altered, or do not fit the architecture.
        ConversionError: the network has no fully convolutional form; try ``mode="windows"``.

    Examples:
        The default model, on a photo:

        >>> classifier = fcnconv.load()
        >>> score_map = classifier("photo.jpg")
        >>> score_map["cat"].max()

        Your own ResNet-18, trained on tiles of 64 px:

        >>> classifier = fcnconv.load("trees.pth", arch="resnet18", window=64, categories=["ash", "oak"])
        >>> classifier("orthophoto.tif").save("map.tif")
    """
    # OwnModel parses texts and paths, and refuses what is not valid.
    own = OwnModel(
        arch=arch,
        categories=categories,  # type: ignore[arg-type]
        window=window,
        mean=mean,  # type: ignore[arg-type]
        std=std,  # type: ignore[arg-type]
        eval_size=eval_size,
        activation=activation,
        mpp=mpp,
        gsd=gsd,
        ema=ema,
        head_activation=head_activation,
        allow_torchscript=allow_torchscript or None,
        spec=spec,  # type: ignore[arg-type]
    )
    options = NetworkOptions(
        mode=None if mode is None else checked("mode", mode, Mode),
        stride=stride,
        backend=checked("backend", backend, Backend),
        precision=checked("precision", precision, Precision),
        device=parse_device(device),
        temperature=temperature,
        max_memory=parse_memory(max_memory) if isinstance(max_memory, str) else max_memory,
        max_pixels=max_pixels,
        bands=parse_bands(bands if isinstance(bands, str) else ",".join(map(str, bands))) if bands else None,
        rescale=parse_rescale(rescale) if isinstance(rescale, str) else rescale,
        image_mpp=image_mpp,
        image_gsd=image_gsd,
    )
    return open_classifier(find_model(model, own), options)


def open_classifier(
    spec: ModelSpec, options: NetworkOptions = PLAIN_NETWORK, maps: MapOptions = PLAIN_MAP
) -> Classifier:
    """Open the classifier of a model.

    Args:
        spec: the model.
        options: how to run the network.
        maps: options of the maps that the classifier will make. All plans that these maps need are made now.
            Plans for other maps are made when they are needed.

    Raises:
        UsageError: an option does not apply to the model.
        ModelError: the weights are missing or altered, or do not fit.
        ConversionError: the network has no fully convolutional form.
    """
    if options.image_pixel_size is not None and spec.pixel_size is None:
        raise UsageError(
            f"{spec.name} accepts pixels of any size, so --image-mpp and --image-gsd change nothing; give "
            "the pixel size that it was trained on with --mpp or --gsd, or in its JSON file"
        )
    channels = len(spec.mean)
    if options.bands and len(options.bands) not in ({1, 3} if channels == 3 else {channels}):
        wanted = "three, or one for all" if channels == 3 else str(channels)
        raise UsageError(f"--bands names {len(options.bands)} bands, and the network takes {wanted}")
    mode, backend, device = spec.mode_for(options.mode), options.backend, options.device
    needs = Needs(
        activations=maps.map not in (None, "windows") and maps.anchors != 1,
        crops=bool(maps.anchors or maps.refine or maps.agreement is not None),
    )
    network = open_network(spec, mode, backend, device, options.stride, options.precision, needs)
    if network.arithmetic != FLOAT32:
        log.info("%s", network.arithmetic)

    def crops() -> Forward:
        if mode == "windows":
            return network.run
        return open_network(spec, "windows", backend, device, precision=options.precision).run

    return Classifier(
        labels=spec.labels(),
        geometry=network.geometry,
        eval_size=spec.eval_size,
        run=network.run,
        open_crops=once(crops),
        provenance=Provenance(network.identity, mode, arithmetic=network.arithmetic),
        temperature=options.temperature or (spec.temperature if mode == "fcn" else 1.0),
        parts=network.parts,
        memory=options.max_memory or default_memory(network.geometry.local),
        max_pixels=options.max_pixels or MAX_PIXELS,
        bands=options.bands,
        rescale=options.rescale,
        pixel_size=spec.pixel_size,
        image_pixel_size=options.image_pixel_size,
        channels=channels,
        cell_head=network.cell_head,
        joint=network.joint,
        tell_windows=once(partial(_tell_windows, spec.name, network.cell_head.reason)),
        tell_padding=once(partial(_tell_padding, spec.name, network.geometry)),
    )


def _tell_windows(model: str, reason: str) -> None:
    log.info("%s: the map shows windows, because %s", model, reason or NO_CELLS.reason)


def _tell_padding(model: str, geometry: Geometry) -> None:
    cells = geometry.window // geometry.step
    log.info(
        "%s: a window has only %d × %d feature cells, which see padding in a crop and the surroundings in "
        "the dense map; 'fcnconv verify' compares the two on your images, and --anchors 4 corrects the map",
        *(model, cells, cells),
    )
