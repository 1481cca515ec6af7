"""Reads a traced network: the operation of a node, the shape of its output, and whether it mixes cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

_POINTWISE_FAMILIES = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.dropout",
)

_ARITHMETIC = (
    "abs add addcmul clamp clamp_max clamp_min contiguous cos div eq erf exp expm1 float floordiv ge gt iadd "
    "imul isub itruediv le log log1p lt maximum minimum mul ne neg pow reciprocal rsqrt rsub sign "
    "sqrt square sub to truediv type where"
)
_ACTIVATION = (
    "batch_norm celu dropout dropout2d elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu "
    "log_sigmoid logsigmoid mish prelu relu relu6 selu sigmoid silu sin softplus softshrink softsign "
    "stochastic_depth tanh tanhshrink threshold"
)
POINTWISE = frozenset(f"{_ARITHMETIC} {_ACTIVATION}".split())
"""Functions and methods that treat each cell of a map of any size like a single vector."""


class Shapes(fx.Interpreter):
    """Runs a traced network and records the shape of each node's output, or its value if it is not a
    tensor.
    """

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            n.meta["shape"] = tuple(result.shape)
        else:
            n.meta["shape"], n.meta["value"] = (), result if _is_plain(result) else None
        return result


def _is_plain(value: Any) -> bool:
    return all(isinstance(each, (int, float)) for each in (value if isinstance(value, tuple) else (value,)))


def output_of(graph: fx.Graph) -> fx.Node:
    """The node that returns the output of the network, which is the last one. (torch 2.5 has no
    `output_node`.)
    """
    output: fx.Node = next(iter(reversed(graph.nodes)))
    return output


def output_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's output at the propagated size; () if it is not a single tensor."""
    shape: tuple[int, ...] = node.meta.get("shape", ())
    return shape


def spatial(node: fx.Node) -> bool:
    """Whether a node's output has more than one vector per image at the propagated size, in any order of
    axes.
    """
    shape = output_shape(node)
    return len(shape) == 4 and sum(length > 1 for length in shape[1:]) > 1


def layer_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The layer that a node runs; None for a function or a method.

    Args:
        node: the node.
        modules: the layers of the network, by name.
    """
    return modules.get(str(node.target)) if node.op == "call_module" else None


def function_name(node: fx.Node) -> str:
    """The name of the function or method that a node calls.

    The name is without the underscores of in-place functions, and without the variant of an operator of
    ``torch.export``, such as ``mean.dim``.
    """
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0].strip("_")
    return "vector_norm" if name == "linalg_vector_norm" else name


def called(node: fx.Node, *names: str) -> bool:
    """Whether a node calls a function or method with one of these names."""
    return node.op in ("call_function", "call_method") and function_name(node) in names


def pointwise(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node treats each cell of a map of any size like a single vector.

    Args:
        node: the node.
        layer: the layer that the node runs, if any.
    """
    if layer is not None:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            return False  # its statistics cover the whole image
        known = type(layer).__module__ in _POINTWISE_FAMILIES or isinstance(layer, nn.Identity)
        return known and not isinstance(layer, nn.MultiheadAttention)
    if called(node, "batch_norm"):
        training = node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False)
        return training is False
    return called(node, *POINTWISE)


def node_text(node: fx.Node, layer: nn.Module | None) -> str:
    """A description of a node for errors: the place and kind of its layer, or its function."""
    return f"{node.target} ({type(layer).__name__})" if layer is not None else f"{node.name}()"


def drop_assertions(graph: fx.Graph) -> None:
    """Removes assertions about the shape of the input, and the nodes that only compute this shape."""
    for node in reversed(graph.nodes):
        idle = node.op == "call_function" and not node.users and function_name(node) in _TELLING
        if called(node, "assert") or idle:
            graph.erase_node(node)


_TELLING = frozenset("getattr getitem eq ne le ge lt gt and or not mod format".split())
"""Functions without side effects that lead from shapes to conditions."""


def listed(axes: Any) -> list[int]:
    """The axes of a function call as a list: from one axis, several axes, or None, which means all and
    becomes [].
    """
    return list(axes) if isinstance(axes, (list, tuple)) else [] if axes is None else [axes]


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU if it has none."""
    return next(network.parameters(), torch.empty(0)).device
