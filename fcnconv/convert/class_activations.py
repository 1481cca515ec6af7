"""Class activations: the head of a converted network applied to each feature cell alone.

Where a classifier averages its feature map and applies a linear layer, the two can change places. A window's
logit of class k is then the mean, over the window's K × K feature cells, of ``w_k · f + b_k``, the activation
of this class (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016). Activations show
which part of a window raises the logit of a class, and cost one matrix product more than the logits.

This module removes every sliding average from the head, so that the layers after it run on single cells. If
layers between the average and the logits are not linear (normalisation, a hidden layer with an activation
function), the mean of the activations differs from the logit. The difference is measured and recorded.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import fx, nn

from fcnconv.convert.graph import output_of
from fcnconv.convert.probes import Float64, channels_of, know_channels, probe
from fcnconv.convert.proof import TOLERANCE, difference
from fcnconv.errors import first_line
from fcnconv.grid import Geometry
from fcnconv.provenance import EXACT, CellHead


class JoinActivations(nn.Module):
    """Activations and logits as one map: (N, C, h, w) and (N, C, rows, cols) -> (N, 2 · C, h, w).

    The logits are in the first rows and columns of the second C channels, followed by zeros. So a single
    tensor passes through every backend, tiling and finer stride, in the same way as logits alone.

    Attributes:
        margin: h - rows, which is the same for every image.
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
    """Builds the network that returns class activations and logits, and finds out how the two are related.

    Args:
        network: converted, float (N, 3, H, W) -> logits (N, num_classes, rows, cols). It stays unchanged.
        averages: names of the submodules that slide an average over K × K cells.
        geometry: geometry of the network at its own stride.

    Returns:
        The network, which shares the layers of `network` and returns the map of `JoinActivations` with h =
        rows + K - 1; and its `CellHead`. If a cell has no activations, None and a `CellHead` with the reason.
    """
    kernels = {_kernel(network.get_submodule(name)) for name in averages}
    if not kernels:
        return None, CellHead(0, reason="its head is not an average over feature cells")
    if len(kernels) > 1 or len(set(*kernels)) > 1:
        return None, CellHead(0, reason="its head averages over areas of several sizes")
    cells = kernels.pop()[0]
    joint = fx.GraphModule(network, network.graph)
    know_channels(joint, channels_of(network, geometry.window, geometry.window))
    joint.add_submodule("join_activations", JoinActivations(cells - 1))
    joint.graph = _with_branch(network.graph, averages)
    side = geometry.window + 2 * geometry.stride
    x = probe(network, 1, side, side - geometry.stride)
    try:
        with Float64(), torch.no_grad():
            together = joint(x)
    except Exception as error:  # layers that accept only one cell can raise any kind of error
        return None, CellHead(0, reason=f"its head does not run on single cells ({first_line(error)})")
    activations, logits = together.chunk(2, dim=1)
    mean = F.avg_pool2d(activations, cells, stride=1)
    logits = logits[:, :, : mean.shape[2], : mean.shape[3]]
    off = difference(logits, mean)
    if off <= EXACT:
        with torch.no_grad():
            rounded = F.avg_pool2d(joint(x).chunk(2, dim=1)[0], cells, stride=1)
        if difference(logits, rounded) <= TOLERANCE:  # large activations may cancel out in their mean
            _average(joint, cells)
    return joint, CellHead(cells, off)


def _average(joint: fx.GraphModule, cells: int) -> None:
    """Computes the logits as the mean of the activations, in place of the head on each window.

    The head is a sixth of the work of EfficientNet-Lite0, and would otherwise be computed twice.
    """
    join = next(node for node in joint.graph.nodes if node.target == "join_activations")
    activations, logits = join.args
    joint.add_submodule("mean_of_activations", nn.AvgPool2d(cells, stride=1))
    with joint.graph.inserting_before(join):
        join.replace_input_with(logits, joint.graph.call_module("mean_of_activations", (activations,)))
    joint.graph.eliminate_dead_code()
    joint.delete_all_unused_submodules()
    joint.recompile()


def _kernel(average: nn.Module) -> tuple[int, int]:
    size = average.kernel_size
    height, width = size if isinstance(size, tuple) else (size, size)
    return int(height), int(width)  # type: ignore[arg-type]


def _with_branch(plain: fx.Graph, averages: tuple[str, ...]) -> fx.Graph:
    """Copies every node after an average, without the average, and returns the graph with both branches."""
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
