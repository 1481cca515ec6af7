"""Reads ONNX operations on each value, and the softmax.

A new operation needs a function here and a row in `ARITHMETIC`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from fcnconv.models.onnx_file import attribute
from fcnconv.models.onnx_reader.tracer import (
    Given,
    Read,
    Traced,
    Tracer,
    Value,
    module,
    same,
    tensor_of,
)

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def _binary(function: Callable[..., Any]) -> Read:
    def read(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
        made = given[0]
        for other in given[1:]:
            a, b = _plain(made), _plain(other)
            if function in (torch.maximum, torch.minimum) and not (
                isinstance(a, Traced) and isinstance(b, Traced)
            ):
                a, b = (a, b) if isinstance(a, Traced) else (b, a)
                if isinstance(b, float):
                    limits = {"min": b} if function is torch.maximum else {"max": b}
                    made = r.call(torch.clamp, a, **limits)
                    continue
            made = r.call(function, a, b)
        return made  # type: ignore[no-any-return]

    return read


def _add(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    """A sum. A constant added to the output of a linear layer becomes its bias, because exporters write both
    separately.
    """
    pairs: list[tuple[Any, Any]] = [(given[0], given[1]), (given[1], given[0])]
    for x, other in pairs:
        if not (isinstance(x, Traced) and isinstance(other, np.ndarray) and x.node.op == "call_module"):
            continue
        layer: Any = r.root.get_submodule(str(x.node.target))
        is_bias: bool = other.shape in ((1,), (1, 1)) or other.reshape(-1).shape == x.example.shape[-1:]
        if isinstance(layer, nn.Linear) and getattr(layer, "bias", None) is None and is_bias:
            bias = np.broadcast_to(other.reshape(-1), (layer.out_features,))
            layer.bias = nn.Parameter(tensor_of(bias), requires_grad=False)
            return Traced(x.node, x.example + layer.bias)
    total: Traced = _SUM(r, node, given)
    return total


def _plain(value: Value) -> Any:
    """A constant with one value, as a number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.reshape(-1)[0])
    return value


_SUM = _binary(torch.add)


def _unary(function: Callable[..., Any], **defaults: float) -> Read:
    def read(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
        return r.call(function, given[0], *(attribute(node, name, value) for name, value in defaults.items()))

    return read


def _clip(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    low, high = (float(given[n]) if len(given) > n and given[n] is not None else None for n in (1, 2))
    low, high = attribute(node, "min", low), attribute(node, "max", high)
    if (low, high) == (0.0, 6.0):
        return r.layer(nn.ReLU6(), given[0])
    return r.call(torch.clamp, given[0], low, high)


def _hard_sigmoid(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return r.layer(nn.Hardsigmoid(), given[0])
    return r.call(torch.clamp, r.call(torch.add, r.call(torch.mul, given[0], alpha), beta), 0.0, 1.0)


def _softmax(function: Callable[..., Any]) -> Read:
    def read(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
        return r.call(function, given[0], attribute(node, "axis", 1 if r.opset < 13 else -1))

    return read


def _cast(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    if given[0].example.dtype == torch.bool and attribute(node, "to") in FLOATS:
        return r.call(torch.where, given[0], 1.0, 0.0)
    if attribute(node, "to") not in FLOATS:
        raise r.unreadable(node, "it converts values to whole numbers")
    return given[0]  # type: ignore[no-any-return]


def _where(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    return r.call(torch.where, *map(_plain, given))


def _gelu(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    return r.layer(nn.GELU(attribute(node, "approximate", b"none").decode()), given[0])


ARITHMETIC: dict[str, Read] = {
    "Add": _add,
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(torch.div),
    "Pow": _binary(torch.pow),
    "Max": _binary(torch.maximum),
    "Min": _binary(torch.minimum),
    "Sum": _binary(torch.add),
    "Clip": _clip,
    "Relu": module(nn.ReLU),
    "Sigmoid": module(nn.Sigmoid),
    "Tanh": module(nn.Tanh),
    "Softplus": module(nn.Softplus),
    "Softsign": module(nn.Softsign),
    "HardSwish": module(nn.Hardswish),
    "Mish": module(nn.Mish),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _unary(F.leaky_relu, alpha=0.01),
    "Elu": _unary(F.elu, alpha=1.0),
    "Selu": module(nn.SELU),
    "Celu": _unary(F.celu, alpha=1.0),
    "ThresholdedRelu": lambda r, node, given: r.call(
        F.threshold, given[0], attribute(node, "alpha", 1.0), 0.0
    ),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Equal": _binary(torch.eq),
    "Where": _where,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Reciprocal": lambda r, node, given: r.call(torch.pow, given[0], -1.0),
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Identity": same,
    "Dropout": same,
    "Cast": _cast,
}
"""The function that reads each ONNX operation on values, and the softmax."""
