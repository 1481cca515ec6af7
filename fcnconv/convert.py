"""Turning a classifier into a fully convolutional network, and proving that it still is the classifier.

A classifier ends its spatial axes somewhere: by pooling the whole feature map, or by flattening it. Here that
place becomes a sliding window of the same size with stride 1, and each linear layer below it the 1 × 1 (or k
× k) convolution with the same weights (Sermanet et al., "OverFeat", 2014; Long, Shelhamer and Darrell, 2015).
At the native size nothing changes; a larger image gives one vector of logits for each window.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from fcnconv.errors import ConversionError
from fcnconv.phases import refine
from fcnconv.receptive import Shapes, fields, output_shape, spatial
from fcnconv.scan import Geometry

TOLERANCE = 1e-4
"""Largest difference of logits that passes the proof, as a share of the largest logit."""

_WAY_OUT = "score real crops instead with --mode windows"


@dataclass(frozen=True)
class Proof:
    """How far a converted network is from its classifier at the native size.

    max_error: largest difference of a logit.
    scale: largest logit.
    spread: how far the logits of different inputs lie apart; near 0 the comparison would say nothing.
    """

    max_error: float
    scale: float
    spread: float

    @property
    def relative_error(self) -> float:
        """`max_error` as a share of `scale`."""
        return self.max_error / self.scale if self.scale else float("inf")


class FullyConvolutional(nn.Module):
    """A converted classifier: float (N, 3, H, W) -> logits (N, num_classes, rows, cols).

    network: the converted graph. geometry: its windows. proof: its distance from the classifier.
    changes: what was replaced, a line each.
    """

    def __init__(self, network: fx.GraphModule, geometry: Geometry, proof: Proof, changes: tuple[str, ...]):
        super().__init__()
        self.network = network
        self.geometry = geometry
        self.proof = proof
        self.changes = changes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits


def convolutionize(model: nn.Module, window: int = 224, stride: int | None = None) -> FullyConvolutional:
    """The fully convolutional network that equals `model` at its native size, checked.

    model: a classifier, float (N, 3, window, window) -> logits (N, num_classes). It is left as it was; the
        result is in evaluation mode, with batch normalisation folded into the convolutions, on the model's
        device and in its dtype.
    window: the model's native input size in pixels.
    stride: pixels between the cells, the network's own divided by a power of two; None is its own.

    Raises ConversionError if the network cannot be traced, if its head is not one that slides, or if the
    proof
    fails: max |Δlogit| over `TOLERANCE` × max |logit|, or logits that hardly depend on the input.
    """
    like = next(model.parameters(), torch.empty(0))
    model = copy.deepcopy(model).eval().float()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        traced, head, geometry = _convert(model, window, like.device)
        network: fx.GraphModule = fuse(traced)  # type: ignore[assignment]
        _check_grid(network, geometry, like.device)
        proof = _prove(model, network, window, like.device)
        if stride is not None:
            network, geometry = refine(network, geometry, stride)
    network.to(like.dtype)
    return FullyConvolutional(network, geometry, proof, tuple(head.changes))


def converted_geometry(model: nn.Module, window: int) -> Geometry:
    """The geometry that `convolutionize` would give, without a proof.

    model: on the ``meta`` device if only shapes matter, which costs neither memory nor time.
    """
    with torch.no_grad():
        return _convert(model, window, next(model.parameters()).device)[2]


def _convert(model: nn.Module, window: int, device: torch.device) -> tuple[fx.GraphModule, _Head, Geometry]:
    traced = _trace(model, window, device)
    head = _Head(traced)
    head.convert()
    geometry = _geometry(traced, head.features, window)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, head, geometry


def _trace(model: nn.Module, window: int, device: torch.device) -> fx.GraphModule:
    try:
        traced = fx.GraphModule(model, _Tracer().trace(model))
        Shapes(traced).run(torch.zeros(2, 3, window, window, device=device))
    except Exception as error:  # tracing runs the model's own code, which raises whatever it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConversionError(
            f"{type(model).__name__} cannot be traced at {window} × {window} ({reason}); {_WAY_OUT}"
        ) from error
    return traced


class _Tracer(fx.Tracer):
    """Keeps a linear layer in one piece, also where a library has a class of its own for it (timm)."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Linear) or super().is_leaf_module(m, module_qualified_name)


def _geometry(traced: fx.GraphModule, features: fx.Node, window: int) -> Geometry:
    axes = [fields(traced, axis)[features] for axis in (0, 1)]
    strides = {field.stride for field in axes}
    if len(strides) > 1:
        raise ConversionError(
            f"cells are {axes[0].stride} × {axes[1].stride} px apart, not square; {_WAY_OUT}"
        )
    stride = strides.pop()
    size = output_shape(features)[2]
    reach = max(max(-field.first, field.last + (size - 1) * stride - (window - 1)) for field in axes)
    return Geometry(
        window=window,
        stride=stride,
        receptive_field=max(field.size for field in axes),
        halo=-(-max(reach, 0) // stride) * stride,
        local=all(field.local for field in axes),
    )


def _check_grid(network: nn.Module, geometry: Geometry, device: torch.device) -> None:
    height, width = geometry.window + geometry.stride, geometry.window + 2 * geometry.stride
    try:
        shape = tuple(network(torch.zeros(1, 3, height, width, device=device)).shape[2:])
    except Exception as error:  # a network tied to its native size fails in its own way
        raise ConversionError(
            f"the network accepts no image larger than {geometry.window} px; {_WAY_OUT}"
        ) from error
    if shape != (2, 3):
        raise ConversionError(
            f"{width} × {height} px give {shape[0]} rows and {shape[1]} columns, not 2 and 3; {_WAY_OUT}"
        )


def _prove(model: nn.Module, network: nn.Module, window: int, device: torch.device) -> Proof:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, window, window, generator=generator)
    smooth = F.interpolate(torch.randn(2, 3, 7, 7, generator=generator), window, mode="bicubic")
    x = torch.cat([noise, smooth]).to(device)
    expected = _logits(model(x))
    try:
        logits = network(x)
    except Exception as error:  # a head that was converted only in part fails in its own way
        raise ConversionError(f"the converted head does not run ({error}); {_WAY_OUT}") from error
    if logits.shape != (*expected.shape, 1, 1):
        raise ConversionError(
            f"converted logits have shape {tuple(logits.shape)}, not {(*expected.shape, 1, 1)}"
        )
    proof = Proof(
        max_error=float((logits[:, :, 0, 0] - expected).abs().max()),
        scale=float(expected.abs().max()),
        spread=float((expected.amax(0) - expected.amin(0)).max()),
    )
    if not proof.spread > max(1e-3 * proof.scale, 1e-6):
        raise ConversionError(
            f"the logits hardly depend on the input (size {proof.scale:.1e}, spread {proof.spread:.1e}), "
            "so that equality would prove nothing; load trained weights"
        )
    if not proof.relative_error <= TOLERANCE:
        raise ConversionError(
            f"the converted network is not the classifier: logits differ by {proof.max_error:.1e} "
            f"of {proof.scale:.1e}, over {TOLERANCE:.0e} of it; {_WAY_OUT}"
        )
    return proof


def _logits(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise ConversionError(f"the model returns {type(output).__name__}, not logits (N, num_classes)")
    return output


class _Head:
    """The part of a traced classifier from the end of its spatial axes to the logits, and its conversion."""

    def __init__(self, traced: fx.GraphModule):
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.output: fx.Node = traced.graph.output_node()
        self.changes: list[str] = []
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
            source = node.all_input_nodes[0]
            if spatial(source) and not spatial(node):
                return node
            node = source
        raise ConversionError(f"no pooling or flattening ends the spatial axes of this network; {_WAY_OUT}")

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
        height, width = output_shape(self.features)[2:]
        pool = self._pooling(self.end)
        if pool:
            self._replace(
                self.end, pool((height, width), stride=1), f"{pool.__name__} {height} × {width}, stride 1"
            )
            return
        if not _flattens(self.end, self._module(self.end)):
            raise ConversionError(
                f"{self._name(self.end)} ends the spatial axes, and is no pooling or flattening; {_WAY_OUT}"
            )
        if self._adaptive(self.features):
            pooled, self.features = self.features, self.features.all_input_nodes[0]
            sizes = zip(output_shape(self.features)[2:], output_shape(pooled)[2:], strict=True)
            self.bins = tuple(_bins(size, bins) for size, bins in sizes)
            pooled.replace_all_uses_with(self.features)
            self.traced.graph.erase_node(pooled)
        self.kernel = height, width
        self._bypass(self.end)

    def _adaptive(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), nn.AdaptiveAvgPool2d) or _called(node, "adaptive_avg_pool2d")

    def _pooling(self, node: fx.Node) -> type[nn.AvgPool2d] | type[nn.MaxPool2d] | None:
        """The sliding pooling that equals a node which pools everything, or None if it does not."""
        module = self._module(node)
        if len(output_shape(node)) == 4 and (
            isinstance(module, (nn.AdaptiveAvgPool2d, nn.AvgPool2d))
            or _called(node, "adaptive_avg_pool2d", "avg_pool2d")
        ):
            return nn.AvgPool2d
        if len(output_shape(node)) == 4 and (
            isinstance(module, (nn.AdaptiveMaxPool2d, nn.MaxPool2d))
            or _called(node, "adaptive_max_pool2d", "max_pool2d")
        ):
            return nn.MaxPool2d
        if _called(node, "mean", "amax"):
            axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
            if isinstance(axes, (list, tuple)) and sorted(axis % 4 for axis in axes) == [2, 3]:
                return nn.AvgPool2d if _called(node, "mean") else nn.MaxPool2d
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
        elif _called(node, "softmax", "log_softmax"):
            node.kwargs = {**node.kwargs, "dim": 1}
            node.args = node.args[:1]
        elif node.users and not self._keeps(node, module):
            self._needs_no_change(node)
        if self.kernel and isinstance(module, nn.Linear):
            self.kernel = self.bins = None

    def _needs_no_change(self, node: fx.Node) -> None:
        # What only computes a shape for a reshape that is gone has no users left by now.
        live = [user for user in node.users if not (_flattens(user, None) or _called(user, "getitem"))]
        if live:
            raise ConversionError(f"{self._name(node)} stands between the pooling and the logits; {_WAY_OUT}")

    def _keeps(self, node: fx.Node, module: nn.Module | None) -> bool:
        """Whether a node below the end does the same to each cell of a map as it did to the one vector."""
        if isinstance(module, nn.Conv2d):
            return tuple(module.kernel_size) == (1, 1)
        if module is not None:
            family = type(module).__module__
            return isinstance(module, (nn.Identity, nn.BatchNorm2d)) or family.endswith(
                (".activation", ".dropout")
            )
        return _called(node, *_ELEMENTWISE) or (_called(node, *_FOUR_D) and len(output_shape(node)) == 4)

    def _convolution(self, linear: nn.Linear) -> nn.Conv2d:
        weight = linear.weight
        if self.kernel:
            weight = weight.reshape(linear.out_features, -1, *self.kernel)
            if self.bins:  # linear ∘ pooling is one linear map of the features: (O, C, i, j) -> (O, C, h, w)
                weight = torch.einsum("ocij,ih,jw->ochw", weight, *(bins.to(weight) for bins in self.bins))
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
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _name(self, node: fx.Node) -> str:
        module = self._module(node)
        return f"{node.target} ({type(module).__name__})" if module is not None else f"{node.name}()"


class _ChannelNorm(nn.Module):
    """LayerNorm of each cell over its channels: (N, C, h, w) -> the same."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


_WORDS = (
    "add sub mul truediv neg clamp contiguous float dropout relu relu6 elu leaky_relu gelu silu hardswish "
    "hardsigmoid sigmoid tanh"
)
_ELEMENTWISE = frozenset(_WORDS.split())
_FOUR_D = frozenset(("permute", "layer_norm"))  # ConvNeXt's LayerNorm2d, spelled out


def _called(node: fx.Node, *names: str) -> bool:
    return node.op in ("call_function", "call_method") and _function_name(node) in names


def _function_name(node: fx.Node) -> str:
    target: str | Callable[..., Any] = node.target
    name = target if isinstance(target, str) else target.__name__
    return name.strip("_") if target is not operator.getitem else "getitem"


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node makes (N, C·h·w) of (N, C, h, w) in that order, or drops axes of length 1."""
    if not (isinstance(module, nn.Flatten) or _called(node, "flatten", "view", "reshape", "squeeze")):
        return False
    before, after = output_shape(node.all_input_nodes[0]), output_shape(node)
    if _called(node, "squeeze") and len(after) == 3:  # the first of two
        return before[:2] == after[:2]
    return len(after) == 2 and before[:1] == after[:1]


def _bins(size: int, bins: int) -> torch.Tensor:
    """float (bins, size): adaptive average pooling along one axis as a matrix."""
    return F.adaptive_avg_pool1d(torch.eye(size)[None], bins)[0].T


def _batch_norm(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    new = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.load_state_dict(norm.state_dict())
    return new
