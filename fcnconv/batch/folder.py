"""The map of one image or of many, scanned as it is asked for and written to files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from fcnconv import __version__
from fcnconv.batch.inputs import Input
from fcnconv.batch.workers import IN_FLIGHT, in_threads
from fcnconv.classifier import Classifier
from fcnconv.errors import FcnconvError, ImageError, OutputError, UsageError
from fcnconv.files import whole_file
from fcnconv.labels import Selection
from fcnconv.scores import AnyMap
from fcnconv.sources import ImageSource
from fcnconv.writers import Choice, Writer, save, stored

MANIFEST = "fcnconv.json"
"""The file in a folder of maps that tells how they were made, so that a later run goes on with the same."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for of a map, whatever its image.

    writer: of its format. choice: what is written, of which the image itself is still to come.
    scales, join, refine: as for a call of the classifier. store: as for `writers.stored`.
    """

    writer: Writer
    choice: Choice
    scales: str = "1"
    join: str = "max"
    refine: float = 0
    store: str = "auto"


Outcome = tuple[str, Path, Literal["made", "kept"] | FcnconvError]
"""An image's name, the file of its map, and whether it was made now, was there already, or failed."""


def most_probable(classifier: Classifier, source: ImageSource) -> tuple[Selection, float]:
    """An image's most probable category, and its probability."""
    best = classifier.classify(source, k=1).predictions[0]
    return classifier.labels.find(str(best.class_idx)), best.probability


def write_map(classifier: Classifier, source: ImageSource, out: str, name: str, wanted: Wanted) -> None:
    """Scans an image and writes its map to the file `out`, or to standard output if that is ``-``.

    name: what pages call the image. A picture without a class shows the most probable one.

    Raises UsageError, ImageError and OutputError.
    """
    writer, choice = wanted.writer, replace(wanted.choice, photo=source, name=name)
    if writer.picture and not choice.selections and not choice.winners:
        choice = replace(choice, selections=(most_probable(classifier, source)[0],))
    score_map: AnyMap = classifier.stream(source, scales=wanted.scales, join=wanted.join)
    if wanted.refine:  # which windows are least sure is known at the end
        score_map = classifier(source, scales=wanted.scales, refine=wanted.refine, join=wanted.join)
    save(score_map, out, writer, stored(wanted.store, writer, score_map, choice))


def map_each(
    classifier: Classifier,
    inputs: Iterable[Input],
    folder: Path,
    format: str,
    wanted: Wanted,
    *,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Writes each image's map into a folder, under the image's own path, and tells what became of it.

    A map that is there already is kept, as files appear whole: a run that was stopped goes on where it was.
    So are none that are older than the folder's settings, which were made in the way of others.
    format: the suffix of the files. overwrite: begin anew.

    Raises UsageError if the folder holds maps that were made in another way.
    """
    since = _agree(folder, _settings(classifier, format, wanted), overwrite)
    share = replace(classifier, memory=classifier.memory / IN_FLIGHT)

    def attempt(item: Input) -> Outcome:
        path = map_path(folder, item.name, format)
        try:
            if path.exists() and path.stat().st_mtime_ns >= since:
                return item.name, path, "kept"
            source = share.open(item.image, wanted.scales, name=item.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_map(share, source, str(path), PurePath(item.name).name, wanted)
        except UsageError:
            raise  # an argument is wrong, and so it is for every other image
        except FcnconvError as error:
            return item.name, path, error
        except MemoryError:
            return item.name, path, ImageError(f"{item.name}: out of memory; choose a smaller --scales")
        except OSError as error:
            return item.name, path, OutputError(f"{path}: cannot be written: {error.strerror or error}")
        return item.name, path, "made"

    return in_threads(attempt, inputs)


def map_path(folder: Path, name: str, format: str) -> Path:
    """Where an image's map lies: its own path and name below `folder`, with the format behind it, so that no
    two images share one.
    """
    path = PurePath(name)
    if ".." in path.parts:
        path = Path(name).resolve()
    *parents, last = path.relative_to(path.anchor).parts or ("image",)
    return folder.joinpath(*parents, f"{last}.{format}")


def _settings(classifier: Classifier, format: str, wanted: Wanted) -> dict[str, Any]:
    """All that a map depends on beside its image."""
    made, choice = classifier.provenance, wanted.choice
    return {
        "version": __version__,
        "model": made.model,
        "weights_sha256": made.weights_sha256,
        "window": classifier.geometry.window,
        "mean": list(made.mean),
        "std": list(made.std),
        "mode": made.mode,
        "stride": classifier.geometry.stride,
        "temperature": classifier.temperature,
        "tile": classifier.tile,
        "scales": wanted.scales,
        "join": wanted.join,
        "refine": wanted.refine,
        "format": format,
        "store": wanted.store,
        "classes": [selection.name for selection in choice.selections],
        "values": choice.values,
        "top_k": choice.k,
        "at_least": choice.at_least,
        "argmax": choice.winners,
        "cells": choice.cells,
        "max_side": choice.max_side,
    }


def _agree(folder: Path, settings: dict[str, Any], overwrite: bool) -> int:
    """Keeps the settings in the folder, or checks that those in it are the same; gives the time since which
    maps are made so, in nanoseconds. Settings without a map, of a run that failed, count for nothing.
    """
    path = folder / MANIFEST
    try:
        before = {} if overwrite or not path.exists() else _read_settings(path)
        changed = [name for name, value in settings.items() if name not in before or before[name] != value]
        if changed:
            maps = (file for file in folder.rglob("*") if file.is_file() and file != path)
            if before and any(maps):
                name = changed[0]
                raise UsageError(
                    f"{folder}: holds maps made with {name} {before.get(name)!r}, not {settings[name]!r}; "
                    "name another folder, or make them again with --overwrite"
                )
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return path.stat().st_mtime_ns
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path}: damaged ({error}); remove it, or give --overwrite") from error
