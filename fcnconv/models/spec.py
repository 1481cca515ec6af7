"""What the rest of the program knows of a model: how it is used, where its weights are, how it is built."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import WAY_OUT, ConversionError, UsageError
from fcnconv.labels import Labels
from fcnconv.models.packaged import file_sha256
from fcnconv.provenance import Channels, Identity, Mode

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Published:
    """What is known of a model of the table before it is opened.

    source: who publishes the weights. weights: what they call them. parameters: how many.
    accuracy: published top-1 accuracy on ImageNet, in percent.
    stride, receptive_field: of its converted network, in pixels; None where it has no converted form.
    local: False if an operation looks at the whole image, so that a tile cannot equal the whole.
    on_disk: tells whether the weights are here already.
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
    """A classifier as its makers meant it to be used.

    name: what `load` and ``--model`` call it.
    window: side of its native input, in pixels.
    eval_size: short side, in pixels, to which its evaluation resizes an image before it crops.
    mean, std: of each channel, for intensities 0 to 1.
    labels: gives its classes.
    weights: gives the path of its checked weights, fetching them first where that is needed.
    build: makes the network from that path.
    stride: pixels between the crops of `windows` mode; in `fcn` mode the network's own stride holds.
    temperature: by which dense logits are divided to be as sure as real crops, where it was measured.
    pixel_size: metres across a pixel of what it learned from, at which images are scanned; None is any.
    arch: the network that `build` makes; it and the weights decide the logits.
    no_fcn: why the network has no fully convolutional form; empty if it has one, or nobody knows yet.
    sha256: gives the SHA-256 of the weights at that path.
    no_plan: why torch alone can run the network, where no plan can be made of it.
    crops: gives the network at that path as an ONNX program, float32 (N, channels, window, window) -> logits
        (N, num_classes), by which crops are scored; None where torch exports one.
    published: what is known of it beforehand; None for a model of one's own.
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
    pixel_size: float | None = None
    arch: str = ""
    no_fcn: str = ""
    no_plan: str = ""
    sha256: Callable[[Path], str] = file_sha256
    crops: Callable[[Path], bytes] | None = None
    published: Published | None = None

    @property
    def mode(self) -> Mode:
        """``fcn`` if it can be converted, as far as is known; else ``windows``."""
        return "windows" if self.no_fcn else "fcn"

    def mode_for(self, asked: Mode | None) -> Mode:
        """The mode that was asked for, or else the network's own, which is logged if it is the slow one."""
        if asked is None and self.mode == "windows":
            log.info(
                "%s has no fully convolutional form: %s. Every window is scored as a crop, as with --mode "
                "windows",
                *(self.name, self.no_fcn),
            )
        return asked or self.mode

    def identity(self, weights: Path) -> Identity:
        """What a network is that is built from these weights."""
        return Identity(self.name, self.sha256(weights), self.mean, self.std)

    def require_fcn(self) -> None:
        """Raises ConversionError, before weights are fetched, if it is known that there is no `fcn` mode."""
        if self.no_fcn:
            raise ConversionError(f"{self.name} has no fully convolutional form: {self.no_fcn}; {WAY_OUT}")

    def require_stride(self, stride: int) -> None:
        """Raises UsageError, before weights are fetched, if it is known that the converted network cannot
        have its windows `stride` pixels apart.
        """
        if self.published and self.published.stride:
            count_phases(stride, self.published.stride)


def count_phases(stride: int, own: int) -> int:
    """How many windows a finer stride has for each of the network's own along an axis: a power of two.

    Raises UsageError.
    """
    allowed = [own >> i for i in range(own.bit_length()) if own % (1 << i) == 0 and own >> i > 1]
    if stride not in allowed:
        raise UsageError(
            f"stride {stride} is not the network's own, {own}, divided by a power of two; "
            f"choose one of {', '.join(map(str, allowed))}"
        )
    return own // stride
