"""The geometry of a traced network: its output stride and the receptive field of a feature cell.

Walks the graph once and keeps, for each feature map, which input pixels can influence its cell 0 (Araujo,
Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019). The same walk
notices operations that look at the whole image, such as the pooling of squeeze-and-excitation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)

_POINTWISE_MODULES = (nn.Identity, nn.Flatten)
_POINTWISE_FAMILIES = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.dropout",
)

_ARITHMETIC = "abs add addcmul clamp div exp float floordiv mul neg pow rsub sqrt square sub truediv"
_ACTIVATION = (
    "batch_norm dropout dropout2d elu gelu hardsigmoid hardswish hardtanh leaky_relu mish prelu relu relu6 "
    "selu sigmoid silu softplus stochastic_depth tanh threshold"
)
_CHANNELS = (  # moving them about; layer_norm is over the channels of one cell
    "cat chunk concat contiguous dim flatten getitem getattr layer_norm reshape size split squeeze stack "
    "tensor_split to transpose type unbind unsqueeze view"
)
_POINTWISE_NAMES = frozenset(f"{_ARITHMETIC} {_ACTIVATION} {_CHANNELS}".split())


@dataclass(frozen=True)
class Field:
    """The input pixels that can influence cell 0 of a feature map, along one axis.

    first, last: their range, in pixels from the image's edge (`first` is negative where padding is reached).
    stride: pixels between neighbouring cells.
    local: False if some operation on the way looked at the whole image.
    channels_last: True between a permutation to (N, H, W, C) and the one back.
    """

    first: int = 0
    last: int = 0
    stride: int = 1
    local: bool = True
    channels_last: bool = False

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

    def merged(self, other: Field) -> Field:
        """The field of a cell made from both."""
        return Field(
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.stride, other.stride),
            self.local and other.local,
            self.channels_last or other.channels_last,
        )


class Shapes(fx.Interpreter):
    """Runs a traced network and notes the shape of each node's output."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else ()
        return result


def spatial(node: fx.Node) -> bool:
    """Whether a node's output is more than one vector an image (at the size that was propagated), whatever
    the order of its axes.
    """
    shape = output_shape(node)
    return len(shape) == 4 and sum(length > 1 for length in shape[1:]) > 1


def output_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's output at the size that was propagated; () where it is not one tensor."""
    shape: tuple[int, ...] = node.meta.get("shape", ())
    return shape


def fields(traced: fx.GraphModule, axis: int) -> dict[fx.Node, Field]:
    """The field of each node's cell 0, for a traced network whose shapes have been propagated.

    axis: 0 down the image, 1 across it; they differ where kernels are oblong, as in Inception.
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
        known[node] = _after(node, field, modules, axis)
    return known


def _after(node: fx.Node, field: Field, modules: dict[str, nn.Module], axis: int) -> Field:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    name = getattr(node.target, "__name__", str(node.target)).strip("_")
    if isinstance(module, _WINDOWED):
        return field.through(*_module_settings(module, axis))
    if name in ("max_pool2d", "avg_pool2d"):
        return field.through(*_call_settings(node, axis))
    if name == "pad" or isinstance(module, _PADS):
        return field.through(1, 1, _padding_before(node, module, axis), 1)
    if name == "permute":
        return replace(field, channels_last=_permutation(node) == [0, 2, 3, 1])
    pointwise = (
        isinstance(module, _POINTWISE_MODULES)
        or (module is not None and type(module).__module__ in _POINTWISE_FAMILIES)
        or (isinstance(module, (nn.Linear, nn.LayerNorm)) and field.channels_last)
        or (module is None and name in _POINTWISE_NAMES)
        or node.op in ("output", "get_attr", "placeholder")
    )
    if pointwise or not any(spatial(source) for source in node.all_input_nodes):
        return field
    return replace(field, local=False)


def _module_settings(module: nn.Module, axis: int) -> tuple[int, int, int, int]:
    kernel = _along(module.kernel_size, axis)
    stride = _along(getattr(module, "stride", None) or module.kernel_size, axis)
    dilation = _along(getattr(module, "dilation", 1), axis)
    padding: Any = getattr(module, "padding", 0)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    return kernel, stride, _along(padding, axis), dilation


def _call_settings(node: fx.Node, axis: int) -> tuple[int, int, int, int]:
    given = dict(zip(("input", "kernel_size", "stride", "padding"), node.args, strict=False)) | node.kwargs
    kernel = _along(given["kernel_size"], axis)
    stride = _along(given.get("stride") or kernel, axis)
    return kernel, stride, _along(given.get("padding", 0), axis), _along(given.get("dilation", 1), axis)


def _padding_before(node: fx.Node, module: nn.Module | None, axis: int) -> int:
    pads: Any = module.padding if module is not None else (node.kwargs.get("pad") or node.args[1])
    before = (pads[2], pads[0]) if len(pads) > 2 else (0, pads[0])  # pads: left, right, top, bottom
    return int(before[axis])


def _permutation(node: fx.Node) -> list[Any]:
    axes: Any = node.kwargs.get("dims") or (node.args[1] if len(node.args) == 2 else node.args[1:])
    return list(axes)


def _along(value: Any, axis: int) -> int:
    """The part of a (vertical, horizontal) pair, or the number that stands for both."""
    return int(value[axis]) if isinstance(value, (tuple, list)) else int(value)
