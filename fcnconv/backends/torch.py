"""Running a network with torch, on the CPU, channels last."""

from __future__ import annotations

import torch
from torch import nn

from fcnconv.backends import Mode, Network, Run
from fcnconv.convert import convolutionize
from fcnconv.models import ModelSpec
from fcnconv.scan import Geometry
from fcnconv.scores import FloatArray

WINDOW_BATCH = 32
"""Crops in one pass of `windows` mode: enough to fill two cores, at 20 MB of input."""


def open_torch(spec: ModelSpec, mode: Mode) -> Network:
    """The model on torch: built from its weights and, in `fcn` mode, converted and proved."""
    weights = spec.weights()
    model = spec.build(weights)
    if mode == "windows":
        geometry = Geometry(spec.window, spec.stride, spec.window, halo=0, local=True)
        return Network(windows_run(model, spec.window, spec.stride), geometry, spec.sha256(weights))
    network = convolutionize(model, spec.window)
    return Network(fcn_run(network), network.geometry, spec.sha256(weights))


def fcn_run(network: nn.Module) -> Run:
    """A backend that runs a fully convolutional network on a whole region."""
    network = network.eval().to(memory_format=torch.channels_last)

    def run(x: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = network(torch.from_numpy(x).to(memory_format=torch.channels_last)).numpy()
        return logits

    return run


def windows_run(model: nn.Module, window: int, stride: int, batch: int = WINDOW_BATCH) -> Run:
    """A backend that runs a classifier on every window of a region, `batch` crops at a time.

    The crops are views of the region until their batch is gathered, so that memory follows the batch.
    """
    model = model.eval()

    def run(x: FloatArray) -> FloatArray:
        # (N, 3, H, W) -> (N, 3, rows, cols, window, window), without a copy
        views = torch.from_numpy(x).unfold(2, window, stride).unfold(3, window, stride)
        count, _, rows, cols = views.shape[:4]
        cells = [(n, r, c) for n in range(count) for r in range(rows) for c in range(cols)]
        logits = []
        with torch.inference_mode():
            for start in range(0, len(cells), batch):
                crops = [views[n, :, r, c] for n, r, c in cells[start : start + batch]]
                logits.append(model(torch.stack(crops)))
        # (N · rows · cols, K) -> (N, K, rows, cols)
        result: FloatArray = torch.cat(logits).reshape(count, rows, cols, -1).permute(0, 3, 1, 2).numpy()
        return result

    return run
