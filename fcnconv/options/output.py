"""Options for output: which classes and values are written, and how a picture shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fcnconv.options.parsing import Area, OptionInfo, parse_extent, parse_share

Values = Literal["probabilities", "logits"]
StoredClasses = Literal["auto", "all", "top-k"]
DType = Literal["float32", "uint8", "uint16"]
ColourMap = Literal["turbo", "inferno", "magma", "plasma", "viridis", "cividis"]
DEFAULT_COLOUR_MAP: ColourMap = "turbo"

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
class OutputOptions:
    """The content of the files of a map, and the look of its pictures.

    Values:

    classes: names of the categories and concepts to write. If empty, all; in a picture, the most probable.
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
        bool, OptionInfo("Add a line that says how the map was made.", flags=("--footer",), group="Picture")
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


PLAIN_OUTPUT = OutputOptions()
"""The default options of output."""
