"""Options for running a network and for reading images, which every command that scans images has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fcnconv.errors import UsageError
from fcnconv.options.parsing import (
    Frame,
    OptionInfo,
    parse_bands,
    parse_device,
    parse_frame,
    parse_memory,
    parse_rescale,
    parse_shard,
    parse_temperature,
)
from fcnconv.provenance import Mode
from fcnconv.rescale import Rescale

Backend = Literal["auto", "onnx", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]

FrameChoice = Annotated[
    Frame | None,
    OptionInfo(
        "The frame of an animation or page of a TIFF to use, from 1, or all. [default: 1]",
        flags=("--frame",),
        metavar="N|all",
        group="Input",
        read=parse_frame,
    ),
]

EVERY_IMAGE = (1, 1)
"""The shard that contains every image."""


Shard = Annotated[
    tuple[int, int],
    OptionInfo(
        "Process only part I of N of the images; auto reads I and N from the job queue.",
        flags=("--shard",),
        metavar="I/N|auto",
        group="Running",
        read=parse_shard,
    ),
]

RunMode = Annotated[
    Mode | None,
    OptionInfo(
        "fcn runs the converted network, windows scores every crop (slow). [default: fcn if the network "
        "converts]",
        group="Network",
    ),
]

RunPrecision = Annotated[
    Precision,
    OptionInfo(
        "float32, or bfloat16: faster on some processors, less exact. [default: float32; 16 bits on a GPU]",
        metavar="TYPE",
        group="Running",
    ),
]

Stride = Annotated[
    int | None,
    OptionInfo(
        "Pixels between windows; 16, 8, 4 or 2 make a finer map. [default: the network's, mostly 32]",
        metavar="PX",
        group="Network",
        least=2,
    ),
]


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is run.

    mode: ``fcn`` converts the network and proves it equal to the original. ``windows`` runs the original on
        every crop, which is exact and slow. None is ``fcn``, or ``windows`` for a network that is known to
        have no fully convolutional form.
    stride: pixels between windows: the native stride divided by a power of two. None is the native stride.
    backend: the library that runs the network: an entry of `backends.BACKENDS`, or ``auto``.
    device: the device on which torch runs the network: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``.
    precision: the type of numbers to compute with. ``bfloat16`` has 8 significant bits, ``float32`` has 24;
        ``bfloat16`` is faster on a processor with instructions for it. ``auto`` is ``float32``, or half
        precision on a GPU.
    temperature: number that divides the logits of maps with more than one cell. None is the value that was
        measured for the model, or 1 in ``windows`` mode.
    """

    mode: RunMode = None
    stride: Stride = None
    backend: Annotated[
        Backend,
        OptionInfo(
            "Library that runs the network: onnx, openvino, torch. [default: FCNCONV_BACKEND, or auto]",
            metavar="NAME",
            group="Running",
            envvar="FCNCONV_BACKEND",
        ),
    ] = "auto"
    device: Annotated[
        str,
        OptionInfo(
            "Device of the torch backend: cpu, cuda, cuda:N, mps.",
            metavar="NAME",
            group="Running",
            read=parse_device,
        ),
    ] = "auto"
    precision: RunPrecision = "auto"
    temperature: Annotated[
        float | None,
        OptionInfo(
            "Number that divides the logits of a dense map; 1 changes nothing. [default: the model's]",
            metavar="T",
            group="Network",
            read=parse_temperature,
        ),
    ] = None


@dataclass(frozen=True)
class ReadOptions:
    """How images are read, and how much reading and scanning them may take.

    max_memory: bytes for a scan. None is half of the free memory, or 2 GB if more would not be faster.
    max_pixels: the largest image that is decoded whole, in pixels. None is `images.MAX_PIXELS`.
    bands: the bands of a TIFF to use as channels, from 1. None is the bands that the file declares.
    image_mpp, image_gsd: the pixel size of images whose files do not record it: micrometres per pixel of a
        slide, or metres per pixel on the ground.
    rescale: the values that become black and white. None is the range that the file declares.
    """

    max_memory: Annotated[
        float | None,
        OptionInfo(
            "Memory limit of a scan. [default: 2GB, or half of the free memory if less]",
            metavar="SIZE",
            group="Running",
            read=parse_memory,
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        OptionInfo(
            "Refuse to decode larger images, in pixels. [default: 178956970]",
            metavar="N",
            group="Running",
            least=1,
        ),
    ] = None
    bands: Annotated[
        tuple[int, ...] | None,
        OptionInfo(
            "Bands of a TIFF to use as input channels, in order, such as 4,3,2.",
            metavar="LIST",
            group="Input",
            read=parse_bands,
        ),
    ] = None
    image_mpp: Annotated[
        float | None,
        OptionInfo(
            "Micrometres per pixel of images that do not record it.", metavar="UM", group="Input", least=0
        ),
    ] = None
    image_gsd: Annotated[
        float | None,
        OptionInfo("Metres per pixel of images that do not record it.", metavar="M", group="Input", least=0),
    ] = None
    rescale: Annotated[
        Rescale | None,
        OptionInfo(
            "Values of a TIFF that become black and white: 0,3000 or percentile:2,98.",
            metavar="RANGE",
            group="Input",
            read=parse_rescale,
        ),
    ] = None

    @property
    def image_pixel_size(self) -> float | None:
        """Metres per pixel of the images, or None. Raises UsageError if both options give it."""
        if self.image_mpp is not None and self.image_gsd is not None:
            raise UsageError("--image-mpp and --image-gsd both say how large pixels are; leave out one")
        return self.image_gsd if self.image_mpp is None else self.image_mpp / 1e6


PLAIN_NETWORK, PLAIN_READING = NetworkOptions(), ReadOptions()
"""The default options of a network and of reading images."""
