"""Finds the axes of each value in a traced network that belong to the image, by running larger images.

A value with an axis that grows with the image's height has rows there, and a value with an axis that grows
with its width has columns. This recognises a feature map whatever the order of its axes, and whatever code
made it. A value that does not grow has been collapsed. A value that depends only on the image's size and
varies along a growing axis contains coordinates: a network that uses them gives different answers in
different places of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.graph import (
    called,
    device_of,
    function_name,
    layer_of,
    listed,
    node_text,
    output_shape,
    pointwise,
)
from fcnconv.convert.probes import precision_of, probe
from fcnconv.errors import WAY_OUT, ConversionError

_OF_SIZE = frozenset(
    (
        "size dim ndimension numel zeros_like ones_like full_like empty_like new_zeros new_ones new_full "
        "new_empty new_tensor get_device is_floating_point stride"
    ).split()
)
"""Functions and methods whose result does not depend on the values of their tensor."""

_SCRAMBLING = ("flip", "fliplr", "flipud", "roll", "rot90")
"""Functions that move whole cells to another place in the map."""

_ORDERED = ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort", "msort")
"""Functions whose result at a cell depends on how many cells come before it."""

_SHARING = ("softmax", "log_softmax", "softmin", "normalize")
"""Functions that divide a whole among the values along an axis."""

_TOTALS = ("sum", "norm", "vector_norm", "logsumexp")
"""Functions whose result grows with the number of values."""

_CONTRACTING = ("matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")
"""Functions that sum over an axis, so that a whole that was divided along it is one again."""


@dataclass(frozen=True)
class Growth:
    """How a tensor grows with the image.

    Attributes:
        rows: its axes that grow with the height.
        cols: its axes that grow with the width; an axis in both is a flattened map.
        known: False if the node does not run on larger images.
        varies: whether the value depends only on the image's size, and varies along a growing axis.
    """

    rows: tuple[int, ...] = ()
    cols: tuple[int, ...] = ()
    known: bool = True
    varies: bool = False

    @property
    def is_map(self) -> bool:
        """Whether rows and columns are separate axes."""
        return self.known and len(self.rows) == len(self.cols) == 1 and self.rows != self.cols


def pixel_nodes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose value depends on the values of the pixels, not only on their number."""
    known: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (any(s in known for s in node.all_input_nodes) and not _of_size(node)):
            known.add(node)
    return known


def _of_size(node: fx.Node) -> bool:
    if node.op == "call_function" and function_name(node) == "getattr":
        return node.args[1] in ("shape", "device", "dtype", "ndim", "is_cuda", "requires_grad")
    return called(node, *_OF_SIZE)


@dataclass(frozen=True)
class Larger:
    """Results of running a network on two larger images.

    Attributes:
        known: the extent of each node that returns a tensor.
        ends: the feature maps' values in the window at one end: the left end of a wider image, and the bottom
            of a higher one.
    """

    known: dict[fx.Node, Growth]
    ends: tuple[dict[fx.Node, torch.Tensor], dict[fx.Node, torch.Tensor]]


def run_larger(traced: fx.GraphModule, window: int, more: int, cut: int = 0) -> Larger:
    """Runs a network on a wider image and on a higher image, as far as it goes.

    Args:
        traced: the network, with the shapes at the native size propagated (`graph.Shapes`).
        window: side of the native input, in pixels.
        more: number of pixels by which the images are wider or higher than the window.
        cut: number of pixels that are cut off again, from the right of the wider image and from the top of
            the higher image.
    """
    pixels = pixel_nodes(traced.graph)
    long = probe(traced, 1, window, window + more)
    wide = long[:, :, :, : window + more - cut].contiguous()
    high = long.transpose(2, 3)[:, :, cut:].contiguous()
    wider, higher = _Run(traced, pixels, from_end=False), _Run(traced, pixels, from_end=True)
    with torch.no_grad(), precision_of(traced):
        wider.run(wide)
        higher.run(high)
    known = {}
    for node in traced.graph.nodes:
        native = output_shape(node)
        if not native:
            continue
        down, across = higher.noted.get(node), wider.noted.get(node)
        if down is None or across is None or not (_comparable(native, down) and _comparable(native, across)):
            known[node] = Growth(known=False)
            continue
        first = int(node in pixels)  # the axis of the batch, which has two images at the native size
        if first and (down.shape[0], across.shape[0]) != (1, 1):
            known[node] = Growth(known=False)
            continue
        rows, cols = (
            tuple(axis for axis in range(first, len(native)) if noted.shape[axis] != native[axis])
            for noted in (down, across)
        )
        varies = any(axis in rows for axis in down.varying) or any(axis in cols for axis in across.varying)
        known[node] = Growth(rows, cols, varies=varies)
    return Larger(known, (wider.ends, higher.ends))


def _comparable(native: tuple[int, ...], noted: _Noted) -> bool:
    return len(noted.shape) == len(native)


@dataclass(frozen=True)
class _Noted:
    """The shape of a tensor and, for a tensor that does not depend on pixels, the axes along which it
    varies.
    """

    shape: tuple[int, ...]
    varying: tuple[int, ...]


class _Run(fx.Interpreter):
    """Runs a network as far as it goes. Failing nodes are recorded, and so are all nodes that depend on them.

    `ends` has the values of each map whose rows or columns are collapsed, in the window at one end of the
    image.
    """

    def __init__(self, traced: fx.GraphModule, pixels: set[fx.Node], *, from_end: bool):
        super().__init__(traced)
        self.pixels, self.failed, self.from_end = pixels, set[fx.Node](), from_end
        self.noted: dict[fx.Node, _Noted] = {}
        self.ends: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if any(source in self.failed for source in n.all_input_nodes):
            self.failed.add(n)
            self._keep(n)
            return None
        try:
            result = super().run_node(n)
        except Exception:  # the network's own code can raise any kind of error
            self.failed.add(n)
            self._keep(n)
            return None
        if isinstance(result, torch.Tensor):
            constant = (
                n not in self.pixels and n.op != "get_attr" and not result.is_meta and result.numel() > 1
            )
            self.noted[n] = _Noted(tuple(result.shape), _varying(result) if constant else ())
        if (
            not isinstance(result, torch.Tensor)
            or result.ndim < 4
            or tuple(result.shape[1:]) == output_shape(n)[1:]
        ):
            self._keep(n)
        return result

    def _keep(self, node: fx.Node) -> None:
        """Keeps the ends of the maps that a node reads, if the node collapses them or cannot be run."""
        for source in node.all_input_nodes:
            value, native = self.env.get(source), output_shape(source)
            if (
                source in self.ends
                or not isinstance(value, torch.Tensor)
                or value.ndim != len(native)
                or value.is_meta
            ):
                continue
            growing = [axis for axis in range(1, len(native)) if value.shape[axis] > native[axis]]
            if not growing and value.shape[1:] == native[1:]:  # without a halo, a tile is a window
                self.ends[source] = value.clone()
            elif len(growing) == 1 and source in self.pixels:
                (axis,) = growing
                start = value.shape[axis] - native[axis] if self.from_end else 0
                self.ends[source] = value.narrow(axis, start, native[axis]).clone()


def _varying(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(
        axis
        for axis, length in enumerate(tensor.shape)
        if length > 1
        and bool((tensor.narrow(axis, 1, length - 1) != tensor.narrow(axis, 0, length - 1)).any())
    )


def refuse_positions(
    traced: fx.GraphModule, known: dict[fx.Node, Growth], opaque: frozenset[type[nn.Module]]
) -> None:
    """Raises ConversionError if the network's answer depends on the position of a window in the image.

    Args:
        traced: the network.
        known: the extents of its nodes.
        opaque: kinds of layers whose code was not traced. Each one is tried on a uniform map.
    """
    modules, pixels = dict(traced.named_modules()), pixel_nodes(traced.graph)
    for node in traced.graph.nodes:
        if node not in pixels:
            continue
        for source in node.all_input_nodes:
            extent = known.get(source, Growth())
            if source not in pixels and extent.varies and node in pixels:
                raise ConversionError(
                    "the network adds coordinates of the image "
                    f"({node_text(source, layer_of(source, modules))}), "
                    f"so that its answer depends on where in the image a window lies; {WAY_OUT}"
                )
        layer = layer_of(node, modules)
        if type(layer) in opaque and layer is not None and _has_coordinates(layer, node):
            raise ConversionError(
                f"{node_text(node, layer)} answers differently at different places of a uniform image, so "
                f"that the answer depends on where in the image a window lies; {WAY_OUT}"
            )
        if _counts_cells(node, layer, known):
            raise ConversionError(
                f"{node_text(node, layer)} goes through the cells of the image in their order, so that its "
                f"answer depends on where in the image a window lies; {WAY_OUT}"
            )
        if _scrambles(node, known):
            raise ConversionError(
                f"the network moves whole rows or columns of the image ({function_name(node)}), so that its "
                f"answer depends on where in the image a window lies; {WAY_OUT}"
            )


def _counts_cells(node: fx.Node, layer: nn.Module | None, known: dict[fx.Node, Growth]) -> bool:
    """Whether a node accumulates, sorts or reads one after the other along an axis that grows."""
    recurrent = isinstance(layer, nn.RNNBase)
    if not (recurrent or called(node, *_ORDERED)):
        return False
    source = node.all_input_nodes[0]
    growth, rank = known.get(source, Growth()), len(output_shape(source))
    growing = {*growth.rows, *growth.cols}
    if recurrent or not growth.known:
        return bool(growing) or not growth.known
    default = 0 if function_name(node) == "msort" else -1 if "sort" in function_name(node) else None
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else default)
    return not isinstance(axis, int) or axis % rank in growing


def refuse_shares(traced: fx.GraphModule, known: dict[fx.Node, Growth], features: Sequence[fx.Node]) -> None:
    """Raises ConversionError if a whole is divided among all cells of the image on the way to the head.

    A cell's share becomes smaller as the image grows, and so would the logits of each window. In attention
    and in context blocks, a sum over the cells follows, which makes the whole again.

    Args:
        traced: the network.
        known: the extents of its nodes.
        features: the feature maps that the head collapses.
    """
    modules = dict(traced.named_modules())
    divided: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        if _shares_out(node, layer_of(node, modules), known):
            divided[node] = node
        elif _growing(node, known) and not called(node, *_CONTRACTING):
            divided.update((node, divided[source]) for source in node.all_input_nodes if source in divided)
    for node in (divided[feature] for feature in features if feature in divided):
        raise ConversionError(
            f"{node_text(node, layer_of(node, modules))} divides a whole among all cells of the image, so "
            f"that a window's share depends on the size of the image; {WAY_OUT}"
        )


def _growing(node: Any, known: dict[fx.Node, Growth]) -> set[int]:
    growth = known.get(node, Growth())
    return {*growth.rows, *growth.cols} if growth.known else set()


def _shares_out(node: fx.Node, layer: nn.Module | None, known: dict[fx.Node, Growth]) -> bool:
    """Whether a node divides a whole along an axis that grows with the image."""
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    growing = _growing(source, known)
    if source is None or not growing:
        return False
    if called(node, "div", "truediv"):
        return len(node.args) > 1 and _is_total(node.args[1], known)
    rank = len(output_shape(source))
    if isinstance(layer, (nn.Softmax, nn.LogSoftmax, nn.Softmin)):
        axis: Any = layer.dim
    elif called(node, "renorm"):
        axis = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
        return bool(growing - {axis % rank} if isinstance(axis, int) else growing)
    elif called(node, *_SHARING):
        place, default = (2, 1) if function_name(node) == "normalize" else (1, None)
        axis = node.kwargs.get("dim", node.args[place] if len(node.args) > place else default)
    else:
        return False
    axes = [each for each in listed(axis) if isinstance(each, int)] or [1]
    return any(each % rank in growing for each in axes)


def _is_total(node: Any, known: dict[fx.Node, Growth]) -> bool:
    """Whether a value is a total over all cells, or made from one."""
    if not isinstance(node, fx.Node) or _growing(node, known):
        return False
    if called(node, *_TOTALS) and _growing(node.all_input_nodes[0], known):
        return True
    return pointwise(node, None) and any(_is_total(source, known) for source in node.all_input_nodes)


def _scrambles(node: fx.Node, known: dict[fx.Node, Growth]) -> bool:
    if not called(node, *_SCRAMBLING):
        return False
    source = node.all_input_nodes[0]
    extent, rank = known.get(source, Growth()), len(output_shape(source))
    name = function_name(node)
    if name in ("fliplr", "flipud"):
        axes = [1 if name == "fliplr" else 0]
    else:
        position, keyword = (2, "dims") if name in ("roll", "rot90") else (1, "dims")
        given: Any = node.kwargs.get(keyword, node.args[position:] if name != "flip" else node.args[1:])
        while isinstance(given, (list, tuple)) and len(given) == 1 and isinstance(given[0], (list, tuple)):
            given = given[0]
        axes = [axis for axis in listed(given) if isinstance(axis, int)]
        if name == "rot90" and not axes:
            axes = [0, 1]
        elif not axes:
            axes = list(range(1, rank))  # the default is all axes
    return any(axis % rank in (*extent.rows, *extent.cols) for axis in axes)


def _has_coordinates(layer: nn.Module, node: fx.Node) -> bool:
    """Whether a layer returns varying values in the middle of a uniform map."""
    shapes = [output_shape(source) for source in node.all_input_nodes]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return False
    _, channels, height, width = shapes[0]
    even = torch.full((1, channels, 2 * height, 2 * width), 0.5, device=device_of(layer))
    try:
        given = layer.forward(even)
    except Exception:  # its own code fails; the proof on larger images shows what it refuses
        return False
    if not isinstance(given, torch.Tensor) or given.ndim != 4 or given.is_meta or min(given.shape[2:]) < 4:
        return False
    rows, cols = (length // 2 for length in given.shape[2:])
    middle = given[:, :, rows - 1 : rows + 1, cols - 1 : cols + 1]
    spread = middle.amax((2, 3)) - middle.amin((2, 3))
    return bool(spread.max() > 1e-4 * given.abs().max())
