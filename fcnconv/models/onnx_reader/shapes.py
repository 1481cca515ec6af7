"""Reads ONNX operations that move, select or gather values, in a form that is valid for images of any size.

A new operation needs a function here and a row in `SHAPES`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F

from fcnconv.models.onnx_file import attribute
from fcnconv.models.onnx_reader.tracer import (
    Flat,
    Given,
    Read,
    Traced,
    Tracer,
    UnreadableError,
    ints,
    same,
)


def _reshaped(r: Tracer, x: Traced, shape: Sequence[int]) -> Traced:
    """A value in another shape, in a form that is valid for other image sizes too."""
    if x.before is not None and list(x.before.example.shape) == list(shape):
        return x.before
    old, new = list(x.example.shape), list(shape)
    if old == new:
        return x
    if not new or new[0] != old[0]:
        raise UnreadableError(f"{r.source}: a reshape from {old} to {new} mixes images")
    return replace(_other_shape(r, x, old, new), before=x)


def _other_shape(r: Tracer, x: Traced, old: list[int], new: list[int]) -> Traced:
    if len(new) == 2:
        return r.call(torch.flatten, x, 1)
    if len(new) == 3 and len(old) == 4 and new[1] == old[1]:
        return r.call(torch.flatten, x, 2)
    if len(old) == len(new) + 1 and old[3:] == new[2:] and old[1] * old[2] == new[1]:
        return r.call(torch.flatten, x, 1, 2)
    example = x.example.reshape(new)
    tail = 0  # axes at the end that do not change: rows and columns
    while tail < min(len(old), len(new)) - 1 and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    sides: list[Any] = [r.size(x, 0), *new[1 : len(new) - tail]]
    sides += [r.size(x, axis) for axis in range(len(old) - tail, len(old))]
    return Traced(r.traced.call_function(torch.reshape, (x.node, tuple(sides))), example)


def _reshape(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced | Flat:
    x = given[0].whole if isinstance(given[0], Flat) else given[0]
    target = attribute(node, "shape") if len(given) < 2 else ints(given[1])
    if isinstance(given[1] if len(given) > 1 else None, Traced):
        raise r.unreadable(node, "its shape depends on pixels")
    old = list(x.example.shape)
    if not attribute(node, "allowzero", 0):
        target = [old[axis] if length == 0 else length for axis, length in enumerate(target)]
    shape = list(x.example.reshape(target).shape)
    return Flat(x) if len(shape) == 1 and old[0] == 1 else _reshaped(r, x, shape)


def _flatten(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    if attribute(node, "axis", 1) not in (1, 1 - given[0].example.ndim):
        raise r.unreadable(node, "it mixes images")
    x: Traced = given[0]
    return x if x.example.ndim == 2 else r.call(torch.flatten, x, 1)


def _squeeze(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x = given[0]
    axes = attribute(node, "axes") if len(given) < 2 or given[1] is None else ints(given[1])
    sides = x.example.shape
    gone = (
        {axis % len(sides) for axis in axes}
        if axes is not None
        else {n for n, s in enumerate(sides) if s == 1}
    )
    if 0 in gone:  # after a permutation, axis 0 may be another axis than the number of the image
        return r.call(torch.squeeze, x, tuple(sorted(gone)))
    return _reshaped(r, x, [side for axis, side in enumerate(sides) if axis not in gone])


def _unsqueeze(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, axes = given[0], attribute(node, "axes") if len(given) < 2 else ints(given[1])
    rank = x.example.ndim + len(axes)
    made: Traced = x
    for axis in sorted(axis % rank for axis in axes):
        made = r.call(torch.unsqueeze, made, axis)
    return made


def _before_permute(x: Traced) -> Traced:
    """The input of a permutation."""
    source: Any = x.node.args[0]
    order: Any = x.node.args[1]
    return Traced(source, x.example.permute([order.index(axis) for axis in range(len(order))]))


def _transpose(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x = given[0]
    perm = list(attribute(node, "perm", list(range(x.example.ndim))[::-1]))
    if x.node.target is torch.permute and x.node.op == "call_function":  # NHWC graphs permute back and forth
        inner: Any = x.node.args[1]
        perm = [inner[axis] for axis in perm]
        x = _before_permute(x)
    return x if perm == sorted(perm) else r.call(torch.permute, x, tuple(perm))


def _concat(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    parts = [r.buffer(value) if isinstance(value, np.ndarray) else value for value in given]
    if any(isinstance(value, np.ndarray) for value in given):
        batch = next(value for value in given if isinstance(value, Traced)).example.shape[0]
        if batch != 1:
            raise r.unreadable(node, "it joins a constant to each image")
    return r.call(torch.cat, parts, attribute(node, "axis"))


def _split(r: Tracer, node: onnx.NodeProto, given: Given) -> list[Traced]:
    x, axis = given[0], attribute(node, "axis", 0)
    sizes = attribute(node, "split") if len(given) < 2 or given[1] is None else ints(given[1])
    if sizes is None:
        count, side = len(node.output), x.example.shape[axis]
        sizes = [-(-side // count)] * (count - 1)
        sizes.append(side - sum(sizes))
    parts = x.example.split(sizes, axis)
    whole = r.traced.call_function(torch.split, (x.node, list(sizes), axis))
    return [
        Traced(r.traced.call_function(operator.getitem, (whole, n)), part) for n, part in enumerate(parts)
    ]


def _slice(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x = given[0]
    if len(given) > 1:
        starts, ends = ints(given[1]), ints(given[2])
        axes = ints(given[3]) if len(given) > 3 and given[3] is not None else list(range(len(starts)))
        steps = ints(given[4]) if len(given) > 4 and given[4] is not None else [1] * len(starts)
    else:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        axes, steps = attribute(node, "axes", list(range(len(starts)))), [1] * len(starts)
    places: list[Any] = [slice(None)] * x.example.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            side = x.example.shape[axis]
            taken = list(range(side))[start : None if end < -side else end : step]
            x = r.call(torch.index_select, x, axis, np.array(taken))
            continue
        side = x.example.shape[axis]
        whole = end >= side  # given as a very large number, or as the side itself
        places[axis % x.example.ndim] = slice(
            start or None, None if whole else end, None if step == 1 else step
        )
    return r.call(operator.getitem, x, tuple(places))


def _gather(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, indices, axis = given[0], given[1], attribute(node, "axis", 0)
    if isinstance(x, Flat):
        if np.array_equal(np.asarray(indices).reshape(-1), np.arange(x.whole.example.numel())):
            return _reshaped(r, x.whole, list(np.shape(indices)))
        raise r.unreadable(node, "it mixes images")
    if isinstance(indices, Traced) or not isinstance(x, Traced) or axis == 0:
        raise r.unreadable(node, "its indices depend on pixels")
    if indices.ndim == 0:
        places: list[Any] = [slice(None)] * x.example.ndim
        places[axis % x.example.ndim] = int(indices)
        return r.call(operator.getitem, x, tuple(places))
    if indices.ndim > 1:
        raise r.unreadable(node, "its indices have several axes")
    return r.call(torch.index_select, x, axis, indices)


def _tile(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    return r.call(torch.tile, given[0], tuple(ints(given[1])))


def _pad(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, pads = given[0], attribute(node, "pads") if len(given) < 2 else ints(given[1])
    mode = attribute(node, "mode", b"constant").decode()
    value = attribute(node, "value", 0.0) if len(given) < 3 or given[2] is None else float(given[2])
    rank = x.example.ndim
    if len(given) > 3 and given[3] is not None:
        axes = [axis % rank for axis in ints(given[3])]
        both = {axis: (pads[n], pads[n + len(axes)]) for n, axis in enumerate(axes)}
        pads = [both.get(axis, (0, 0))[side] for side in (0, 1) for axis in range(rank)]
    if not any(pads):
        return same(r, node, given)
    order = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    if mode == "constant":
        return r.call(F.pad, x, order, "constant", value)
    return r.call(F.pad, x, order, {"edge": "replicate"}.get(mode, mode))


def _axes(node: onnx.NodeProto, given: Given, rank: int) -> list[int]:
    axes = attribute(node, "axes") if len(given) < 2 or given[1] is None else ints(given[1])
    return [axis % rank for axis in (axes if axes is not None else range(1, rank))]


def _reduce(function: Callable[..., torch.Tensor], *more: float) -> Read:
    """Reads an operation that becomes `function` of a value, `more`, and axes."""

    def read(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
        x, keep = given[0], bool(attribute(node, "keepdims", 1))
        axes = _axes(node, given, x.example.ndim)
        if x.node.target is torch.permute and not keep:
            order: Any = x.node.args[1]
            left = [order[axis] for axis in range(len(order)) if axis not in axes]
            if left == sorted(left):  # rows and columns of channels last: the remaining axes are in order
                x = _before_permute(x)
                axes = [order[axis] for axis in axes]
        return r.call(function, x, *more, tuple(axes), keepdim=keep)

    return read


def _sum_of_squares(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    total: Traced = _reduce(torch.sum)(r, node, [r.call(torch.square, given[0]), *given[1:]])
    return total


def _expand(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    """A broadcast value. Arithmetic broadcasts by itself, so it gets the value as it was."""
    x, shape = given[0], ints(given[1])
    lengths = np.broadcast_shapes(tuple(x.example.shape), tuple(shape))
    if x.example.shape == lengths:
        return x  # type: ignore[no-any-return]
    users = [each for each in r.model.graph.node if node.output[0] in each.input]
    if all(each.op_type in _BROADCASTING and len(each.input) == 2 for each in users):
        others = [r.values.get(name) for each in users for name in each.input if name != node.output[0]]
        if all(_shape_of(other) == lengths for other in others):
            return x  # type: ignore[no-any-return]
    return r.call(torch.broadcast_to, x, lengths)


_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")


def _shape_of(value: Any) -> tuple[int, ...] | None:
    shape = value.example.shape if isinstance(value, Traced) else getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


_MODES = {
    ("nearest", "asymmetric", "floor"): {"mode": "nearest"},
    ("linear", "half_pixel", None): {"mode": "bilinear", "align_corners": False},
    ("linear", "pytorch_half_pixel", None): {"mode": "bilinear", "align_corners": False},
    ("linear", "align_corners", None): {"mode": "bilinear", "align_corners": True},
    ("cubic", "half_pixel", None): {"mode": "bicubic", "align_corners": False},
    ("cubic", "pytorch_half_pixel", None): {"mode": "bicubic", "align_corners": False},
    ("cubic", "align_corners", None): {"mode": "bicubic", "align_corners": True},
}
"""ONNX's mode, coordinates and rounding of an enlargement -> torch's."""


def _resize(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    """An image enlarged or reduced by a factor, whether the graph has a factor or a size."""
    x, mode = given[0], attribute(node, "mode", b"nearest").decode()
    coordinates = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    rounding = attribute(node, "nearest_mode", b"round_prefer_floor").decode() if mode == "nearest" else None
    sides = list(x.example.shape)
    scales = given[1] if node.op_type == "Upsample" else given[2] if len(given) > 2 else None
    if scales is None or np.size(scales) == 0:
        lengths = ints(given[3])
        factors = [new / old for old, new in zip(sides[-len(lengths) :], lengths, strict=True)]
    else:
        factors = [float(each) for each in np.asarray(scales).reshape(-1)]
    axes = [axis % len(sides) for axis in attribute(node, "axes", list(range(len(sides))))]
    by_axis = [1.0] * len(sides)
    for axis, factor in zip(axes, factors, strict=True):
        by_axis[axis] = factor
    if node.op_type == "Upsample":
        coordinates, rounding = "asymmetric", rounding and "floor"
    if len(sides) != 4 or by_axis[:2] != [1, 1]:
        raise r.unreadable(node, "it resizes other axes than rows and columns")
    whole = all(factor == int(factor) for factor in by_axis)
    if whole and mode == "nearest" and coordinates in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        coordinates, rounding = "asymmetric", "floor"  # all the same, for enlargement by a whole number
    options: Any = _MODES.get((mode, coordinates, rounding))
    cubic = attribute(node, "cubic_coeff_a", -0.75)
    if options is None or (mode == "cubic" and abs(cubic + 0.75) > 1e-6):
        raise r.unreadable(node, f"torch has no {mode} interpolation of this kind ({coordinates})")
    if attribute(node, "antialias", 0):
        options = options | {"antialias": True}
    return r.call(F.interpolate, x, scale_factor=tuple(by_axis[2:]), **options)


def _depth_to_space(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    x, side = given[0], attribute(node, "blocksize")
    if attribute(node, "mode", b"DCR") == b"DCR":  # channels last instead of first, in each block
        order = np.arange(x.example.shape[1]).reshape(side * side, -1).T.reshape(-1)
        x = r.call(torch.index_select, x, 1, order)
    return r.call(F.pixel_shuffle, x, side)


def _space_to_depth(r: Tracer, node: onnx.NodeProto, given: Given) -> Traced:
    side = attribute(node, "blocksize")
    x = r.call(F.pixel_unshuffle, given[0], side)
    order = np.arange(x.example.shape[1]).reshape(-1, side * side).T.reshape(-1)
    return r.call(torch.index_select, x, 1, order)


SHAPES: dict[str, Read] = {
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceL1": _reduce(torch.linalg.vector_norm, 1),
    "ReduceL2": _reduce(torch.linalg.vector_norm, 2),
    "ReduceSumSquare": _sum_of_squares,
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
    "Expand": _expand,
    "Tile": _tile,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
"""The function that reads each ONNX operation that moves or gathers values."""
