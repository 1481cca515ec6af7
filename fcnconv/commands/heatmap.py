"""`fcnconv heatmap`: the score map of an image, in a file or on the terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnconv.commands import completion
from fcnconv.commands.options import (
    AtLeast,
    Backend,
    Debug,
    Device,
    MaxMemory,
    MaxPixels,
    Mode,
    Model,
    Quiet,
    Scales,
    Stride,
    Temperature,
    Tile,
    TopK,
    parse_temperature,
    standard_input,
    with_own_options,
)
from fcnconv.errors import UsageError
from fcnconv.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from fcnconv.scores import AnyMap

log = logging.getLogger("fcnconv")


@with_own_options
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
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            metavar="NAME|INDEX|WNID|CONCEPT",
            help="A class to write, or all classes of a concept; may be repeated.",
            autocompletion=completion.complete_class,
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    scales: Scales = "1",
    values: Annotated[
        str, typer.Option(metavar="KIND", help="What to write: probabilities or logits.")
    ] = "probabilities",
    winners: Annotated[
        bool, typer.Option("--argmax", help="In a picture, show the most probable class of each window.")
    ] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="In a picture, fill each window's own cell; no interpolation.")
    ] = False,
    top_k: TopK = 5,
    at_least: AtLeast = 0.5,
    store: Annotated[
        str,
        typer.Option(
            metavar="all|top-k|auto",
            help="Keep every class of a window, or the -k best (npz); auto: the best of maps over 1 GiB.",
        ),
    ] = "auto",
    join: Annotated[
        str, typer.Option(metavar="max|mean", help="What a class scores where several scales meet.")
    ] = "max",
    max_side: Annotated[
        int, typer.Option(min=64, metavar="PX", help="Longest side of a picture, in pixels.")
    ] = 8192,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the scan would cost, and stop.")
    ] = False,
    refine: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Score this share of the windows, the least sure, again as real crops.",
        ),
    ] = 0,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    temperature: Temperature = "auto",
    stride: Stride = None,
    max_memory: MaxMemory = None,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """The score map of an image: the probability of every class in every window.

    FILE's suffix names the format: .npy, .npz, .zarr and .tif hold the scores, .json, .csv and .geojson list
    the cells, .png, .jpg and .webp show one class (the image's most probable one, or --class) over the photo,
    and .html is a page to look at them all with.
    """
    path = image or standard_input()
    preview = out is None and sys.stdout.isatty()
    if out is None and not preview and not dry_run:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {_formats()}; '-' is standard output"
        )
    from fcnconv.scales import parse_join
    from fcnconv.writers import Choice, find_writer, parse_store, parse_values, save, stored

    kind = parse_values(values)
    parse_join(join)
    writer = None if out is None else find_writer(out, format, kind)
    parse_store(store, writer, not classes and kind == "probabilities")
    if out == "-" and sys.stdout.isatty():
        raise UsageError("the map will not be written to a terminal; redirect it, or name a file with --out")
    from fcnconv.classifier import load

    classifier = load(
        model,
        mode=mode,
        backend=backend,
        device=device,
        temperature=parse_temperature(temperature),
        max_pixels=max_pixels,
        stride=stride,
        max_memory=max_memory,
        tile=tile,
        **own,
    )
    chosen = tuple(classifier.labels.find(name) for name in classes or ())
    source = classifier.open(path)
    if dry_run:
        for estimate in classifier.estimate(source, scales):
            print(f"{path}: {estimate}")
        return
    shows_photo = writer is None or writer.picture
    if shows_photo and not chosen and not winners:
        best = classifier.classify(source, k=1).predictions[0]
        log.info(
            "showing the image's most probable class, %s (%.2f); choose with --class",
            best.category,
            best.probability,
        )
        chosen = (classifier.labels.find(str(best.class_idx)),)
    if out is None or writer is None:
        from fcnconv.commands.printing import print_preview

        whole = classifier(source, scales=scales, refine=refine, join=join)
        print_preview(source, whole, chosen, top_k)
        return
    name = "standard input" if path == "-" else os.path.basename(path)  # noqa: PTH119
    choice = Choice(
        selections=chosen,
        values=kind,
        k=top_k,
        at_least=at_least,
        photo=source,
        max_side=max_side,
        name=name,
        winners=winners,
        cells=cells,
    )
    score_map: AnyMap = classifier.stream(source, scales=scales, join=join)
    if refine:  # which windows are least sure is known at the end
        score_map = classifier(source, scales=scales, refine=refine, join=join)
    save(score_map, out, writer, stored(store, writer, score_map, choice))


def _formats() -> str:
    from fcnconv.writers import WRITERS

    return ", ".join(WRITERS)
