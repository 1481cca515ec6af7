"""Exporting a network to ONNX, and proving that ONNX Runtime computes with it what torch does.

The exporter is torch's own, the one that traces. Measured on EfficientNet-Lite0 it takes 1.1 s, and the newer
one, on ``torch.export``, 14 s, for graphs that ONNX Runtime runs equally fast.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from torch import nn

from fcnconv.backends import Run
from fcnconv.convert import TOLERANCE
from fcnconv.errors import PlanError

OPSET = 18
INPUT, OUTPUT = "pixels", "logits"


def export_onnx(network: nn.Module, window: int, *, any_size: bool) -> bytes:
    """The network as an ONNX file, for any batch.

    network: float (N, 3, H, W) -> logits, in evaluation mode, on the CPU.
    window: side of the native input in pixels.
    any_size: also for any height and width; else for `window` × `window` alone.

    Raises PlanError if the exporter cannot express the network.
    """
    axes = {0: "batch", 2: "height", 3: "width"} if any_size else {0: "batch"}
    out = {0: "batch", 2: "rows", 3: "cols"} if any_size else {0: "batch"}
    return _export(network, torch.zeros(2, 3, window, window), axes, out)


def _export(network: nn.Module, example: torch.Tensor, axes: dict[int, str], out: dict[int, str]) -> bytes:
    """axes, out: which axes of the input and of the output may have any length, and their names."""
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of deprecation, and of shapes that the proof tests
            torch.onnx.export(
                network,
                (example,),
                file,  # type: ignore[arg-type]
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: axes, OUTPUT: out},
                opset_version=OPSET,
            )
    except Exception as error:  # the exporter raises what it likes: each operation has code of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PlanError(f"{type(network).__name__} cannot be exported to ONNX ({reason})") from error
    return file.getvalue()


def export_part(part: nn.Module, channels: int, side: int) -> bytes:
    """A part of a network as an ONNX file, for maps of any height and width, one at a time.

    part: float (1, channels, h, w) -> float (1, channels', h', w'). side: of a map that it takes.

    Raises PlanError if the exporter cannot express it.
    """
    example = torch.zeros(1, channels, side, side)
    return _export(part, example, {2: "height", 3: "width"}, {2: "rows", 3: "cols"})


def prove_export(network: nn.Module, run: Run, window: int, *, any_size: bool) -> float:
    """The largest difference of a logit between a network and what runs its plan, as a share of the largest.

    Compared on noise and on smooth pictures, one at the native size and two at a larger one (`any_size`; else
    of the native size too). Raises PlanError over `convert.TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    larger = (window + 96, window + 160) if any_size else (window, window)
    error = scale = 0.0
    for count, size in ((1, (window, window)), (2, larger)):
        coarse = torch.randn(count, 3, 7, 7, generator=generator)
        x = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
        x += 0.3 * torch.randn(x.shape, generator=generator)
        with torch.inference_mode():
            expected = network(x).numpy()
        try:
            found = run(x.numpy())
        except Exception as reason:  # ONNX Runtime's errors share no class but this
            raise PlanError(f"the plan does not run at {size[1]} × {size[0]} px: {reason}") from reason
        if found.shape != expected.shape:
            raise PlanError(f"the plan gives logits of shape {found.shape}, and torch {expected.shape}")
        error = max(error, float(np.abs(found - expected).max()))
        scale = max(scale, float(np.abs(expected).max()))
    if not error <= TOLERANCE * scale:
        raise PlanError(
            f"the plan is not the network: logits differ by {error:.1e} of {scale:.1e}, "
            f"over {TOLERANCE:.0e} of it"
        )
    return error / scale
