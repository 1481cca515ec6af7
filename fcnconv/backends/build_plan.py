"""Makes plans: exports a network to ONNX, cuts it into stages, and proves that each computes what torch does.

This needs torch, so it is imported only when a plan is missing.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from fcnconv.backends.plans import Networks, PlanContent, PlanRecord, Start
from fcnconv.convert import FullyConvolutional
from fcnconv.convert.onnx_export import export_onnx, export_part
from fcnconv.convert.partition import cut, whole
from fcnconv.convert.probes import probe
from fcnconv.convert.proof import compare_float32
from fcnconv.errors import PlanError, first_line
from fcnconv.grid import Geometry
from fcnconv.models import ModelSpec
from fcnconv.provenance import NO_CELLS, Mode
from fcnconv.scan.stages import Forward, PixelCells, Stage, chain
from fcnconv.scores import FloatArray
from fcnconv.version import __version__


def make_plan(
    spec: ModelSpec,
    mode: Mode,
    weights: Path,
    networks: Networks,
    start: Start,
    since: float,
    *,
    joint: bool = False,
) -> PlanContent:
    """Makes the plan of a model.

    Args:
        spec: the model.
        mode: ``fcn`` or ``windows``.
        weights: the file that the network is built from.
        networks: the networks that are built from it.
        start: runs an ONNX file.
        since: start time of the whole process, from ``time.perf_counter``.
        joint: whether the plan includes class activations.

    Raises:
        ConversionError: the network cannot be converted.
        PlanError: the plan cannot be made.
    """
    if mode == "windows" and spec.crops is not None:
        return _plan_of_crops(spec, spec.crops(weights), weights, start, since)
    converted = networks.converted() if mode == "fcn" else None
    network, any_size = converted or networks.original(), converted is not None
    if joint:
        network = _joint(converted)
    model = export_onnx(network, spec.window, any_size=any_size)
    run = start(model)
    export_error = prove_export(network, run, spec.window, any_size=any_size)
    record = PlanRecord(
        identity=spec.identity(weights),
        mode=mode,
        version=__version__,
        num_classes=run(probe(network, 1, spec.window, spec.window).numpy()).shape[1] // (2 if joint else 1),
        geometry=converted.geometry if converted else None,
        proof=converted.proof if converted else None,
        cell_head=converted.conversion.cell_head if converted else NO_CELLS,
        export_error=export_error,
        seconds=time.perf_counter() - since,
    )
    stage = None
    if converted:
        graph = _joint(converted) if joint else converted.network
        stage = whole(graph, converted.geometry, run, channels_last=False, activations=joint)
    return PlanContent(model, record, stage)


def _plan_of_crops(spec: ModelSpec, model: bytes, weights: Path, start: Start, since: float) -> PlanContent:
    """Makes the plan of a network that is already an ONNX file."""
    image = np.zeros((1, len(spec.mean), spec.window, spec.window), np.float32)
    record = PlanRecord(
        identity=spec.identity(weights),
        mode="windows",
        version=__version__,
        num_classes=start(model)(image).shape[1],
        geometry=None,
        proof=None,
        cell_head=NO_CELLS,
        export_error=0.0,
        seconds=time.perf_counter() - since,
    )
    return PlanContent(model, record, None)


def _joint(converted: FullyConvolutional | None) -> fx.GraphModule:
    """The graph that returns class activations. Raises PlanError if the network has none."""
    if converted is None or converted.joint is None:
        raise PlanError("the network has no class activations")
    return converted.joint


def prove_export(network: nn.Module, run: Forward, window: int, *, any_size: bool) -> float:
    """Compares a network with its plan, at the native size and on two images at a larger size.

    Args:
        network: the network.
        run: runs the plan.
        window: side of the native input, in pixels.
        any_size: whether the plan accepts larger sizes. If not, the two images have the native size.

    Returns:
        The largest difference of a logit, as a share of the largest logit.

    Raises:
        PlanError: the difference exceeds the rounding of float32.
    """
    larger = (window + 96, window + 160) if any_size else (window, window)
    errors = []
    for count, size in ((1, (window, window)), (2, larger)):
        x = probe(network, count, *size)
        try:
            logits = run(x.numpy())
        except Exception as reason:  # ONNX Runtime's errors have no other common base class
            at = f"{size[1]} × {size[0]} px"
            raise PlanError(f"the plan does not run at {at} ({first_line(reason)})") from reason
        errors.append(compare_float32("the plan is not the network", network, x, logits, PlanError))
    return max(errors)


def cut_plan(
    network: FullyConvolutional, start: Start, *, joint: bool = False
) -> tuple[tuple[Stage, ...], list[bytes]]:
    """Cuts a network into stages.

    Args:
        network: the converted network.
        start: runs an ONNX file.
        joint: whether the stages include class activations.

    Returns:
        The stages, and their ONNX files.

    Raises:
        PlanError: the stages cannot be exported, or differ from the network.
    """
    models: list[bytes] = []

    def made(stage: nn.Module, takes: tuple[int, int]) -> Forward:
        models.append(export_part(stage, *takes))
        return start(models[-1])

    graph = _joint(network) if joint else network.network
    stages = cut(graph, network.geometry, made, channels_last=False, activations=joint)
    _prove(graph, network.geometry, stages)
    return stages, models


def _prove(network: fx.GraphModule, geometry: Geometry, stages: tuple[Stage, ...]) -> None:
    """Compares the stages, run block by block, with the network. Raises PlanError if they differ."""
    steps = 2, 4
    height, width = (geometry.window + geometry.step * n for n in steps)
    x = probe(network, 1, height, width)

    def pixels(box: tuple[int, int, int, int]) -> FloatArray:
        x0, y0, x1, y1 = box
        region: FloatArray = x[:, :, y0:y1, x0:x1].numpy()
        return region

    with torch.inference_mode():
        rows, cols = network(x).shape[2:]
    image = PixelCells(pixels, geometry.window, geometry.step)
    try:
        everywhere = slice(0, rows), slice(0, cols)
        top = chain(image, stages, [(2, 3)] * len(stages), steps, [everywhere])
        logits = top.compute(0, rows, 0, cols)
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise PlanError(f"ONNX Runtime does not run the network's stages ({first_line(error)})") from error
    compare_float32("the stages are not the network", network, x, logits[None], PlanError)
