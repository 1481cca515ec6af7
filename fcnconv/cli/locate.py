"""`fcnconv locate`: finds the regions of images that show a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnconv.cli.arguments import Debug, Json, Listed, Model, Progress, Quiet, with_options
from fcnconv.cli.printing import located_printer, refuse_terminal, report, standard_input
from fcnconv.cli.progress_bar import Counter, shown
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, files_of_model, find_model
from fcnconv.options import FrameChoice, LocateOptions, NetworkOptions, ReadOptions
from fcnconv.system.files import check_writable, refuse_overwriting, written
from fcnconv.system.stdout import data_stream

if TYPE_CHECKING:
    from fcnconv.api.classifier import Classifier
    from fcnconv.batch.inputs import Input
    from fcnconv.scores.regions import Located
    from fcnconv.writers import OutputSpec
    from fcnconv.writers.region_formats import RegionFormat

Results = Iterator[tuple[str, "Located | FcnconvError"]]


@with_options
def locate(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Image files, or - for standard input (the default)."),
    ] = None,
    as_json: Json = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write a file instead: .geojson, .gpkg or .coco.json."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", metavar="NAME", help="geojson, gpkg, coco, label-studio, fiftyone or yolo."
        ),
    ] = None,
    frame: FrameChoice = None,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    options: LocateOptions,
    network: NetworkOptions,
    reading: ReadOptions,
    own: OwnModel,
    listed: Listed,
) -> None:
    """Find the regions of each image that show a class.

    A terminal shows a table. A pipe gets one line per region: path, category, probability and box
    (x0,y0,x1,y1 in pixels of the image), separated by tabs. --json adds the outline, and --out writes a file
    for GIS or for annotation tools.

        fcnconv locate photo.jpg -c cat
        fcnconv locate photos/*.jpg -o found.coco.json
    """
    listed.check(bool(images))
    if format is not None and out is None:
        raise UsageError(f"--format {format} applies to a file; name it with --out, '-' is standard output")
    if out is not None and as_json:
        raise UsageError("--out writes a file and prints nothing; leave out --json")
    if out is None and options.projected:
        raise UsageError("--projected writes map coordinates to a .geojson; name it with --out")
    paths = images or ([] if listed != Listed() else [standard_input()])
    from fcnconv.api.loading import open_classifier
    from fcnconv.batch.inputs import framed, listed_inputs
    from fcnconv.batch.workers import locate_each, locate_one
    from fcnconv.writers import OutputSpec

    spec = find_model(model, own)
    scan, output = options.scan(), OutputSpec.of(options.output(), spec.labels())
    form = None
    if out is not None:
        from fcnconv.writers.region_formats import find_region_format

        form = find_region_format(out, format, output)
        refuse_terminal(out, "the regions")
        if form.folder and Path(out).exists() and (Path(out).is_file() or any(Path(out).iterdir())):
            raise UsageError(f"{out}: exists and is not an empty directory; name another one with --out")
        check_writable(out, folder=form.folder)
        masks = [options.mask] if options.mask else []
        named = [*paths, *filter(None, listed.values()), *files_of_model(model, own), *masks]
        refuse_overwriting(out, named)

    def inputs() -> Iterator[Input]:
        return framed(listed_inputs(paths, *listed.values()), frame)

    alone = len(paths) == 1 and frame != "all"
    on_terminal = out is None and data_stream().isatty()
    with shown(progress, quiet=quiet):
        classifier = open_classifier(spec, network, reading, scan)
        one = [locate_one(classifier, item, scan, output) for item in inputs()] if alone else []
    if one:
        failed = _answer(iter(one), classifier, output, form, out, as_json=as_json, debug=debug)
    else:
        known = frame is None and (bool(paths) or listed.is_file())
        with shown(progress, quiet=quiet, among_answers=on_terminal) as account:
            counter = Counter(account, "locating", inputs if known else None)
            results = locate_each(classifier, inputs(), scan, output)
            failed = _answer(
                results, classifier, output, form, out, as_json=as_json, debug=debug, count=counter.count
            )
    if failed:
        raise typer.Exit(1)


def _answer(
    results: Results,
    classifier: Classifier,
    output: OutputSpec,
    form: RegionFormat | None,
    out: str | None,
    *,
    as_json: bool,
    debug: bool,
    count: Callable[[Located | FcnconvError], None] = lambda _: None,
) -> int:
    """Prints the regions as they are found, or writes them to a file. Returns the number of images that
    failed.
    """
    if form is None or out is None:
        return report(results, located_printer(as_json=as_json), as_json=as_json, debug=debug, count=count)
    failures = 0

    def found() -> Iterable[Located]:
        nonlocal failures
        answers: list[Located] = []
        for result in results:
            failures += report(
                iter([result]),
                lambda _, located: answers.append(located),
                as_json=False,
                debug=debug,
                count=count,
            )
            yield from answers
            answers.clear()

    answers = iter(found())
    for first in answers:  # without any answer there is nothing to write
        with written(out, folder=form.folder) as path:
            if form.folder:
                path.mkdir()
            form.write(path, chain([first], answers), classifier.labels, output)
    return failures
