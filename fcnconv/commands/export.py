"""`fcnconv export`: a converted network for other programs."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from fcnconv.commands.options import Debug, Quiet, Stride, described, with_own_options
from fcnconv.errors import UsageError
from fcnconv.models import find_model
from fcnconv.stdout import data_stream

log = logging.getLogger("fcnconv")


@with_own_options
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The network.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FILE", help="Where to write: .onnx or .pt2; - is stdout."),
    ],
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="onnx|pt2", help="If not by the suffix of FILE.")
    ] = None,
    stride: Stride = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """Writes the converted network, for any height and width, for programs that run ONNX or torch.

    Its input "pixels" is float32 (N, 3, H, W), (intensity 0 to 1 - mean) / std, of at least one window; its
    output "logits" (N, classes, rows, cols). Mean, std, window, stride and categories are in the file, as
    JSON under the name "fcnconv".
    """
    spec = find_model(model, described(own))
    if out == "-" and data_stream().isatty():
        raise UsageError(
            "a network will not be written to a terminal; redirect it, or name a file with --out"
        )
    from fcnconv.export import export as write
    from fcnconv.export import export_format

    about, error = write(spec, out, export_format(out, format), stride)
    log.info(
        "%s, window %d px, stride %d px: proved, its logits differ from torch's by %.1e of the largest",
        *(about.model, about.window, about.stride, error),
    )
