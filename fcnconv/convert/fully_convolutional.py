"""Makes a classifier fully convolutional: traces it, converts its head, finds its windows, proves the
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.class_activations import with_activations
from fcnconv.convert.collapse import Head
from fcnconv.convert.extent import refuse_positions, refuse_shares, run_larger
from fcnconv.convert.finer_stride import finer
from fcnconv.convert.fold import fold, round_folded
from fcnconv.convert.graph import output_of, output_shape, spatial
from fcnconv.convert.locality import nonlocal_cause
from fcnconv.convert.pools import plain_pools
from fcnconv.convert.probes import channels_of, know_channels, precision_of, probe
from fcnconv.convert.proof import (
    TOLERANCE,
    Original,
    check_answers,
    check_larger,
    check_repeatable,
    difference,
    measured,
    prove,
    prove_windows,
    spread_of,
)
from fcnconv.convert.receptive import Field, fields
from fcnconv.convert.trace import Trace, trace, trace_with_sizes
from fcnconv.errors import WAY_OUT, ConversionError
from fcnconv.grid import Geometry
from fcnconv.models.module import prepare
from fcnconv.provenance import Conversion, Proof


class FullyConvolutional(nn.Module):
    """A converted classifier: float (N, 3, H, W) -> logits (N, num_classes, rows, cols).

    Attributes:
        network: the converted graph.
        conversion: the record of the conversion.
        joint: the graph that returns class activations and logits, see `class_activations.JoinActivations`;
            None if the network has no activations.
    """

    def __init__(self, network: fx.GraphModule, conversion: Conversion, joint: fx.GraphModule | None = None):
        super().__init__()
        self.network = network
        self.joint = joint
        self.conversion = conversion
        window = conversion.geometry.window
        know_channels(self, channels_of(network, window, window))

    @property
    def geometry(self) -> Geometry:
        """The positions of its windows."""
        return self.conversion.geometry

    @property
    def proof(self) -> Proof:
        """Its measured difference from the classifier."""
        return self.conversion.proof

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits


def convolutionize(model: nn.Module, window: int = 224, stride: int | None = None) -> FullyConvolutional:
    """Converts a classifier to the equivalent fully convolutional network, and proves that they are equal.

    Args:
        model: a classifier, float (N, channels, window, window) -> logits (N, num_classes). It stays
            unchanged.
        window: side of the model's native input, in pixels.
        stride: pixels between the cells, the network's own stride divided by a power of two; None is its own
            stride.

    Returns:
        The network in evaluation mode, with batch normalisation folded into the convolutions, on the model's
        device and in its dtype.

    Raises:
        ModelError: the weights contain NaN.
        ConversionError: the network cannot be traced, its head cannot slide, its answer depends on the
            position of a window in the image, or the proof fails. The proof fails if, in float64, at the
            native size or on two larger images, a logit differs by more than `EXACT` × max |logit|; or if
            float32 changes the logits by more than 1e-3 of the largest logit.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    device = torch.device("cpu") if like.device.type == "mps" else like.device  # mps has no float64
    with torch.no_grad():
        ready = prepare(model).to(device)
        logits = check_answers(ready, window)
        converted = _converted(ready, window)
        network, geometry, spread = converted.network, converted.geometry, spread_of(converted.logits)
        if not difference(logits, converted.logits[:1]) <= TOLERANCE:
            check_repeatable(ready, logits, window)
        if converted.decided:
            check_larger(ready, converted.traced, window)
        folded = fold(network)
        features = [folded.get(feature, feature) for feature in converted.features]
        error, exact = prove(ready, network, window, spread)
        error = max(error, prove_windows(converted.original, _with_features(network, features), geometry))
        round_folded(network)
        proof = measured(network.float(), window, error, exact, spread)
        joint, cell_head = with_activations(network, converted.averages, geometry)
        if stride is not None:
            joint = joint and finer(joint, geometry, stride)[0]
            network, geometry = finer(network, geometry, stride)
    conversion = Conversion(geometry, proof, converted.changes, cell_head)
    return FullyConvolutional(network, conversion, joint).to(like.device, like.dtype).eval()


def converted_geometry(model: nn.Module, window: int) -> Geometry:
    """The geometry that `convolutionize` would return, without a proof.

    Args:
        model: the classifier. On the ``meta`` device, this costs neither memory nor time, since only shapes
            matter.
        window: side of its native input, in pixels.
    """
    with torch.no_grad():
        return _converted(model, window).geometry


@dataclass(frozen=True)
class _Converted:
    """A converted network without its proof.

    Attributes:
        network: float (N, channels, H, W) -> logits (N, num_classes, rows, cols).
        features: its feature maps that the head collapses.
        original, traced: the classifier in two parts, and whole.
        logits, decided: as in a `Trace`.
        changes: one line per replaced operation.
        averages: names of the submodules that slide an average over each window.
    """

    network: fx.GraphModule
    geometry: Geometry
    features: tuple[fx.Node, ...]
    original: Original
    traced: fx.GraphModule
    logits: torch.Tensor
    decided: bool
    changes: tuple[str, ...]
    averages: tuple[str, ...]


def _converted(model: nn.Module, window: int) -> _Converted:
    opaque = True
    try:
        traced = trace(model, window)
        opaque = bool(traced.opaque)
        return _with_head(traced, window)
    except ConversionError:
        if not opaque:
            raise
        try:
            return _with_head(trace_with_sizes(model, window), window)
        except ConversionError:
            pass
        raise


def _with_head(trace: Trace, window: int) -> _Converted:
    network = trace.network
    on_meta = any(parameter.is_meta for parameter in network.parameters())  # shapes alone, no values
    whole = fx.GraphModule(network, _copied(network.graph))
    plain_pools(network)
    both_axes = [fields(network, axis) for axis in (0, 1)]
    stride, reach, local = _most(both_axes, window)
    more = reach + BEYOND * stride if local else -(-window // stride) * stride
    larger = run_larger(network, window, more)
    refuse_positions(network, larger.known, trace.opaque)
    head = Head(network, larger.known)
    refuse_shares(network, larger.known, head.features.nodes)
    geometry = _geometry(both_axes, head, window)
    if geometry.local and not on_meta:
        if more <= geometry.halo:
            more = geometry.halo + BEYOND * geometry.stride
            larger = run_larger(network, window, more)
        cut = more - geometry.halo
        cause = nonlocal_cause(network, head.features.nodes, larger, window, more, cut)
        geometry = replace(geometry, local=not cause, cause=cause)
    original = _split(network, head)
    for part in (whole, original.body):
        know_channels(part, channels_of(network, window, window))
    head.convert()
    network.graph.lint()
    network.delete_all_unused_submodules()
    network.recompile()
    if not geometry.local:
        # A layer that is not understood may contain strides.
        own = _grown_stride(network, window, geometry.stride)
        geometry = replace(geometry, stride=own or geometry.stride)
    return _Converted(
        network,
        geometry,
        head.features.nodes,
        original,
        whole,
        trace.logits,
        trace.decided,
        tuple(head.writer.changes),
        tuple(head.writer.averages),
    )


BEYOND = 2
"""Number of strides by which the larger test image exceeds the halo."""


def _most(both_axes: Sequence[dict[fx.Node, Field]], window: int) -> tuple[int, int, bool]:
    """The coarsest stride of any map, the farthest reach beyond the window of a map, and whether all are
    local.
    """
    stride, reach, local = 1, 0, True
    for axis, known in enumerate(both_axes):
        for node, field in known.items():
            shape = output_shape(node)
            if spatial(node):
                stride = max(stride, field.stride)
                cells = shape[(1 if field.channels_last else 2) + axis]
                last = field.last + (cells - 1) * field.stride - (window - 1)
                reach = max(reach, -field.first, last)
                local &= field.local
    return stride, -(-reach // stride) * stride, local


def _copied(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    output = copy.graph_copy(graph, {})
    copy.output(output)
    return copy


def _split(network: fx.GraphModule, head: Head) -> Original:
    """The traced classifier as its body and its head, before the head is replaced."""
    graph = network.graph
    inside = set(head.nodes)
    body, nodes = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        own = node.op == "placeholder" or node in head.body
        if own or (node.op != "output" and node not in inside and _needed(node, head.body)):
            nodes[node] = body.node_copy(node, lambda source: nodes[source])
    body.output(tuple(nodes[feature] for feature in head.features.nodes))
    tail, made = fx.Graph(), dict[fx.Node, Any]()
    for feature in head.features.nodes:
        made[feature] = tail.placeholder(feature.name)

    def value(source: fx.Node) -> Any:
        if source not in made:  # a size, which is this number at the native size
            number = source.meta.get("value")
            made[source] = tail.node_copy(source, value) if number is None else number
        return made[source]

    for node in graph.nodes:
        if node in inside and node not in made and node.meta.get("value") is None:
            made[node] = tail.node_copy(node, value)
    (source,) = output_of(graph).all_input_nodes
    tail.output(made[source])
    axes = tuple((head.writer.known[f].rows[0], head.writer.known[f].cols[0]) for f in head.features.nodes)
    return Original(fx.GraphModule(network, body), fx.GraphModule(network, tail), axes, head.features.window)


def _needed(node: fx.Node, body: set[fx.Node]) -> bool:
    """Whether a node leads to the body: a constant or a size."""
    return any(user in body or _needed(user, body) for user in node.users)


def _with_features(network: fx.GraphModule, features: Sequence[fx.Node]) -> fx.GraphModule:
    """The network that also returns its feature maps: float images -> (logits, *feature maps)."""
    graph, nodes = fx.Graph(), dict[fx.Node, fx.Node]()
    logits = graph.graph_copy(network.graph, nodes)
    graph.output((logits, *(nodes[feature] for feature in features)))
    return fx.GraphModule(network, graph)


def _grown_stride(traced: fx.GraphModule, window: int, guess: int) -> int | None:
    """The number of pixels by which an image grows for one more cell; None if this cannot be measured."""
    for stride in (guess, *(2**n for n in range(1, 9))):
        try:
            with precision_of(traced):
                logits = traced.forward(probe(traced, 1, window + stride, window + 2 * stride))
        except Exception:  # its layers may accept only certain image sizes
            continue
        if tuple(logits.shape[2:]) == (2, 3):
            return int(stride)
    return None


def _geometry(both_axes: Sequence[dict[fx.Node, Field]], head: Head, window: int) -> Geometry:
    axes = [known[feature] for known in both_axes for feature in head.features.nodes]
    strides = {field.stride for field in axes}
    if len(strides) > 1 and all(field.local for field in axes):
        down, across = ({known[f].stride for f in head.features.nodes} for known in both_axes)
        if len(down) == len(across) == 1:
            raise ConversionError(f"cells are {down.pop()} × {across.pop()} px apart, not square; {WAY_OUT}")
        names = ", ".join(f"{both_axes[0][f].stride} px ({f.name})" for f in head.features.nodes)
        raise ConversionError(f"the head collapses maps of different strides, {names}; {WAY_OUT}")
    stride = max(strides)
    size = max(head.features.window)
    reach = max(max(-field.first, field.last + (size - 1) * stride - (window - 1)) for field in axes)
    cause = next((field.cause for field in axes if field.cause), "")
    return Geometry(
        window=window,
        stride=stride,
        receptive_field=max(field.size for field in axes),
        halo=-(-max(reach, 0) // stride) * stride,
        local=not cause,
        cause=cause,
    )
