from __future__ import annotations

import copy
from operator import mul
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.graph import called, function_name, layer_of, listed, output_shape
from fcnconv.convert.layout import Atom, HeadValue, Pair, bins_matrix
from fcnconv.convert.rewrite import Rewriter
from fcnconv.convert.sliding import SlidingBins, SlidingStatistic

_STATISTICS = (
    "mean sum amax amin max min var std logsumexp norm vector_norm var_mean std_mean nanmean".split()
)


def pooling(writer: Rewriter, node: fx.Node, layer: nn.Module | None) -> HeadValue | Pair | None:
    if isinstance(layer, nn.modules.pooling._AdaptiveAvgPoolNd) or called(node, "adaptive_avg_pool2d"):
        return _pooled_2d(writer, node, "mean")
    if isinstance(layer, nn.modules.pooling._AdaptiveMaxPoolNd) or called(node, "adaptive_max_pool2d"):
        return _pooled_2d(writer, node, "amax")
    if called(node, "adaptive_avg_pool1d", "adaptive_max_pool1d"):
        return _pooled_2d(writer, node, "mean" if called(node, "adaptive_avg_pool1d") else "amax")
    if not called(node, *_STATISTICS):
        return None
    name = function_name(node)
    if name in ("max", "min") and len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        return None  # of two tensors, element by element
    cells = writer.cells(node, 0)
    if cells is None:
        return None
    axes, keep = _axes_of(writer, node, name, len(cells.dims))
    if axes is None:
        return None
    values = _reduce(writer, node, cells, name, axes, axes if keep else None)
    if values is None:
        return None
    if name in ("max", "min"):
        return Pair((values, None))
    if name in ("var_mean", "std_mean"):
        return Pair((values, _reduce(writer, node, cells, "mean", axes, axes if keep else None)))
    return values


def _axes_of(writer: Rewriter, node: fx.Node, name: str, rank: int) -> tuple[set[int] | None, bool]:
    """The axes of a statistic, numbered from 0 for the axis after the first, and whether they stay."""
    names = {
        "norm": "input p dim keepdim dtype", "vector_norm": "input ord dim keepdim",
        "var": "input dim unbiased keepdim", "std": "input dim unbiased keepdim",
    }.get(name, "input dim keepdim")  # fmt: skip
    arguments = writer.arguments(node, names)
    dim = arguments.get("dim", arguments.get("axis"))
    if dim is None or isinstance(dim, bool):
        return None, False
    axes = {axis % (rank + 1) - 1 for axis in listed(writer.number(dim))}
    keep = bool(arguments.get("keepdim", arguments.get("keepdims", False)))
    return (None if -1 in axes else axes), keep  # over the images of a batch, not of one image


def _pooled_2d(writer: Rewriter, node: fx.Node, kind: str) -> HeadValue | None:
    """An adaptive pooling to one value, or to bins."""
    cells, shape = writer.cells(node, 0), output_shape(node)
    if cells is None:
        return None
    spatial = [axis for axis in range(len(cells.dims)) if axis >= (1 if len(shape) >= 3 else 0)]
    before = output_shape(node.all_input_nodes[0])
    if before == shape:
        return cells
    if all(shape[axis + 1] == 1 for axis in spatial):
        return _reduce(writer, node, cells, kind, set(spatial), set(spatial))
    if len(shape) != 4 or [len(dim) for dim in cells.dims[1:]] != [1, 1]:
        return None
    rows, cols = (dim[0] for dim in cells.dims[1:])
    if (rows.along, cols.along) != ("rows", "cols"):
        return None
    if kind == "mean":  # the weights of the next linear layer absorb it
        binned = tuple(
            Atom(bins, atom.along, bins_matrix(atom.size, bins) if bins != atom.size else None)
            for atom, bins in ((rows, shape[2]), (cols, shape[3]))
        )
        return HeadValue(cells.node, (cells.dims[0], (binned[0],), (binned[1],)), cells.order)
    return _binned(writer, node, cells, "max", (shape[2], shape[3]))


def _binned(writer: Rewriter, node: fx.Node, cells: HeadValue, pool: str, bins: tuple[int, int]) -> HeadValue:
    """The bins of an adaptive pooling as channels."""
    size = cells.dims[1][0].size, cells.dims[2][0].size
    if cells.dims[1][0].bins is not None or cells.dims[2][0].bins is not None:
        size = writer.window
    new = writer.call(node, SlidingBins(pool, size, bins), cells.node)
    writer.changes.append(
        f"{writer.name(node)} became {bins[0]} × {bins[1]} sliding bins of {size[0]} × {size[1]}"
    )
    rows, cols = Atom(bins[0]), Atom(bins[1])
    return HeadValue(new, (cells.dims[0], (rows,), (cols,)), (*cells.order, rows, cols))


def _reduce(
    writer: Rewriter, node: fx.Node, cells: HeadValue, kind: str, gone: set[int], keep: set[int] | None
) -> HeadValue | None:
    """A statistic over the axes `gone`: rows and columns of the window, channels, or both in turn."""
    cells = unbinned(writer, node, cells)
    atoms = [atom for axis in sorted(gone) for atom in cells.dims[axis]]
    sliding, channels = [a for a in atoms if a.along], [a for a in atoms if not a.along and a.size > 1]
    if sliding and channels and kind not in ("mean", "sum", "amax", "amin", "max", "min", "nanmean"):
        return None
    new = cells.node
    if sliding:
        sizes = {atom.along: atom.size for atom in sliding}
        new = _slide(writer, node, kind, (sizes.get("rows", 1), sizes.get("cols", 1)), new)
    if channels:
        new = _over_channels(writer, node, cells, kind, channels, new)
    elif not sliding and kind in ("var", "std", "norm", "vector_norm", "var_mean", "std_mean"):
        return None
    return cells.reduced(new, gone, keep)


def _slide(writer: Rewriter, node: fx.Node, kind: str, kernel: tuple[int, int], x: fx.Node) -> fx.Node:
    count, said = kernel[0] * kernel[1], f"{kernel[0]} × {kernel[1]}, stride 1"
    if kind in ("mean", "nanmean", "sum"):
        writer.changes.append(
            f"{writer.name(node)} became AvgPool2d {said}" + (f", × {count}" * (kind == "sum"))
        )
        pooled = writer.call(node, nn.AvgPool2d(kernel, 1), x)
        writer.averages.append(str(pooled.target))
        return writer.traced.graph.call_function(mul, (pooled, count)) if kind == "sum" else pooled
    if kind in ("amax", "max"):
        writer.changes.append(f"{writer.name(node)} became MaxPool2d {said}")
        return writer.call(node, nn.MaxPool2d(kernel, 1), x)
    kind = {"amin": "min", "vector_norm": "norm", "var_mean": "var", "std_mean": "std"}.get(kind, kind)
    arguments = writer.arguments(node, "input dim unbiased keepdim")
    correction = writer.number(arguments.get("correction", arguments.get("unbiased", 1)))
    names = "input p dim" if called(node, "norm") else "input ord dim"
    order = writer.number(writer.arguments(node, names).get(names.split()[1], 2)) if kind == "norm" else 2
    if order in ("fro", None):
        order = 2
    if not isinstance(order, (int, float)) or order in (float("inf"), float("-inf"), 0):
        raise writer.refused(node)
    correction = 1 if correction is None or not isinstance(correction, (int, float)) else correction
    writer.changes.append(f"{writer.name(node)} became a sliding {kind} of {said}")
    return writer.call(node, SlidingStatistic(kind, kernel, float(correction), float(order)), x)


def _over_channels(
    writer: Rewriter, node: fx.Node, cells: HeadValue, kind: str, gone: list[Atom], x: fx.Node
) -> fx.Node:
    """A statistic over channel atoms: (N, channels, rows, cols) -> fewer channels."""
    graph = writer.traced.graph
    sizes = [atom.size for atom in cells.order]
    axes = [axis for axis, atom in enumerate(cells.order, 1) if any(atom is each for each in gone)]
    whole = len(axes) == len([size for size in sizes if size > 1]) or len(sizes) == 1
    if whole:
        axes = [1]
    else:
        x = graph.call_method("unflatten", (x, 1, sizes))
    name = {"max": "amax", "min": "amin"}.get(kind, kind)
    extra = {
        key: writer.number(value)
        for key, value in writer.arguments(node, "input p dim" if name == "norm" else "input ord dim"
                                          if name == "vector_norm" else "input dim unbiased").items()
        if key in ("p", "ord", "unbiased", "correction")
    } if name in ("var", "std", "norm", "vector_norm") else {}  # fmt: skip
    target = torch.linalg.vector_norm if name == "vector_norm" else getattr(torch, name.removesuffix("_mean"))
    new = graph.call_function(target, (x,), {**extra, "dim": axes, "keepdim": whole})
    if not whole:
        new = graph.call_method("flatten", (new, 1, -3))
    writer.changes.append(f"{writer.name(node)} is computed over the channels of each cell")
    return new


def unbinned(writer: Rewriter, node: fx.Node, cells: HeadValue) -> HeadValue:
    """The value with adaptive bins as channels, for operations that are not linear layers."""
    if all(atom.bins is None for atom in cells.atoms):
        return cells
    (channels,), (rows,), (cols,) = cells.dims if len(cells.dims) == 3 else ((), (), ())
    if not (isinstance(channels, Atom) and rows.along == "rows" and cols.along == "cols"):
        raise writer.refused(node)
    return _binned(writer, node, cells, "avg", (rows.size, cols.size))


def plain_pools(traced: fx.GraphModule) -> None:
    """Fixes the size of poolings and convolutions over the whole native map, at stride 1, in place.

    At the native size they cover the whole map. On larger images they then slide.

    Args:
        traced: the network, with shapes propagated.
    """
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        layer, shape = layer_of(node, modules), output_shape(node)
        pool = _pool_kind(node, layer)
        if len(shape) != 4 or shape[2:] != (1, 1) or not (pool or isinstance(layer, nn.Conv2d)):
            continue
        before = output_shape(node.all_input_nodes[0])
        names = "input kernel_size stride padding"
        given: Any = (
            vars(layer) if layer else dict(zip(names.split(), node.args, strict=False)) | dict(node.kwargs)
        )
        kernel, padding = (
            fx.map_arg(given.get(name, 0), lambda source: source.meta.get("value"))
            for name in ("kernel_size", "padding")
        )
        sides = tuple(kernel) if isinstance(kernel, (tuple, list)) else (kernel, kernel)
        overhangs = given.get("ceil_mode") and all(
            k >= side for k, side in zip(sides, before[2:], strict=True)
        )
        whole = sides == before[2:] or overhangs  # values beyond the map do not count
        if not whole or before[2:] == (1, 1) or any(listed(padding)) or given.get("divisor_override"):
            continue
        if isinstance(layer, nn.Conv2d):
            if tuple(layer.stride) == (1, 1):
                continue
            slid = copy.copy(layer)
            slid.stride = (1, 1)
            new: nn.Module = slid
        else:
            assert pool is not None
            new = pool(1)
        name = f"fcn_whole_{node.name}"
        traced.add_submodule(name, new.eval())
        with traced.graph.inserting_after(node):
            replaced = traced.graph.call_module(name, (node.all_input_nodes[0],))
        replaced.meta = dict(node.meta)
        node.replace_all_uses_with(replaced)
        traced.graph.erase_node(node)
    traced.recompile()


def _pool_kind(node: fx.Node, layer: nn.Module | None) -> type[nn.Module] | None:
    if isinstance(layer, nn.AvgPool2d) or called(node, "avg_pool2d"):
        return nn.AdaptiveAvgPool2d
    if isinstance(layer, nn.MaxPool2d) or called(node, "max_pool2d"):
        return nn.AdaptiveMaxPool2d
    return None
