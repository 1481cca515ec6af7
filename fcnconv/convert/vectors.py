"""The rules for operations between pooling and logits: layers of vectors, and operations that move axes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import fx, nn

from fcnconv.convert.graph import called, function_name, listed, output_shape, pointwise
from fcnconv.convert.layout import Atom, HeadValue, Pair, constant_of_cells, weight_of_cells, with_node
from fcnconv.convert.pools import unbinned
from fcnconv.convert.rewrite import Rewriter
from fcnconv.convert.sliding import ChannelNorm

_RESHAPES = "flatten view reshape squeeze unsqueeze unflatten contiguous clone detach alias".split()
_PERMUTES = "permute transpose t swapaxes swapdims movedim moveaxis numpy_T".split()
_BINARY = "add iadd sub isub rsub mul imul div truediv itruediv pow maximum minimum max min".split()


def linear(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    """Linear layers and matrix products with a constant."""
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    if isinstance(layer, nn.Linear):
        cells, weight, bias = writer.cells(node, 0), layer.weight, layer.bias
    elif isinstance(layer, nn.Conv2d):
        return _convolution(writer, node, layer)
    elif called(node, "linear"):
        arguments = writer.arguments(node, "input weight bias")
        cells, weight = writer.cells(node, 0), writer.constant(arguments["weight"])
        bias = writer.constant(arguments.get("bias"))
    elif called(node, "matmul", "mm"):
        cells, other = writer.cells(node, 0), writer.constant(node.args[1])
        weight, bias = None if other is None or other.ndim != 2 else other.t(), None
    elif called(node, "addmm"):
        cells, other = writer.cells(node, 1), writer.constant(node.args[2])
        weight, bias = None if other is None else other.t(), writer.constant(node.args[0])
        if node.kwargs:
            return None
    else:
        return None
    if cells is None or weight is None or not cells.dims:
        return None
    *others, last = cells.dims
    if any(atom.size > 1 or atom.along for dim in others for atom in dim):
        return None
    if prod(atom.size for atom in last) != weight.shape[1]:
        return None
    kernel = weight_of_cells(weight, last, cells.order)
    out, channels, height, width = kernel.shape
    conv = nn.Conv2d(channels, out, (height, width), bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(kernel.contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.reshape(-1).expand(out), requires_grad=False)
    writer.changes.append(f"Linear {weight.shape[1]} → {out} became a {height} × {width} convolution")
    new, atom = writer.call(node, conv, cells.node), Atom(out)
    return HeadValue(new, (*(() for _ in others), (atom,)), (atom,))


def _convolution(writer: Rewriter, node: fx.Node, layer: nn.Conv2d) -> HeadValue | None:
    """A 1 × 1 convolution of pooled channels, or of the whole window at once."""
    cells = writer.cells(node, 0)
    if cells is None or len(cells.dims) != 3 or layer.padding_mode != "zeros" or not cells.natural:
        return None
    size, atom = output_shape(node.all_input_nodes[0])[2:], Atom(layer.out_channels)
    if tuple(output_shape(node)[2:]) != (1, 1) or layer.padding not in (0, (0, 0), "valid"):
        return None
    if tuple(layer.kernel_size) != tuple(size) or tuple(layer.dilation) != (1, 1):
        return None
    if any(dim and not all(atom.along for atom in dim) for dim in cells.dims[1:]):
        return None
    slid = copy.copy(layer)
    slid.stride = (1, 1)
    new = writer.call(node, slid, cells.node)
    if prod(size) > 1:
        writer.changes.append(f"{writer.name(node)} slides at stride 1")
    return HeadValue(new, ((atom,), (), ()), (atom,))


def normalisation(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    """Normalisations of the channels of each vector."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        cells = writer.cells(node, 0)
        if cells is None or layer.running_mean is None or not cells.dims or cells.sliding:
            return None
        if cells.dims[0] != cells.order or not cells.natural:
            return None
        norm = nn.BatchNorm2d(layer.num_features, layer.eps, affine=layer.affine)
        norm.load_state_dict(layer.state_dict(), assign=True)  # on its device
        return with_node(cells, writer.call(node, norm.requires_grad_(False), cells.node))
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    if isinstance(layer, nn.LayerNorm):
        weight, bias, eps = layer.weight, layer.bias, layer.eps
        shape: Any = layer.normalized_shape
    elif called(node, "layer_norm"):
        arguments = writer.arguments(node, "input normalized_shape weight bias eps")
        weight, bias = (writer.constant(arguments.get(name)) for name in ("weight", "bias"))
        eps, shape = arguments.get("eps", 1e-5), writer.number(arguments["normalized_shape"])
    elif called(node, "normalize"):
        return _normalised(writer, node)
    else:
        return None
    cells = writer.cells(node, 0)
    if cells is None or cells.sliding or prod(listed(shape)) != cells.channels or not cells.natural:
        return None
    weight, bias = (None if tensor is None else tensor.reshape(-1) for tensor in (weight, bias))
    return with_node(cells, writer.call(node, ChannelNorm(weight, bias, float(eps)), cells.node))


def _normalised(writer: Rewriter, node: fx.Node) -> HeadValue | None:
    """`F.normalize` over all channels."""
    arguments = writer.arguments(node, "input p dim eps")
    cells = writer.cells(node, 0)
    if cells is None or cells.sliding or not _over_all(writer, cells, arguments.get("dim", 1)):
        return None
    order, eps = arguments.get("p", 2.0), arguments.get("eps", 1e-12)
    new = writer.traced.graph.call_function(
        nn.functional.normalize, (cells.node,), {"p": order, "dim": 1, "eps": eps}
    )
    return with_node(cells, new)


def softmax(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    if isinstance(layer, (nn.Softmax, nn.LogSoftmax)):
        dim: Any = layer.dim
    elif called(node, "softmax", "log_softmax", "cumsum"):
        dim = writer.arguments(node, "input dim").get("dim")
    else:
        return None
    cells = writer.cells(node, 0)
    if cells is None or cells.sliding or not _over_all(writer, cells, 1 if dim is None else dim):
        return None
    if isinstance(layer, (nn.Softmax, nn.LogSoftmax)):
        return with_node(cells, writer.call(node, type(layer)(dim=1), cells.node))
    target = getattr(torch, function_name(node))
    return with_node(cells, writer.traced.graph.call_function(target, (cells.node, 1)))


def _over_all(writer: Rewriter, cells: HeadValue, dim: Any) -> bool:
    """Whether an axis of the classifier's value contains all channels, in order."""
    axis = writer.number(dim)
    if not isinstance(axis, int):
        return False
    axis = axis % (len(cells.dims) + 1) - 1
    return axis >= 0 and prod(a.size for a in cells.dims[axis]) == cells.channels and cells.natural


def axes(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    """Operations that only move axes."""
    cells, shape = writer.cells(node, 0), output_shape(node)
    if isinstance(layer, (nn.Flatten, nn.Unflatten, nn.Identity)) or called(node, *_RESHAPES):
        if cells is None or not shape or shape[0] != output_shape(node.all_input_nodes[0])[0]:
            return None
        return cells.reshaped(shape[1:])
    if called(node, *_PERMUTES) or (function_name(node) == "getattr" and node.args[1] in ("T", "mT")):
        if cells is None:
            return None
        axes = _permutation(writer, node, len(cells.dims) + 1)
        if axes is None or axes[0] != 0:
            return None
        return HeadValue(cells.node, tuple(cells.dims[axis - 1] for axis in axes[1:]), cells.order)
    return None


def _permutation(writer: Rewriter, node: fx.Node, rank: int) -> list[int] | None:
    """The axes of a node's output as axes of its input, found on a tensor whose lengths identify them."""
    example = torch.empty(tuple(range(2, 2 + rank)), device="meta")
    args = fx.map_arg(node.args[1:], lambda source: source.meta.get("value"))
    try:
        if function_name(node) == "getattr":
            moved = getattr(example, str(node.args[1]))
        elif node.op == "call_method":
            moved = getattr(example, str(node.target))(*args, **node.kwargs)
        else:
            moved = cast(Callable[..., torch.Tensor], node.target)(example, *args, **node.kwargs)
    except Exception:  # arguments that are not numbers
        return None
    return [length - 2 for length in moved.shape]


def joined(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    """Concatenations and stacks of channels."""
    if not called(node, "cat", "concat", "concatenate", "stack"):
        return None
    arguments = writer.arguments(node, "tensors dim")
    dim = writer.number(arguments.get("dim", arguments.get("axis", 0)))
    values = [writer.values.get(each) for each in arguments["tensors"]]
    cells = [value for value in values if isinstance(value, HeadValue)]
    if not isinstance(dim, int) or not cells or len(cells) != len(values):
        return None
    cells = [unbinned(writer, node, each) for each in cells]
    if any(not each.natural or each.sliding for each in cells):
        return None
    stacked = called(node, "stack")
    axis = dim % (len(cells[0].dims) + 1 + stacked) - 1
    if axis < 0:
        return None
    new = writer.traced.graph.call_function(torch.cat, ([each.node for each in cells], 1))
    if stacked:  # the new axis is the outermost channel axis, at any position in the classifier
        if any(each.signature() != cells[0].signature() for each in cells):
            return None
        outer, dims = Atom(len(cells)), list(cells[0].dims)
        return HeadValue(new, (*dims[:axis], (outer,), *dims[axis:]), (outer, *cells[0].order))
    if any(atom.size > 1 for each in cells for other in each.dims[:axis] for atom in other):
        return None
    within = [[atom.size for other in each.dims[axis + 1 :] for atom in other] for each in cells]
    if any(sizes != within[0] for sizes in within):
        return None
    outer, inner = (
        Atom(sum(prod(a.size for a in each.dims[axis]) for each in cells)),
        cells[0].dims[axis + 1 :],
    )
    order = (outer, *(atom for other in inner for atom in other))
    return HeadValue(new, (*cells[0].dims[:axis], (outer,), *inner), order)


def selected(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | Pair | None:
    """Parts of a value: an element of a pair, a slice or an element along an axis."""
    if called(node, "chunk", "split", "tensor_split", "unbind"):
        return _chunks(writer, node)
    if not called(node, "getitem", "select", "narrow"):
        return None
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    value = writer.values.get(source) if source is not None else None
    if isinstance(value, Pair):
        index = node.args[1]
        chosen = value.values[index] if isinstance(index, int) else None
        if chosen is None and node.users:
            raise writer.refused(node)
        return chosen
    cells = writer.cells(node, 0)
    if cells is None:
        return None
    rank = len(cells.dims) + 1
    index = _index(writer, node, rank)
    if index is None or index[0] != slice(None):
        return None
    cells = unbinned(writer, node, cells)
    new, dims, order = cells.node, [], list(cells.order)
    for axis, (dim, one) in enumerate(zip(cells.dims, index[1:], strict=True), 1):
        length = output_shape(node.all_input_nodes[0])[axis]
        if one == slice(None) or (isinstance(one, slice) and one.indices(length) == (0, length, 1)):
            dims.append(dim)
            continue
        if length == 1 and isinstance(one, int):
            continue
        sliding = [atom for atom in dim if atom.along]
        if sliding:
            if len(dim) > 1 or not isinstance(one, int):
                return None
            new = _shifted(writer, node, new, dim[0], one % length)
            continue
        if len(order) != 1 or len(dim) != 1:
            return None
        kept = slice(one % length, one % length + 1) if isinstance(one, int) else one
        atom = Atom(len(range(*kept.indices(length))))
        new = writer.getitem(new, (slice(None), kept))
        order = [atom] if isinstance(one, slice) else []
        if isinstance(one, slice):
            dims.append((atom,))
    return HeadValue(new, tuple(dims), tuple(order))


def _index(writer: Rewriter, node: fx.Node, rank: int) -> list[int | slice] | None:
    """An index as one entry per axis; None if it contains anything but numbers and slices."""
    if called(node, "select"):
        dim, place = (writer.number(each) for each in node.args[1:3])
        index: list[Any] = [slice(None)] * rank
        index[dim] = place
        return index
    if called(node, "narrow"):
        dim, start, length = (writer.number(each) for each in node.args[1:4])
        index = [slice(None)] * rank
        index[dim] = slice(start, start + length)
        return index
    given = writer.number(node.args[1])
    given = list(given) if isinstance(given, tuple) else [given]
    if Ellipsis in given:
        place = given.index(Ellipsis)
        given[place : place + 1] = [slice(None)] * (rank - len(given) + 1)
    given += [slice(None)] * (rank - len(given))
    return given if all(isinstance(each, (int, slice)) for each in given) and len(given) == rank else None


def _shifted(writer: Rewriter, node: fx.Node, x: fx.Node, atom: Atom, place: int) -> fx.Node:
    """One row or column of each window."""
    after = atom.size - 1 - place
    kept = slice(place, -after if after else None)
    new = writer.getitem(
        x, (slice(None), slice(None), *([slice(None)] if atom.along == "cols" else []), kept)
    )
    writer.changes.append(f"{writer.name(node)} takes cell {place} of each window")
    return new


def _chunks(writer: Rewriter, node: fx.Node) -> Pair | None:
    """Equal parts along an axis that contains all channels."""
    cells = writer.cells(node, 0)
    users = [user for user in node.users if function_name(user) == "getitem"]
    if cells is None or cells.sliding or len(users) != len(node.users):
        return None
    arguments = writer.arguments(node, "input sections dim" if not called(node, "unbind") else "input dim")
    dim = writer.number(arguments.get("dim", 0))
    if not isinstance(dim, int) or not _over_all(writer, cells, dim) or called(node, "unbind"):
        return None
    sizes = {cast(int, user.args[1]): output_shape(user) for user in users}
    axis = dim % (len(cells.dims) + 1)
    first = next(iter(sizes.values()))[axis]
    parts: list[HeadValue | None] = []
    start, number = 0, 0
    while start < cells.channels:
        length = min(sizes.get(number, (0,) * 8)[axis] or first, cells.channels - start)
        atom = Atom(length)
        part = writer.getitem(cells.node, (slice(None), slice(start, start + length)))
        dims = tuple((atom,) if place == axis - 1 else dim for place, dim in enumerate(cells.dims))
        parts.append(HeadValue(part, dims, (atom,)))
        start, number = start + length, number + 1
    return Pair(tuple(parts))


def elementwise(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | None:
    """Operations on each element: activations, dropout, arithmetic with constants and values."""
    sources = [
        source
        for source in dict.fromkeys(node.all_input_nodes)
        if isinstance(writer.values.get(source), HeadValue)
    ]
    if not sources or not (pointwise(node, layer) or called(node, *_BINARY)):
        return None
    if any(
        source in writer.pixels and output_shape(source) and source not in sources
        for source in node.all_input_nodes
    ):
        return None
    values = [unbinned(writer, node, cast(HeadValue, writer.values[source])) for source in sources]
    shape = output_shape(node)
    largest = max(values, key=lambda value: prod(atom.size for atom in value.atoms))
    same = [value for value in values if value.signature() == largest.signature()]
    single = [value for value in values if value.channels == 1 and not value.sliding]
    if len(same) + len([value for value in single if value not in same]) != len(values):
        return None
    if (
        prod(shape[1:]) != prod(atom.size for atom in largest.atoms)
        or shape[0] != output_shape(sources[0])[0]
    ):
        return None
    layout = largest.reshaped(shape[1:])
    if layout is None:
        return None
    if (
        isinstance(layer, nn.PReLU)
        and layer.num_parameters > 1
        and not (largest.natural and len(largest.order) == 1)
    ):
        return None
    new_of = dict(zip(sources, (value.node for value in values), strict=True))
    replaced = fx.map_arg(
        (node.args, node.kwargs), lambda source: _operand(writer, node, source, new_of, layout)
    )
    args, kwargs = replaced
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    if layer is not None:
        return with_node(layout, writer.traced.graph.call_module(str(node.target), args, kwargs))
    create = (
        writer.traced.graph.call_method if node.op == "call_method" else writer.traced.graph.call_function
    )
    return with_node(layout, create(node.target, args, kwargs))  # type: ignore[arg-type]


def _operand(
    writer: Rewriter, node: fx.Node, source: fx.Node, new_of: dict[fx.Node, fx.Node], layout: HeadValue
) -> Any:
    if source in new_of:
        return new_of[source]
    if not output_shape(source) and source.meta.get("value") is not None:
        return source.meta["value"]
    value = writer.constant(source)
    if value is None:
        raise writer.refused(node)
    if value.numel() > 1:
        value = constant_of_cells(value, output_shape(node)[1:], layout)
        if value is None:
            raise writer.refused(node)
    elif value.ndim:
        value = value.reshape(())
    return writer.buffer(source, value)
