"""Cuts a converted network into stages, at places where the rest needs only one small feature map.

The places come from the graph. Dynamic programming chooses the cuts with the least work: the halo that each
stage computes in vain at a given memory, against writing and reading the map between the stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, prod, sqrt
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.finer_stride import SplitPhases
from fcnconv.convert.graph import Shapes, layer_of, output_of, output_shape
from fcnconv.convert.probes import probe
from fcnconv.convert.receptive import Field, fields
from fcnconv.grid import Geometry
from fcnconv.scan.stages import Forward, Stage

BLOCK_MEMORY = 300e6
"""Bytes that a stage may use for one block when the cuts are chosen."""

WORK_PER_BYTE = 6.0
"""Number of multiply-adds in the time that it takes to write and read one byte."""

WORK_OF_CUT = 24 * WORK_PER_BYTE
"""The same for a byte of a map between stages, which is stored, gathered with the halo, and passed on."""

Start = Callable[[nn.Module, tuple[int, int]], Forward]
"""Prepares a module to run, given the module and its input: channels, and the side of a small map."""


@dataclass(frozen=True)
class _Place:
    """A node where the graph can be cut, because only its output is needed afterwards. margin: as for
    `Stage`.
    """

    node: fx.Node
    index: int
    fields: tuple[Field, Field]
    native: int
    pitch: int
    channels: int
    margin: int


def whole(
    network: fx.GraphModule,
    geometry: Geometry,
    run: Forward,
    *,
    channels_last: bool = True,
    activations: bool = False,
) -> Stage:
    """The whole network as one stage.

    Args:
        network: the converted network.
        geometry: its geometry.
        run: computes it.
        channels_last: as for `Stage`.
        activations: as for `Stage`.
    """
    costs = _Costs(network, geometry)
    places = _places(network, costs, geometry)
    part = _part_between(places[0], places[-1], costs, run)
    return replace(part, channels_last=channels_last, activations=activations)


def cut(
    network: fx.GraphModule,
    geometry: Geometry,
    start: Start,
    *,
    channels_last: bool = True,
    activations: bool = False,
) -> tuple[Stage, ...]:
    """Cuts a network into the stages whose halos cost least in total.

    Args:
        network: the converted network.
        geometry: its geometry.
        start: prepares a stage to run.
        channels_last: as for `Stage`.
        activations: as for `Stage`; true only of the last stage.
    """
    costs = _Costs(network, geometry)
    places = _places(network, costs, geometry)
    chosen = _cheapest(places, costs)
    parts = []
    for first, last in pairwise(chosen):
        part = _part(network, first.node, last.node)
        run = start(part, (first.channels, first.native + first.pitch))
        parts.append(replace(_part_between(first, last, costs, run), channels_last=channels_last))
    parts[-1] = replace(parts[-1], activations=activations)
    return tuple(parts)


class _Costs:
    """The costs of each node of a graph, for each step × step pixels of the image.

    Attributes:
        native, grown: shapes of the outputs at the native size and one step larger.
        size: bytes of the output.
        alive: bytes in use while the node runs.
        alone: whether only its output is in use after it.
        multiply_adds: multiply-adds of convolutions.
        work: multiply-adds, plus the bytes moved in units of multiply-adds.
    """

    def __init__(self, network: fx.GraphModule, geometry: Geometry):
        self.nodes = list(network.graph.nodes)
        self.steps_of_window = geometry.window / geometry.step
        shapes = []
        for size in (geometry.window, geometry.window + geometry.step):
            # This computes real values: importing torch's computation of shapes costs 133 MB and a second.
            with torch.inference_mode():
                Shapes(network).run(probe(network, 1, size, size))
            shapes.append([output_shape(node) for node in self.nodes])
        self.native, self.grown = shapes
        self.size = [self._bytes(i) for i in range(len(self.nodes))]
        modules = dict(network.named_modules())
        self.multiply_adds = [self._multiply_adds(i, modules) for i in range(len(self.nodes))]
        pairs = zip(self.multiply_adds, self.size, strict=True)
        self.work = [multiply_adds + WORK_PER_BYTE * size for multiply_adds, size in pairs]
        self.alive, self.alone = self._lives(modules)

    def pitch(self, i: int) -> tuple[int, int]:
        """Rows and columns by which the output of node i grows with each step."""
        native, grown = self.native[i], self.grown[i]
        return (grown[2] - native[2], grown[3] - native[3]) if len(native) == 4 else (0, 0)

    def _bytes(self, i: int) -> float:
        if len(self.native[i]) != 4:
            return 0.0
        # the axes that grow, at any position: ConvNeXt's linear layers have the channels last
        sides = [(a, b - a) for a, b in zip(self.native[i], self.grown[i], strict=True)]
        return 4.0 * prod(growth or size for size, growth in sides) if self._grows(i) else 0.0

    def _grows(self, i: int) -> bool:
        return sum(a != b for a, b in zip(self.native[i], self.grown[i], strict=True)) == 2

    def _multiply_adds(self, i: int, modules: dict[str, nn.Module]) -> float:
        module: Any = _layer(self.nodes[i], modules)
        if not isinstance(module, nn.Conv2d) or len(self.native[i]) != 4:
            return 0.0
        return self.size[i] / 4 / module.out_channels * module.weight.numel()

    def _lives(self, modules: dict[str, nn.Module]) -> tuple[list[float], list[bool]]:
        last_use = {source: i for i, node in enumerate(self.nodes) for source in node.all_input_nodes}
        living: set[int] = set()
        alive, alone = [], []
        for i, node in enumerate(self.nodes):
            living.add(i)
            # a split computes its dense output before dividing it
            inside = self.size[i] if isinstance(modules.get(str(node.target)), SplitPhases) else 0.0
            alive.append(sum(self.size[j] for j in living) + inside)
            living = {j for j in living if last_use.get(self.nodes[j], -1) > i}
            alone.append(living == {i} and len(self.native[i]) == 4 and self.native[i][0] == 1)
        return alive, alone


def _layer(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    module = layer_of(node, modules)
    return module.layer if isinstance(module, SplitPhases) else module


def _places(network: fx.GraphModule, costs: _Costs, geometry: Geometry) -> list[_Place]:
    down, across = fields(network, 0), fields(network, 1)
    output = output_of(network.graph).all_input_nodes[0]
    places = []
    for i, node in enumerate(costs.nodes):
        native, pitch = costs.native[i], costs.pitch(i)
        pair = down[node], across[node]
        if node is output:  # its graph may have phases in it, which `fields` does not follow
            pair = tuple(_output_field(field, geometry, native[2]) for field in pair)  # type: ignore[assignment]
        elif not (
            costs.alone[i]
            and native[2] == native[3]
            and pitch[0] == pitch[1]
            and pitch[0] * pair[0].stride == pitch[1] * pair[1].stride == geometry.step
        ):
            continue
        margin = native[2] - 1 if node is output else 0
        places.append(_Place(node, i, pair, native[2], pitch[0], native[1], margin))
        if node is output:
            break
    return places


def _output_field(field: Field, geometry: Geometry, native: int) -> Field:
    """The field of the output.

    Args:
        field: the field of the node.
        geometry: the geometry of the network.
        native: cells of the output along an axis for one window: 1 for logits, more for class activations.
    """
    reach, beside = geometry.halo, (native - 1) * geometry.stride
    return replace(field, first=-reach, last=geometry.window - 1 - beside + reach, stride=geometry.stride)


def _part_between(
    first: _Place,
    last: _Place,
    costs: _Costs,
    run: Forward,
) -> Stage:
    before, after = _margins(first, last)
    inside = range(first.index + 1, last.index + 1)
    return Stage(
        run,
        last.channels,
        last.native,
        last.pitch,
        before,
        after,
        halo=_halo(first, last, costs),
        span=costs.steps_of_window - 1,
        memory=max(costs.alive[i] for i in inside),
        multiply_adds=sum(costs.multiply_adds[i] for i in inside),
    )


def _margins(first: _Place, last: _Place) -> tuple[int, int]:
    before = after = 0
    for start, end in zip(first.fields, last.fields, strict=True):
        # The fields of two places differ by the operations between them: all paths pass through both places.
        stride = end.stride // start.stride
        lowest = (end.first - start.first) // start.stride
        highest = -(-(end.last - start.last) // start.stride)
        before = max(before, -(lowest // stride))
        after = max(after, last.native - 1 - (first.native - 1 - highest) // stride)
    return before, after


def _halo(first: _Place, last: _Place, costs: _Costs) -> float:
    before, after = _margins(first, last)
    return max((before + after + last.margin - last.native) / last.pitch + costs.steps_of_window, 0.0)


def _cheapest(places: list[_Place], costs: _Costs) -> list[_Place]:
    best: list[tuple[float, int]] = [(0.0, 0)]
    for j in range(1, len(places)):
        memory = work = 0.0
        cheapest = (inf, 0)
        for i in range(j - 1, -1, -1):
            inside = slice(places[i].index + 1, places[i + 1].index + 1)
            memory = max(memory, *costs.alive[inside])
            work += sum(costs.work[inside])
            side, halo = sqrt(BLOCK_MEMORY / memory), _halo(places[i], places[j], costs)
            if side > halo:
                cheapest = min(cheapest, (best[i][0] + work * (side / (side - halo)) ** 2, i))
        best.append((cheapest[0] + WORK_OF_CUT * costs.size[places[j].index], cheapest[1]))
    chosen = [len(places) - 1]
    while chosen[-1]:
        chosen.append(best[chosen[-1]][1])
    return [places[i] for i in reversed(chosen)]


def _part(network: fx.GraphModule, first: fx.Node, last: fx.Node) -> fx.GraphModule:
    """The graph after `first` up to `last`, as a separate network with the same weights."""
    graph, made = fx.Graph(), {}
    made[first] = graph.placeholder("x")
    inside = False
    for node in network.graph.nodes:
        if inside:
            made[node] = graph.node_copy(node, lambda source: made[source])
        inside = (inside or node is first) and node is not last
    graph.output(made[last])
    part = fx.GraphModule(network, graph)
    part.delete_all_unused_submodules()
    return part
