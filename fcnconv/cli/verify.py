"""`fcnconv verify`: proves a conversion, and measures how far dense maps are from crops."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from fcnconv.cli.arguments import Debug, Json, NamedModel, Quiet, named_once, with_options
from fcnconv.cli.printing import complain, print_json_line
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import OwnModel, find_model
from fcnconv.options import OWN_SIZE, NetworkOptions, OptionInfo, ReadOptions, Scales, ScanOptions
from fcnconv.system.stdout import print_data


@with_options
def verify(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The network.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Images on which to compare maps with crops."),
    ] = None,
    option: NamedModel = None,
    as_json: Json = False,
    scales: Scales = OWN_SIZE,
    max_windows: Annotated[
        int, OptionInfo("Compare at most N windows, drawn at random.", metavar="N", group="", least=4)
    ] = 500,
    seed: Annotated[int, OptionInfo("Seed of the random windows.", metavar="N", group="")] = 0,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    network: NetworkOptions,
    reading: ReadOptions,
    own: OwnModel,
) -> None:
    """Prove a converted network, and compare maps with crops.

    Without images, the command proves the conversion at the model's native size; a model that fails it gives
    exit status 1. With images, it also compares maps with crops on windows of these images.

        fcnconv verify efficientnet_lite0
        fcnconv verify efficientnet_lite0 photos/*.jpg --max-windows 40
    """
    if option is not None:  # then all arguments are images
        images = [*([] if model is None else [model]), *(images or [])]
        model = None
    name = named_once(model, option)
    if network.mode == "windows" or network.temperature is not None:
        raise UsageError(
            "verify compares the converted network with crops; leave out --mode and --temperature"
        )
    from fcnconv.api.loading import open_classifier
    from fcnconv.verify.compare import measure, proof_record, proof_text, prove

    spec = find_model(name, own)
    proved = prove(spec)
    agreement, failed = None, False
    if images:
        classifier = open_classifier(
            spec, replace(network, mode="fcn", temperature=1), reading, ScanOptions(anchors=1)
        )
        sources = []
        for path in images:
            try:
                sources.append(classifier.open(path, scales))
            except FcnconvError as error:
                failed = True
                complain(error)
        agreement = measure(
            classifier,
            sources,
            scales=scales,
            max_windows=max_windows,
            seed=seed,
            temperature=spec.temperature,
        )
    if as_json:
        found = {"model": spec.name, **proof_record(proved)}
        print_json_line(found if agreement is None else found | {"agreement": asdict(agreement)})
    else:
        print_data(proof_text(spec.name, proved))
        if agreement is not None:
            print_data(f"\n{agreement.text()}")
    if failed:
        raise typer.Exit(1)
