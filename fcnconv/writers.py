"""Writing a score map to a file, in the format that its suffix names. One table: a suffix and its function.

A file appears whole or not at all: it is written under a temporary name beside its place, then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fcnconv import __version__
from fcnconv.errors import OutputError, UsageError
from fcnconv.images import Pixels
from fcnconv.render import overlay
from fcnconv.scores import FloatArray, ScoreMap

Values = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Choice:
    """What of a score map is written.

    classes: indices of the classes to write; empty for all (a picture needs one).
    values: probabilities (softmax over all classes) or logits.
    k: classes a cell in formats that list the best.
    photo: uint8 (H, W, 3), the image itself, for pictures.
    """

    classes: tuple[int, ...] = ()
    values: Values = "probabilities"
    k: int = 5
    photo: Pixels | None = None


@dataclass(frozen=True)
class Writer:
    """One format. write: makes the file at a path. picture: whether it shows one class over the photo."""

    write: Callable[[Path, ScoreMap, Choice], None]
    about: str
    picture: bool = False


def _scores(score_map: ScoreMap, choice: Choice) -> FloatArray:
    scores = score_map.probabilities() if choice.values == "probabilities" else score_map.logits
    return np.ascontiguousarray(scores[:, :, list(choice.classes)]) if choice.classes else scores


def _categories(score_map: ScoreMap, choice: Choice) -> list[str]:
    names = score_map.labels.categories
    return [names[i] for i in choice.classes or range(len(names))]


def _write_npy(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    with path.open("wb") as file:
        np.save(file, _scores(score_map, choice), allow_pickle=False)


def _write_npz(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            scores=_scores(score_map, choice),
            categories=np.array(_categories(score_map, choice)),
            values=np.array(choice.values),
            **{name: np.array(value) for name, value in provenance(score_map).items()},  # type: ignore[arg-type]
        )


def provenance(score_map: ScoreMap) -> dict[str, str | int | float]:
    """What a reader needs to place each cell and to make the map again, as named scalars."""
    grid = score_map.grid
    return {
        "window": grid.window,
        "stride": grid.stride,
        "scale": grid.scale,
        "width": grid.image_size[0],
        "height": grid.image_size[1],
        "scan_width": grid.scan_size[0],
        "scan_height": grid.scan_size[1],
        "model": score_map.provenance.model,
        "mode": score_map.provenance.mode,
        "weights_sha256": score_map.provenance.weights_sha256,
        "version": __version__,
    }


def _write_json(path: Path, score_map: ScoreMap, choice: Choice) -> None:
    rows, cols, _ = score_map.shape
    head = provenance(score_map) | {"rows": rows, "cols": cols}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "cells": [')
        for number, cell in enumerate(_cells(score_map, choice)):
            file.write((",\n" if number else "\n") + json.dumps(cell))
        file.write("\n]}\n")


def _cells(score_map: ScoreMap, choice: Choice) -> Iterator[dict[str, object]]:
    rows, cols, _ = score_map.shape
    probabilities = score_map.probabilities()
    best, _ = score_map.top_k(choice.k)
    labels = score_map.labels
    for row in range(rows):
        for col in range(cols):
            yield {
                "row": row,
                "col": col,
                "box": score_map.grid.box(row, col),
                "predictions": [
                    {
                        "class_idx": i,
                        "wnid": labels.wnid(i),
                        "category": labels.categories[i],
                        "probability": round(float(probabilities[row, col, i]), 6),
                    }
                    for i in (choice.classes or best[row, col].tolist())
                ],
            }


def _write_picture(path: Path, score_map: ScoreMap, choice: Choice, format: str) -> None:
    if choice.photo is None or len(choice.classes) != 1:
        raise UsageError(f"a picture shows one class, not {len(choice.classes)}; name one with --class")
    class_idx = choice.classes[0]
    picture = overlay(
        choice.photo, score_map.plane(class_idx), score_map.grid, score_map.labels.categories[class_idx]
    )
    with path.open("wb") as file:
        picture.save(file, format, quality=90)


WRITERS: dict[str, Writer] = {
    "npy": Writer(_write_npy, "float32 array (rows, cols, num_classes)"),
    "npz": Writer(_write_npz, "the same array with categories, geometry and provenance"),
    "json": Writer(_write_json, "the best classes of each cell, with its box"),
    "png": Writer(
        partial(_write_picture, format="PNG"), "the photo with one class's probability over it", picture=True
    ),
    "jpg": Writer(partial(_write_picture, format="JPEG"), "the same as a JPEG", picture=True),
    "webp": Writer(partial(_write_picture, format="WEBP"), "the same as WebP", picture=True),
}

_ALIASES = {"jpeg": "jpg"}


def find_writer(out: str, format: str | None) -> Writer:
    """The writer for an explicit format, else for a file name's suffix. Raises UsageError."""
    suffix = (format or ("" if out == "-" else Path(out).suffix)).lstrip(".").lower()
    writer = WRITERS.get(_ALIASES.get(suffix, suffix))
    if writer is None:
        known = ", ".join(WRITERS)
        if out == "-" and not suffix:
            raise UsageError(f"standard output has no suffix; name the format with --format: {known}")
        raise UsageError(f"unknown format {suffix!r} for {out!r}; known: {known}")
    return writer


def parse_values(text: str) -> Values:
    """The kind of values that `text` names. Raises UsageError."""
    for known in get_args(Values):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown values {text!r}; known: {', '.join(get_args(Values))}")


def save(score_map: ScoreMap, out: str, writer: Writer, choice: Choice) -> None:
    """Writes the map to the file `out`, or to standard output if that is ``-``.

    A regular file appears whole or not at all; a device or a pipe is written through. Raises OutputError.
    """
    try:
        path = Path(out)
        if out == "-" or (path.exists() and not path.is_file()):
            _stream(score_map, out, writer, choice)
        else:
            with whole_file(path) as temporary:
                writer.write(temporary, score_map, choice)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if out == "-" else out
        raise OutputError(f"{name}: cannot be written: {error.strerror or error}") from error


def _stream(score_map: ScoreMap, out: str, writer: Writer, choice: Choice) -> None:
    with tempfile.TemporaryDirectory(prefix="fcnconv-") as folder:
        temporary = Path(folder, "map")
        writer.write(temporary, score_map, choice)
        with temporary.open("rb") as made:
            if out == "-":
                shutil.copyfileobj(made, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                with Path(out).open("wb") as file:
                    shutil.copyfileobj(made, file)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which becomes `path` when the block ends well and vanishes when it does
    not.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
