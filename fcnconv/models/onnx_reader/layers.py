"""Reads ONNX layers as torch layers: convolutions, linear layers, normalisation and pooling.

A new layer needs a function here and a row in `LAYERS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from fcnconv.models.onnx_file import Array, attribute
from fcnconv.models.onnx_reader.tracer import (
    Given,
    Read,
    Traced,
    Tracer,
    module,
    tensor_of,
)


def _pads(node: onnx.NodeProto, x: torch.Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """The padding of a window before and after, for each of two axes."""
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


def _padded(r: Tracer, x: Traced, before: list[int], after: list[int], value: float) -> Traced:
    pads = [before[1], after[1], before[0], after[0]]
    return r.call(F.pad, x, pads, "constant", value) if any(pads) else x


def _conv(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, weight = given[0], given[1]
    bias = given[2] if len(given) > 2 else None
    if isinstance(weight, Traced) or weight.ndim != 4:
        raise r.unreadable(node, "its weights are not a constant with two dimensions")
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
    layer.weight.data = tensor_of(weight)
    if bias is not None and layer.bias is not None:
        layer.bias.data = tensor_of(bias)
    return r.layer(layer, x)


def _batch_norm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, *statistics = given
    weight, bias, mean, var = map(tensor_of, statistics)
    kind = nn.BatchNorm2d if x.example.ndim == 4 else nn.BatchNorm1d
    layer = kind(len(weight), eps=attribute(node, "epsilon", 1e-5))
    layer.load_state_dict(
        {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}, strict=False
    )
    return r.layer(layer, x)


def _linear(r: Tracer, x: Traced, weight: Array, bias: Array | None) -> Traced:
    """weight: (in, out)."""
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias is not None)
    layer.weight.data = tensor_of(weight).T.contiguous()
    if bias is not None:
        layer.bias.data = tensor_of(np.broadcast_to(bias, (weight.shape[1],)))
    return r.layer(layer, x)


def _gemm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    if isinstance(weight, Traced) or isinstance(bias, Traced) or attribute(node, "transA", 0):
        raise r.unreadable(node, "its weights are not a constant")
    weight = weight.T if attribute(node, "transB", 0) else weight
    weight = weight * attribute(node, "alpha", 1.0)
    bias = None if bias is None else np.asarray(bias).reshape(-1) * attribute(node, "beta", 1.0)
    return _linear(r, x, weight, bias)


def _matmul(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    a, b = given
    if isinstance(a, Traced) and not isinstance(b, Traced) and b.ndim == 2:
        return _linear(r, a, b, None)
    return r.call(torch.matmul, a, b)


def _pool_max(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, kernel = given[0], attribute(node, "kernel_shape")
    strides = attribute(node, "strides", [1, 1])
    before, after = _pads(node, x.example, kernel)
    padding = before
    if before != after:
        x, padding = _padded(r, x, before, after, float("-inf")), [0, 0]
    ceil = bool(attribute(node, "ceil_mode", 0))
    dilations = tuple(attribute(node, "dilations", [1, 1]))
    return r.layer(nn.MaxPool2d(tuple(kernel), tuple(strides), tuple(padding), dilations, ceil_mode=ceil), x)


def _pool_average(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, kernel = given[0], list(attribute(node, "kernel_shape"))
    before, after = _pads(node, x.example, kernel)
    if kernel == list(x.example.shape[2:]) and not any(before + after):
        return r.layer(nn.AdaptiveAvgPool2d(1), x)
    counted = bool(attribute(node, "count_include_pad", 0))
    if before != after:
        if not counted:
            raise r.unreadable(node, "its padding is uneven and excluded from the average")
        x, before = _padded(r, x, before, after, 0.0), [0, 0]
    strides, ceil = tuple(attribute(node, "strides", [1, 1])), bool(attribute(node, "ceil_mode", 0))
    return r.layer(nn.AvgPool2d(tuple(kernel), strides, (before[0], before[1]), ceil, counted), x)


def _prelu(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    slope = np.asarray(given[1])
    if slope.size not in (1, given[0].example.shape[1]):
        raise r.unreadable(node, "its slopes are not one per channel")
    layer = nn.PReLU(slope.size)
    layer.weight.data = tensor_of(slope.reshape(-1))
    return r.layer(layer, given[0])


def _layer_norm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    if attribute(node, "axis", -1) not in (-1, x.example.ndim - 1):
        raise r.unreadable(node, "it normalises over several axes")
    layer = nn.LayerNorm(len(weight), attribute(node, "epsilon", 1e-5))
    layer.weight.data = tensor_of(weight)
    layer.bias.data = torch.zeros(len(weight)) if bias is None else tensor_of(bias)
    return r.layer(layer, x)


def _group_norm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, weight, bias = given
    groups, channels = attribute(node, "num_groups"), x.example.shape[1]
    layer = nn.GroupNorm(groups, channels, attribute(node, "epsilon", 1e-5))
    each = channels // len(weight)  # before opset 21, there is one value per group
    layer.weight.data, layer.bias.data = (tensor_of(np.repeat(value, each)) for value in (weight, bias))
    return r.layer(layer, x)


def _lrn(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    alpha, beta, k = (
        attribute(node, name, d) for name, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return r.layer(nn.LocalResponseNorm(attribute(node, "size"), alpha, beta, k), given[0])


LAYERS: dict[str, Read] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": _pool_max,
    "AveragePool": _pool_average,
    "GlobalAveragePool": module(lambda: nn.AdaptiveAvgPool2d(1)),
    "GlobalMaxPool": module(lambda: nn.AdaptiveMaxPool2d(1)),
    "PRelu": _prelu,
}
"""The function that reads each ONNX layer."""
