"""`fcnconv heatmap`: the score map of an image, in a file or on the terminal."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from fcnconv.commands.options import (
    AtLeast,
    Cells,
    Classes,
    Debug,
    Join,
    MaxSide,
    OpenClassifier,
    Quiet,
    Refine,
    Scales,
    Store,
    TopK,
    Values,
    Winners,
    standard_input,
    with_classifier,
)
from fcnconv.errors import UsageError
from fcnconv.stdout import data_stream, print_data

log = logging.getLogger("fcnconv")


@with_classifier
def heatmap(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="An image file; none, or -, reads standard input.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; - is standard output.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="The format, if not by the suffix of FILE."),
    ] = None,
    classes: Classes = None,
    scales: Scales = "1",
    values: Values = "probabilities",
    winners: Winners = False,
    cells: Cells = False,
    top_k: TopK = 5,
    at_least: AtLeast = 0.5,
    store: Store = "auto",
    join: Join = "max",
    max_side: MaxSide = 8192,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the scan would cost, and stop.")
    ] = False,
    refine: Refine = 0,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    open_classifier: OpenClassifier,
) -> None:
    """The score map of an image: the probability of every class in every window.

    FILE's suffix names the format: .npy, .npz, .zarr and .tif hold the scores, .json, .csv and .geojson list
    the cells, .png, .jpg and .webp show one class (the image's most probable one, or --class) over the photo,
    and .html is a page to look at them all with.
    """
    path = image or standard_input()
    preview = out is None and data_stream().isatty()
    if out is None and not preview and not dry_run:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {_formats()}; '-' is standard output"
        )
    from fcnconv.options import Join as JoinWay
    from fcnconv.options import checked
    from fcnconv.writers import Choice, find_writer, parse_store, parse_values

    kind = parse_values(values)
    checked("join", join, JoinWay)
    writer = None if out is None else find_writer(out, format, kind)
    parse_store(store, writer, not classes and kind == "probabilities")
    if out == "-" and data_stream().isatty():
        raise UsageError("the map will not be written to a terminal; redirect it, or name a file with --out")
    from fcnconv.batch.folder import Wanted, most_probable, write_map

    classifier = open_classifier()
    chosen = tuple(classifier.labels.find(name) for name in classes or ())
    source = classifier.open(path)
    if dry_run:
        for estimate in classifier.estimate(source, scales):
            print_data(f"{path}: {estimate}")
        return
    if (writer is None or writer.picture) and not chosen and not winners:
        best, probability = most_probable(classifier, source)
        chosen = (best,)
        log.info(
            "showing the image's most probable class, %s (%.2f); choose with --class", best.name, probability
        )
    if out is None or writer is None:
        from fcnconv.console.printing import print_preview

        whole = classifier(source, scales=scales, refine=refine, join=join)
        print_preview(source, whole, chosen, top_k)
        return
    choice = Choice(chosen, kind, top_k, at_least=at_least, max_side=max_side, winners=winners, cells=cells)
    name = "standard input" if path == "-" else os.path.basename(path)  # noqa: PTH119
    write_map(classifier, source, out, name, Wanted(writer, choice, scales, join, refine, store))


def _formats() -> str:
    from fcnconv.writers import WRITERS

    return ", ".join(WRITERS)
