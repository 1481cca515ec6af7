"""The head of a classifier, from where its spatial axes end to the logits, and its conversion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

from fcnconv.convert.graph import (
    called,
    layer_of,
    listed,
    node_text,
    output_of,
    output_shape,
    pointwise,
    spatial,
)
from fcnconv.convert.receptive import fields
from fcnconv.errors import WAY_OUT, ConversionError

_FOUR_D = frozenset(("permute", "layer_norm"))
"""What keeps each cell by itself on a map of four axes: ConvNeXt's LayerNorm2d, spelled out."""


class Head:
    """The part of a traced classifier from the end of its spatial axes to the logits, and its conversion."""

    def __init__(self, traced: fx.GraphModule):
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.output: fx.Node = output_of(traced.graph)
        self.changes: list[str] = []
        self.averages: list[str] = []
        """Names of the submodules that slide an average over feature cells."""
        self.end = self._find_end()
        self.features = self.end.all_input_nodes[0]
        """The last feature map of the network's body."""
        self.kernel: tuple[int, int] | None = None
        """(h, w) of the features that a flattening end leaves to the first linear layer, as its kernel."""
        self.bins: tuple[torch.Tensor, ...] | None = None
        """An adaptive pooling before that end, as one matrix (bins, h) or (bins, w) for each axis."""

    def _find_end(self) -> fx.Node:
        node = self.output
        while node.all_input_nodes:
            source = next((s for s in node.all_input_nodes if s.op != "get_attr"), node.all_input_nodes[0])
            if spatial(source) and not spatial(node):
                return node
            node = source
        raise ConversionError(f"no pooling or flattening ends the spatial axes of this network; {WAY_OUT}")

    def convert(self) -> None:
        """Rewrites the graph from the end on."""
        below = self._below()
        self._slide_end()
        for node in below:
            self._convert(node)

    def _below(self) -> list[fx.Node]:
        below, reached = [], {self.end}
        for node in self.traced.graph.nodes:
            if any(source in reached for source in node.all_input_nodes) and node.op != "output":
                reached.add(node)
                below.append(node)
        return below

    def _slide_end(self) -> None:
        if _mean_of_first_axes(self.end) and fields(self.traced, 0)[self.features].channels_last:
            self._pool_channels_last()
        height, width = output_shape(self.features)[2:]
        if _is_whole(self._module(self.end), (height, width)):
            return  # a convolution that slides as it is
        pool = self._pooling(self.end)
        if pool:
            self._replace(
                self.end, pool((height, width), stride=1), f"{pool.__name__} {height} × {width}, stride 1"
            )
            if pool is nn.AvgPool2d:
                self.averages.append(str(self.end.target))
            return
        if not _flattens(self.end, self._module(self.end)):
            raise ConversionError(
                f"{self._name(self.end)} ends the spatial axes, and is no pooling or flattening; {WAY_OUT}"
            )
        if self._adaptive(self.features):
            pooled, self.features = self.features, self.features.all_input_nodes[0]
            sizes, bins = output_shape(self.features)[2:], output_shape(pooled)[2:]
            if sizes != bins:
                self.bins = tuple(map(_bins, sizes, bins))
            pooled.replace_all_uses_with(self.features)
            self.traced.graph.erase_node(pooled)
        self.kernel = height, width
        self._bypass(self.end)

    def _pool_channels_last(self) -> None:
        """Makes the mean of (N, H, W, C) one of (N, C, H, W)."""
        shape = output_shape(self.features)
        with self.traced.graph.inserting_before(self.end):
            self.features = self.traced.graph.call_method("permute", (self.features, 0, 3, 1, 2))
        self.features.meta["shape"] = (shape[0], shape[3], *shape[1:3])
        self.end.args, self.end.kwargs = (self.features, [2, 3]), {}

    def _adaptive(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), nn.AdaptiveAvgPool2d) or called(node, "adaptive_avg_pool2d")

    def _pooling(self, node: fx.Node) -> type[nn.AvgPool2d] | type[nn.MaxPool2d] | None:
        """The sliding pooling that equals a node which pools everything, or None if it does not."""
        module = self._module(node)
        if len(output_shape(node)) == 4 and (
            isinstance(module, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))
            or called(node, "adaptive_avg_pool2d", "avg_pool2d")
        ):
            return nn.AvgPool2d
        if len(output_shape(node)) == 4 and (
            isinstance(module, (nn.AdaptiveMaxPool2d, nn.MaxPool2d))
            or called(node, "adaptive_max_pool2d", "max_pool2d")
        ):
            return nn.MaxPool2d
        if called(node, "mean", "amax"):
            axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
            if isinstance(axes, (list, tuple)) and sorted(axis % 4 for axis in axes) == [2, 3]:
                return nn.AvgPool2d if called(node, "mean") else nn.MaxPool2d
        return None

    def _convert(self, node: fx.Node) -> None:
        module = self._module(node)
        if isinstance(module, nn.Linear):
            self._replace(node, self._convolution(module), "")
        elif isinstance(module, nn.BatchNorm1d):
            self._replace(node, _batch_norm(module), "BatchNorm2d")
        elif isinstance(module, nn.LayerNorm) and len(output_shape(node)) == 2:
            self._replace(node, _ChannelNorm(module), "LayerNorm over channels")
        elif _flattens(node, module) or self._pooling(node):
            self._bypass(node)
        elif isinstance(module, (nn.Softmax, nn.LogSoftmax)):
            self._replace(node, type(module)(dim=1), f"{type(module).__name__} over channels")
        elif called(node, "mean", "var"):
            self._over_channels(node)
        elif called(node, "layer_norm") and len(output_shape(node)) == 2:
            self._channels_last(node)
        elif called(node, "softmax", "log_softmax"):
            node.kwargs = {**node.kwargs, "dim": 1}
            node.args = node.args[:1]
        elif node.users and not self._keeps(node, module):
            self._needs_no_change(node)
        if self.kernel and isinstance(module, nn.Linear):
            self.kernel = self.bins = None

    def _over_channels(self, node: fx.Node) -> None:
        """A statistic of each vector as one of each cell."""
        axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        last = len(output_shape(node.all_input_nodes[0])) - 1
        if [axis % (last + 1) for axis in listed(axes)] != [1] or not node.kwargs.get("keepdim"):
            raise ConversionError(f"{self._name(node)} stands between the pooling and the logits; {WAY_OUT}")
        node.args, node.kwargs = node.args[:1], {**node.kwargs, "dim": 1}

    def _channels_last(self, node: fx.Node) -> None:
        """A function over the last axis of vectors as one of each cell."""
        source, graph = node.all_input_nodes[0], self.traced.graph
        with graph.inserting_before(node):
            node.replace_input_with(source, graph.call_method("permute", (source, 0, 2, 3, 1)))
        with graph.inserting_after(node):
            back = graph.call_method("permute", (node, 0, 3, 1, 2))
        back.meta = node.meta
        node.replace_all_uses_with(back, lambda user: user is not back)

    def _needs_no_change(self, node: fx.Node) -> None:
        # What only computes a shape for a reshape that is gone has no users left by now.
        live = [user for user in node.users if not (_flattens(user, None) or called(user, "getitem"))]
        if live:
            raise ConversionError(f"{self._name(node)} stands between the pooling and the logits; {WAY_OUT}")

    def _keeps(self, node: fx.Node, module: nn.Module | None) -> bool:
        """Whether a node below the end does the same to each cell of a map as it did to the one vector."""
        if isinstance(module, nn.Conv2d):
            return tuple(module.kernel_size) == (1, 1)
        return pointwise(node, module) or (called(node, *_FOUR_D) and len(output_shape(node)) == 4)

    def _convolution(self, linear: nn.Linear) -> nn.Conv2d:
        weight = linear.weight
        if self.kernel:
            weight = weight.reshape(linear.out_features, -1, *self.kernel)
            if self.bins:  # linear ∘ pooling is one linear map of the features: (O, C, i, j) -> (O, C, h, w)
                bins = (matrix.to(weight.device) for matrix in self.bins)
                weight = torch.einsum("ocij,ih,jw->ochw", weight.double(), *bins)  # rounded after the proof
        else:
            weight = weight[:, :, None, None]
        out, channels, height, width = weight.shape
        conv = nn.Conv2d(channels, out, (height, width), bias=linear.bias is not None)
        conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        conv.bias = linear.bias
        self.changes.append(f"Linear {linear.in_features} → {out} became a {height} × {width} convolution")
        return conv.eval()

    def _replace(self, node: fx.Node, module: nn.Module, said: str) -> None:
        name = f"fcn_{node.name}"
        self.traced.add_submodule(name, module.eval())
        with self.traced.graph.inserting_after(node):
            new = self.traced.graph.call_module(name, (node.all_input_nodes[0],))
        new.meta = node.meta
        node.replace_all_uses_with(new)
        if said:
            self.changes.append(f"{self._name(node)} became {said}")
        if node is self.end:
            self.end = new
        self.traced.graph.erase_node(node)

    def _bypass(self, node: fx.Node) -> None:
        source = node.all_input_nodes[0]
        node.replace_all_uses_with(source)
        sizes = [other for other in node.all_input_nodes if other is not source]
        if node is not self.end:
            self.changes.append(f"{self._name(node)} dropped")
        self.traced.graph.erase_node(node)
        for size in sizes:  # a view's own arithmetic on x.size(0)
            self._erase_unused(size)

    def _erase_unused(self, node: fx.Node) -> None:
        if not node.users and node.op != "placeholder":
            sources = node.all_input_nodes
            self.traced.graph.erase_node(node)
            for source in sources:
                self._erase_unused(source)

    def _module(self, node: fx.Node) -> nn.Module | None:
        return layer_of(node, self.modules)

    def _name(self, node: fx.Node) -> str:
        return node_text(node, self._module(node))


class _ChannelNorm(nn.Module):
    """LayerNorm of each cell over its channels: (N, C, h, w) -> the same."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def _mean_of_first_axes(node: fx.Node) -> bool:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return called(node, "mean") and listed(axes) == [1, 2]


def _is_whole(layer: nn.Module | None, size: tuple[int, int]) -> bool:
    """Whether a layer is a convolution of all of a feature map at once."""
    if not isinstance(layer, nn.Conv2d) or tuple(layer.kernel_size) != size:
        return False
    return layer.padding in (0, (0, 0)) and layer.stride == layer.dilation == (1, 1)


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node makes (N, C·h·w) of (N, C, h, w) in that order, or drops axes of length 1."""
    if not (isinstance(module, nn.Flatten) or called(node, "flatten", "view", "reshape", "squeeze")):
        return False
    before, after = output_shape(node.all_input_nodes[0]), output_shape(node)
    if called(node, "squeeze") and len(after) == 3:  # the first of two
        return before[:2] == after[:2]
    return len(after) == 2 and before[:1] == after[:1]


def _bins(size: int, bins: int) -> torch.Tensor:
    """float64 (bins, size): adaptive average pooling along one axis as a matrix."""
    return F.adaptive_avg_pool1d(torch.eye(size, dtype=torch.float64)[None], bins)[0].T


def _batch_norm(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    new = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.load_state_dict(norm.state_dict(), assign=True)  # on the device that it is on
    return new
