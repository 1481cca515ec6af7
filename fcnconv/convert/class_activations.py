"""The head of a converted network applied to each feature cell alone: class activations beside the logits.

Where a classifier averages its feature map and applies a linear layer, the two can change places: a window's
logit of class k is the mean, over the window's K × K feature cells, of ``w_k · f + b_k``, that class's
activation (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016). Activations show
where inside a window the evidence for a class lies, and cost one matrix product more than the logits.

Every sliding average of the head is left out here, so that what follows it runs on single cells. If layers
between the average and the logits are not linear (normalisation, a hidden layer with an activation function),
the mean of the activations is not the logit; how far it is off is measured, and recorded.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import fx, nn

from fcnconv.convert.float64 import Float64
from fcnconv.convert.graph import output_of
from fcnconv.convert.probes import channels_of, know_channels, probe
from fcnconv.convert.proof import difference
from fcnconv.errors import first_line
from fcnconv.grid import Geometry
from fcnconv.provenance import CellHead


class JoinActivations(nn.Module):
    """Activations and logits as one map: (N, C, h, w) and (N, C, rows, cols) -> (N, 2 · C, h, w).

    margin: h - rows, the same for every image. The logits stand in the first rows and columns of the second
    C channels; beyond them are zeros. One tensor passes through every backend, tiling and finer stride in the
    way that logits alone do.
    """

    def __init__(self, margin: int):
        super().__init__()
        self.margin = margin

    def forward(self, activations: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        padded = F.pad(logits, (0, self.margin, 0, self.margin))
        return torch.cat([activations, padded], dim=1)


def with_activations(
    network: fx.GraphModule, averages: tuple[str, ...], geometry: Geometry
) -> tuple[fx.GraphModule | None, CellHead]:
    """The network that gives class activations and logits, and how the two are related.

    network: converted, float (N, 3, H, W) -> logits (N, num_classes, rows, cols). It is left as it was; the
        result shares its layers and gives the map of `JoinActivations`, h = rows + K - 1.
    averages: names of the submodules that slide an average over K × K cells. geometry: of the network, at its
        own stride.

    Returns None beside a `CellHead` that says why, where a cell has no activations of its own.
    """
    kernels = {_kernel(network.get_submodule(name)) for name in averages}
    if not kernels:
        return None, CellHead(0, reason="its head is no average over feature cells")
    if len(kernels) > 1 or len(set(*kernels)) > 1:
        return None, CellHead(0, reason="its head averages over areas of several sizes")
    cells = kernels.pop()[0]
    joint = fx.GraphModule(network, network.graph)
    know_channels(joint, channels_of(network, geometry.window, geometry.window))
    joint.add_submodule("join_activations", JoinActivations(cells - 1))
    joint.graph = _with_branch(network.graph, averages)
    side = geometry.window + 2 * geometry.stride
    try:
        with Float64(), torch.no_grad():
            together = joint(probe(network, 1, side, side - geometry.stride))
    except Exception as error:  # layers that take one cell only fail in their own way
        return None, CellHead(0, reason=f"its head does not run on single cells ({first_line(error)})")
    activations, logits = together.chunk(2, dim=1)
    mean = F.avg_pool2d(activations, cells, stride=1)
    logits = logits[:, :, : mean.shape[2], : mean.shape[3]]
    return joint, CellHead(cells, difference(logits, mean))


def _kernel(average: nn.Module) -> tuple[int, int]:
    size = average.kernel_size
    height, width = size if isinstance(size, tuple) else (size, size)
    return int(height), int(width)  # type: ignore[arg-type]


def _with_branch(plain: fx.Graph, averages: tuple[str, ...]) -> fx.Graph:
    """The graph, with every node below an average copied once more, without the average."""
    graph = copy.deepcopy(plain)
    output = output_of(graph)
    (logits,) = output.all_input_nodes
    single: dict[fx.Node, fx.Node] = {}
    with graph.inserting_before(output):
        for node in list(graph.nodes):
            if node.op == "call_module" and node.target in averages:
                (source,) = node.all_input_nodes
                single[node] = single.get(source, source)
            elif node is not output and any(source in single for source in node.all_input_nodes):
                single[node] = graph.node_copy(node, lambda source: single.get(source, source))
        output.args = (graph.call_module("join_activations", (single.get(logits, logits), logits)),)
    return graph
