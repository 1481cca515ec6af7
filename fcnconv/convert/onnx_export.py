"""Exports a network, or a stage of it, as an ONNX file.

It uses torch's exporter that traces. On EfficientNet-Lite0 this exporter takes 1.1 s, and the newer one,
based on ``torch.export``, takes 14 s. ONNX Runtime runs both graphs equally fast.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fcnconv.convert.probes import channels_of
from fcnconv.errors import PlanError, first_line

OPSET = 18
INPUT, OUTPUT = "pixels", "logits"


def export_onnx(network: nn.Module, window: int, *, any_size: bool) -> bytes:
    """Exports a network as an ONNX file, for any batch size.

    Args:
        network: float (N, 3, H, W) -> logits, in evaluation mode, on the CPU.
        window: side of the native input, in pixels.
        any_size: whether the file also accepts any height and width; else only `window` × `window`.

    Raises:
        PlanError: the exporter cannot express the network.
    """
    axes = {0: "batch", 2: "height", 3: "width"} if any_size else {0: "batch"}
    out = {0: "batch", 2: "rows", 3: "cols"} if any_size else {0: "batch"}
    return _export(network, torch.zeros(2, channels_of(network, window, window), window, window), axes, out)


def export_part(part: nn.Module, channels: int, side: int) -> bytes:
    """Exports a stage of a network as an ONNX file, for single maps of any height and width.

    Args:
        part: float (1, channels, h, w) -> float (1, channels', h', w').
        channels: channels of its input.
        side: side of an input map that it accepts.

    Raises:
        PlanError: the exporter cannot express the stage.
    """
    example = torch.zeros(1, channels, side, side)
    return _export(part, example, {2: "height", 3: "width"}, {2: "rows", 3: "cols"})


def _export(network: nn.Module, example: torch.Tensor, axes: dict[int, str], out: dict[int, str]) -> bytes:
    """Exports a network. `axes` and `out` name the axes of the input and the output that may have any
    length.
    """
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode(), _plain_attention():
            warnings.simplefilter("ignore")  # about deprecation, and about shapes that the proof tests
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
    except Exception as error:  # the exporter's code for an operation can raise any kind of error
        raise PlanError(
            f"{type(network).__name__} cannot be exported to ONNX ({first_line(error)})"
        ) from error
    return file.getvalue()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Computes attention by operations that ONNX has, instead of torch's fused one."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
