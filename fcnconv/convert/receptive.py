"""The geometry of a traced network: its output stride, and the receptive field of a feature cell.

One pass over the graph finds, for each feature map, the input pixels that can influence its cell 0 (Araujo,
Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019). The same pass
finds operations that depend on the whole image, such as the pooling in squeeze-and-excitation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from fcnconv.convert.graph import called, layer_of, listed, node_text, output_shape, pointwise, spatial
from fcnconv.convert.sliding import SlidingBins, SlidingStatistic
from fcnconv.errors import WAY_OUT, ConversionError

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, SlidingStatistic, SlidingBins)
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

_REACH = {"nearest": 0, "nearest-exact": 0, "bilinear": 1}
"""Number of neighbouring cells that an interpolation uses for a new cell; two for all other kinds."""

_CHANNELS = frozenset(  # these move cells; layer_norm covers the channels of one cell
    (
        "cat chunk concat dim flatten getitem getattr layer_norm reshape size split squeeze stack "
        "tensor_split transpose unbind unsqueeze view"
    ).split()
)


@dataclass(frozen=True)
class Field:
    """The input pixels that can influence cell 0 of a feature map, along one axis.

    Attributes:
        first, last: their range, in pixels from the image's edge. `first` is negative if it reaches the
            padding.
        stride: pixels between neighbouring cells.
        cause: the first operation on the way that depends on the whole image; empty if there is none.
        channels_last: True between a permutation to (N, H, W, C) and the permutation back.
    """

    first: int = 0
    last: int = 0
    stride: int = 1
    cause: str = ""
    channels_last: bool = False

    @property
    def local(self) -> bool:
        """Whether no operation on the way depends on the whole image."""
        return not self.cause

    @property
    def size(self) -> int:
        """The receptive field in pixels, from the local operations."""
        return self.last - self.first + 1

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> Field:
        """The field after a sliding operation with these settings."""
        return replace(
            self,
            first=self.first - padding * self.stride,
            last=self.last + (dilation * (kernel - 1) - padding) * self.stride,
            stride=self.stride * stride,
        )

    def enlarged(self, ratio: float, reach: int, name: str) -> Field:
        """The field after an interpolation.

        If the new cells do not divide the old ones evenly, there is no regular stride.

        Args:
            ratio: number of new cells per old cell.
            reach: number of further cells on either side that a new cell uses.
            name: name of the interpolation.
        """
        stride = self.stride / ratio
        if stride != round(stride):
            return replace(self, stride=max(round(stride), 1), cause=self.cause or name)
        beside = reach * self.stride
        first = self.first - beside - (self.stride - round(stride))
        return replace(self, first=first, last=self.last + beside, stride=round(stride))

    def merged(self, other: Field) -> Field:
        """The field of a cell that is computed from both."""
        return Field(
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.stride, other.stride),
            self.cause or other.cause,
            self.channels_last or other.channels_last,
        )


def fields(traced: fx.GraphModule, axis: int) -> dict[fx.Node, Field]:
    """The field of each node's cell 0, for a traced network with propagated shapes.

    Args:
        traced: the network.
        axis: 0 down the image, 1 across it. They differ if kernels are oblong, as in Inception.

    Raises:
        ConversionError: a padding or a stride depends on the image.
    """
    modules = dict(traced.named_modules())
    known: dict[fx.Node, Field] = {}
    for node in traced.graph.nodes:
        sources = [known[source] for source in node.all_input_nodes if source in known]
        if not sources:
            known[node] = Field()
            continue
        field = sources[0]
        for source in sources[1:]:
            field = field.merged(source)
        try:
            known[node] = _after(node, field, modules, axis)
        except TypeError as error:  # a number that the graph computes
            raise ConversionError(
                f"{node.name}() pads or slides by an amount that depends on the image; {WAY_OUT}"
            ) from error
    return known


def _after(node: fx.Node, field: Field, modules: dict[str, nn.Module], axis: int) -> Field:
    layer = layer_of(node, modules)
    elsewhere = replace(field, cause=field.cause or node_text(node, layer))
    if _wraps(node, layer):
        return elsewhere
    if isinstance(layer, _WINDOWED):
        return field.through(*_module_settings(layer, axis))
    if called(node, "max_pool2d", "avg_pool2d", "conv2d"):
        return field.through(*_call_settings(node, axis))
    if called(node, "pad") or isinstance(layer, _PADS):
        return field.through(1, 1, _padding_before(node, layer, axis), 1)
    if isinstance(layer, nn.Upsample) or called(node, "interpolate"):
        before, after = (output_shape(each)[2 + axis] for each in (node.all_input_nodes[0], node))
        mode = layer.mode if isinstance(layer, nn.Upsample) else node.kwargs.get("mode", "nearest")
        return field.enlarged(after / before, _REACH.get(str(mode), 2), node_text(node, layer))
    if called(node, "permute"):
        return replace(field, channels_last=_permutation(node) == [0, 2, 3, 1])
    if called(node, "reshape", "view") and not _keeps_cells(node):
        return elsewhere
    of_one_cell = (
        pointwise(node, layer)
        or _over_channels(node, field)
        or isinstance(layer, nn.Flatten)
        or (isinstance(layer, (nn.Linear, nn.LayerNorm)) and field.channels_last)
        or called(node, *_CHANNELS)
        or node.op in ("output", "get_attr", "placeholder")
    )
    if of_one_cell or not any(spatial(source) for source in node.all_input_nodes):
        return field
    return elsewhere


def _wraps(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node extends the map beyond its edge with values from the opposite edge."""
    if isinstance(layer, nn.CircularPad2d) or getattr(layer, "padding_mode", "") == "circular":
        return True
    return called(node, "pad") and "circular" in (*node.args, *node.kwargs.values())


def _keeps_cells(node: fx.Node) -> bool:
    """Whether a reshape keeps the channels of each cell. It does not if it turns pixels into channels."""
    before, after = (output_shape(each) for each in (node.all_input_nodes[0], node))
    return len(before) < 4 or len(after) < 3 or before[-2:] == after[-2:] or before[1:3] == after[1:3]


_OF_CHANNELS = "mean var sum amax softmax log_softmax normalize norm vector_norm logsumexp".split()


def _over_channels(node: fx.Node, field: Field) -> bool:
    """Whether a node computes a statistic of the channels of each cell."""
    if not called(node, *_OF_CHANNELS) or len(output_shape(node)) != 4:
        return False
    position = 2 if called(node, "normalize", "norm", "vector_norm") else 1
    usual = 1 if called(node, "normalize") else None
    axes = node.kwargs.get("dim", node.args[position] if len(node.args) > position else usual)
    if isinstance(axes, fx.Node):
        return False
    channels = 3 if field.channels_last else 1
    return [axis % 4 for axis in listed(axes)] == [channels]


def _module_settings(module: nn.Module, axis: int) -> tuple[int, int, int, int]:
    kernel = _along(module.kernel_size, axis)
    stride = _along(getattr(module, "stride", None) or module.kernel_size, axis)
    dilation = _along(getattr(module, "dilation", 1), axis)
    padding: Any = getattr(module, "padding", 0)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    return kernel, stride, _along(padding, axis), dilation


def _call_settings(node: fx.Node, axis: int) -> tuple[int, int, int, int]:
    names = "input weight bias stride padding dilation" if called(node, "conv2d") else _POOL_ARGUMENTS
    given: dict[str, Any] = dict(zip(names.split(), node.args, strict=False)) | dict(node.kwargs)
    size = output_shape(given["weight"])[2:] if called(node, "conv2d") else given["kernel_size"]
    kernel, usual = _along(size, axis), 1 if called(node, "conv2d") else size
    stride = _along(given.get("stride") or usual, axis)
    return kernel, stride, _along(given.get("padding", 0), axis), _along(given.get("dilation", 1), axis)


_POOL_ARGUMENTS = "input kernel_size stride padding"


def _padding_before(node: fx.Node, module: nn.Module | None, axis: int) -> int:
    pads: Any = module.padding if module is not None else (node.kwargs.get("pad") or node.args[1])
    before = (pads[2], pads[0]) if len(pads) > 2 else (0, pads[0])  # pads: left, right, top, bottom
    return int(before[axis])


def _permutation(node: fx.Node) -> list[Any]:
    axes: Any = node.kwargs.get("dims") or (node.args[1] if len(node.args) == 2 else node.args[1:])
    return list(axes)


def _along(value: Any, axis: int) -> int:
    """The component of a (vertical, horizontal) pair, or the number that stands for both."""
    return int(value[axis]) if isinstance(value, (tuple, list)) else int(value)
