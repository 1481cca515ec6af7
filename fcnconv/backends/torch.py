"""Running a network with torch."""

from __future__ import annotations

import torch
from torch import nn

from fcnconv.backends import Run
from fcnconv.scores import FloatArray


def torch_run(network: nn.Module) -> Run:
    """A backend that runs a fully convolutional network on the CPU, channels last."""
    network = network.eval().to(memory_format=torch.channels_last)

    def run(x: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = network(torch.from_numpy(x).to(memory_format=torch.channels_last)).numpy()
        return logits

    return run
