"""Describes a model to the rest of the program: how to use it, where its weights are, how to build it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcnconv.errors import WAY_OUT, ConversionError, UsageError
from fcnconv.labels import Labels
from fcnconv.models.weight_files import file_sha256
from fcnconv.provenance import Channels, Identity, Mode

if TYPE_CHECKING:
    from torch import nn


log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Published:
    """Facts about a model in the table that are known before it is opened.

    Attributes:
        source: publisher of the weights.
        weights: the publisher's name for them.
        parameters: number of parameters.
        accuracy: published top-1 accuracy on ImageNet, in percent.
        stride, receptive_field: of the converted network, in pixels; None if it has no converted form.
        local: False if an operation depends on the whole image, so that a tile cannot equal the whole.
        on_disk: returns whether the weights are already on this machine.
    """

    source: str
    weights: str
    parameters: int
    accuracy: float
    stride: int | None
    receptive_field: int | None
    local: bool | None
    on_disk: Callable[[], bool]


@dataclass(frozen=True)
class ModelSpec:
    """A classifier with the settings that its makers intended.

    Attributes:
        name: its name in `load` and ``--model``.
        window: side of the native input, in pixels.
        eval_size: short side, in pixels, to which the evaluation resizes an image before cropping it.
        mean, std: one value per channel, for intensities 0 to 1.
        labels: returns the classes.
        weights: returns the path of the checked weights, after downloading them if needed.
        build: builds the network from this path.
        stride: pixels between the crops of `windows` mode. In `fcn` mode, the network's own stride applies.
        temperature: divisor that makes dense logits as confident as crops, if it was measured.
        answer_temperature: divisor of the mean logits of several windows that makes the answer for a whole
            image as confident as it is accurate, if it was measured; None is `temperature`.
        pixel_size: pixel size of the training images, in metres. Images are scanned at this size; None
            accepts any size.
        arch: the network that `build` builds. It and the weights determine the logits.
        no_fcn: why the network has no fully convolutional form; empty if it has one, or if this is not known
            yet.
        sha256: returns the SHA-256 of the weights at a path.
        no_plan: why no plan of the network is possible, so that only torch can run it.
        crops: returns the network at a path as an ONNX program for scoring crops, float32 (N, channels,
            window, window) -> logits (N, num_classes); None if torch exports the program.
        published: facts that are known beforehand; None for a custom model.
    """

    name: str
    window: int
    eval_size: int
    mean: Channels
    std: Channels
    labels: Callable[[], Labels]
    weights: Callable[[], Path]
    build: Callable[[Path], nn.Module]
    stride: int = 32
    temperature: float = 1.0
    answer_temperature: float | None = None
    pixel_size: float | None = None
    arch: str = ""
    no_fcn: str = ""
    no_plan: str = ""
    sha256: Callable[[Path], str] = file_sha256
    crops: Callable[[Path], bytes] | None = None
    published: Published | None = None

    @property
    def mode(self) -> Mode:
        """``fcn`` if the network can be converted, as far as is known; else ``windows``."""
        return "windows" if self.no_fcn else "fcn"

    def mode_for(self, asked: Mode | None) -> Mode:
        """The mode that was asked for, else the network's default mode. A default of `windows`, which is
        slow, is logged.
        """
        if asked is None and self.mode == "windows":
            log.info(
                "%s has no fully convolutional form: %s. Every window is scored as a crop, as with --mode "
                "windows",
                *(self.name, self.no_fcn),
            )
        return asked or self.mode

    def identity(self, weights: Path) -> Identity:
        """The identity of the network that is built from these weights."""
        return Identity(self.name, self.sha256(weights), self.mean, self.std)

    def require_fcn(self) -> None:
        """Raises ConversionError, before downloading weights, if `fcn` mode is known to be impossible."""
        if self.no_fcn:
            raise ConversionError(f"{self.name} has no fully convolutional form: {self.no_fcn}; {WAY_OUT}")

    def require_stride(self, stride: int) -> None:
        """Raises UsageError, before downloading weights, if the converted network is known not to support
        `stride`.
        """
        if self.published and self.published.stride:
            count_phases(stride, self.published.stride)


def count_phases(stride: int, own: int) -> int:
    """The number of windows of a finer stride per window of the network's own, along one axis: a power of
    two.

    Args:
        stride: the finer stride, in pixels.
        own: the network's own stride, in pixels.

    Raises:
        UsageError: the network's own stride divided by `stride` is not a power of two.
    """
    allowed = [own >> i for i in range(own.bit_length()) if own % (1 << i) == 0 and own >> i > 1]
    if stride not in allowed:
        raise UsageError(
            f"stride {stride} is not the network's own, {own}, divided by a power of two; "
            f"choose one of {', '.join(map(str, allowed))}"
        )
    return own // stride


HeadActivation = Literal["none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "hardswish"]
"""The possible functions between the linear layers of a head. No weights file records the function."""


@dataclass(frozen=True)
class WeightOptions:
    """The user's choices for a weights file, where the file leaves them open.

    Attributes:
        ema: whether to use the averaged weights; None uses them if the file has any.
        head_activation: the function between the linear layers of a head; None if it is not given.
    """

    ema: bool | None = None
    head_activation: HeadActivation | None = None

    @property
    def key(self) -> str:
        """Text that distinguishes networks that are built from the same file with different choices."""
        ema = "" if self.ema is None else " ema" if self.ema else " no-ema"
        return ema + (f" {self.head_activation}" if self.head_activation else "")


AS_THEY_ARE = WeightOptions()
