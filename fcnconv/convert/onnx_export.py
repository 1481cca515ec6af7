"""A network, or a part of one, as an ONNX file.

The exporter is torch's own, the one that traces. Measured on EfficientNet-Lite0 it takes 1.1 s, and the newer
one, on ``torch.export``, 14 s, for graphs that ONNX Runtime runs equally fast.
"""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from fcnconv.convert.probes import channels_of
from fcnconv.errors import PlanError, first_line

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
    return _export(network, torch.zeros(2, channels_of(network, window, window), window, window), axes, out)


def export_part(part: nn.Module, channels: int, side: int) -> bytes:
    """A part of a network as an ONNX file, for maps of any height and width, one at a time.

    part: float (1, channels, h, w) -> float (1, channels', h', w'). side: of a map that it takes.

    Raises PlanError if the exporter cannot express it.
    """
    example = torch.zeros(1, channels, side, side)
    return _export(part, example, {2: "height", 3: "width"}, {2: "rows", 3: "cols"})


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
        raise PlanError(
            f"{type(network).__name__} cannot be exported to ONNX ({first_line(error)})"
        ) from error
    return file.getvalue()
