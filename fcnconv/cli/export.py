"""`fcnconv export`: writes a converted network for other programs."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fcnconv.cli.arguments import Debug, NamedModel, Quiet, named_once, with_options
from fcnconv.cli.printing import refuse_terminal
from fcnconv.errors import UsageError
from fcnconv.models import OwnModel, files_of_model, find_model
from fcnconv.options import Stride
from fcnconv.system.files import check_writable, refuse_overwriting

log = logging.getLogger("fcnconv")


@with_options
def export(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The network.")] = None,
    option: NamedModel = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="File to write: .onnx or .pt2; - is standard output."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", metavar="NAME", help="Output format, if FILE's suffix does not name it."
        ),
    ] = None,
    stride: Stride = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: OwnModel,
) -> None:
    """Export the converted network for other programs.

    The format is ONNX (.onnx) or torch (.pt2). The input "pixels" is float32 (N, 3, H, W), (intensity 0 to 1
    - mean) / std, of at least one window; the output "logits" is (N, classes, rows, cols). The file contains
    mean, std, window, stride and categories as JSON under the name "fcnconv".

        fcnconv export efficientnet_lite0 -o lite0.onnx
        fcnconv export efficientnet_lite0 --stride 16 -o finer.onnx
    """
    if out is None:
        raise UsageError("name a file to write with --out: its suffix is the format, .onnx or .pt2")
    from fcnconv.backends.network_files import export as write
    from fcnconv.backends.network_files import export_format

    kind = export_format(out, format)
    refuse_terminal(out, "a network")
    check_writable(out)
    name = named_once(model, option)
    refuse_overwriting(out, files_of_model(name, own))
    spec = find_model(name, own)
    about, error = write(spec, out, kind, stride)
    geometry = about.conversion.geometry
    log.info(
        "%s, window %d px, stride %d px: proved: its logits differ from torch's by %.1e of the largest logit",
        *(about.identity.model, geometry.window, geometry.stride, error),
    )
