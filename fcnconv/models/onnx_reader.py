"""ONNX graphs as networks of torch: a reader of the operations that classifiers of images are made of.

The graph is computed once, on images of zeros at the native size. What depends on no pixel is computed by
ONNX's own reference implementation, and becomes a constant. Everything else becomes the operation that a
network built in torch would have there, so that an ONNX file and its source are converted alike. Axis 0 is
the number of the image throughout.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import fx, nn

from fcnconv.errors import ModelError, first_line
from fcnconv.models.onnx_file import Array, Graph, attribute, nodes_of


class UnreadableError(ModelError):
    """A graph with an operation that has no counterpart here."""


@dataclass(frozen=True)
class _Traced:
    """A value that depends on pixels. node: in the network. example: what it is for the images of zeros."""

    node: fx.Node
    example: torch.Tensor


@dataclass(frozen=True)
class _Flat:
    """All values of a single image in a row, as torch's exporter writes them before it shapes them anew."""

    whole: _Traced


Value = _Traced | Array


def as_torch(graph: Graph, window: int, source: str) -> fx.GraphModule:
    """The network of a graph: float (N, channels, window, window) -> logits (N, num_classes).

    The layout is channels first, whatever the graph's own. Raises UnreadableError, naming the operation.
    """
    reader = _Reader(graph, window, source)
    return reader.network()


class _Reader:
    def __init__(self, graph: Graph, window: int, source: str):
        self.graph, self.source = graph, source
        self.model = graph.model
        self.root, self.traced = nn.Module(), fx.Graph()
        self.values: dict[str, Value] = {}
        self.opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)
        batch = graph.batch or 2
        pixels = self.traced.placeholder("pixels")
        image: Value = _Traced(pixels, torch.zeros(batch, graph.channels, window, window))
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
        if not isinstance(result, _Traced) or result.example.ndim != 2:
            raise UnreadableError(f"{self.source}: its output is not one vector of scores per image")
        self.traced.output(result.node)
        network = fx.GraphModule(self.root, self.traced, "OnnxNetwork")
        network.graph.eliminate_dead_code()
        network.recompile()
        return network.requires_grad_(False).eval()

    def read(self, node: onnx.NodeProto) -> None:
        """Computes a node."""
        given: list[Value | None] = [self.values.get(name) if name else None for name in node.input]
        if node.op_type == "Shape" and isinstance(given[0], _Traced):
            shape = np.array(given[0].example.shape, np.int64)
            self.values[node.output[0]] = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
            return
        if any(isinstance(value, _Flat) for value in given) and node.op_type not in ("Gather", "Reshape"):
            raise self.unreadable(node, "it mixes images")
        if not any(isinstance(value, (_Traced, _Flat)) for value in given):
            self.constant(node, given)
            return
        made = _OPERATIONS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if made is None:
            raise self.unreadable(node, "it has no counterpart here")
        try:
            results = made(self, node, given)
        except UnreadableError:
            raise
        except Exception as error:  # of torch, for what a graph asks of it
            raise self.unreadable(node, first_line(error)) from error
        for name, value in zip(
            node.output, results if isinstance(results, list) else [results], strict=False
        ):
            self.values[name] = value

    def constant(self, node: onnx.NodeProto, given: list[Value | None]) -> None:
        """Computes a node of constants."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: value for name, value in zip(node.input, given, strict=True) if name}
        names = [name for name in node.output if name]
        try:
            inputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in feeds]
            outputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in names]
            alone = onnx.helper.make_graph([node], "constant", inputs, outputs)
            model = onnx.helper.make_model(alone, opset_imports=self.model.opset_import)
            found = ReferenceEvaluator(model).run(names, feeds)
        except Exception as error:  # of the reference implementation, for what it does not know
            raise self.unreadable(node, first_line(error)) from error
        self.values.update({name: np.asarray(value) for name, value in zip(names, found, strict=True)})

    def unreadable(self, node: onnx.NodeProto, why: str) -> UnreadableError:
        """The error for a node."""
        name = f"{node.op_type} {node.name!r}" if node.name else node.op_type
        return UnreadableError(f"{self.source}: the operation {name} cannot be read ({why})")

    # What operations are made of

    def buffer(self, value: Array) -> _Traced:
        """A constant as a value of the network."""
        tensor = torch.from_numpy(np.array(value))
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        name = f"constant_{len(list(self.root.buffers()))}"
        self.root.register_buffer(name, tensor)
        return _Traced(self.traced.get_attr(name), tensor)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> _Traced:
        """A function of torch on values; numbers and shapes are given as they are."""
        args = tuple(self.buffer(arg) if isinstance(arg, np.ndarray) else arg for arg in args)
        node = self.traced.call_function(
            function, tuple(map(_node, args)), {k: _node(v) for k, v in kwargs.items()}
        )
        return _Traced(node, function(*map(_example, args), **{k: _example(v) for k, v in kwargs.items()}))

    def layer(self, module: nn.Module, value: _Traced) -> _Traced:
        """A layer on a value."""
        name = f"{type(module).__name__.lower()}_{len(list(self.root.children()))}"
        self.root.add_module(name, module.eval().requires_grad_(False))
        return _Traced(self.traced.call_module(name, (value.node,)), module(value.example))

    def size(self, value: _Traced, axis: int) -> fx.Node:
        """The length of an axis, whatever the image's size."""
        return self.traced.call_method("size", (value.node, axis))


def _node(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_node, value))
    return value.node if isinstance(value, _Traced) else value


def _example(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_example, value))
    return value.example if isinstance(value, _Traced) else value


Given = list[Any]
Read = Callable[[_Reader, onnx.NodeProto, Given], Any]


FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def _ints(value: Any) -> list[int]:
    return [int(each) for each in np.asarray(value).reshape(-1)]


def _tensor(value: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(value)).float()


def _pads(node: onnx.NodeProto, x: torch.Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """What a window is padded by before and after, for each of two axes."""
    auto = attribute(node, "auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", ""):
        pads = list(attribute(node, "pads", [0] * 4))
        return pads[:2], pads[2:]
    if auto == "VALID":
        return [0, 0], [0, 0]
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    before, after = [], []
    for side, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before, after


def _padded(r: _Reader, x: _Traced, before: list[int], after: list[int], value: float) -> _Traced:
    pads = [before[1], after[1], before[0], after[0]]
    return r.call(F.pad, x, pads, "constant", value) if any(pads) else x


def _conv(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, weight = given[0], given[1]
    bias = given[2] if len(given) > 2 else None
    if isinstance(weight, _Traced) or weight.ndim != 4:
        raise r.unreadable(node, "its weights are no constant of two dimensions")
    before, after = _pads(node, x.example, weight.shape[2:])
    padding = before[0], before[1]
    if before != after:
        x, padding = _padded(r, x, before, after, 0.0), (0, 0)
    groups = attribute(node, "group", 1)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(attribute(node, "strides", [1, 1])),
        padding,
        tuple(attribute(node, "dilations", [1, 1])),
        groups,
        bias is not None,
    )
    layer.weight.data = _tensor(weight)
    if bias is not None and layer.bias is not None:
        layer.bias.data = _tensor(bias)
    return r.layer(layer, x)


def _batch_norm(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, *statistics = given
    weight, bias, mean, var = map(_tensor, statistics)
    kind = nn.BatchNorm2d if x.example.ndim == 4 else nn.BatchNorm1d
    layer = kind(len(weight), eps=attribute(node, "epsilon", 1e-5))
    layer.load_state_dict(
        {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}, strict=False
    )
    return r.layer(layer, x)


def _linear(r: _Reader, x: _Traced, weight: Array, bias: Array | None) -> _Traced:
    """weight: (in, out)."""
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias is not None)
    layer.weight.data = _tensor(weight).T.contiguous()
    if bias is not None:
        layer.bias.data = _tensor(np.broadcast_to(bias, (weight.shape[1],)))
    return r.layer(layer, x)


def _gemm(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    if isinstance(weight, _Traced) or isinstance(bias, _Traced) or attribute(node, "transA", 0):
        raise r.unreadable(node, "its weights are no constant")
    weight = weight.T if attribute(node, "transB", 0) else weight
    weight = weight * attribute(node, "alpha", 1.0)
    bias = None if bias is None else np.asarray(bias).reshape(-1) * attribute(node, "beta", 1.0)
    return _linear(r, x, weight, bias)


def _matmul(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    a, b = given
    if isinstance(a, _Traced) and not isinstance(b, _Traced) and b.ndim == 2:
        return _linear(r, a, b, None)
    return r.call(torch.matmul, a, b)


def _pool_max(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, kernel = given[0], attribute(node, "kernel_shape")
    strides = attribute(node, "strides", [1, 1])
    before, after = _pads(node, x.example, kernel)
    padding = before
    if before != after:
        x, padding = _padded(r, x, before, after, float("-inf")), [0, 0]
    ceil = bool(attribute(node, "ceil_mode", 0))
    dilations = tuple(attribute(node, "dilations", [1, 1]))
    return r.layer(nn.MaxPool2d(tuple(kernel), tuple(strides), tuple(padding), dilations, ceil_mode=ceil), x)


def _pool_average(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, kernel = given[0], list(attribute(node, "kernel_shape"))
    before, after = _pads(node, x.example, kernel)
    if kernel == list(x.example.shape[2:]) and not any(before + after):
        return r.layer(nn.AdaptiveAvgPool2d(1), x)
    counted = bool(attribute(node, "count_include_pad", 0))
    if before != after:
        if not counted:
            raise r.unreadable(node, "its padding is not even, and is not counted")
        x, before = _padded(r, x, before, after, 0.0), [0, 0]
    strides, ceil = tuple(attribute(node, "strides", [1, 1])), bool(attribute(node, "ceil_mode", 0))
    return r.layer(nn.AvgPool2d(tuple(kernel), strides, (before[0], before[1]), ceil, counted), x)


def _axes(node: onnx.NodeProto, given: Given, rank: int) -> list[int]:
    axes = attribute(node, "axes") if len(given) < 2 or given[1] is None else _ints(given[1])
    return [axis % rank for axis in (axes if axes is not None else range(1, rank))]


def _reduce(function: Callable[..., torch.Tensor]) -> Read:
    def read(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
        x, keep = given[0], bool(attribute(node, "keepdims", 1))
        axes = _axes(node, given, x.example.ndim)
        if x.node.target is torch.permute and not keep:
            order: Any = x.node.args[1]
            left = [order[axis] for axis in range(len(order)) if axis not in axes]
            if left == sorted(left):  # of channels last, rows and columns: what is left is in order
                x = _before_permute(x)
                axes = [order[axis] for axis in axes]
        return r.call(function, x, tuple(axes), keepdim=keep)

    return read


def _norm(x: torch.Tensor, axes: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim)
    return norm


def _reshaped(r: _Reader, x: _Traced, shape: Sequence[int]) -> _Traced:
    """A value in another shape, said in the way that holds for images of other sizes too."""
    old, new = list(x.example.shape), list(shape)
    if old == new:
        return x
    if not new or new[0] != old[0]:
        raise UnreadableError(f"{r.source}: a reshape from {old} to {new} mixes images")
    if len(new) == 2:
        return r.call(torch.flatten, x, 1)
    if len(new) == 3 and len(old) == 4 and new[1] == old[1]:
        return r.call(torch.flatten, x, 2)
    if len(old) == len(new) + 1 and old[3:] == new[2:] and old[1] * old[2] == new[1]:
        return r.call(torch.flatten, x, 1, 2)
    example = x.example.reshape(new)
    tail = 0  # axes at the end that stay as they are: rows and columns
    while tail < min(len(old), len(new)) - 1 and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    sides: list[Any] = [r.size(x, 0), *new[1 : len(new) - tail]]
    sides += [r.size(x, axis) for axis in range(len(old) - tail, len(old))]
    return _Traced(r.traced.call_function(torch.reshape, (x.node, tuple(sides))), example)


def _reshape(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced | _Flat:
    x = given[0].whole if isinstance(given[0], _Flat) else given[0]
    target = attribute(node, "shape") if len(given) < 2 else _ints(given[1])
    if isinstance(given[1] if len(given) > 1 else None, _Traced):
        raise r.unreadable(node, "its shape depends on pixels")
    old = list(x.example.shape)
    if not attribute(node, "allowzero", 0):
        target = [old[axis] if length == 0 else length for axis, length in enumerate(target)]
    shape = list(x.example.reshape(target).shape)
    return _Flat(x) if len(shape) == 1 and old[0] == 1 else _reshaped(r, x, shape)


def _flatten(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    if attribute(node, "axis", 1) not in (1, 1 - given[0].example.ndim):
        raise r.unreadable(node, "it mixes images")
    x: _Traced = given[0]
    return x if x.example.ndim == 2 else r.call(torch.flatten, x, 1)


def _squeeze(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x = given[0]
    axes = attribute(node, "axes") if len(given) < 2 or given[1] is None else _ints(given[1])
    sides = x.example.shape
    gone = (
        {axis % len(sides) for axis in axes}
        if axes is not None
        else {n for n, s in enumerate(sides) if s == 1}
    )
    return _reshaped(r, x, [side for axis, side in enumerate(sides) if axis not in gone])


def _unsqueeze(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, axes = given[0], attribute(node, "axes") if len(given) < 2 else _ints(given[1])
    rank = x.example.ndim + len(axes)
    made: _Traced = x
    for axis in sorted(axis % rank for axis in axes):
        made = r.call(torch.unsqueeze, made, axis)
    return made


def _before_permute(x: _Traced) -> _Traced:
    """What a permutation was made of."""
    source: Any = x.node.args[0]
    order: Any = x.node.args[1]
    return _Traced(source, x.example.permute([order.index(axis) for axis in range(len(order))]))


def _transpose(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x = given[0]
    perm = list(attribute(node, "perm", list(range(x.example.ndim))[::-1]))
    if x.node.target is torch.permute and x.node.op == "call_function":  # as NHWC graphs turn to and fro
        inner: Any = x.node.args[1]
        perm = [inner[axis] for axis in perm]
        x = _before_permute(x)
    return x if perm == sorted(perm) else r.call(torch.permute, x, tuple(perm))


def _concat(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    parts = [r.buffer(value) if isinstance(value, np.ndarray) else value for value in given]
    if any(isinstance(value, np.ndarray) for value in given):
        batch = next(value for value in given if isinstance(value, _Traced)).example.shape[0]
        if batch != 1:
            raise r.unreadable(node, "it joins a constant to each image")
    return r.call(torch.cat, parts, attribute(node, "axis"))


def _split(r: _Reader, node: onnx.NodeProto, given: Given) -> list[_Traced]:
    x, axis = given[0], attribute(node, "axis", 0)
    sizes = attribute(node, "split") if len(given) < 2 or given[1] is None else _ints(given[1])
    if sizes is None:
        count, side = len(node.output), x.example.shape[axis]
        sizes = [-(-side // count)] * (count - 1)
        sizes.append(side - sum(sizes))
    parts = x.example.split(sizes, axis)
    whole = r.traced.call_function(torch.split, (x.node, list(sizes), axis))
    return [
        _Traced(r.traced.call_function(operator.getitem, (whole, n)), part) for n, part in enumerate(parts)
    ]


def _slice(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x = given[0]
    if len(given) > 1:
        starts, ends = _ints(given[1]), _ints(given[2])
        axes = _ints(given[3]) if len(given) > 3 and given[3] is not None else list(range(len(starts)))
        steps = _ints(given[4]) if len(given) > 4 and given[4] is not None else [1] * len(starts)
    else:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        axes, steps = attribute(node, "axes", list(range(len(starts)))), [1] * len(starts)
    places: list[Any] = [slice(None)] * x.example.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise r.unreadable(node, "it goes backwards")
        side = x.example.shape[axis]
        whole = end >= side  # said with a very large number, or with the side itself
        places[axis % x.example.ndim] = slice(
            start or None, None if whole else end, None if step == 1 else step
        )
    return r.call(operator.getitem, x, tuple(places))


def _gather(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, indices, axis = given[0], given[1], attribute(node, "axis", 0)
    if isinstance(x, _Flat):
        if np.array_equal(np.asarray(indices).reshape(-1), np.arange(x.whole.example.numel())):
            return _reshaped(r, x.whole, list(np.shape(indices)))
        raise r.unreadable(node, "it mixes images")
    if isinstance(indices, _Traced) or not isinstance(x, _Traced) or axis == 0:
        raise r.unreadable(node, "its indices depend on pixels")
    if indices.ndim == 0:
        places: list[Any] = [slice(None)] * x.example.ndim
        places[axis % x.example.ndim] = int(indices)
        return r.call(operator.getitem, x, tuple(places))
    return r.call(torch.index_select, x, axis, np.asarray(indices).reshape(-1))


def _pad(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, pads = given[0], attribute(node, "pads") if len(given) < 2 else _ints(given[1])
    mode = attribute(node, "mode", b"constant").decode()
    value = attribute(node, "value", 0.0) if len(given) < 3 or given[2] is None else float(given[2])
    rank = x.example.ndim
    if len(given) > 3 and given[3] is not None:
        axes = [axis % rank for axis in _ints(given[3])]
        both = {axis: (pads[n], pads[n + len(axes)]) for n, axis in enumerate(axes)}
        pads = [both.get(axis, (0, 0))[side] for side in (0, 1) for axis in range(rank)]
    if not any(pads):
        return _same(r, node, given)
    order = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    if mode == "constant":
        return r.call(F.pad, x, order, "constant", value)
    return r.call(F.pad, x, order, {"edge": "replicate"}.get(mode, mode))


def _binary(function: Callable[..., Any]) -> Read:
    def read(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
        made = given[0]
        for other in given[1:]:
            a, b = _plain(made), _plain(other)
            if function in (torch.maximum, torch.minimum) and not (
                isinstance(a, _Traced) and isinstance(b, _Traced)
            ):
                a, b = (a, b) if isinstance(a, _Traced) else (b, a)
                if isinstance(b, float):
                    limits = {"min": b} if function is torch.maximum else {"max": b}
                    made = r.call(torch.clamp, a, **limits)
                    continue
            made = r.call(function, a, b)
        return made  # type: ignore[no-any-return]

    return read


def _add(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    """A sum. What is added to a linear layer alone becomes its bias: exporters write the two apart."""
    pairs: list[tuple[Any, Any]] = [(given[0], given[1]), (given[1], given[0])]
    for x, other in pairs:
        if not (isinstance(x, _Traced) and isinstance(other, np.ndarray) and x.node.op == "call_module"):
            continue
        layer: Any = r.root.get_submodule(str(x.node.target))
        is_bias: bool = other.shape in ((1,), (1, 1)) or other.reshape(-1).shape == x.example.shape[-1:]
        if isinstance(layer, nn.Linear) and getattr(layer, "bias", None) is None and is_bias:
            bias = np.broadcast_to(other.reshape(-1), (layer.out_features,))
            layer.bias = nn.Parameter(_tensor(bias), requires_grad=False)
            return _Traced(x.node, x.example + layer.bias)
    total: _Traced = _SUM(r, node, given)
    return total


def _plain(value: Value) -> Any:
    """A constant of one value as a number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.reshape(-1)[0])
    return value


_SUM = _binary(torch.add)


def _unary(function: Callable[..., Any], **defaults: float) -> Read:
    def read(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
        return r.call(function, given[0], *(attribute(node, name, value) for name, value in defaults.items()))

    return read


def _clip(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    low, high = (float(given[n]) if len(given) > n and given[n] is not None else None for n in (1, 2))
    low, high = attribute(node, "min", low), attribute(node, "max", high)
    if (low, high) == (0.0, 6.0):
        return r.layer(nn.ReLU6(), given[0])
    return r.call(torch.clamp, given[0], low, high)


def _hard_sigmoid(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return r.layer(nn.Hardsigmoid(), given[0])
    return r.call(torch.clamp, r.call(torch.add, r.call(torch.mul, given[0], alpha), beta), 0.0, 1.0)


def _prelu(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    slope = np.asarray(given[1])
    if slope.size not in (1, given[0].example.shape[1]):
        raise r.unreadable(node, "its slopes are not those of channels")
    layer = nn.PReLU(slope.size)
    layer.weight.data = _tensor(slope.reshape(-1))
    return r.layer(layer, given[0])


def _layer_norm(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    if attribute(node, "axis", -1) not in (-1, x.example.ndim - 1):
        raise r.unreadable(node, "it normalises over several axes")
    layer = nn.LayerNorm(len(weight), attribute(node, "epsilon", 1e-5))
    layer.weight.data = _tensor(weight)
    layer.bias.data = torch.zeros(len(weight)) if bias is None else _tensor(bias)
    return r.layer(layer, x)


def _group_norm(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    x, weight, bias = given
    groups, channels = attribute(node, "num_groups"), x.example.shape[1]
    layer = nn.GroupNorm(groups, channels, attribute(node, "epsilon", 1e-5))
    each = channels // len(weight)  # before opset 21 a value is a group's
    layer.weight.data, layer.bias.data = (_tensor(np.repeat(value, each)) for value in (weight, bias))
    return r.layer(layer, x)


def _softmax(function: Callable[..., Any]) -> Read:
    def read(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
        return r.call(function, given[0], attribute(node, "axis", 1 if r.opset < 13 else -1))

    return read


def _lrn(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    alpha, beta, k = (
        attribute(node, name, d) for name, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return r.layer(nn.LocalResponseNorm(attribute(node, "size"), alpha, beta, k), given[0])


def _same(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    return given[0]  # type: ignore[no-any-return]


def _cast(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    if attribute(node, "to") not in FLOATS:
        raise r.unreadable(node, "it makes whole numbers of values")
    return given[0]  # type: ignore[no-any-return]


def _module(kind: Callable[[], nn.Module]) -> Read:
    return lambda r, node, given: r.layer(kind(), given[0])


def _gelu(r: _Reader, node: onnx.NodeProto, given: Given) -> _Traced:
    return r.layer(nn.GELU(attribute(node, "approximate", b"none").decode()), given[0])


_OPERATIONS: dict[str, Read] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool_max,
    "AveragePool": _pool_average,
    "GlobalAveragePool": _module(lambda: nn.AdaptiveAvgPool2d(1)),
    "GlobalMaxPool": _module(lambda: nn.AdaptiveMaxPool2d(1)),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Add": _add,
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(torch.div),
    "Pow": _binary(torch.pow),
    "Max": _binary(torch.maximum),
    "Min": _binary(torch.minimum),
    "Sum": _binary(torch.add),
    "Clip": _clip,
    "Relu": _module(nn.ReLU),
    "Sigmoid": _module(nn.Sigmoid),
    "Tanh": _module(nn.Tanh),
    "Softplus": _module(nn.Softplus),
    "Softsign": _module(nn.Softsign),
    "HardSwish": _module(nn.Hardswish),
    "Mish": _module(nn.Mish),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "PRelu": _prelu,
    "LeakyRelu": _unary(F.leaky_relu, alpha=0.01),
    "Elu": _unary(F.elu, alpha=1.0),
    "Selu": _module(nn.SELU),
    "Celu": _unary(F.celu, alpha=1.0),
    "ThresholdedRelu": lambda r, node, given: r.call(
        F.threshold, given[0], attribute(node, "alpha", 1.0), 0.0
    ),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Sin": _unary(torch.sin),
    "Reciprocal": lambda r, node, given: r.call(torch.pow, given[0], -1.0),
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
}
"""What reads each operation of ONNX."""
