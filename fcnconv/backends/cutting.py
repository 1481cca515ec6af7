"""Cutting a converted network into parts for ONNX Runtime, each exported, and all together proved."""

from __future__ import annotations

import numpy as np
import torch

from fcnconv.backends import Run
from fcnconv.backends.export import export_part
from fcnconv.backends.parts import part_run
from fcnconv.convert import TOLERANCE, FullyConvolutional
from fcnconv.convert.cuts import cut
from fcnconv.errors import PlanError
from fcnconv.scan.parts import Part, PixelCells, chain
from fcnconv.scores import FloatArray


def cut_plan(network: FullyConvolutional) -> tuple[tuple[Part, ...], list[bytes]]:
    """The network in parts on ONNX Runtime, and their ONNX files.

    Raises PlanError if they cannot be exported, or are not the network.
    """
    models: list[bytes] = []

    def start(part: torch.nn.Module, takes: tuple[int, int]) -> Run:
        models.append(export_part(part, *takes))
        return part_run(models[-1])

    parts = cut(network.network, network.geometry, start, channels_last=False)
    _prove(network, parts)
    return parts, models


def _prove(network: FullyConvolutional, parts: tuple[Part, ...]) -> None:
    """Compares the parts, run block by block, with the network. Raises PlanError over `convert.TOLERANCE`."""
    geometry, steps = network.geometry, (2, 4)
    height, width = (geometry.window + geometry.step * n for n in steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, height, width, generator=generator)

    def pixels(box: tuple[int, int, int, int]) -> FloatArray:
        x0, y0, x1, y1 = box
        region: FloatArray = x[:, :, y0:y1, x0:x1].numpy()
        return region

    with torch.inference_mode():
        expected = network(x)[0].numpy()
    image = PixelCells(pixels, geometry.window, geometry.step)
    try:
        top = chain(image, parts, [(2, 3)] * len(parts), steps)
        found = top.compute(0, expected.shape[1], 0, expected.shape[2])
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise PlanError(f"ONNX Runtime does not run the network's parts: {error}") from error
    if found.shape != expected.shape:
        raise PlanError(f"the parts give logits of shape {found.shape}, the network of {expected.shape}")
    off, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not off <= TOLERANCE * scale:
        raise PlanError(f"the parts are not the network: logits differ by {off:.1e} of {scale:.1e}")
