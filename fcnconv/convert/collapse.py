"""Converts the head of a classifier, from the collapse of rows and columns to the logits, into sliding
layers.

The head consists of every value that leads to the logits and is no longer a feature map. Each operation of
the head is replaced by one that does to every window what the original does to the native image: pooling
becomes pooling at stride 1, a linear layer becomes a convolution, and operations that only move axes
disappear (see `layout`). There may be any number of poolings, of one map or of several maps of the same size
and stride. An operation that cannot be replaced raises an error with its name.

A collapse whose result returns to a feature map, as in squeeze-and-excitation, does not belong to the head
and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx, nn

from fcnconv.convert import pools, vectors
from fcnconv.convert.extent import Growth
from fcnconv.convert.graph import function_name, output_of, output_shape
from fcnconv.convert.layout import HeadValue, Pair, feature_cells, with_node
from fcnconv.convert.rewrite import Rewriter
from fcnconv.errors import WAY_OUT, ConversionError

Rule = Callable[[Rewriter, fx.Node, "nn.Module | None"], "HeadValue | Pair | None"]
"""(writer, node, its layer) -> the node's value in the converted network; None if the rule does not apply."""

RULES: tuple[Rule, ...] = (
    vectors.linear,
    pools.pooling,
    vectors.normalisation,
    vectors.softmax,
    vectors.axes,
    vectors.joined,
    vectors.selected,
    vectors.elementwise,
)
"""One rule per family of operations, tried in this order."""


@dataclass(frozen=True)
class Features:
    """The feature maps that a head collapses.

    Attributes:
        nodes: the maps in the traced network.
        window: (height, width) of the map at the native size, in cells.
    """

    nodes: tuple[fx.Node, ...]
    window: tuple[int, int]


class Head:
    """The head of a traced classifier, and its conversion.

    Attributes:
        traced, known: as for a `Rewriter`.
    """

    def __init__(self, traced: fx.GraphModule, known: dict[fx.Node, Growth]):
        self.writer = Rewriter(traced, known)
        self.output = output_of(traced.graph)
        self.body: set[fx.Node] = set()
        """The nodes that lead to a feature map."""
        self.nodes = self._nodes()
        self.features = self._features()
        self.writer.window = self.features.window

    def _nodes(self) -> list[fx.Node]:
        """The nodes of the head: those that lead to the output but not to a feature map."""
        body: set[fx.Node] = set()
        needed: set[fx.Node] = {self.output}
        for node in reversed(self.writer.traced.graph.nodes):
            is_map = node in self.writer.pixels and self.writer.known.get(node, Growth()).is_map
            if is_map or any(user in body for user in node.users):
                body.add(node)
            if any(user in needed for user in node.users):
                needed.add(node)
        if any(source in body for source in self.output.all_input_nodes):
            raise ConversionError(
                f"no pooling or flattening ends the spatial axes of this network; {WAY_OUT}"
            )
        self.body = body
        return [n for n in self.writer.traced.graph.nodes if n in needed - body and n is not self.output]

    def _features(self) -> Features:
        inside = set(self.nodes)
        maps = [
            source
            for node in self.writer.traced.graph.nodes
            if node in inside
            for source in node.all_input_nodes
            if source in self.body and source in self.writer.pixels and output_shape(source)
        ]
        maps = list(dict.fromkeys(maps))
        for node in maps:
            if not self.writer.known[node].is_map:
                raise ConversionError(
                    f"{self.writer.name(node)} looks at the whole image, and its result goes both to a "
                    "feature map "
                    f"and to the logits; {WAY_OUT}"
                )
        if not maps:
            raise ConversionError(
                f"no pooling or flattening ends the spatial axes of this network; {WAY_OUT}"
            )
        sizes = {node: self._size(node) for node in maps}
        first = maps[0]
        for node in maps[1:]:
            if sizes[node] != sizes[first]:
                one, other = (" × ".join(map(str, sizes[each])) for each in (first, node))
                raise ConversionError(
                    f"the head collapses maps of different sizes, {self.writer.name(first)} of {one} and "
                    f"{self.writer.name(node)} of {other} cells, whose windows do not lie at the same "
                    f"places; {WAY_OUT}"
                )
        return Features(tuple(maps), sizes[first])

    def _size(self, node: fx.Node) -> tuple[int, int]:
        extent, shape = self.writer.known[node], output_shape(node)
        return shape[extent.rows[0]], shape[extent.cols[0]]

    def convert(self) -> None:
        """Rewrites the graph: sliding operations replace the nodes of the head."""
        # pooled values come before the output, in the order of the classifier's computation
        with self.writer.traced.graph.inserting_before(self.output):
            for node in self.features.nodes:
                extent = self.writer.known[node]
                cells, order = feature_cells(node, output_shape(node), extent.rows[0], extent.cols[0])
                self.writer.values[node] = self._channels_first(cells, node, order)
            for node in self.nodes:
                if node in self.writer.pixels and (output_shape(node) or self._is_pair(node)):
                    self.writer.values[node] = self._converted(node)
            (source,) = self.output.all_input_nodes
            logits = self.writer.values[source]
            assert isinstance(logits, HeadValue)
            if logits.sliding:
                raise self.writer.refused(source)
            new = logits.node if logits.natural else self.writer.in_order(logits).node
        self.output.replace_input_with(source, new)
        for node in reversed(self.nodes):
            if not node.users:
                self.writer.traced.graph.erase_node(node)

    def _is_pair(self, node: fx.Node) -> bool:
        return any(function_name(user) == "getitem" and output_shape(user) for user in node.users)

    def _channels_first(self, cells: HeadValue, node: fx.Node, order: tuple[int, ...]) -> HeadValue:
        if order != tuple(range(len(order))):
            node = self.writer.call_method("permute", node, *order)
        if len(order) > 4:
            node = self.writer.call_method("flatten", node, 1, -3)
        return with_node(cells, node)

    def _converted(self, node: fx.Node) -> HeadValue | Pair:
        layer = self.writer.layer(node)
        for rule in RULES:
            converted = rule(self.writer, node, layer)
            if converted is not None:
                return converted
        raise self.writer.refused(node)
