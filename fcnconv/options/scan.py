"""Options for a scan: at which sizes, where in the image, which kind of map, and how far it is corrected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fcnconv.grid import Box, Scale
from fcnconv.options.parsing import OptionInfo, parse_region, parse_scales

Join = Literal["finest", "max", "mean"]
MapKind = Literal["focused", "windows", "activations"]

OWN_SIZE, ALL_SIZES, EVALUATION_SIZE = (Scale(factor=1.0),), (Scale(factor=1.0, pyramid=True),), (Scale(),)
"""The default scales of maps in data formats, of maps in display formats, and of classifications."""


SCALES = OptionInfo(
    "Image sizes to scan, such as 1,0.5, 256px (short side), fit or auto.",
    metavar="LIST",
    group="",
    read=parse_scales,
)

Scales = Annotated[tuple[Scale, ...], SCALES]

Roi = Annotated[
    Box | None,
    OptionInfo(
        "Scan only this rectangle of the image, in pixels.",
        metavar="X0,Y0,X1,Y1",
        group="Region of interest",
        read=parse_region,
    ),
]

Mask = Annotated[
    str | None,
    OptionInfo(
        "Scan only where this image is not black, or inside the polygons of this GeoJSON.",
        metavar="FILE",
        group="Region of interest",
    ),
]

Tissue = Annotated[
    bool, OptionInfo("Scan only where a slide shows tissue.", flags=("--tissue",), group="Region of interest")
]


@dataclass(frozen=True)
class ScanOptions:
    """How an image is scanned.

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
    """

    scales: Annotated[
        tuple[Scale, ...] | None,
        replace(SCALES, help=f"{SCALES.help} [default: 1; auto in display formats]"),
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

    @property
    def sizes(self) -> tuple[Scale, ...]:
        """The scales that were named, or else the image's own size."""
        return self.scales or OWN_SIZE

    def for_display(self) -> ScanOptions:
        """The same options with the defaults of display formats: a focused map, scanned at all sizes.

        A map of class activations is scanned at one size.
        """
        kind = self.map or "focused"
        return replace(
            self, map=kind, scales=self.scales or (OWN_SIZE if kind == "activations" else ALL_SIZES)
        )


PLAIN_SCAN = ScanOptions()
"""The default options of a scan."""
