"""Traces an ONNX graph: keeps its values, and builds the torch network node by node.

`layers`, `arithmetic` and `shapes` contain the functions that read single operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from fcnconv.errors import ModelError, first_line
from fcnconv.models.onnx_file import Array, Graph, attribute, nodes_of


class UnreadableError(ModelError):
    """A graph with an operation that fcnconv does not support."""


@dataclass(frozen=True)
class Traced:
    """A value that depends on pixels.

    Attributes:
        node: its node in the network.
        example: its value for the images of zeros.
        before: if the value is the same as another in another shape, that value.
    """

    node: fx.Node
    example: torch.Tensor
    before: Traced | None = None


@dataclass(frozen=True)
class Flat:
    """All values of a single image in a row, as torch's exporter writes them before it reshapes them."""

    whole: Traced


Value = Traced | Array

QUANTISING = (
    *("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"),
    "MatMulInteger",
)
"""Operations that compute with rounded numbers."""

Given = list[Any]
"""The inputs of a node: `Traced`, `Flat`, a constant as an array, or None for an omitted input."""

Read = Callable[["Tracer", onnx.NodeProto, Given], Any]
"""(tracer, node, its inputs) -> its output, or a list of its outputs."""


class Tracer:
    """Builds the network of a graph, node by node.

    Attributes:
        operations: the function that reads each ONNX operation, by name.
        source: the file, for messages.
    """

    def __init__(self, graph: Graph, window: int, source: str, operations: Mapping[str, Read]):
        self.graph, self.source, self.operations = graph, source, operations
        self.model = graph.model
        self.root, self.traced = nn.Module(), fx.Graph()
        self.values: dict[str, Value] = {}
        self.opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)
        batch = graph.batch or 2
        pixels = self.traced.placeholder("pixels")
        image: Value = Traced(pixels, torch.zeros(batch, graph.channels, window, window))
        if graph.order:
            image = self.call(torch.index_select, image, 1, np.array(graph.order))
        if graph.channels_last:
            image = self.call(torch.permute, image, (0, 2, 3, 1))
        self.values[graph.input] = image
        for tensor in self.model.graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)

    def network(self) -> fx.GraphModule:
        """The whole graph, up to its logits."""
        for node in nodes_of(self.graph):
            self.read(node)
        result = self.values.get(self.graph.output)
        if not isinstance(result, Traced) or result.example.ndim != 2:
            raise UnreadableError(f"{self.source}: its output is not one vector of scores per image")
        self.traced.output(result.node)
        network = fx.GraphModule(self.root, self.traced, "OnnxNetwork")
        network.graph.eliminate_dead_code()
        network.recompile()
        return network.requires_grad_(False).eval()

    def read(self, node: onnx.NodeProto) -> None:
        """Computes a node."""
        given: list[Value | None] = [self.values.get(name) if name else None for name in node.input]
        if node.op_type == "Shape" and isinstance(given[0], Traced):
            shape = np.array(given[0].example.shape, np.int64)
            self.values[node.output[0]] = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
            return
        if any(isinstance(value, Flat) for value in given) and node.op_type not in ("Gather", "Reshape"):
            raise self.unreadable(node, "it mixes images")
        if not any(isinstance(value, (Traced, Flat)) for value in given):
            self.constant(node, given)
            return
        if node.op_type in QUANTISING:
            raise UnreadableError(
                f"{self.source}: the graph is quantised ({node.op_type}), and computes with rounded numbers "
                "that no conversion can be proved on"
            )
        made = self.operations.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if made is None:
            raise self.unreadable(node, "fcnconv does not support it")
        try:
            results = made(self, node, given)
        except UnreadableError:
            raise
        except Exception as error:  # torch's error for the arguments in the graph
            raise self.unreadable(node, first_line(error)) from error
        for name, value in zip(
            node.output, results if isinstance(results, list) else [results], strict=False
        ):
            self.values[name] = value

    def constant(self, node: onnx.NodeProto, given: list[Value | None]) -> None:
        """Computes a node of constants."""
        if node.op_type == "DequantizeLinear":  # the reference implementation requires opset 19
            self.values[node.output[0]] = _dequantised(node, *given)
            return
        from onnx.reference import ReferenceEvaluator

        feeds = {name: value for name, value in zip(node.input, given, strict=True) if name}
        used = {name for each in self.model.graph.node for name in each.input} | {self.graph.output}
        names = [name for name in node.output if name in used]
        try:
            inputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in feeds]
            outputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in names]
            alone = onnx.helper.make_graph([node], "constant", inputs, outputs)
            model = onnx.helper.make_model(alone, opset_imports=self.model.opset_import)
            results = ReferenceEvaluator(model).run(names, feeds)
        except Exception as error:  # the reference implementation's error for unknown operations
            raise self.unreadable(node, first_line(error)) from error
        self.values.update({name: np.asarray(value) for name, value in zip(names, results, strict=True)})

    def unreadable(self, node: onnx.NodeProto, why: str) -> UnreadableError:
        """The error for a node."""
        name = f"{node.op_type} {node.name!r}" if node.name else node.op_type
        return UnreadableError(f"{self.source}: the operation {name} cannot be read ({why})")

    # Building blocks of operations

    def buffer(self, value: Array) -> Traced:
        """A constant as a value of the network."""
        tensor = torch.from_numpy(np.array(value))
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        name = f"constant_{len(list(self.root.buffers()))}"
        self.root.register_buffer(name, tensor)
        return Traced(self.traced.get_attr(name), tensor)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
        """Calls a torch function on values. Numbers and shapes are passed on unchanged."""
        args = tuple(self.buffer(arg) if isinstance(arg, np.ndarray) else arg for arg in args)
        node = self.traced.call_function(
            function, tuple(map(_node, args)), {k: _node(v) for k, v in kwargs.items()}
        )
        return Traced(node, function(*map(_example, args), **{k: _example(v) for k, v in kwargs.items()}))

    def layer(self, module: nn.Module, value: Traced) -> Traced:
        """Applies a layer to a value."""
        name = f"{type(module).__name__.lower()}_{len(list(self.root.children()))}"
        self.root.add_module(name, module.eval().requires_grad_(False))
        return Traced(self.traced.call_module(name, (value.node,)), module(value.example))

    def size(self, value: Traced, axis: int) -> fx.Node:
        """The length of an axis, for any image size."""
        return self.traced.call_method("size", (value.node, axis))


def _dequantised(node: onnx.NodeProto, x: Any, scale: Any, zero: Any = None) -> Array:
    """Converts weights in whole numbers to the values that they represent: (x - zero) * scale, for each index
    of an axis.
    """
    axis = attribute(node, "axis", 1) % max(x.ndim, 1)
    sides = [-1 if n == axis else 1 for n in range(x.ndim)]
    scale, zero = (
        value if value is None or value.ndim == 0 else value.reshape(sides) for value in (scale, zero)
    )
    values: Array = (x.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))) * scale
    return values


def _node(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_node, value))
    return value.node if isinstance(value, Traced) else value


def _example(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_example, value))
    return value.example if isinstance(value, Traced) else value


def ints(value: Any) -> list[int]:
    """The whole numbers in a constant."""
    return [int(each) for each in np.asarray(value).reshape(-1)]


def tensor_of(value: Array) -> torch.Tensor:
    """A constant in float32."""
    return torch.from_numpy(np.array(value)).float()


def same(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    """Reads an operation that does not change its input."""
    return given[0]  # type: ignore[no-any-return]


def module(kind: Callable[[], nn.Module]) -> Read:
    """Returns the function that reads an operation with an equivalent layer without weights."""
    return lambda r, node, given: r.layer(kind(), given[0])
