"""`fcnconv models`: lists the networks that --model accepts by name."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnconv.cli.arguments import Debug, Json, Quiet, with_options
from fcnconv.errors import UsageError
from fcnconv.models import list_models
from fcnconv.system.stdout import data_stream


@with_options
def models(
    pattern: Annotated[
        str,
        typer.Argument(metavar="[PATTERN]", help="List only names that contain this.", show_default=False),
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the models that --model accepts by name.

    Window, stride and field (the receptive field) are in pixels. Accuracy is the published top-1 on ImageNet,
    in percent. Local models give tiles the scores of the whole image. "here" marks weights that need no
    download. A model without a stride runs in --mode windows only.

        fcnconv models
        fcnconv models resnet --json
    """
    from fcnconv.cli.printing import model_record, print_json_line, print_models

    listed = list_models(pattern)
    if not listed:
        raise UsageError(f"no model's name contains {pattern!r}; 'fcnconv models' lists them all")
    if as_json:
        for spec in listed:
            print_json_line(model_record(spec))
    else:
        print_models(listed, aligned=data_stream().isatty())
