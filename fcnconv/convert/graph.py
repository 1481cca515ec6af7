"""Reading a traced network: what a node is, the shape of what it gives, and whether it mixes cells."""

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
    "abs add addcmul clamp clamp_max clamp_min contiguous div exp float floordiv iadd imul isub itruediv "
    "log mul "
    "neg pow rsqrt rsub "
    "sqrt square sub to truediv type"
)
_ACTIVATION = (
    "batch_norm celu dropout dropout2d elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu "
    "log_sigmoid logsigmoid mish prelu relu relu6 selu sigmoid silu sin softplus softshrink softsign "
    "stochastic_depth tanh tanhshrink threshold"
)
POINTWISE = frozenset(f"{_ARITHMETIC} {_ACTIVATION}".split())
"""Functions and methods that do the same to each cell of a map, whatever its size, as to one vector alone."""


class Shapes(fx.Interpreter):
    """Runs a traced network and notes the shape of each node's output; of what is no tensor, such as a size,
    its value."""

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
    """The node that returns what the network gives, which is the last. (torch 2.5 has no `output_node`.)"""
    output: fx.Node = next(iter(reversed(graph.nodes)))
    return output


def output_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's output at the size that was propagated; () where it is not one tensor."""
    shape: tuple[int, ...] = node.meta.get("shape", ())
    return shape


def spatial(node: fx.Node) -> bool:
    """Whether a node's output is more than one vector an image (at the size that was propagated), whatever
    the order of its axes.
    """
    shape = output_shape(node)
    return len(shape) == 4 and sum(length > 1 for length in shape[1:]) > 1


def layer_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The layer that a node runs; None for a function or a method. modules: of the network, by name."""
    return modules.get(str(node.target)) if node.op == "call_module" else None


def function_name(node: fx.Node) -> str:
    """The name of the function or method that a node calls, without the underscores of those in place, and
    without the variant of an operator of ``torch.export``, such as ``mean.dim``.
    """
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0].strip("_")


def called(node: fx.Node, *names: str) -> bool:
    """Whether a node calls a function or method of one of these names."""
    return node.op in ("call_function", "call_method") and function_name(node) in names


def pointwise(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node does the same to each cell of a map, whatever its size, as to one vector alone.

    layer: what the node runs, if it is one.
    """
    if layer is not None:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            return False  # its statistics are those of the whole image
        known = type(layer).__module__ in _POINTWISE_FAMILIES or isinstance(layer, nn.Identity)
        return known and not isinstance(layer, nn.MultiheadAttention)
    if called(node, "batch_norm"):
        training = node.kwargs.get("training", node.args[5] if len(node.args) > 5 else False)
        return training is False
    return called(node, *POINTWISE)


def node_text(node: fx.Node, layer: nn.Module | None) -> str:
    """What an error calls a node: where its layer is and of which kind, or its function."""
    return f"{node.target} ({type(layer).__name__})" if layer is not None else f"{node.name}()"


def drop_assertions(graph: fx.Graph) -> None:
    """Takes out what a network demands of its input's shape, and what only tells that shape."""
    for node in reversed(graph.nodes):
        idle = node.op == "call_function" and not node.users and function_name(node) in _TELLING
        if called(node, "assert") or idle:
            graph.erase_node(node)


_TELLING = frozenset("getattr getitem eq ne le ge lt gt and or not mod format".split())
"""Functions that change nothing, from shapes to conditions."""


def listed(axes: Any) -> list[int]:
    """Axes as they are given to a function: one, several, or None for all, which is no axis by name."""
    return list(axes) if isinstance(axes, (list, tuple)) else [] if axes is None else [axes]


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the processor if it has none."""
    return next(network.parameters(), torch.empty(0)).device
