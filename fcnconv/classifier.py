"""The classifier: load one by name, then scan images with it, map them or classify them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from fcnconv.activations import check_outputs
from fcnconv.backends import open_network
from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import Box, Geometry, Grid, Scale
from fcnconv.images import ImageSource, MemorySource, ReducedSource, channels_in
from fcnconv.images.reading import MAX_PIXELS, ImageLike, open_image
from fcnconv.labels import Labels
from fcnconv.models import DEFAULT_MODEL, ModelSpec, OwnModel, find_model
from fcnconv.models.weight_options import HeadActivation
from fcnconv.options import (
    EVALUATION_SIZE,
    OWN_SIZE,
    PLAIN_NETWORK,
    PLAIN_READING,
    PLAIN_SCAN,
    Backend,
    Join,
    MapKind,
    NetworkOptions,
    Precision,
    ReadOptions,
    ScanOptions,
)
from fcnconv.options.parsing import (
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
from fcnconv.provenance import FLOAT32, NO_CELLS, Activation, Mode, Provenance
from fcnconv.roi import where_of
from fcnconv.scan.agreement import AgreementEstimator
from fcnconv.scan.correction import CROPS_ALONE, DENSE, correction_of
from fcnconv.scan.execute import Executor, LocalExecutor, execute
from fcnconv.scan.focus import ScannedScales, level_stream
from fcnconv.scan.multiscale import joined
from fcnconv.scan.network import Needs, Network
from fcnconv.scan.plan import ScanPlan, plan_scan
from fcnconv.scan.sizes import Sizing, tell_enlarged
from fcnconv.scan.stages import Forward
from fcnconv.scan.tiling import default_memory
from fcnconv.scores import Block, FloatArray, MapInfo, ScoreStream
from fcnconv.system.once import once

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.maps import ScoreMap

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
        reading: how images are read.
        channels: number of channels of the images that the network takes.
        executor: where the network runs; None is this process.
        tell_windows: logs, once, that maps show windows because there are no class activations.
        tell_padding: logs, once, that crops may have other classes than the dense map.
    """

    labels: Labels
    network: Network
    open_crops: Callable[[], Forward]
    sizing: Sizing
    memory: float
    temperature: float = 1.0
    reading: ReadOptions = PLAIN_READING
    channels: int = 3
    executor: Executor | None = None
    tell_windows: Callable[[], None] = lambda: None
    tell_padding: Callable[[], None] = lambda: None

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
        from fcnconv.maps import ScoreMap  # imports all writers, which a classification does not need

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
        source, to_display = self.open(image, options.sizes), options.looked_at()
        score_map = ScoreMap.collect(self.stream(source, options))
        if to_display == options:
            return score_map
        display = once(lambda: ScoreMap.collect(self.stream(source, to_display)))
        return replace(score_map, about=replace(score_map.about, display=display))

    def stream(self, image: ImageLike | ImageSource, options: ScanOptions = PLAIN_SCAN) -> ScoreStream:
        """Stream the score map of an image while it is scanned, for maps that do not fit in memory.

        Nothing is scanned until the pieces of the map are read.

        Args:
            image: the image, as for a call.
            options: how to scan the image.
        """
        plan = self.plan(image, options)
        dense, g, source = plan.correction.is_plain, self.geometry, plan.source
        if dense and options.anchors is None and plan.windows > 1 and g.window <= FEW_CELLS * g.step:
            self.tell_padding()
        scales = plan.grids if len(plan.grids) > 1 else ()
        about = MapInfo(
            plan.finest,
            self.labels,
            plan.provenance,
            temperature=1.0 if plan.correction.anchors else self._temperature(plan.windows),
            scales=scales,
            source=source,
            join=options.join if scales else None,
            looked_at=plan.roi.record,
        )
        tally = AgreementEstimator(activation=self.labels.activation)
        if plan.kind == "windows":
            blocks = execute(plan, self._executor, tally)
            if scales:
                blocks = joined(blocks, scales, options.join, about.temperature, self.labels)
            about = replace(about, answer=once(partial(self._answer, source)))
            return ScoreStream(about, blocks, tally.agreement)
        levels = ScannedScales(list(plan.tilings), self.network.cell_head.cells, len(self.labels))
        blocks = execute(plan, self._executor, tally, levels.take)
        known = levels if dense and not plan.inside else None
        about = replace(about, answer=once(partial(self._answer, source, known)))
        return level_stream(plan.kind, about, levels, blocks, plan.roi.cells, tally.agreement)

    def plan(self, image: ImageLike | ImageSource, options: ScanOptions = PLAIN_SCAN) -> ScanPlan:
        """Plan the scan of an image: its grids, its region of interest, and how they are computed.

        Args:
            image: the image, as for a call.
            options: how to scan the image.

        Raises:
            ImageError: the image cannot be read.
            UsageError: an option is not valid, or does not apply to this network or image.
        """
        correction = correction_of(options, self.network.mode, self.labels.activation)
        source = self.open(image, options.sizes)
        kind = options.map or "windows"
        if kind != "windows" and (self.network.joint is None or not correction.dense):
            self.tell_windows()
            kind = "windows"
        return plan_scan(
            source,
            self.grids(source, options.sizes),
            self.network,
            self.labels,
            self.memory,
            correction=correction,
            kind=kind,
            roi=where_of(source, options),
        )

    def plan_dense(self, source: ImageSource, grids: Sequence[Grid]) -> ScanPlan:
        """Plan the scan of all windows of some grids, without a correction."""
        correction = CROPS_ALONE if self.network.mode == "windows" else DENSE
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
        return answer(
            [levels.windows(grid)],
            [grid],
            self.labels,
            model=self.network.identity.model,
            temperature=self._temperature(grid.rows * grid.cols),
            k=5,
            at_least=None,
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

    def _temperature(self, windows: int) -> float:
        # A single window is the classifier itself, so its probabilities need no correction.
        return self.temperature if windows > 1 else 1.0

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
        return answer(
            execute(plan, self._executor),
            plan.grids,
            self.labels,
            model=self.network.identity.model,
            temperature=self._temperature(plan.windows),
            k=k,
            at_least=at_least,
        )

    def scan(
        self, image: ImageLike | ImageSource, *, scales: str | Sequence[Scale] = OWN_SIZE
    ) -> Iterator[Block]:
        """Yield the logits of every window, block by block, for maps that do not fit in memory.

        Args:
            image: the image, as for a call.
            scales: sizes to scan at, as for a call. The default is the image's own size. Of several sizes,
                the one with the most windows is scanned last.
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
            if channels_in(image) != self.channels:
                raise ImageError(
                    f"{image.name}: has {channels_in(image)} channels, and the network takes {self.channels}"
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
        tell_enlarged(source, grids[0])
        return grids


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
    )
    reading = ReadOptions(
        max_memory=parse_memory(max_memory) if isinstance(max_memory, str) else max_memory,
        max_pixels=max_pixels,
        bands=parse_bands(bands if isinstance(bands, str) else ",".join(map(str, bands))) if bands else None,
        rescale=parse_rescale(rescale) if isinstance(rescale, str) else rescale,
        image_mpp=image_mpp,
        image_gsd=image_gsd,
    )
    return open_classifier(find_model(model, own), options, reading)


def open_classifier(
    spec: ModelSpec,
    options: NetworkOptions = PLAIN_NETWORK,
    reading: ReadOptions = PLAIN_READING,
    scan: ScanOptions = PLAIN_SCAN,
) -> Classifier:
    """Open the classifier of a model.

    Args:
        spec: the model.
        options: how to run the network.
        reading: how to read images.
        scan: how the images will be scanned. All plans that this needs are made now. Plans for other scans
            are made when they are needed.

    Raises:
        UsageError: an option does not apply to the model.
        ModelError: the weights are missing or altered, or do not fit.
        ConversionError: the network has no fully convolutional form.
    """
    if reading.image_pixel_size is not None and spec.pixel_size is None:
        raise UsageError(
            f"{spec.name} accepts pixels of any size, so --image-mpp and --image-gsd change nothing; give "
            "the pixel size that it was trained on with --mpp or --gsd, or in its JSON file"
        )
    channels = len(spec.mean)
    if reading.bands and len(reading.bands) not in ({1, 3} if channels == 3 else {channels}):
        wanted = "three, or one for all" if channels == 3 else str(channels)
        raise UsageError(f"--bands names {len(reading.bands)} bands, and the network takes {wanted}")
    mode, backend, device = spec.mode_for(options.mode), options.backend, options.device
    needs = Needs(
        activations=scan.map not in (None, "windows") and scan.anchors != 1,
        crops=bool(scan.anchors or scan.refine or scan.agreement is not None),
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
        network=network,
        open_crops=once(crops),
        sizing=Sizing(
            spec.eval_size, spec.pixel_size, reading.image_pixel_size, reading.max_pixels or MAX_PIXELS
        ),
        memory=reading.max_memory or default_memory(network.geometry.local),
        temperature=options.temperature or (spec.temperature if mode == "fcn" else 1.0),
        reading=reading,
        channels=channels,
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
