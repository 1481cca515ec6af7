"""A classifier as a fully convolutional network: traced, its head converted, its windows found, proved."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from fcnconv.convert.cells import with_activations
from fcnconv.convert.graph import Shapes, drop_assertions, output_shape
from fcnconv.convert.head import Head
from fcnconv.convert.phases import finer
from fcnconv.convert.plain import plain
from fcnconv.convert.proof import Float64, check_grid, compare, measured, probe, prove
from fcnconv.convert.receptive import fields
from fcnconv.errors import WAY_OUT, ConversionError, first_line
from fcnconv.grid import Geometry
from fcnconv.provenance import EXACT, Conversion, Proof


class FullyConvolutional(nn.Module):
    """A converted classifier: float (N, 3, H, W) -> logits (N, num_classes, rows, cols).

    network: the converted graph. conversion: what came of it. joint: the graph that gives class activations
    beside the logits, as `cells.JoinActivations` has them; None where the network has none.
    """

    def __init__(self, network: fx.GraphModule, conversion: Conversion, joint: fx.GraphModule | None = None):
        super().__init__()
        self.network = network
        self.joint = joint
        self.conversion = conversion

    @property
    def geometry(self) -> Geometry:
        """Where its windows lie."""
        return self.conversion.geometry

    @property
    def proof(self) -> Proof:
        """Its distance from the classifier."""
        return self.conversion.proof

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

    The proof compares what was rewritten, before the folding, with the classifier in float64; what float32
    changes in the folded network is measured beside it, and told where it is large.

    Raises ConversionError if the network cannot be traced, if its head is not one that slides, or if the
    proof fails: max |Δlogit| over `EXACT` × max |logit|, or logits that hardly depend on the input.
    """
    like = next(model.parameters(), torch.empty(0))
    device = torch.device("cpu") if like.device.type == "mps" else like.device  # which has no float64
    model = copy.deepcopy(model).to(device).eval().float()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        traced, head, geometry = _convert(model, window, device)
        error, exact = prove(model, traced, window, device)
        # In place: the layers are those of the copy above, which is not needed any more.
        network: fx.GraphModule = fuse(traced.float(), inplace=True, no_trace=True)  # type: ignore[assignment]
        check_grid(network, geometry, device)
        proof = measured(network, window, error, exact)
        joint, cell_head = with_activations(network, tuple(head.averages), geometry)
        if stride is not None:
            joint = joint and finer(joint, geometry, stride)[0]
            network, geometry = finer(network, geometry, stride)
    conversion = Conversion(geometry, proof, tuple(head.changes), cell_head)
    return FullyConvolutional(network, conversion, joint).to(like.device, like.dtype).eval()


def converted_geometry(model: nn.Module, window: int) -> Geometry:
    """The geometry that `convolutionize` would give, without a proof.

    model: on the ``meta`` device if only shapes matter, which costs neither memory nor time.
    """
    with torch.no_grad():
        return _convert(model, window, next(model.parameters()).device)[2]


def _convert(model: nn.Module, window: int, device: torch.device) -> tuple[fx.GraphModule, Head, Geometry]:
    traced = _trace(model, window, device)
    head = Head(traced)
    head.convert()
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, head, _geometry(traced, head.features, window)


def _trace(model: nn.Module, window: int, device: torch.device) -> fx.GraphModule:
    x = probe(model, 2, window, window)
    try:
        prepared = plain(model, x[:1])
        graph, decided = _graph(prepared, window)
        traced = fx.GraphModule(prepared, graph)
        drop_assertions(traced.graph)
        with nullcontext() if prepared is model else Float64():
            Shapes(traced).run(x)
    except Exception as error:  # tracing runs the model's own code, which raises whatever it likes
        raise ConversionError(
            f"{type(model).__name__} cannot be traced at {window} × {window} ({first_line(error)}); {WAY_OUT}"
        ) from error
    if device.type != "meta" and (decided or prepared is not model):
        _check_larger(model, traced, window + LARGER[-1])
    return traced


def _check_larger(model: nn.Module, traced: nn.Module, size: int) -> None:
    """Raises ConversionError if at a larger size a network does not compute what was traced at the native
    one; not if it takes no images of that size.
    """
    x = probe(model, 1, size, size)
    with Float64():
        try:
            expected = model(x)
        except Exception:  # as above
            return
        doubt = f"at {size} × {size} px it computes otherwise"
        compare(doubt, expected, traced.forward(x), EXACT, ConversionError)


class _Tracer(fx.Tracer):
    """Keeps a linear layer in one piece, also where a library has a class of its own for it (timm).

    decisions: the answers to questions about the image's size, in the order in which the network asks.
    whole: kinds of layers that are kept in one piece too. inside: the layer whose code was being traced when
        that failed, None where it was the network's own.
    """

    def __init__(self, decisions: Sequence[bool], whole: set[type[nn.Module]]):
        super().__init__()
        self.decisions = iter(decisions)
        self.whole: tuple[type[nn.Module], ...] = (nn.Linear, *whole)
        self.inside: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.inside = self.inside or m
            raise

    def to_bool(self, obj: fx.Proxy) -> bool:
        for decision in self.decisions:
            return decision
        raise _UndecidedError(obj.node)


class _UndecidedError(Exception):
    """The network asks what depends on the image. node: the question."""

    def __init__(self, node: fx.Node):
        super().__init__(f"control flow: it decides by {node.name} what to compute")
        self.node = node


def _graph(model: nn.Module, window: int) -> tuple[fx.Graph, bool]:
    """The traced graph, and whether it may be another's at other sizes than the native one: the network
    decides by the image what to compute. If by its size, and larger images are decided alike, the graph is
    that of the native size. Else the layer that decides, or whose code no tracer follows, is kept in one
    piece, and counts as one that looks at the whole image.

    A question can be answered only after tracing, which replaces the modules' calls; so the network is traced
    again with each answer.
    """
    decisions: list[bool] = []
    whole: set[type[nn.Module]] = set()
    while True:
        tracer = _Tracer(decisions, whole)
        try:
            return tracer.trace(model), bool(decisions or whole)
        except _UndecidedError as undecided:
            sides = [window + more for more in (0, *LARGER)]
            images = [probe(model, 1, side, side) for side in sides]
            images += [-x for x in images]  # whose pixels are others
            answers = {bool(_value(undecided.node, model, x, {})) for x in images}
            if len(answers) == 1:
                decisions.append(answers.pop())
                continue
            if tracer.inside is None:
                raise
        except Exception:  # the layer's own code raises whatever it likes
            if tracer.inside is None or type(tracer.inside) in whole:
                raise
        whole.add(type(tracer.inside))
        decisions.clear()  # some may have been its own


LARGER = (32, 64)
"""By how many pixels images are larger that must decide alike: whole strides of nearly all networks."""


def _value(node: fx.Node, root: nn.Module, x: torch.Tensor, known: dict[fx.Node, Any]) -> Any:
    """What a node gives for an image, from the nodes before it. known: the values that were found before."""
    if node not in known:
        args, kwargs = (
            fx.map_arg(given, lambda other: _value(other, root, x, known))
            for given in (node.args, node.kwargs)
        )
        known[node] = x if node.op == "placeholder" else _run(node, root, args, kwargs)
    return known[node]


def _run(node: fx.Node, root: nn.Module, args: Any, kwargs: Any) -> Any:
    name = str(node.target)
    if node.op == "get_attr":
        return attrgetter(name)(root)
    if node.op == "call_module":
        return root.get_submodule(name)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], name)(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _grown_stride(traced: fx.GraphModule, window: int, guess: int) -> int | None:
    """By how many pixels an image grows for each cell more; None where it cannot be seen."""
    for stride in (guess, *(2**n for n in range(1, 9))):
        try:
            logits = traced.forward(probe(traced, 1, window + stride, window + 2 * stride))
        except Exception:  # its layers may take images of certain sizes only
            continue
        if tuple(logits.shape[2:]) == (2, 3):
            return int(stride)
    return None


def _geometry(traced: fx.GraphModule, features: fx.Node, window: int) -> Geometry:
    axes = [fields(traced, axis)[features] for axis in (0, 1)]
    if not all(field.local for field in axes):
        # A layer that was not understood may have strides of its own.
        stride = _grown_stride(traced, window, axes[0].stride)
        axes = [replace(field, stride=stride or field.stride) for field in axes]
    strides = {field.stride for field in axes}
    if len(strides) > 1:
        raise ConversionError(
            f"cells are {axes[0].stride} × {axes[1].stride} px apart, not square; {WAY_OUT}"
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
