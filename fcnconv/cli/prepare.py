"""`fcnconv prepare`: makes a plan ahead of its first use."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fcnconv.cli.arguments import Debug, NamedModel, Quiet, named_once, with_options
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.options import RunMode, RunPrecision, Stride
from fcnconv.system.stdout import print_data

log = logging.getLogger("fcnconv")


@with_options
def prepare(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help=f"The network. [default: {DEFAULT_MODEL}]")
    ] = None,
    option: NamedModel = None,
    mode: RunMode = None,
    stride: Stride = None,
    precision: RunPrecision = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: OwnModel,
) -> None:
    """Convert and cache a model ahead of its first use.

    Makes the model's plan, proves it, stores it in the cache and prints its path. Later runs find it and
    start without torch. Each --stride has its own plan. The cache also gets the plan for the class
    activations of focused maps, the stages for scanning images too large for memory, and the plan of the
    crops that correct maps. Where OpenVINO is installed, the command measures whether it is faster than ONNX
    Runtime; with --precision bfloat16 it also measures the difference from float32 and the speed-up. Deleting
    these files is safe.

        fcnconv prepare
        fcnconv prepare efficientnet_lite0 --stride 16
    """
    from fcnconv.backends import open_network
    from fcnconv.backends.onnx import one_go, open_joint, open_plans, open_stages
    from fcnconv.backends.openvino import in_float32
    from fcnconv.scan.network import Needs

    found = find_model(named_once(model, option, DEFAULT_MODEL), own)
    mode = found.mode_for(mode)
    with one_go():
        plan = open_plans(found, mode, stride, Needs(activations=True, crops=True))
        open_stages(found, plan, stride)
        if mode == "fcn" and plan.record.cell_head.cells:
            open_joint(found, stride).cut()
    log.info(
        "proved: ONNX Runtime and torch differ by %.1e of the largest logit; its plan took %.1f s to make",
        *(plan.record.export_error, plan.record.seconds),
    )
    if precision == "auto" and (pace := in_float32(found, mode, stride)) is not None:
        log.info("%s mode, float32: %s", mode, pace)
    if precision == "bfloat16":
        for each in dict.fromkeys((mode, "windows")):
            arithmetic = open_network(found, each, "openvino", "cpu", stride, precision).arithmetic
            log.info("%s mode: %s", each, arithmetic)
    print_data(plan.path)
