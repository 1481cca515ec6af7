"""`fcnconv heatmap`: the score map of an image, in a file or on the terminal."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fcnconv.commands.options import Debug, Format, Model, Progress, Quiet, with_options
from fcnconv.console.printing import refuse_terminal, show_map, standard_input
from fcnconv.console.progress import shown
from fcnconv.errors import UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.options import MapOptions, NetworkOptions
from fcnconv.system.files import check_writable, refuse_overwriting
from fcnconv.system.stdout import data_stream, print_data

log = logging.getLogger("fcnconv")


@with_options
def heatmap(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="An image file; none, or -, reads standard input.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; - is standard output.")
    ] = None,
    format: Format = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the scan would cost, and stop.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    options: MapOptions,
    network: NetworkOptions,
    own: OwnModel,
) -> None:
    """The score map of an image: the probability of every class in every window.

    FILE's suffix names the format: .npy, .npz, .zarr and .tif hold the scores, .json, .csv and .geojson list
    the cells, .png, .jpg and .webp show one class (the most probable one, or --class) over the photo, and
    .html is a page to look at them all with. Without FILE the map is drawn on the terminal.
    """
    path = image or standard_input()
    from fcnconv.scan.correct import check_together
    from fcnconv.writers import WRITERS, Choice, check_terminal, find_writer

    writer = None if out is None else find_writer(out, format, options)
    if out is not None and writer is not None:
        refuse_terminal(out, "the map")
        check_writable(out, folder=writer.folder)
        refuse_overwriting(out, [path, model, *own.files])
    elif data_stream().isatty():
        check_terminal(options)
    elif not dry_run:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {', '.join(WRITERS)}; '-' is "
            "standard output"
        )
    check_together(network, options)
    spec = find_model(model, own)
    choice = Choice.of(options, spec.labels())
    from fcnconv.classifier import open_classifier
    from fcnconv.maps import ScoreMap, collecting, save_map
    from fcnconv.system.progress import duration, expect

    score_map = None
    with shown(progress, quiet=quiet):
        classifier = open_classifier(spec, network)
        source = classifier.open(path, options.scales)
        if dry_run:
            for estimate in classifier.estimate(source, options):
                print_data(f"{path}: {estimate}")
            if writer is not None:
                works = writer.work(classifier.stream(source, options).about, choice)
                seconds = sum(work.amount * (work.seconds or 0.0) for work in works)
                print_data(f"{path}: writing it as .{writer.suffix} takes about {duration(seconds)} more")
            return
        stream = classifier.stream(source, options)
        if out is None or writer is None:
            expect(collecting(stream))
            score_map = ScoreMap.collect(stream)
        else:
            save_map(stream, out, writer, choice)
    if score_map is not None:
        show_map(score_map, choice)
    agreement = stream.about.provenance.agreement
    if agreement is not None and stream.about.provenance.anchors > 1:
        log.info("the map %s (%d of %d windows scored)", agreement, agreement.exact, agreement.cells)
