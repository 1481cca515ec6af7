"""Writes the nodes of a converted head into a traced network. The rules for the operations share this
code.
"""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.extent import Growth, pixel_nodes
from fcnconv.convert.graph import layer_of, node_text, output_shape, spatial
from fcnconv.convert.layout import HeadValue, Pair
from fcnconv.convert.probes import Float64
from fcnconv.errors import WAY_OUT, ConversionError


class Rewriter:
    """The replacements for a head's operations, and the graph that contains them.

    Attributes:
        traced: the network, with shapes propagated at the native size. It is changed in place.
        known: the extents of its nodes.
        pixels: its nodes that depend on the values of the pixels.
        values: the head's nodes -> their values in the converted network.
        changes: one line per operation.
        averages: names of the submodules that slide an average over each window.
        window: (height, width) of the feature maps at the native size, in cells.
    """

    def __init__(self, traced: fx.GraphModule, known: dict[fx.Node, Growth]):
        self.traced, self.known = traced, known
        self.modules = dict(traced.named_modules())
        self.pixels = pixel_nodes(traced.graph)
        self.values: dict[fx.Node, HeadValue | Pair] = {}
        self.changes: list[str] = []
        self.averages: list[str] = []
        self.window = (0, 0)

    def cells(self, node: fx.Node, position: int) -> HeadValue | None:
        """The value of an argument in the converted network; None if it is not an array that depends on the
        image.
        """
        given: Any = node.args[position] if len(node.args) > position else None
        if given is None:
            given = next((node.kwargs[name] for name in ("input", "x", "self") if name in node.kwargs), None)
        value = self.values.get(given) if isinstance(given, fx.Node) else None
        return value if isinstance(value, HeadValue) else None

    def in_order(self, cells: HeadValue) -> HeadValue:
        """The value with the channels of its node in the order of the classifier's axes."""
        own = [atom for atom in cells.atoms if not atom.along]
        places = torch.arange(cells.channels).reshape([atom.size for atom in cells.order])
        axes = [next(i for i, each in enumerate(cells.order) if each is atom) for atom in own]
        index = self.buffer(cells.node, places.permute(axes).reshape(-1))
        return HeadValue(
            self.traced.graph.call_function(torch.index_select, (cells.node, 1, index)),
            cells.dims,
            tuple(own),
        )

    def constant(self, given: Any) -> torch.Tensor | None:
        """A tensor that does not depend on the image, in float64; None for anything else."""
        if not isinstance(given, fx.Node) or given in self.pixels:
            return None
        known: dict[fx.Node, Any] = {}

        def value(node: fx.Node) -> Any:
            if node not in known:
                if not output_shape(node) and node.meta.get("value") is not None:
                    known[node] = node.meta["value"]
                else:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), value)
                    known[node] = getattr(interpreter, node.op)(node.target, args, kwargs)
            return known[node]

        interpreter = fx.Interpreter(self.traced)
        with Float64(), torch.no_grad():
            found = value(given)
        return found.detach() if isinstance(found, torch.Tensor) else None

    def number(self, given: Any) -> Any:
        """A number, or a structure of numbers, with the sizes of the native image filled in."""
        return fx.map_arg(given, lambda node: node.meta.get("value"))

    def arguments(self, node: fx.Node, names: str) -> dict[str, Any]:
        """The arguments of a function by name. A single axis given as several arguments becomes one
        argument.
        """
        listed_names, args = names.split(), list(node.args)
        several = len(args) > 2 and node.op == "call_method" and all(type(each) is int for each in args[1:])
        if several and listed_names[1:2] == ["dim"]:
            args = [args[0], tuple(args[1:])]
        return dict(zip(listed_names, args, strict=False)) | dict(node.kwargs)

    def call(self, node: fx.Node, module: nn.Module, x: fx.Node) -> fx.Node:
        name = f"fcn_{node.name}"
        while hasattr(self.traced, name):
            name += "_"
        self.traced.add_submodule(name, module.eval())
        return self.traced.graph.call_module(name, (x,))

    def call_method(self, name: str, x: fx.Node, *args: Any) -> fx.Node:
        return self.traced.graph.call_method(name, (x, *args))

    def getitem(self, x: fx.Node, index: tuple[Any, ...]) -> fx.Node:
        return self.traced.graph.call_function(getitem, (x, index))

    def buffer(self, node: fx.Node, value: torch.Tensor) -> fx.Node:
        name = f"fcn_constant_{node.name}"
        while hasattr(self.traced, name):
            name += "_"
        self.traced.register_buffer(name, value.contiguous())
        return self.traced.graph.get_attr(name)

    def layer(self, node: fx.Node) -> nn.Module | None:
        return layer_of(node, self.modules)

    def name(self, node: fx.Node) -> str:
        return node_text(node, self.layer(node))

    def refused(self, node: fx.Node) -> ConversionError:
        if spatial(node) and not self.known[node].known:
            return ConversionError(
                f"the network accepts no image larger than its native size: {self.name(node)} fails on one; "
                f"{WAY_OUT}"
            )
        return ConversionError(
            f"{self.name(node)} stands between the feature map and the logits, and has no sliding "
            f"equivalent here; {WAY_OUT}"
        )
