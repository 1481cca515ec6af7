"""Writing a score map to a file, in the format that its suffix names. One table: suffix and function."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from fcnconv.errors import OutputError, UsageError
from fcnconv.files import whole_file, whole_folder
from fcnconv.scores import AnyMap, Values
from fcnconv.stdout import data_stream
from fcnconv.writers.arrays import write_npy, write_npz, write_tif, write_zarr
from fcnconv.writers.cells import write_csv, write_geojson, write_json
from fcnconv.writers.contents import Choice, provenance
from fcnconv.writers.pages import write_viewer
from fcnconv.writers.pictures import write_picture

__all__ = [
    "WRITERS",
    "Choice",
    "Writer",
    "find_writer",
    "parse_store",
    "parse_values",
    "provenance",
    "save",
    "stored",
]

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Writer:
    """One format.

    write: makes the file at a path.
    picture: whether it shows one class over the photo.
    raw: whether it holds every score to the last bit, and so logits as well as probabilities.
    folder: whether what it makes is a directory.
    best: whether it can hold the best classes of each cell instead of every score.
    needs: a package that fcnconv comes without, and the extra that brings it.
    """

    write: Callable[[Path, AnyMap, Choice], None]
    about: str
    picture: bool = False
    raw: bool = False
    folder: bool = False
    best: bool = False
    needs: tuple[str, str] | None = None


WRITERS: dict[str, Writer] = {
    "npy": Writer(write_npy, "float32 array (rows, cols, num_classes)", raw=True),
    "npz": Writer(write_npz, "the same array with categories, geometry and provenance", raw=True, best=True),
    "zarr": Writer(
        write_zarr, "the same in chunks, a directory", raw=True, folder=True, needs=("zarr", "zarr")
    ),
    "tif": Writer(write_tif, "a page a class, for ImageJ and GIS", raw=True, needs=("tifffile", "tiff")),
    "json": Writer(write_json, "the best classes of each cell, with its box"),
    "csv": Writer(write_csv, "the same as a table, a row a cell"),
    "geojson": Writer(write_geojson, "the cells over a probability as polygons, for QuPath and GIS"),
    "png": Writer(
        partial(write_picture, format="PNG"), "the photo with one class's probability over it", picture=True
    ),
    "jpg": Writer(partial(write_picture, format="JPEG"), "the same as a JPEG", picture=True),
    "webp": Writer(partial(write_picture, format="WEBP"), "the same as WebP", picture=True),
    "html": Writer(write_viewer, "one page to look at every class with, in a browser", picture=True),
}

_ALIASES = {"jpeg": "jpg", "tiff": "tif"}


def find_writer(out: str, format: str | None, values: Values = "probabilities") -> Writer:
    """The writer for an explicit format, else for a file name's suffix.

    Raises UsageError if there is none or it cannot hold `values`, OutputError if its package is missing.
    """
    suffix = (format or ("" if out == "-" else Path(out).suffix)).lstrip(".").lower()
    writer = WRITERS.get(_ALIASES.get(suffix, suffix))
    if writer is None:
        known = ", ".join(WRITERS)
        if out == "-" and not suffix:
            raise UsageError(f"standard output has no suffix; name the format with --format: {known}")
        raise UsageError(f"unknown format {suffix!r} for {out!r}; known: {known}")
    if values == "logits" and not writer.raw:
        raw = ", ".join(name for name, writer in WRITERS.items() if writer.raw)
        raise UsageError(f"{suffix} holds probabilities only; logits can be written as {raw}")
    if writer.folder and out == "-":
        raise UsageError(f"a .{suffix} is a directory and cannot go to standard output; name it with --out")
    if writer.needs and find_spec(writer.needs[0]) is None:
        package, extra = writer.needs
        raise OutputError(f".{suffix} needs the package {package}: pip install 'fcnconv[{extra}]'")
    return writer


STORES = ("auto", "all", "top-k")

LARGE_MAP = 1 << 30
"""Bytes of a full map over which `auto` keeps the best classes of each cell, where a format can."""


def parse_store(text: str, writer: Writer | None, every_class: bool) -> str:
    """The store that `text` names, if the writer can do it. Raises UsageError.

    every_class: whether the probabilities of all classes are asked for, of which some can be the best.
    """
    if text not in STORES:
        raise UsageError(f"unknown store {text!r}; known: {', '.join(STORES)}")
    if text == "top-k" and not (writer and writer.best):
        able = ", ".join(f".{name}" for name, writer in WRITERS.items() if writer.best)
        raise UsageError(f"--store top-k makes {able} files; name such a file with --out")
    if text == "top-k" and not every_class:
        raise UsageError(
            "--store top-k keeps the probabilities of the best of all classes; leave out --class"
        )
    return text


def stored(store: str, writer: Writer, score_map: AnyMap, choice: Choice) -> Choice:
    """The choice, with what `store` makes of it: `auto` keeps the best classes of a map over `LARGE_MAP`."""
    size = 4 * math.prod(score_map.shape)
    if store == "top-k":
        return replace(choice, best_only=True)
    every_class = not choice.selections and choice.values == "probabilities"
    if store == "all" or not writer.best or not every_class or size <= LARGE_MAP:
        return choice
    log.info(
        "the full map would have %.1f GB: keeping the %d best classes of each window (-k); --store all keeps "
        "every class",
        *(size / 1e9, choice.k),
    )
    return replace(choice, best_only=True)


def parse_values(text: str) -> Values:
    """The kind of values that `text` names. Raises UsageError."""
    for known in get_args(Values):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown values {text!r}; known: {', '.join(get_args(Values))}")


def save(score_map: AnyMap, out: str, writer: Writer, choice: Choice) -> None:
    """Writes the map to the file `out`, or to standard output if that is ``-``.

    A regular file or a folder appears whole or not at all; a device or a pipe is written through. Raises
    OutputError.
    """
    try:
        path = Path(out)
        if writer.folder:
            with whole_folder(path) as temporary:
                writer.write(temporary, score_map, choice)
        elif out == "-" or (path.exists() and not path.is_file()):
            _stream(score_map, out, writer, choice)
        else:
            with whole_file(path) as temporary:
                writer.write(temporary, score_map, choice)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if out == "-" else out
        raise OutputError(f"{name}: cannot be written: {error.strerror or error}") from error


def _stream(score_map: AnyMap, out: str, writer: Writer, choice: Choice) -> None:
    with tempfile.TemporaryDirectory(prefix="fcnconv-") as folder:
        temporary = Path(folder, "map")
        writer.write(temporary, score_map, choice)
        with temporary.open("rb") as made:
            if out == "-":
                shutil.copyfileobj(made, data_stream().buffer)
                data_stream().buffer.flush()
            else:
                with Path(out).open("wb") as file:
                    shutil.copyfileobj(made, file)
