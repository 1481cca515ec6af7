"""Writing a score map to a file in the format that its suffix names.

One table lists the suffixes and their functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import OutputError, UsageError
from fcnconv.options import PLAIN_OUTPUT, PLAIN_SCAN, OutputOptions, ScanOptions, flag
from fcnconv.scores import ScoreStream
from fcnconv.system.files import STANDARD_OUTPUT
from fcnconv.writers.arrays import write_npy, write_npz, write_ome_zarr, write_zarr
from fcnconv.writers.cell_table import write_csv, write_json, write_parquet
from fcnconv.writers.output_spec import OutputSpec, is_map, provenance
from fcnconv.writers.pictures import write_picture, write_viewer
from fcnconv.writers.polygons import write_geojson, write_gpkg, write_packed_geojson
from fcnconv.writers.tiffs import write_ome_tif, write_tif

__all__ = [
    "WRITERS",
    "OutputSpec",
    "Writer",
    "check_terminal",
    "find_writer",
    "is_map",
    "provenance",
    "suffix_of",
]


@dataclass(frozen=True)
class Writer:
    """A format for maps.

    Attributes:
        suffix: The suffix of its files, without a dot.
        write: The function that writes a map to a path.
        description: A short description of what the file contains.
        takes: The fields of `OutputOptions` that change what is written, in addition to the class selection.
        needs_class: Whether the format shows only a few classes, so that you must select one.
        display: Whether it is a display format; otherwise it is a data format.
        folder: Whether the output is a directory.
        reported: Whether a batch of these files gets an index page that links to all of them.
        needs: A package that fcnconv does not install by default, and the extra that installs it.
    """

    suffix: str
    write: Callable[[Path, ScoreStream, OutputSpec], None]
    description: str
    takes: tuple[str, ...] = ()
    needs_class: bool = False
    display: bool = False
    folder: bool = False
    reported: bool = False
    needs: tuple[str, str] | None = None


_PICTURE = (
    *("argmax", "at_least", "cells", "no_legend", "max_side"),
    *("colormap", "stretch", "top", "raw", "outline", "threshold", "min_area", "max_regions", "footer"),
)
_PLAIN = ("plain", "dtype")


def _picture(suffix: str, format: str, description: str, *more: str) -> Writer:
    write = partial(write_picture, format=format)
    return Writer(suffix, write, description, takes=(*_PICTURE, *more), needs_class=True, display=True)


def _polygons(
    suffix: str, write: Callable[[Path, ScoreStream, OutputSpec], None], description: str
) -> Writer:
    return Writer(suffix, write, description, takes=("top_k", "at_least", "projected"))


_ROWS = (
    Writer("npy", write_npy, "float32 array (rows, cols, num_classes)", takes=("values",)),
    Writer(
        "npz",
        write_npz,
        "the same array with categories, geometry and provenance",
        takes=("values", "store", "top_k"),
    ),
    Writer(
        "zarr",
        write_zarr,
        "the same in chunks, a directory",
        takes=("values",),
        folder=True,
        needs=("zarr", "zarr"),
    ),
    Writer(
        "tif",
        write_tif,
        "one page per class, for ImageJ and GIS",
        takes=("values", "dtype"),
        needs=("tifffile", "tiff"),
    ),
    Writer(
        "ome.tif",
        write_ome_tif,
        "one named channel per class, with the cell size, for microscopy",
        takes=("values",),
        needs=("tifffile", "tiff"),
    ),
    Writer(
        "ome.zarr",
        write_ome_zarr,
        "the same as OME-Zarr, a directory",
        takes=("values",),
        folder=True,
        needs=("zarr", "zarr"),
    ),
    Writer("json", write_json, "the best classes of each cell, with its box", takes=("top_k",)),
    Writer("csv", write_csv, "the same as a table, one row per cell", takes=("top_k",)),
    Writer(
        "parquet",
        write_parquet,
        "the same as a table for pandas, DuckDB and Spark, one row per cell and rank",
        takes=("top_k",),
        needs=("pyarrow", "parquet"),
    ),
    _polygons("geojson", write_geojson, "the cells as polygons, for QuPath and GIS"),
    _polygons("geojson.gz", write_packed_geojson, "the same, compressed"),
    Writer(
        "gpkg",
        write_gpkg,
        "the same as a GeoPackage, in the image's own map coordinates",
        takes=("top_k", "at_least"),
        needs=("pyogrio", "geo"),
    ),
    _picture("png", "PNG", "the photo with one class's probability over it", *_PLAIN),
    _picture("jpg", "JPEG", "the same as a JPEG"),
    _picture("webp", "WEBP", "the same as WebP"),
    Writer(
        "html",
        write_viewer,
        "one page that shows every class in a browser",
        takes=("max_side",),
        display=True,
        reported=True,
    ),
)

WRITERS: dict[str, Writer] = {row.suffix: row for row in _ROWS}
"""Every format by the suffix of its files."""

COLLECTIONS = ("coco", "label-studio", "fiftyone", "yolo")
"""Formats that hold the regions of all images of a batch, see `region_formats`."""

OF_REGIONS = ("at_least", "threshold", "min_area", "max_regions")
"""The fields of `OutputOptions` that change what the collection formats contain."""

TERMINAL = ("top_k", "argmax", "at_least")
"""The fields of `OutputOptions` that change what the terminal shows."""

_ALIASES = {"jpeg": "jpg", "tiff": "tif", "ome.tiff": "ome.tif"}


def find_writer(
    out: str,
    format: str | None = None,
    options: OutputOptions = PLAIN_OUTPUT,
    scan: ScanOptions = PLAIN_SCAN,
) -> Writer:
    """Returns the writer for an explicit format, or else for the suffix of a file name.

    Args:
        out: The output path; ``-`` is standard output.
        format: The suffix of the format, if it does not follow from `out`.
        options: The requested options. The format must support each of them.
        scan: How the map is scanned.

    Raises:
        UsageError: The format is unknown or does not support an option.
        OutputError: The format needs a package that is not installed.
    """
    suffix = (format or ("" if out in STANDARD_OUTPUT else suffix_of(out))).lstrip(".").lower()
    writer = WRITERS.get(_ALIASES.get(suffix, suffix))
    if writer is None:
        known = ", ".join(WRITERS)
        if out in STANDARD_OUTPUT and not suffix:
            raise UsageError(f"standard output has no suffix; name the format with --format: {known}")
        raise UsageError(f"unknown format {suffix!r} for {out!r}; known: {known}")
    check_options(
        f"a .{writer.suffix}", writer.takes, options, scan.for_display() if writer.display else scan
    )
    if writer.folder and out in STANDARD_OUTPUT:
        raise UsageError(f"a .{suffix} is a directory and cannot go to standard output; name it with --out")
    if writer.needs and find_spec(writer.needs[0]) is None:
        package, extra = writer.needs
        raise OutputError(f".{suffix} needs the package {package}: pip install 'fcnconv[{extra}]'")
    return writer


def suffix_of(out: str) -> str:
    """Returns the suffix of a file name, with its dot.

    A suffix that names a format may contain a second dot (``.geojson.gz``).
    """
    name = Path(out).name
    known = sorted((*WRITERS, *_ALIASES), key=len, reverse=True)
    found = next((suffix for suffix in known if name.lower().endswith(f".{suffix}")), None)
    return name[-len(found) - 1 :] if found else Path(out).suffix


def check_terminal(options: OutputOptions, scan: ScanOptions = PLAIN_SCAN) -> None:
    """Checks that every option applies to the terminal.

    Raises:
        UsageError: An option has no effect on a terminal.
    """
    check_options("what a terminal shows", TERMINAL, options, scan.for_display())


def check_options(what: str, takes: tuple[str, ...], options: OutputOptions, scan: ScanOptions) -> None:
    """Checks that every option has an effect on an output.

    Args:
        what: The output, as the message names it.
        takes: The fields of `OutputOptions` that change the output.
        options: The requested options.
        scan: How the map is scanned.

    Raises:
        UsageError: An option has no effect on the output. The message lists the formats that support it.
    """
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        if name == "classes" or value == field.default:
            continue
        if name not in takes:
            able = ", ".join(
                [
                    *(f".{row.suffix}" for row in WRITERS.values() if name in row.takes),
                    *(COLLECTIONS if name in OF_REGIONS else ()),
                ]
            )
            also = ", and to the terminal" if name in TERMINAL else ""
            given = (
                flag(OutputOptions, name)
                if isinstance(value, bool)
                else f"{flag(OutputOptions, name)} {value}"
            )
            raise UsageError(f"{given} changes nothing in {what}; it applies to {able}{also}")
    if options.store == "top-k" and (options.classes or options.values == "logits"):
        raise UsageError(
            "--store top-k keeps the probabilities of the best of all classes; leave out --class and --values"
        )
    if options.classes and options.top_k != PLAIN_OUTPUT.top_k and takes != TERMINAL:
        raise UsageError(
            "--top-k lists the best of all classes, and --class those that it names; leave one out"
        )
    if options.dtype not in (None, "float32") and options.values == "logits":
        raise UsageError(f"--dtype {options.dtype} holds probabilities; leave out --values logits")
    if "footer" in takes:
        _check_picture(options)
    if "plain" in takes:
        _check_plain(options)
    one = len(scan.sizes) == 1 and not scan.sizes[0].pyramid
    if scan.map not in (None, "windows") and scan.join != PLAIN_SCAN.join:
        raise UsageError(f"--join {scan.join} joins windows of several scales; add --map windows")
    if scan.map == "activations" and not one:
        raise UsageError("--map activations shows one scale; name one with --scales")
    if scan.map == "focused" and options.values == "logits":
        raise UsageError("a focused map has no logits; leave out --values, or choose --map activations")
    if one and scan.join != PLAIN_SCAN.join:
        raise UsageError(f"--join {scan.join} joins several --scales, and one is named; leave it out")


def _check_picture(options: OutputOptions) -> None:
    """Raises UsageError for picture options that conflict."""
    if options.footer and options.no_legend:
        raise UsageError(
            "--footer adds a line to the legend, and --no-legend omits the legend; use one of them"
        )
    if options.at_least is not None and not (options.argmax or options.outline):
        raise UsageError(
            "--at-least is the least probability that --argmax colours, and that a region of --outline has; "
            "add one of them"
        )
    for name in OF_REGIONS[1:]:
        if getattr(options, name) is not None and not options.outline:
            raise UsageError(
                f"{flag(OutputOptions, name)} is about regions, and a picture shows them with --outline"
            )
    if options.argmax and options.outline:
        raise UsageError(
            "--outline shows the regions of one class, and --argmax all classes; use one of them"
        )
    if options.top is not None and (options.argmax or options.classes):
        other = "--argmax shows all of them" if options.argmax else "--class names them"
        raise UsageError(f"--top chooses the classes that a picture shows, and {other}; use one of them")
    if options.raw and (options.argmax or options.cells):
        other = "--argmax" if options.argmax else "--cells"
        raise UsageError(
            f"--raw adds a panel next to the smooth map, and {other} draws no smooth map; use one of them"
        )
    for name in ("colormap", "stretch"):
        if options.argmax and getattr(options, name) != getattr(PLAIN_OUTPUT, name):
            raise UsageError(
                f"{flag(OutputOptions, name)} is about the colours of probabilities, and --argmax gives each "
                "class a colour; use one of them"
            )


def _check_plain(options: OutputOptions) -> None:
    """Raises UsageError for options that conflict in a grey picture."""
    if not options.plain and options.dtype is not None:
        raise UsageError(f"--dtype {options.dtype} is for a grey picture of a class: add --plain")
    if not options.plain:
        return
    if options.dtype == "float32":
        raise UsageError("a .png cannot hold --dtype float32; choose uint8 or uint16, or write a .tif")
    for name in ("argmax", "no_legend", "colormap", "stretch", "top", "raw", "outline", "footer"):
        if getattr(options, name) != getattr(PLAIN_OUTPUT, name):
            raise UsageError(
                f"--plain shows the probability of a class in grey and nothing else; leave out "
                f"{flag(OutputOptions, name)}"
            )
    if len(options.classes) > 1:
        raise UsageError("--plain shows one class; name one with --class, or write a .tif for several")
