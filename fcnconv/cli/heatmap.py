"""`fcnconv heatmap`: makes the score map of an image, in a file or on the terminal."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fcnconv.cli.arguments import Debug, Format, Model, Progress, Quiet, with_options
from fcnconv.cli.printing import refuse_terminal, show_map, standard_input
from fcnconv.cli.progress_bar import shown
from fcnconv.errors import UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, files_of_model, find_model
from fcnconv.options import FrameChoice, NetworkOptions, OutputOptions, ReadOptions, ScanOptions
from fcnconv.provenance import Anchored
from fcnconv.system.files import STANDARD_OUTPUT, check_writable, refuse_overwriting
from fcnconv.system.once import once
from fcnconv.system.stdout import data_stream, print_data

if TYPE_CHECKING:
    from fcnconv.scores import ScoreStream
    from fcnconv.writers import Writer

log = logging.getLogger("fcnconv")


@with_options
def heatmap(
    image: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE]", help="An image file, or - for standard input (the default)."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; - is standard output.")
    ] = None,
    format: Format = None,
    frame: FrameChoice = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print what the scan would cost, and stop.", rich_help_panel="Running"
        ),
    ] = False,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    scan: ScanOptions,
    options: OutputOptions,
    network: NetworkOptions,
    reading: ReadOptions,
    own: OwnModel,
) -> None:
    """Make the score map of an image, for every class.

    FILE's suffix names the format: .png, .jpg and .webp show a class over the photo; .html shows every class
    in the browser; .npz, .npy, .zarr and .tif contain the scores; .json, .csv, .geojson and .gpkg list the
    cells. Without FILE the map is drawn on the terminal.

        fcnconv heatmap photo.jpg -o map.png           # its top class
        fcnconv heatmap photo.jpg -o map.png -c cat    # a class by its name
    """
    path = image or standard_input()
    if frame == "all" and out in STANDARD_OUTPUT:
        raise UsageError("--frame all writes one file per frame; name them with --out")
    from fcnconv.scan.correction import check_together
    from fcnconv.writers import OutputSpec

    inputs = [path, *files_of_model(model, own), *([scan.mask] if scan.mask else [])]
    writer = _writer(out, format, options, scan, dry_run=dry_run)
    if out is not None:
        refuse_overwriting(out, inputs)
    if writer.display if writer else data_stream().isatty():
        scan = scan.for_display()
    spec = find_model(model, own)
    labels = spec.labels()
    network = replace(network, mode=spec.mode_for(network.mode))
    check_together(network, scan, labels.activation, raw=options.raw)
    output = OutputSpec.of(options, labels)
    from fcnconv.api.loading import open_classifier
    from fcnconv.api.maps import ScoreMap, save_map
    from fcnconv.backends import faster_precision
    from fcnconv.backends.onnx import one_go
    from fcnconv.batch.inputs import Input, framed
    from fcnconv.images.remote import local_path, shown_address
    from fcnconv.scan.plan import ScanPlan

    opened = once(partial(open_classifier, spec, network, reading, scan))
    named = Input("standard input" if path == "-" else shown_address(path), local_path(path))
    for item in framed([named], frame):
        score_map = None
        with shown(progress, quiet=quiet):
            with one_go():  # a scan that is planned may need more than the classifier
                classifier = opened()
                source = classifier.open(item.content(), scan.sizes, name=item.name, frame=item.frame)
                planned = classifier.plan(source, scan) if dry_run else classifier.stream(source, scan)
            if isinstance(planned, ScanPlan):
                faster = faster_precision(spec, network)
                for line in [*planned.estimate(classifier.open_crops), *([faster] if faster else [])]:
                    print_data(f"{item.name}: {line}")
                continue
            stream = planned
            if out is None or writer is None:
                score_map = ScoreMap.collect(stream)
            else:
                file = out
                if frame == "all":
                    file = _numbered(out, item.frame or 1)
                    refuse_overwriting(file, inputs)
                save_map(stream, file, writer, output)
        if score_map is not None:
            show_map(score_map, output)
        _log_agreement(stream)


def _writer(
    out: str | None, format: str | None, options: OutputOptions, scan: ScanOptions, *, dry_run: bool
) -> Writer | None:
    """Returns the writer of a file; None for the terminal. Raises UsageError if there is neither."""
    from fcnconv.writers import WRITERS, check_terminal, find_writer

    if out is not None:
        writer = find_writer(out, format, options, scan)
        refuse_terminal(out, "the map")
        check_writable(out, folder=writer.folder)
        return writer
    if data_stream().isatty():
        check_terminal(options, scan)
    elif not dry_run:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {', '.join(WRITERS)}; '-' is "
            "standard output"
        )
    return None


def _numbered(out: str, frame: int) -> str:
    """Returns the file of a frame's map, with the number before the suffix, as in ``map.0003.png``."""
    from fcnconv.writers import suffix_of

    suffix = suffix_of(out)
    return f"{out.removesuffix(suffix)}.{frame:04}{suffix}"


def _log_agreement(stream: ScoreStream) -> None:
    made = stream.finish()
    agreement = made.agreement
    if agreement is not None and isinstance(made.correction, Anchored):
        log.info("the map %s (%d of %d windows scored)", agreement, agreement.exact, agreement.cells)
