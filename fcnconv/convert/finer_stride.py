"""Finer strides: rebuilds a network with cells 32 px apart so that they are 16, 8, 4 or 2 px apart.

A layer of stride 2 discards three of four outputs. The rebuilt network keeps all outputs of the last such
layers, and splits them into 2 × 2 phases, one for each choice of every second row and column. The phases run
through the rest of the network side by side in the batch, as if each were a separate image, and are
interleaved at the end. Phase (0, 0) is the original computation, so the finer map contains the coarse map.
All layers before the split are shared (Giusti et al., "Fast image scanning with deep max-pooling networks",
2013; Sermanet et al., "OverFeat", 2014).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from fcnconv.convert.graph import (
    Shapes,
    device_of,
    function_name,
    layer_of,
    node_text,
    output_of,
    output_shape,
)
from fcnconv.convert.probes import Float64, channels_of, know_channels, probe
from fcnconv.convert.proof import compare
from fcnconv.convert.receptive import Field, fields
from fcnconv.errors import ConversionError
from fcnconv.grid import Geometry
from fcnconv.models.spec import count_phases
from fcnconv.provenance import EXACT

Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def finer(network: fx.GraphModule, geometry: Geometry, stride: int) -> tuple[fx.GraphModule, Geometry]:
    """Rebuilds a network with its cells `stride` pixels apart, and checks it against the original.

    Args:
        network: converted, float (N, 3, window + step · n, …) -> logits (N, num_classes, n + 1, …). It stays
            unchanged.
        geometry: geometry of the network.
        stride: the network's own stride divided by a power of two.

    Returns:
        The network, which shares the weights of `network` and returns ``phases · n + 1`` rows; and its
        geometry.

    Raises:
        UsageError: the network does not support the stride.
        ConversionError: the graph does not allow a finer stride. The message names the layer.
    """
    phases = count_phases(stride, geometry.step)
    # Not a deep copy: the layers stay shared, and layers that change are replaced, never altered.
    fine = fx.GraphModule(network, copy.deepcopy(network.graph))
    know_channels(fine, channels_of(network, geometry.window, geometry.window))
    with torch.no_grad():
        own = geometry.step
        while own > stride:
            _halve(fine, geometry.window, own)
            own //= 2
        fine.graph.lint()
        fine.recompile()
        fine_geometry = replace(geometry, stride=stride, phases=phases)
        _prove(network, fine, fine_geometry)
    return fine, fine_geometry


def _halve(network: fx.GraphModule, window: int, stride: int) -> None:
    """Splits the output of the layers that lead to `stride`, and joins the output of the network."""
    device = device_of(network)
    Shapes(network).run(probe(network, 1, window, window))
    fields_down, modules = fields(network, 0), dict(network.named_modules())
    layers = [node for node in network.graph.nodes if _leads_to(node, stride, fields_down)]
    if not layers:
        raise ConversionError(f"no layer of this network leads from stride {stride // 2} to {stride}")
    for node in layers:
        _split(network, node, _strided_layer(node, modules), stride, device)
    output = output_of(network.graph)
    (logits,) = output.all_input_nodes
    network.add_submodule(f"join_{stride}", JoinPhases())
    with network.graph.inserting_before(output):
        joined = network.graph.call_module(f"join_{stride}", (logits,))
    output.replace_input_with(logits, joined)
    network.recompile()


def _leads_to(node: fx.Node, stride: int, known: dict[fx.Node, Field]) -> bool:
    """Whether the cells of a node are at least `stride` apart, while the cells of an input are nearer."""
    sources = [known[source].stride for source in node.all_input_nodes if len(output_shape(source)) == 4]
    return bool(sources) and known[node].stride >= stride > min(sources) and not _joins(node)


def _joins(node: fx.Node) -> bool:
    return str(node.target).startswith(("join_", "split_"))


def _split(network: fx.GraphModule, node: fx.Node, layer: Strided, stride: int, device: torch.device) -> None:
    wide = _at_half_stride(layer, node)
    source = node.all_input_nodes[0]
    coarse = output_shape(node)[2:]
    dense = wide(torch.zeros(output_shape(source), device=device)).shape[2:]
    lacking = [2 * c - d for c, d in zip(coarse, dense, strict=True)]
    # A whole number of 2 × 2 phases needs 2 · c rows. One missing row belongs to a window that overhangs, and
    # is dropped at the end. Two rows are missing if the last window of a pooling in ceil mode overhangs.
    overhang = [max(rows - 1, 0) for rows in lacking]
    if max(overhang) > 1 or min(lacking) < 0 or (max(overhang) and not isinstance(layer, nn.MaxPool2d)):
        raise ConversionError(
            f"a finer stride needs every second row of {node_text(node, layer)}, and {tuple(dense)} rows do "
            f"not halve to {tuple(coarse)}; stride {stride} is the finest for this network"
        )
    network.add_submodule(f"split_{node.name}", SplitPhases(wide, overhang, lacking))
    with network.graph.inserting_after(node):
        new = network.graph.call_module(f"split_{node.name}", (source,))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    network.graph.erase_node(node)


def _strided_layer(node: fx.Node, modules: dict[str, nn.Module]) -> Strided:
    layer = layer_of(node, modules)
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return layer
    pools: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {
        "max_pool2d": nn.MaxPool2d,
        "avg_pool2d": nn.AvgPool2d,
    }
    kind = pools.get(function_name(node))
    if kind is None:
        raise ConversionError(
            f"{node_text(node, layer)} makes the stride coarser, and is not a convolution or pooling; "
            "leave out --stride"
        )
    arguments = list(node.args[1:])
    options = {name: value for name, value in node.kwargs.items() if name not in ("input", "return_indices")}
    return kind(*arguments, **options)  # type: ignore[arg-type]


def _at_half_stride(layer: Strided, node: fx.Node) -> Strided:
    down, across = _pair(layer.stride)
    if down % 2 or across % 2:
        raise ConversionError(
            f"{node_text(node, layer)} has stride {down} × {across}, which cannot be halved"
        )
    wide = copy.copy(layer)  # shares the weights
    wide.stride = (down // 2, across // 2)
    if not isinstance(wide, nn.Conv2d):
        wide.ceil_mode = False
    return wide


class SplitPhases(nn.Module):
    """A layer at half its stride, with its outputs split: (N, C, H, W) -> (4 · N, C', h, w), phase by phase.

    Attributes:
        layer: the layer at half its stride.
        overhang: rows and columns missing at the end of its input.
        lacking: rows and columns that its output needs for a whole number of phases, including the overhang.
    """

    def __init__(self, layer: Strided, overhang: list[int], lacking: list[int]):
        super().__init__()
        self.layer = layer
        self.before = [0, overhang[1], 0, overhang[0]]
        self.after = [0, lacking[1] - overhang[1], 0, lacking[0] - overhang[0]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if any(self.before):
            x = F.pad(x, self.before, value=float("-inf"))
        dense = self.layer(x)
        if any(self.after):
            dense = F.pad(dense, self.after)
        # (N, C', 2h, 2w) -> four of (N, C', h, w)
        return torch.cat([dense[:, :, row::2, col::2] for row in (0, 1) for col in (0, 1)])


class JoinPhases(nn.Module):
    """Interleaves four phases: (4 · N, K, rows, cols) -> (N, K, 2 · rows - 1, 2 · cols - 1).

    The last row and column belong to windows that overhang the image, and are dropped.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, channels, rows, cols = x.shape
        x = x.reshape(2, 2, -1, channels, rows, cols).permute(2, 3, 4, 0, 5, 1)
        return x.reshape(-1, channels, 2 * rows, 2 * cols)[:, :, :-1, :-1]


def _prove(network: fx.GraphModule, fine: fx.GraphModule, geometry: Geometry) -> None:
    """Compares phase (0, 0) with the coarse map in float64. In float32, kernels differ with the batch
    size.
    """
    height, width = geometry.window, geometry.window + geometry.step
    x = probe(network, 1, height, width)
    with Float64():
        coarse, dense = network(x), fine(x)
    expected = tuple((side - 1) * geometry.phases + 1 for side in coarse.shape[2:])
    if tuple(dense.shape[2:]) != expected:
        raise ConversionError(
            f"at stride {geometry.stride}, {width} × {height} px give {tuple(dense.shape[2:])} cells, "
            f"not {expected}"
        )
    doubt = f"the map at stride {geometry.stride} does not contain the map at stride {geometry.step}"
    own = dense[:, :, :: geometry.phases, :: geometry.phases]
    compare(doubt, coarse, own, EXACT, ConversionError)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)
