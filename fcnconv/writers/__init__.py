"""Writing a score map to a file, in the format that its suffix names. One table: suffix and function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import OutputError, UsageError
from fcnconv.options import PLAIN_MAP, MapOptions, told
from fcnconv.scores import About, ScoreStream
from fcnconv.system.files import STANDARD_OUTPUT, written
from fcnconv.system.progress import Work
from fcnconv.writers import expected
from fcnconv.writers.arrays import write_npy, write_npz, write_tif, write_zarr
from fcnconv.writers.cells import write_csv, write_geojson, write_json
from fcnconv.writers.contents import Choice, is_map, provenance
from fcnconv.writers.pictures import write_picture, write_viewer

__all__ = ["WRITERS", "Choice", "Writer", "check_terminal", "find_writer", "is_map", "provenance", "save"]


@dataclass(frozen=True)
class Writer:
    """One format.

    suffix: of its files, without a dot. write: makes the file at a path. about: what it holds, in words.
    takes: the fields of `MapOptions` that change what is written, beside the classes and how it is scanned.
    needs_class: whether it shows no more than a few classes, so that one must be chosen.
    looked_at: whether it is made to be looked at; else to compute with.
    folder: whether what it makes is a directory.
    reported: whether many of them get a page that leads to them.
    needs: a package that fcnconv comes without, and the extra that brings it.
    costs: what its stages take.
    """

    suffix: str
    write: Callable[[Path, ScoreStream, Choice], None]
    about: str
    costs: tuple[expected.Cost, ...]
    takes: tuple[str, ...] = ()
    needs_class: bool = False
    looked_at: bool = False
    folder: bool = False
    reported: bool = False
    needs: tuple[str, str] | None = None

    def work(self, about: About, choice: Choice) -> list[Work]:
        """The stages of writing a map, for whoever tells how long it will take."""
        return expected.expected(self.costs, about, choice)


_PICTURE = ("argmax", "at_least", "cells", "no_legend", "max_side")


def _picture(suffix: str, format: str, about: str, encoding: float) -> Writer:
    write, costs = partial(write_picture, format=format), expected.picture(encoding)
    return Writer(suffix, write, about, costs, takes=_PICTURE, needs_class=True, looked_at=True)


_ROWS = (
    Writer("npy", write_npy, "float32 array (rows, cols, num_classes)", expected.NPY, takes=("values",)),
    Writer(
        "npz",
        write_npz,
        "the same array with categories, geometry and provenance",
        expected.NPZ,
        takes=("values", "store", "top_k"),
    ),
    Writer(
        "zarr",
        write_zarr,
        "the same in chunks, a directory",
        expected.PLANES,
        takes=("values",),
        folder=True,
        needs=("zarr", "zarr"),
    ),
    Writer(
        "tif",
        write_tif,
        "a page a class, for ImageJ and GIS",
        expected.PLANES,
        takes=("values",),
        needs=("tifffile", "tiff"),
    ),
    Writer(
        "json", write_json, "the best classes of each cell, with its box", expected.JSON, takes=("top_k",)
    ),
    Writer("csv", write_csv, "the same as a table, a row a cell", expected.CSV, takes=("top_k",)),
    Writer(
        "geojson",
        write_geojson,
        "the cells over a probability as polygons, for QuPath and GIS",
        expected.GEOJSON,
        takes=("at_least",),
    ),
    _picture("png", "PNG", "the photo with one class's probability over it", 1.7e-7),
    _picture("jpg", "JPEG", "the same as a JPEG", 5e-9),
    _picture("webp", "WEBP", "the same as WebP", 9e-8),
    Writer(
        "html",
        write_viewer,
        "one page to look at every class with, in a browser",
        expected.VIEWER,
        takes=("max_side",),
        looked_at=True,
        reported=True,
    ),
)

WRITERS: dict[str, Writer] = {row.suffix: row for row in _ROWS}
"""Every format by the suffix of its files."""

TERMINAL = ("top_k", "argmax", "at_least")
"""The fields of `MapOptions` that change what a terminal shows."""

_ALIASES = {"jpeg": "jpg", "tiff": "tif"}
_ALWAYS = (
    *("classes", "scales", "join", "anchors", "refine", "agreement", "seed"),
    *("region", "mask", "tissue"),
)


def find_writer(out: str, format: str | None = None, options: MapOptions | None = None) -> Writer:
    """The writer for an explicit format, else for a file name's suffix.

    options: what is asked for, which the format must be able to give.

    Raises UsageError if there is none or it does not take an option, OutputError if its package is missing.
    """
    suffix = (format or ("" if out in STANDARD_OUTPUT else Path(out).suffix)).lstrip(".").lower()
    writer = WRITERS.get(_ALIASES.get(suffix, suffix))
    if writer is None:
        known = ", ".join(WRITERS)
        if out in STANDARD_OUTPUT and not suffix:
            raise UsageError(f"standard output has no suffix; name the format with --format: {known}")
        raise UsageError(f"unknown format {suffix!r} for {out!r}; known: {known}")
    options = options or MapOptions()
    _check(f"a .{writer.suffix}", writer.takes, options.looked_at() if writer.looked_at else options)
    if writer.folder and out in STANDARD_OUTPUT:
        raise UsageError(f"a .{suffix} is a directory and cannot go to standard output; name it with --out")
    if writer.needs and find_spec(writer.needs[0]) is None:
        package, extra = writer.needs
        raise OutputError(f".{suffix} needs the package {package}: pip install 'fcnconv[{extra}]'")
    return writer


def check_terminal(options: MapOptions) -> None:
    """Raises UsageError for an option that changes nothing on a terminal."""
    _check("what a terminal shows", TERMINAL, options.looked_at())


def _check(what: str, takes: tuple[str, ...], options: MapOptions) -> None:
    """Raises UsageError, with the formats that take it, for an option that changes nothing in `what`.

    takes: the fields of `MapOptions` that do.
    """
    flags = {name: (told.flags or (f"--{name.replace('_', '-')}",))[0] for name, (_, told) in _TOLD.items()}
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        if name in _ALWAYS or value == field.default:
            continue
        if name not in takes:
            able = ", ".join(f".{row.suffix}" for row in WRITERS.values() if name in row.takes)
            also = ", and to the terminal" if name in TERMINAL else ""
            given = flags[name] if isinstance(value, bool) else f"{flags[name]} {value}"
            raise UsageError(f"{given} changes nothing in {what}; it applies to {able}{also}")
    if options.store == "top-k" and (options.classes or options.values == "logits"):
        raise UsageError(
            "--store top-k keeps the probabilities of the best of all classes; leave out --class and --values"
        )
    if options.classes and options.top_k != PLAIN_MAP.top_k and takes != TERMINAL:
        raise UsageError(
            "--top-k lists the best of all classes, and --class those that it names; leave one out"
        )
    if options.at_least is not None and takes != ("at_least",) and not options.argmax:
        raise UsageError(
            "--at-least is the least probability that --argmax colours in a picture; add --argmax"
        )
    one = len(options.sizes) == 1 and not options.sizes[0].pyramid
    if one and options.join != PLAIN_MAP.join:
        raise UsageError(f"--join {options.join} joins several --scales, and one is named; leave it out")


_TOLD = told(MapOptions)


def save(stream: ScoreStream, out: str, writer: Writer, choice: Choice) -> None:
    """Writes the map to the file `out`, or to standard output if that is ``-``.

    A regular file or a folder appears whole or not at all; a device or a pipe is written through. Raises
    OutputError.
    """
    with written(out, folder=writer.folder) as path:
        writer.write(path, stream, choice)
