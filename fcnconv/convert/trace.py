"""Traces the code of a classifier as a graph, at its native size.

Decisions of the code about the image's size are made as for larger images. A layer whose code no tracer
follows stays one node. If the network's own code computes with sizes as numbers, a second tracer runs it on
an image, and the graph contains the numbers of the native size. The proof on larger images shows whether they
are valid there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from fcnconv.convert.graph import Shapes, drop_assertions, function_name, output_shape
from fcnconv.convert.library_layers import plain
from fcnconv.convert.probes import Float64, know_channels, probe
from fcnconv.convert.proof import LARGER
from fcnconv.errors import WAY_OUT, ConversionError, first_line


@dataclass(frozen=True)
class Trace:
    """A traced classifier.

    Attributes:
        network: the graph, with the shapes for two images at the native size propagated.
        logits: its output for these images.
        opaque: kinds of layers that stay one node, since no tracer follows their code.
        decided: whether the graph may differ at other sizes, because the code depends on the image's size or
            was replaced by its operations at the native size.
    """

    network: fx.GraphModule
    logits: Any
    opaque: frozenset[type[nn.Module]] = frozenset()
    decided: bool = False


def trace(model: nn.Module, window: int) -> Trace:
    """The graph of a classifier, with sizes as symbols. Raises ConversionError if its code cannot be
    followed.
    """
    x = probe(model, 2, window, window)
    try:
        prepared = plain(model, x[:1])
        graph, opaque, decided = _graph(prepared, window)
        traced, logits = _propagated(prepared, graph, x, prepared is not model)
    except Exception as error:  # tracing runs the model's own code, which can raise any kind of error
        raise _untraceable(model, window, error) from error
    sized = any(not output_shape(node) and node.op != "output" for node in traced.graph.nodes)
    return Trace(traced, logits, opaque, decided or sized or prepared is not model)


def trace_with_sizes(model: nn.Module, window: int) -> Trace:
    """The graph of a classifier, with the sizes of the native image as numbers.

    Raises:
        ConversionError: the code cannot be followed, or the numbers before the head differ at a larger size.
    """
    x = probe(model, 2, window, window)
    try:
        prepared = plain(model, x[:1])
        graph = _SizeTracer(x).trace(prepared)
        traced, logits = _propagated(prepared, graph, x, prepared is not model)
    except Exception as error:  # as above
        raise _untraceable(model, window, error) from error
    larger = _SizeTracer(probe(model, 2, window + LARGER[0], window + LARGER[1]))
    with suppress(Exception):  # a head that flattens accepts only the native size: the graph ends there
        larger.trace(prepared)
    for one, other in zip(graph.nodes, larger.graph.nodes, strict=False):
        if _numbers(one) != _numbers(other) and one.op != "output":
            if function_name(one) in ("view", "reshape", "flatten"):
                break  # a flattening head begins
            raise ConversionError(
                f"{type(model).__name__} computes with the size of the image ({one.name}), and larger images "
                f"give other numbers; {WAY_OUT}"
            )
    return Trace(traced, logits, decided=True)


def _untraceable(model: nn.Module, window: int, error: Exception) -> ConversionError:
    """The error for code that no tracer follows, without the paragraphs that torch.fx adds."""
    said = first_line(error)
    if "symbolically traced variables" in said or "control flow" in said:
        said = "its code decides by the size or the values of the image (control flow)"
    elif "Proxy" in said or "torch.fx" in said:
        said = "its code computes with the image in a way that cannot be followed"
    return ConversionError(
        f"{type(model).__name__} cannot be traced at {window} × {window}: {said}; {WAY_OUT}"
    )


def _propagated(
    model: nn.Module, graph: fx.Graph, x: torch.Tensor, in_float64: bool
) -> tuple[fx.GraphModule, Any]:
    traced = fx.GraphModule(model, graph)
    drop_assertions(traced.graph)
    traced.recompile()
    with Float64() if in_float64 else nullcontext():
        logits = Shapes(traced).run(x)
    know_channels(traced, x.shape[1])
    return traced, logits


def _numbers(node: fx.Node) -> tuple[Any, ...]:
    """The target of a node, and the numbers among its arguments."""
    arguments = fx.map_arg((node.args, dict(node.kwargs)), lambda _: None)
    return node.op, str(node.target), repr(arguments)


class _Tracer(fx.Tracer):
    """A tracer that keeps linear layers as one node, also if a library has its own class for them (timm).

    A layer whose settings change between two calls becomes two layers with the same weights.

    Attributes:
        decisions: the answers to questions about the image's size, in the order of the questions.
        whole: further kinds of layers that stay one node.
        inside: the layer whose code was being traced when tracing failed; None for the network's own code.
    """

    def __init__(self, decisions: Sequence[bool] = (), whole: frozenset[type[nn.Module]] = frozenset()):
        super().__init__()
        self.decisions = iter(decisions)
        self.whole: tuple[type[nn.Module], ...] = (nn.Linear, *whole)
        self.inside: nn.Module | None = None
        self.settings: dict[str, list[tuple[dict[str, Any], nn.Module]]] = {}

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self.settings.clear()
        graph = super().trace(root, concrete_args)
        for name, versions in self.settings.items():
            if len(versions) > 1:  # the settings of the layer itself change whenever the network runs
                _add(root, f"{name}_0", versions[0][1])
                for node in graph.nodes:
                    if node.op == "call_module" and node.target == name:
                        node.target = f"{name}_0"
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            name = self.path_of_module(m)
            if not self.is_leaf_module(m, name):
                return super().call_module(m, forward, args, kwargs)
            return self.create_proxy("call_module", self._version(m, name), args, kwargs)
        except Exception:
            self.inside = self.inside or m
            raise

    def _version(self, layer: nn.Module, name: str) -> str:
        """The name of the layer with its current settings."""
        settings = {
            key: value
            for key, value in vars(layer).items()
            if isinstance(value, (int, float, str, tuple)) and not key.startswith("__")
        }
        versions = self.settings.setdefault(name, [])
        for number, (known, _) in enumerate(versions):
            if known == settings:
                return f"{name}_{number}" if number else name
        versions.append((settings, copy.copy(layer)))
        if len(versions) == 1:
            return name
        _add(self.root, f"{name}_{len(versions) - 1}", versions[-1][1])
        return f"{name}_{len(versions) - 1}"

    def to_bool(self, obj: fx.Proxy) -> bool:
        for decision in self.decisions:
            return decision
        raise _UndecidedError(obj.node)


def _add(root: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    root.get_submodule(parent).add_module(own, layer)


class _SizeTracer(_Tracer):
    """A tracer that runs the code on an image `x`, so that sizes are numbers in the code."""

    def __init__(self, x: torch.Tensor):
        super().__init__()
        self.x = x
        self.values: dict[fx.Node, Any] = {}
        self.running = False  # a layer: do not trace its own calls and weights

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: Any,
        kwargs: Any,
        name: str | None = None,
        type_expr: Any | None = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        if kind == "output":
            return proxy
        self.running = True
        try:
            value = _value(proxy.node, self.root, self.x, self.values)
        finally:
            self.running = False
        if target is getattr or not _is_size(value):
            return proxy
        self.graph.erase_node(proxy.node)
        return value

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter(self.values[obj.node])

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.values[obj.node])


def _is_size(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(each, int) for each in value)
    return isinstance(value, (int, float, str, torch.device, torch.dtype)) or value is None


class _UndecidedError(Exception):
    """The network's code asks a question that depends on the image. `node` is the question."""

    def __init__(self, node: fx.Node):
        super().__init__("its code decides by the size or the values of the image (control flow)")
        self.node = node


def _graph(model: nn.Module, window: int) -> tuple[fx.Graph, frozenset[type[nn.Module]], bool]:
    """The traced graph, the kinds of layers that stay one node, and whether the code depends on the image's
    size.

    A question can be answered only after tracing, which replaces the modules' calls. So the network is traced
    again with each answer.
    """
    decisions: list[bool] = []
    whole: set[type[nn.Module]] = set()
    while True:
        tracer = _Tracer(decisions, frozenset(whole))
        try:
            return tracer.trace(model), frozenset(whole), bool(decisions or whole)
        except _UndecidedError as undecided:
            sides = [window + more for more in (0, *LARGER)]
            images = [probe(model, 1, side, side) for side in sides]
            images += [-x for x in images]  # the pixels of larger images differ
            answers = {bool(_value(undecided.node, model, x, {})) for x in images}
            if len(answers) == 1:
                decisions.append(answers.pop())
                continue
            if tracer.inside is None:
                raise
        except Exception:  # the layer's own code can raise any kind of error
            if tracer.inside is None or type(tracer.inside) in whole:
                raise
        whole.add(type(tracer.inside))
        decisions.clear()  # some may be decisions of that layer


def _value(node: fx.Node, root: nn.Module, x: torch.Tensor, known: dict[fx.Node, Any]) -> Any:
    """The output of a node for an image, from the nodes before it.

    Args:
        node: the node.
        root: the network.
        x: the image.
        known: values that are already computed.
    """
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
