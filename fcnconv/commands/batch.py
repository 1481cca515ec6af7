"""`fcnconv batch`: the score maps of many images, in a folder."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fcnconv.commands.options import (
    AtLeast,
    Cells,
    Classes,
    Debug,
    FilesFrom,
    From0,
    Join,
    MaxSide,
    OpenClassifier,
    Quiet,
    Refine,
    Scales,
    Store,
    Tar,
    TopK,
    Values,
    Winners,
    listed_inputs,
    parse_shard,
    with_classifier,
)
from fcnconv.console.printing import complain, print_json_line, print_path
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.stdout import data_stream

log = logging.getLogger("fcnconv")


@with_classifier
def batch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="Image files, folders of them, or patterns in quotes."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where the maps go.")
    ] = None,
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="NAME", help="Of the maps, as for heatmap.")
    ] = "npz",
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
    refine: Refine = 0,
    files_from: FilesFrom = None,
    from0: From0 = None,
    tar: Tar = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make maps again that are there already.")
    ] = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only every N-th image, from the I-th on: for N machines.")
    ] = "1/1",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and image.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    open_classifier: OpenClassifier,
) -> None:
    """The score maps of many images: what heatmap makes of each, in a folder.

    A map lies under its image's path, as FOLDER/photos/cat.jpg.npz. Maps that are there already are kept, so
    that a run that was stopped goes on where it was; a folder holds maps that were made in one way, which its
    fcnconv.json tells. In a pipe one line an image: the file of its map.
    """
    if not out:
        raise UsageError("name a folder for the maps with --out")
    inputs = listed_inputs(bool(sources), files_from, from0, tar)
    if not inputs and not sources:
        raise UsageError("name images, folders or patterns; or give --files-from, --from0 or --tar")
    part = parse_shard(shard)
    from fcnconv.batch.inputs import from_sources
    from fcnconv.batch.workers import counted
    from fcnconv.images import image_suffixes
    from fcnconv.options import Join as JoinWay
    from fcnconv.options import checked, parse_scales
    from fcnconv.writers import Choice, find_writer, parse_store, parse_values

    kind = parse_values(values)
    checked("join", join, JoinWay)
    parse_scales(scales)
    writer = find_writer(f"map.{format}", None, kind)
    parse_store(store, writer, not classes and kind == "probabilities")
    folder = Path(out)
    inputs = inputs or from_sources(sources or [], image_suffixes(), folder)
    from fcnconv.batch.folder import Wanted, map_each

    classifier = open_classifier()
    chosen = tuple(classifier.labels.find(name) for name in classes or ())
    choice = Choice(chosen, kind, top_k, at_least=at_least, max_side=max_side, winners=winners, cells=cells)
    wanted = Wanted(writer, choice, scales, join, refine, store)
    outcomes = map_each(classifier, part(inputs), folder, format, wanted, overwrite=overwrite)
    if not quiet and sys.stderr.isatty():
        outcomes = counted(outcomes, None, "mapping")
    counts: Counter[str] = Counter()
    for name, path, outcome in outcomes:
        if isinstance(outcome, FcnconvError):
            counts["failed"] += 1
            complain(outcome)
            if as_json:
                print_json_line({"path": name, "error": str(outcome)})
            if debug:
                raise outcome
        else:
            counts[outcome] += 1
            if as_json:
                print_json_line({"path": name, "map": str(path), "new": outcome == "made"})
            elif not data_stream().isatty():
                print_path(path)
        data_stream().flush()
    log.info(
        "%d maps made, %d were there, %d images failed", counts["made"], counts["kept"], counts["failed"]
    )
    if not counts:
        raise FcnconvError("no images were found")
    if counts["failed"]:
        raise typer.Exit(1)
