"""`fcnconv classify`: prints the classes of images, one answer after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from fcnconv.cli.arguments import Debug, Json, Listed, Model, Progress, Quiet, with_options
from fcnconv.cli.printing import printer, refuse_terminal, report, standard_input
from fcnconv.cli.progress_bar import Counter, shown
from fcnconv.errors import UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, files_of_model, find_model
from fcnconv.options import ClassifyOptions, FrameChoice, NetworkOptions, ReadOptions
from fcnconv.system.files import check_writable, refuse_overwriting
from fcnconv.system.stdout import data_stream

if TYPE_CHECKING:
    from fcnconv.scores import Classification


@with_options
def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Image files, or - for standard input (the default)."),
    ] = None,
    as_json: Json = False,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write one table of all images instead: .parquet."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="On a terminal, draw where the top class is.")
    ] = False,
    frame: FrameChoice = None,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    options: ClassifyOptions,
    network: NetworkOptions,
    reading: ReadOptions,
    own: OwnModel,
    listed: Listed,
) -> None:
    """List the classes of each image, and where they are.

    A terminal shows a table. A pipe gets one line per class: path, rank, category, probability and box
    (x0,y0,x1,y1 in pixels of the image), separated by tabs. --out answers.parquet writes a table.

        fcnconv classify photo.jpg
        find photos -name '*.jpg' -print0 | fcnconv classify --from0 - --json
    """
    listed.check(bool(images))
    options.threshold()
    on_terminal = data_stream().isatty()
    if preview and (as_json or not on_terminal or not images or "-" in images or frame is not None):
        raise UsageError(
            "--preview draws an image file on a terminal; it does not work in a pipe, with --json, with "
            "standard input or with --frame"
        )
    if out is not None:
        if as_json or preview:
            raise UsageError("--out writes a table and prints nothing; leave out --json and --preview")
        from fcnconv.writers.answers import check_table

        check_table(out)
        refuse_terminal(out, "the table")
        check_writable(out)
        named = [*(images or ["-"]), *filter(None, listed.values()), *files_of_model(model, own)]
        refuse_overwriting(out, named)
    paths = images or ([] if listed != Listed() else [standard_input()])
    from fcnconv.api.loading import open_classifier
    from fcnconv.batch.inputs import Input, framed, listed_inputs
    from fcnconv.batch.workers import classify_each, classify_one

    def inputs() -> Iterator[Input]:
        return framed(listed_inputs(paths, *listed.values()), frame)

    alone = len(paths) == 1 and frame != "all"
    with shown(progress, quiet=quiet):
        classifier = open_classifier(find_model(model, own), network, reading)
        one = [classify_one(classifier, item, options) for item in inputs()] if alone else []
    writing: AbstractContextManager[Callable[[str, Classification], None]]
    if out is None:
        writing = nullcontext(printer(classifier, as_json=as_json, preview=preview))
    else:
        from fcnconv.writers.answers import table_of_images

        writing = table_of_images(out, classifier.provenance.identity)
    with writing as show:
        if one:
            failed = report(iter(one), show, as_json=as_json, debug=debug)
        else:
            known = frame is None and (bool(paths) or listed.is_file())
            results = classify_each(classifier, inputs(), options)
            with shown(progress, quiet=quiet, among_answers=on_terminal and out is None) as account:
                counter = Counter(account, "classifying", inputs if known else None)
                failed = report(results, show, as_json=as_json, debug=debug, count=counter.count)
    if failed:
        raise typer.Exit(1)
