"""Options: each one is defined once, with its type, default and help text.

The command line, `load`, the JSON description of a model and the settings of a folder of maps derive from the
dataclasses here and in `models.own`. `parsing` turns text into values where it enters; all other code takes
values.

Nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Scale
from fcnconv.parsing import (
    Area,
    Frame,
    Rescale,
    parse_bands,
    parse_device,
    parse_extent,
    parse_frame,
    parse_memory,
    parse_region,
    parse_rescale,
    parse_scales,
    parse_shard,
    parse_share,
    parse_temperature,
)
from fcnconv.provenance import Mode

Backend = Literal["auto", "onnx", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]
Join = Literal["finest", "max", "mean"]
Values = Literal["probabilities", "logits"]
StoredClasses = Literal["auto", "all", "top-k"]
DType = Literal["float32", "uint8", "uint16"]
AnswerLevel = Literal["category", "concept"]
ColourMap = Literal["turbo", "inferno", "magma", "plasma", "viridis", "cividis"]
DEFAULT_COLOUR_MAP: ColourMap = "turbo"
MapKind = Literal["focused", "windows", "activations"]


@dataclass(frozen=True)
class OptionInfo:
    """How the command line shows and reads a field of options.

    help: the help text.
    flags: the flags on the command line; if empty, ``--`` and the field's name.
    metavar: the placeholder for the value in the help.
    group: the heading under which the help lists the option.
    read: parses the value from text; None if the type is enough.
    least, most: the bounds of a number.
    envvar: an environment variable that sets the option.
    complete: returns the values that start with a text, for completion in the shell.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    group: str = "Map"
    read: Callable[[str], Any] | None = None
    least: float | None = None
    most: float | None = None
    envvar: str | None = None
    complete: Callable[[str], Any] | None = None


def option_info(options: type) -> dict[str, tuple[Any, OptionInfo]]:
    """The fields of a dataclass that are options: name -> (type, `OptionInfo`)."""
    hints = get_type_hints(options, include_extras=True)
    infos = {}
    for field in fields(options):
        value, *notes = get_args(hints[field.name]) or (None,)
        if notes and isinstance(notes[0], OptionInfo):
            infos[field.name] = value, notes[0]
    return infos


def flag(options: type, field: str) -> str:
    """The flag of a field of options on the command line."""
    _, note = option_info(options)[field]
    return note.flags[0] if note.flags else f"--{field.replace('_', '-')}"


OWN_SIZE, ALL_SIZES, EVALUATION_SIZE = (Scale(factor=1.0),), (Scale(factor=1.0, pyramid=True),), (Scale(),)
"""The default scales of maps in data formats, of maps in display formats, and of classifications."""


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
_SCALES = OptionInfo(
    "Image sizes to scan, by commas: 0.5, 256px (short side), fit, auto.",
    metavar="LIST",
    group="",
    read=parse_scales,
)
Scales = Annotated[tuple[Scale, ...], _SCALES]
TopK = Annotated[
    int, OptionInfo("How many classes to list.", flags=("--top-k", "-k"), metavar="K", group="", least=1)
]

Classes = Annotated[
    tuple[str, ...],
    OptionInfo(
        "A class to show, or a concept (dog); may be repeated.",
        flags=("--class", "-c"),
        metavar="NAME",
        group="",
    ),
]
Roi = Annotated[
    Box | None,
    OptionInfo(
        "Scan only this rectangle of the image, in pixels.",
        metavar="X0,Y0,X1,Y1",
        group="Where to look",
        read=parse_region,
    ),
]
Mask = Annotated[
    str | None,
    OptionInfo(
        "Scan only where this image is not black, or inside the polygons of this GeoJSON.",
        metavar="FILE",
        group="Where to look",
    ),
]
Tissue = Annotated[
    bool, OptionInfo("Scan only where a slide shows tissue.", flags=("--tissue",), group="Where to look")
]
THRESHOLD, AT_LEAST, SURE = 0.25, 0.05, 0.3
"""Defaults for regions.

THRESHOLD: the value of the map at the outline, as a share of the highest value inside.
AT_LEAST: the lowest peak of a region for a class that was named.
SURE: the lowest peak for a class that was not named.

The first two were measured by `benchmarks/regions.py`. In the labelled photos, 0.7 of the other classes that
reach 0.3 are present, and one class per two photos reaches it.
"""

BESIDE = 0.5
"""The default lowest peak of a region, as a share of the class's highest probability in the image.

Measured by `benchmarks/regions.py`: with it, 0.61 of the regions of named classes match a labelled box, and
0.170 of the boxes are found; without it, 0.49 and 0.176.
"""

Threshold = Annotated[
    float | None,
    OptionInfo(
        f"A region ends where the map falls below this share of its peak. [default: {THRESHOLD}]",
        metavar="SHARE",
        group="Map",
        read=parse_share,
    ),
]
MinArea = Annotated[
    Area | None,
    OptionInfo(
        "Leave out smaller regions: square pixels, or a share of the image as in 1%.",
        metavar="AREA",
        group="Map",
        read=parse_extent,
    ),
]
MaxRegions = Annotated[
    int | None,
    OptionInfo(
        "List at most N regions per image, the most probable ones. [default: all]",
        metavar="N",
        group="Map",
        least=1,
    ),
]
Projected = Annotated[
    bool,
    OptionInfo(
        "Write coordinates of the image's own coordinate system, not longitude and latitude.",
        flags=("--projected",),
    ),
]


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is run.

    mode: ``fcn`` converts the network and proves it equal to the original. ``windows`` runs the original on
        every crop, which is exact and slow. None is ``fcn``, or ``windows`` for a network that is known to
        have no fully convolutional form.
    backend: the library that runs the network: an entry of `backends.BACKENDS`, or ``auto``.
    device: the device on which torch runs the network: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``.
    precision: the type of numbers to compute with. ``bfloat16`` has 8 significant bits, ``float32`` has 24;
        ``bfloat16`` is faster on a processor with instructions for it. ``auto`` is ``float32``, or half
        precision on a GPU.
    temperature: number that divides the logits of maps with more than one cell. None is the value that was
        measured for the model, or 1 in ``windows`` mode.
    stride: pixels between windows: the native stride divided by a power of two. None is the native stride.
    max_memory: bytes for a scan. None is half of the free memory, or 2 GB if more would not be faster.
    max_pixels: the largest image that is decoded whole, in pixels. None is `images.MAX_PIXELS`.
    image_mpp, image_gsd: the pixel size of images whose files do not record it: micrometres per pixel of a
        slide, or metres per pixel on the ground.
    bands: the bands of a TIFF to use as channels, from 1. None is the bands that the file declares.
    rescale: the values that become black and white. None is the range that the file declares.
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


@dataclass(frozen=True)
class MapOptions:
    """The options of a map, independent of the image.

    Scan:

    classes: names of the categories and concepts to write. If empty, all; in a picture, the most probable.
    scales: sizes to scan at. None is all sizes in display formats, and the image's own size in data formats.
    region, mask, tissue: the region of interest. Only windows are scanned whose centres lie in this
        rectangle, (x0, y0, x1, y1) in pixels; where this image is not black, or inside the polygons of this
        GeoJSON; and where the image is coloured like the tissue on a slide.
    map: the kind of map. ``focused``: feature cells, see `scan.focus`. ``windows``: windows.
        ``activations``: feature cells, whose scores are class activations. None is ``focused`` in display
        formats, and ``windows`` in data formats.
    join: how windows of several scales are combined, see `scan.multiscale`.
    anchors: K: every K-th window is scored as a crop, and the dense map between them is corrected. 0 is the
        dense map, and 1 scores every window as a crop. None is 0, or 4 with `agreement`, or 1 in ``windows``
        mode.
    refine: share of the windows that are also scored as crops: those whose two best classes are closest.
    agreement: windows are scored as crops until the map has the top class of the crop in this share of the
        windows, estimated as the lower end of the interval from a random sample.
    seed: seed of the random sample.

    Values:

    values: probabilities (softmax over all classes) or logits.
    top_k: number of classes per cell in formats that list the best classes.
    at_least: lowest probability of a cell in formats that list cells, of a region, and of a top class that
        is coloured. None is the default of the format.
    threshold: the value of the map at the outline of a region, as a share of its highest value. None is
        `THRESHOLD`.
    min_area: the smallest area of a region. max_regions: the number of regions per image, the most probable
        ones; None is all.
    projected: whether GeoJSON has coordinates in the image's own coordinate system.
    dtype: the number type of probabilities: float32, or integers whose highest value stands for 1. None is
        the type of the format.
    store: which classes of a window are kept: all, or the best. ``auto`` keeps the best of very large maps.

    Pictures:

    argmax: show the most probable class of each window.
    plain: show one class alone, in grey: black is 0 and white is 1.
    no_legend: show only the photo and the map, at the photo's own size.
    cells: fill each cell's square with one colour, without interpolation.
    colormap: the colours of probabilities.
    stretch: let the colours end at the highest probability of the map instead of at 1.
    top: show at most this number of the most probable things, one panel each, see `maps.foremost`.
    raw: also show the unsmoothed map, next to the smooth map of a finer stride.
    outline: draw the outlines of each class's regions, see `ScoreMap.regions`.
    footer: add a line below the picture that says how the map was made. Its metadata always contains this.
    max_side: longest side of the picture, in pixels. None is 8192, and in the viewer the photo's own.
    """

    classes: Classes = ()
    scales: Annotated[
        tuple[Scale, ...] | None,
        replace(_SCALES, help=f"{_SCALES.help} [default: 1; auto in display formats]"),
    ] = None
    region: Roi = None
    mask: Mask = None
    tissue: Tissue = False
    map: Annotated[
        MapKind | None,
        OptionInfo(
            "Kind of map: focused, windows, activations. [default: focused in display formats, else windows]",
            metavar="KIND",
        ),
    ] = None
    join: Annotated[
        Join,
        OptionInfo("How to combine several scales: finest, max or mean.", metavar="HOW"),
    ] = "finest"
    anchors: Annotated[
        int | None,
        OptionInfo(
            "Score every K-th window as a crop and correct the map by it. [default: 0, off]",
            metavar="K",
            least=0,
        ),
    ] = None
    refine: Annotated[
        float,
        OptionInfo(
            "Also score this share of the windows as crops, the least certain first.",
            metavar="SHARE",
            least=0,
            most=1,
        ),
    ] = 0.0
    agreement: Annotated[
        float | None,
        OptionInfo(
            "Score windows as crops until this share of windows has the top class of its crop.",
            metavar="SHARE",
            least=0,
            most=1,
        ),
    ] = None
    seed: Annotated[
        int, OptionInfo("Seed of the random sample that estimates the agreement.", metavar="N")
    ] = 0
    values: Annotated[Values, OptionInfo("Values to write: probabilities or logits.", metavar="WHAT")] = (
        "probabilities"
    )
    top_k: TopK = 5
    at_least: Annotated[
        float | None,
        OptionInfo(
            "Leave out cells below this probability. [default: 0 in .geojson, 0.1 with --argmax]",
            metavar="P",
            least=0,
            most=1,
        ),
    ] = None
    threshold: Threshold = None
    min_area: MinArea = None
    max_regions: MaxRegions = None
    projected: Projected = False
    dtype: Annotated[
        DType | None,
        OptionInfo(
            "Number type of a .tif or of --plain. [default: float32; uint8 with --plain]", metavar="TYPE"
        ),
    ] = None
    store: Annotated[
        StoredClasses,
        OptionInfo("Classes in an .npz: all, top-k, or auto: top-k above 1 GiB.", metavar="WHAT"),
    ] = "auto"
    plain: Annotated[
        bool, OptionInfo("A grey picture of a class, without the photo.", flags=("--plain",), group="Picture")
    ] = False
    argmax: Annotated[bool, OptionInfo("Show the most probable class of each window.", group="Picture")] = (
        False
    )
    cells: Annotated[
        bool, OptionInfo("Fill each cell with one colour, without interpolation.", group="Picture")
    ] = False
    no_legend: Annotated[
        bool, OptionInfo("Leave out the legend below the photo.", flags=("--no-legend",), group="Picture")
    ] = False
    colormap: Annotated[ColourMap, OptionInfo("Colour map of probabilities.", group="Picture")] = (
        DEFAULT_COLOUR_MAP
    )
    stretch: Annotated[
        bool,
        OptionInfo("Scale the colours to the map's highest value.", flags=("--stretch",), group="Picture"),
    ] = False
    top: Annotated[
        int | None,
        OptionInfo("Show the N most probable things, one panel each.", metavar="N", group="Picture", least=1),
    ] = None
    raw: Annotated[
        bool,
        OptionInfo("Also show the unsmoothed map of a finer --stride.", flags=("--raw",), group="Picture"),
    ] = False
    outline: Annotated[
        bool,
        OptionInfo(
            "Outline the regions of each class, as 'locate' finds them.",
            flags=("--outline",),
            group="Picture",
        ),
    ] = False
    footer: Annotated[
        bool, OptionInfo("Add a line on how the map was made.", flags=("--footer",), group="Picture")
    ] = False
    max_side: Annotated[
        int | None,
        OptionInfo(
            "Longest side of the picture. [default: 8192; the photo's in .html]",
            metavar="PX",
            group="Picture",
            least=64,
        ),
    ] = None

    @property
    def sizes(self) -> tuple[Scale, ...]:
        """The scales that were named, or else the image's own size."""
        return self.scales or OWN_SIZE

    def looked_at(self) -> MapOptions:
        """The same options with the defaults of display formats: a focused map, scanned at all sizes.

        A map of class activations is scanned at one size.
        """
        kind = self.map or "focused"
        return replace(
            self, map=kind, scales=self.scales or (OWN_SIZE if kind == "activations" else ALL_SIZES)
        )


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of a classification of a whole image.

    scales: sizes to scan at.
    top_k: number of classes to list.
    level: ``category`` lists the k best categories. ``concept`` gives one answer, the most specific category
        or concept with a probability of at least `at_least`.
    at_least: lowest probability of the answer with ``concept``. None is 0.8.
    """

    scales: Scales = EVALUATION_SIZE
    top_k: TopK = 5
    level: Annotated[
        AnswerLevel,
        OptionInfo(
            "category lists the top classes; concept gives one answer that reaches --at-least.",
            metavar="KIND",
        ),
    ] = "category"
    at_least: Annotated[
        float | None,
        OptionInfo(
            "Lowest probability of the answer with --level concept. [default: 0.8]",
            metavar="P",
            least=0,
            most=1,
        ),
    ] = None

    def threshold(self) -> float | None:
        """The probability that the one answer must reach; None for a list of the best categories.

        Raises UsageError if `top_k` or `at_least` does not apply to the level.
        """
        if self.level == "concept":
            if self.top_k != 5:
                raise UsageError("--level concept gives one answer; leave out --top-k")
            return 0.8 if self.at_least is None else self.at_least
        if self.at_least is not None:
            raise UsageError(
                "--at-least changes nothing in a list of categories; it applies to --level concept"
            )
        return None


@dataclass(frozen=True)
class LocateOptions:
    """The options for the regions in an image: the fields of `MapOptions` that apply to regions.

    classes: names of categories and concepts. If empty, `locating.locate` chooses the classes.
    """

    classes: Annotated[
        tuple[str, ...],
        OptionInfo(
            "A class to find, or a concept (dog); may be repeated. [default: what the image shows]",
            flags=("--class", "-c"),
            metavar="NAME",
            group="",
        ),
    ] = ()
    scales: Annotated[tuple[Scale, ...] | None, replace(_SCALES, help=f"{_SCALES.help} [default: auto]")] = (
        None
    )
    at_least: Annotated[
        float | None,
        OptionInfo(
            f"Lowest probability of a region. [default: {AT_LEAST}, and half of the class's highest]",
            metavar="P",
            group="",
            read=parse_share,
        ),
    ] = None
    threshold: Threshold = None
    min_area: MinArea = None
    max_regions: MaxRegions = None
    region: Roi = None
    mask: Mask = None
    tissue: Tissue = False
    projected: Projected = False

    def map_options(self) -> MapOptions:
        """The options of the map that is scanned to find the regions."""
        fields_here = {field.name: getattr(self, field.name) for field in fields(self)}
        return MapOptions(**fields_here).looked_at()


PLAIN_NETWORK, PLAIN_MAP = NetworkOptions(), MapOptions()
"""The default options of a network and of a map."""
