"""`fcnconv verify`: the proof of a conversion, and how far dense maps are from real crops."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from fcnconv.commands.options import Backend, Debug, MaxPixels, Quiet, Scales, described, with_own_options
from fcnconv.console.printing import complain
from fcnconv.errors import FcnconvError
from fcnconv.models import find_model
from fcnconv.stdout import print_data


@with_own_options
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The network.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Images to compare real crops on.")
    ] = None,
    scales: Scales = "1",
    max_windows: Annotated[
        int, typer.Option(min=4, metavar="N", help="Compare at most so many windows, drawn at random.")
    ] = 500,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    backend: Backend = "auto",
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """Proof that the converted network is the classifier, and how far its map is from real crops.

    Without images, the proof at the model's native size; a model that fails it gives exit status 1. With
    images, also the comparison of the dense map with real crops, on windows of these images.
    """
    from fcnconv.batch.workers import open_each
    from fcnconv.classifier import load
    from fcnconv.verify import measure, prove

    spec = find_model(model, described(own))
    proved = prove(spec)
    agreement, failed = None, False
    if images:
        classifier = load(model, backend=backend, temperature=1, max_pixels=max_pixels, **own)
        sources = []
        for opened in open_each(classifier, images):
            if isinstance(opened, FcnconvError):
                failed = True
                complain(opened)
            else:
                sources.append(opened)
        agreement = measure(classifier, sources, scales=scales, max_windows=max_windows, seed=seed)
    if as_json:
        from fcnconv.console.printing import print_json_line

        found = {"model": spec.name, **asdict(proved)}
        print_json_line(found if agreement is None else found | {"agreement": asdict(agreement)})
    else:
        print_data(proved.text(spec.name))
        if agreement is not None:
            print_data(f"\n{agreement.text()}")
    if failed:
        raise typer.Exit(1)
