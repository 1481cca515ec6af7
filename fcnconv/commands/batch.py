"""`fcnconv batch`: the score maps of many images, in a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fcnconv.commands.options import Debug, Json, Listed, Model, Progress, Quiet, with_options
from fcnconv.console.printing import print_map_file, report
from fcnconv.console.progress import Counter, shown
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.options import EVERY_IMAGE, FrameChoice, MapOptions, NetworkOptions, Shard
from fcnconv.system.stdout import data_stream

log = logging.getLogger("fcnconv")


@with_options
def batch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="Image files, folders of them, or patterns in quotes."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where the maps go.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="Of the maps, by its suffix: as for heatmap. [default: npz]",
        ),
    ] = "npz",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make maps again that are there already.")
    ] = False,
    shard: Shard = EVERY_IMAGE,
    frame: FrameChoice = None,
    as_json: Json = False,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    options: MapOptions,
    network: NetworkOptions,
    own: OwnModel,
    listed: Listed,
) -> None:
    """The score maps of many images, in a folder.

    A map lies under its image's path, as FOLDER/photos/cat.jpg.npz. What is there already is kept, so that a
    run that was stopped goes on; FOLDER/fcnconv.json tells how the maps were made. In a pipe a line an image:
    the file of its map. With -f html FOLDER/index.html leads to all of them.

        fcnconv batch photos -o maps
        fcnconv batch 'photos/**/*.jpg' -o pictures -f png -c dog
    """
    if not out:
        raise UsageError("name a folder for the maps with --out")
    listed.check(bool(sources))
    if not sources and listed == Listed():
        raise UsageError("name images, folders or patterns; or give --files-from, --from0 or --tar")
    from fcnconv.backends import faster_precision
    from fcnconv.batch.folder import MapFile, MapFolder
    from fcnconv.batch.inputs import Input, framed, from_sources, listed_inputs, sharded
    from fcnconv.classifier import open_classifier
    from fcnconv.images import image_suffixes
    from fcnconv.scan.correct import check_together
    from fcnconv.writers import Choice, find_writer

    writer = find_writer(f"map.{format.lstrip('.')}", None, options)

    def inputs() -> Iterator[Input]:
        named = from_sources(sources, image_suffixes(), Path(out)) if sources else None
        return framed(sharded(named or listed_inputs([], *listed.values()), shard), frame)

    images = inputs()
    if writer.looked_at:
        options = options.looked_at()
    spec = find_model(model, own)
    labels = spec.labels()
    check_together(network, options, labels.activation)
    choice = Choice.of(options, labels)
    with shown(progress, quiet=quiet):
        classifier = open_classifier(spec, network)
        hints = [hint for hint in [faster_precision(spec, network)] if hint]
    folder = MapFolder(classifier, Path(out), writer, choice, network, shard)
    results = folder.map_each(images, overwrite=overwrite)
    counts = {True: 0, False: 0}
    silent = data_stream().isatty() and not as_json

    def show(name: str, map: MapFile) -> None:
        counts[map.new] += 1
        if not silent:
            print_map_file(name, map, as_json=as_json)

    on_terminal = data_stream().isatty() and not silent
    # At its end, or when it is interrupted, `results` writes the report.
    with closing(results), shown(progress, quiet=quiet, among_answers=on_terminal) as account:
        known = frame is None and (bool(sources) or listed.is_file())
        counter = Counter(account, "mapping", inputs if known else None)

        def count(result: MapFile | FcnconvError) -> None:
            new = isinstance(result, FcnconvError) or result.new
            counter.count(result, new=new)
            while hints and new:  # once, and not where the run is refused or all is there
                log.info("%s", hints.pop())

        failed = report(results, show, as_json=as_json, debug=debug, count=count)
    log.info("%d maps made, %d were there, %d images failed", counts[True], counts[False], failed)
    if failed:
        raise typer.Exit(1)
    if not any(counts.values()):
        raise FcnconvError("no images were found")
