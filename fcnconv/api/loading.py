"""Loading: opens the classifier of a model by name, from a file of weights, or from a torch module."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.api.classifier import Classifier
from fcnconv.backends import open_network
from fcnconv.errors import UsageError
from fcnconv.grid import Geometry
from fcnconv.images.reading import MAX_PIXELS
from fcnconv.models import DEFAULT_MODEL, ModelSpec, OwnModel, find_model
from fcnconv.models.spec import HeadActivation
from fcnconv.options import (
    PLAIN_NETWORK,
    PLAIN_READING,
    PLAIN_SCAN,
    Backend,
    NetworkOptions,
    Precision,
    ReadOptions,
    ScanOptions,
)
from fcnconv.options.parsing import checked, parse_bands, parse_device, parse_memory, parse_rescale
from fcnconv.provenance import FLOAT32, NO_CELLS, Activation, Mode
from fcnconv.rescale import Rescale
from fcnconv.scan.network import Needs
from fcnconv.scan.sizes import Sizing
from fcnconv.scan.stages import Forward
from fcnconv.scan.tiling import default_memory
from fcnconv.system.once import once

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")


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
    images: int = 0,
) -> Classifier:
    """Open the classifier of a model.

    Args:
        spec: the model.
        options: how to run the network.
        reading: how to read images.
        scan: how the images will be scanned. All plans that this needs are made now. Plans for other scans
            are made when they are needed.
        images: the number of images that will be processed at least, as far as it is known. For many images
            the faster backend is worth its start.

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
        images=images,
    )
    network = open_network(spec, mode, backend, device, options.stride, options.precision, needs)
    if network.arithmetic != FLOAT32:
        log.info("%s", network.arithmetic)

    def crops() -> Forward:
        if mode == "windows":
            return network.run
        needs = Needs(images=images)
        return open_network(spec, "windows", backend, device, None, options.precision, needs).run

    return Classifier(
        labels=spec.labels(),
        network=network,
        open_crops=once(crops),
        sizing=Sizing(
            spec.eval_size, spec.pixel_size, reading.image_pixel_size, reading.max_pixels or MAX_PIXELS
        ),
        memory=reading.max_memory or default_memory(network.geometry.local),
        temperature=options.temperature or (spec.temperature if mode == "fcn" else 1.0),
        answer_temperature=options.temperature
        or (spec.answer_temperature or spec.temperature if mode == "fcn" else 1.0),
        reading=reading,
        channels=channels,
        log_windows=once(partial(_log_windows, spec.name, network.cell_head.reason)),
        log_padding=once(partial(_log_padding, spec.name, network.geometry)),
    )


def _log_windows(model: str, reason: str) -> None:
    log.info("%s: the map shows windows, because %s", model, reason or NO_CELLS.reason)


def _log_padding(model: str, geometry: Geometry) -> None:
    cells = geometry.window // geometry.step
    log.info(
        "%s: a window has only %d × %d feature cells, which see padding in a crop and the surroundings in "
        "the dense map; 'fcnconv verify' compares the two on your images, and --anchors 4 corrects the map",
        *(model, cells, cells),
    )
