"""`fcnconv classify`: the classes of images, one answer after another."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fcnconv.commands.options import (
    AtLeast,
    Debug,
    FilesFrom,
    From0,
    OpenClassifier,
    Quiet,
    Scales,
    Tar,
    TopK,
    listed_inputs,
    standard_input,
    with_classifier,
)
from fcnconv.console.printing import complain
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.stdout import data_stream


@with_classifier
def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Image files; none, or -, reads standard input."),
    ] = None,
    scales: Scales = "fit",
    top_k: TopK = 5,
    level: Annotated[
        str,
        typer.Option(
            metavar="category|concept",
            help="The k best categories; or one answer, the most specific category or concept that reaches "
            "--at-least.",
        ),
    ] = "category",
    at_least: AtLeast = 0.8,
    files_from: FilesFrom = None,
    from0: From0 = None,
    tar: Tar = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and image.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="On a terminal, draw where the first class is, in each image.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    open_classifier: OpenClassifier,
) -> None:
    """The most probable classes of each image, and the window where each is most probable.

    On a terminal a table; in a pipe one line a prediction: path, rank, category, probability and box
    (x0,y0,x1,y1 in pixels of the image), separated by tabs.
    """
    inputs = listed_inputs(bool(images), files_from, from0, tar)
    paths = images or ([] if inputs else [standard_input()])
    from fcnconv.batch.inputs import from_paths
    from fcnconv.batch.workers import classify_each, counted
    from fcnconv.console.printing import preview_best, print_json, print_json_line, print_lines, print_table
    from fcnconv.options import parse_scales

    parse_scales(scales)  # a mistake in it is told before the model loads
    if level not in ("category", "concept"):
        raise UsageError(f"unknown level {level!r}; known: category, concept")
    classifier = open_classifier()
    if preview and (as_json or not data_stream().isatty() or not images or "-" in images):
        raise UsageError("--preview draws image files on a terminal; leave it out in a pipe")
    show = print_json if as_json else print_table if data_stream().isatty() else print_lines
    failed = False
    sure = at_least if level == "concept" else None
    inputs = inputs or from_paths(paths)
    results = classify_each(classifier, inputs, scales=scales, k=top_k, at_least=sure)
    if len(paths) != 1 and not quiet and sys.stderr.isatty() and not data_stream().isatty():
        results = counted(results, len(paths) or None, "classifying")
    for path, result in results:
        if isinstance(result, FcnconvError):
            failed = True
            complain(result)
            if as_json:
                print_json_line({"path": path, "error": str(result)})
            if debug:
                raise result
        else:
            show(path, result)
            if preview:
                preview_best(classifier, path, result)
        data_stream().flush()
    if failed:
        raise typer.Exit(1)
