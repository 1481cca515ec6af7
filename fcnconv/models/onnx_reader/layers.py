"""Reads ONNX layers as torch layers: convolutions, linear layers, normalisation and pooling.

A new layer needs a function here and a row in `LAYERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

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
    """The padding of a window before and after, for each axis of the window."""
    auto = attribute(node, "auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", ""):
        pads = list(attribute(node, "pads", [0] * 2 * len(kernel)))
        return pads[: len(kernel)], pads[len(kernel) :]
    ones = [1] * len(kernel)
    if auto == "VALID":
        return [0] * len(kernel), [0] * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    before, after = [], []
    for side, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before, after


def _padded(r: Tracer, x: Traced, before: list[int], after: list[int], value: float) -> Traced:
    pads = [pad for pair in zip(before[::-1], after[::-1], strict=True) for pad in pair]
    return r.call(F.pad, x, pads, "constant", value) if any(pads) else x


def _conv(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, weight = given[0], given[1]
    bias = given[2] if len(given) > 2 else None
    kinds: dict[int, Callable[..., nn.Conv1d | nn.Conv2d]] = {3: nn.Conv1d, 4: nn.Conv2d}
    if isinstance(weight, Traced) or weight.ndim not in kinds:
        raise r.unreadable(node, "its weights are not a constant with one or two dimensions")
    kernel = tuple(weight.shape[2:])
    before, after = _pads(node, x.example, kernel)
    padding, ones = before, [1] * len(kernel)
    if before != after:
        x, padding = _padded(r, x, before, after, 0.0), [0] * len(kernel)
    groups = attribute(node, "group", 1)
    layer = kinds[weight.ndim](
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        tuple(attribute(node, "strides", ones)),
        tuple(padding),
        tuple(attribute(node, "dilations", ones)),
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


def _einsum(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    return r.call(torch.einsum, attribute(node, "equation").decode(), *given)


def _matmul(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    a, b = given
    if isinstance(a, Traced) and not isinstance(b, Traced) and b.ndim == 2:
        return _linear(r, a, b, None)
    return r.call(torch.matmul, a, b)


def _kernel(r: Tracer, node: onnx.NodeProto) -> tuple[int, int]:
    kernel = attribute(node, "kernel_shape")
    if len(kernel) != 2:
        raise r.unreadable(node, "it pools something else than rows and columns")
    return kernel[0], kernel[1]


def _pool_max(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, kernel = given[0], _kernel(r, node)
    strides = attribute(node, "strides", [1, 1])
    before, after = _pads(node, x.example, kernel)
    padding = before
    if before != after:
        x, padding = _padded(r, x, before, after, float("-inf")), [0, 0]
    ceil = bool(attribute(node, "ceil_mode", 0))
    dilations = tuple(attribute(node, "dilations", [1, 1]))
    return r.layer(nn.MaxPool2d(kernel, tuple(strides), tuple(padding), dilations, ceil_mode=ceil), x)


def _pool_average(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, kernel = given[0], _kernel(r, node)
    before, after = _pads(node, x.example, kernel)
    if kernel == tuple(x.example.shape[2:]) and not any(before + after):
        return r.layer(nn.AdaptiveAvgPool2d(1), x)
    counted = bool(attribute(node, "count_include_pad", 0))
    if before != after:
        if not counted:
            raise r.unreadable(node, "its padding is uneven and excluded from the average")
        x, before = _padded(r, x, before, after, 0.0), [0, 0]
    strides, ceil = tuple(attribute(node, "strides", [1, 1])), bool(attribute(node, "ceil_mode", 0))
    return r.layer(nn.AvgPool2d(kernel, strides, (before[0], before[1]), ceil, counted), x)


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


def _instance_norm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    """Instance normalisation. Exporters write a group normalisation as one of (N, groups, the rest)."""
    x, weight, bias = given
    eps, before = attribute(node, "epsilon", 1e-5), x.before
    if before is not None and before.example.ndim == 4 and x.example.ndim == 3:
        if not (np.all(weight == 1) and np.all(bias == 0)):
            raise r.unreadable(node, "its weights are not one per channel")
        groups, channels = len(weight), before.example.shape[1]
        normed = r.layer(nn.GroupNorm(groups, channels, eps, affine=False), before)
        return replace(
            r.call(torch.flatten, r.call(torch.unflatten, normed, 1, (groups, -1)), 2), before=normed
        )
    if x.example.ndim != 4:
        raise r.unreadable(node, "it normalises something else than an image")
    layer = nn.InstanceNorm2d(len(weight), eps, affine=True)
    layer.weight.data, layer.bias.data = tensor_of(weight), tensor_of(bias)
    return r.layer(layer, x)


def _lp_norm(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    return r.call(F.normalize, given[0], float(attribute(node, "p", 2)), attribute(node, "axis", -1))


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
    "InstanceNormalization": _instance_norm,
    "LpNormalization": _lp_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "MaxPool": _pool_max,
    "AveragePool": _pool_average,
    "GlobalAveragePool": module(lambda: nn.AdaptiveAvgPool2d(1)),
    "GlobalMaxPool": module(lambda: nn.AdaptiveMaxPool2d(1)),
    "PRelu": _prelu,
}
"""The function that reads each ONNX layer."""
