"""Builds the head of a network from its tensors, as far as their names determine the computation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from fcnconv.errors import ModelError
from fcnconv.models.checkpoint import Tensors, log_once, sides, skeleton
from fcnconv.models.spec import HeadActivation

ACTIVATIONS: dict[HeadActivation, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
}

COUNTER = "num_batches_tracked"
_SHOWN = 5


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file become a network's.

    Attributes:
        tensors: the tensors, with the names of the network.
        num_classes: number of classes that the head returns.
        head: builds the head if it differs from the network's own.
        place: where this head goes.
        arrange: rearranges the layers of the network, if the file arranges them differently.
    """

    tensors: Tensors
    num_classes: int
    place: str = ""
    head: Callable[[], nn.Module] | None = None
    arrange: Callable[[nn.Module], nn.Module] | None = None

    def network(self, make: Callable[[int], nn.Module]) -> nn.Module:
        """Builds the network without its weights, with the head that fits the weights."""
        network: nn.Module = skeleton(lambda: make(self.num_classes))
        saved = network.state_dict().keys()
        if any(buffer.is_meta for name, buffer in network.named_buffers() if name not in saved):
            network = make(self.num_classes)  # values that no file contains, such as relative positions
        if self.head is not None:
            parent, _, name = self.place.rpartition(".")
            setattr(network.get_submodule(parent), name, skeleton(self.head))
        return network if self.arrange is None else self.arrange(network)


@dataclass(frozen=True)
class HeadBuilder:
    """Builds a head from the names and shapes of its tensors.

    Attributes:
        place: where the head goes.
        features: number of features that enter it.
        activation: function between its linear layers, if the user named one.
    """

    place: str
    source: str
    name: str
    activation: HeadActivation | None
    features: int

    def fit(self, tensors: Tensors, body: Tensors) -> Fit:
        """The network with this head. Raises ModelError if the names of the tensors leave the computation
        open.
        """
        groups: dict[str, Tensors] = defaultdict(dict)
        for key, value in tensors.items():
            module, _, parameter = key.rpartition(".")
            groups[module][parameter] = value
        if len(groups) > 1 and not all(name.replace(".", "").isdigit() for name in groups):
            raise self._unknown(tensors, f"the order of {some(list(groups))}")
        names = sorted(groups, key=_numbers) if len(groups) > 1 else list(groups)
        layers: list[Callable[[], nn.Module]] = []
        named: Tensors = {}
        width, waiting = self.features, False  # whether an activation follows in the next gap
        linear = [name for name in names if _is_linear(groups[name])]
        for before, name in zip(["", *names], names, strict=False):
            if waiting and name != names[0] and _gap(before, name):
                layers.append(self._between(tensors, before, linear))
                waiting = False
            layer, entering, leaving = self._layer(name, groups[name], tensors)
            if entering != width:
                raise ModelError(
                    f"{self.source}: its head takes {entering} features at {self.place}.{name}, and "
                    f"{self.name} gives {width}"
                )
            width = leaving
            waiting = waiting or (name in linear and name != linear[-1])
            for key, value in groups[name].items():
                named[f"{self.place}.{len(layers)}.{key}"] = value
            layers.append(layer)
        if not linear:
            raise self._unknown(tensors, "which layer gives the classes")
        log_once(f"{self.source}: built its head, {self.place}, from its tensors: {_layout(layers)}")
        return Fit(body | named, width, self.place, lambda: nn.Sequential(*(layer() for layer in layers)))

    def _layer(self, name: str, tensors: Tensors, head: Tensors) -> tuple[Callable[[], nn.Module], int, int]:
        """The function that builds the layer with these tensors, and the numbers of features in and out."""
        weight, bias = tensors.get("weight"), "bias" in tensors
        if weight is None or set(tensors) - {"weight", "bias", "running_mean", "running_var", COUNTER}:
            raise self._unknown(head, f"which layer uses {some([f'{name}.{key}' for key in tensors])}")
        out = len(weight)
        if "running_mean" in tensors:
            return partial(nn.BatchNorm1d, out), out, out
        if weight.ndim == 2:
            return partial(nn.Linear, weight.shape[1], out, bias=bias), weight.shape[1], out
        if weight.ndim == 4 and tuple(weight.shape[2:]) == (1, 1):
            return partial(nn.Conv2d, weight.shape[1], out, 1, bias=bias), weight.shape[1], out
        raise self._unknown(head, f"which layer uses {name}.weight, {sides(weight)}")

    def _between(self, head: Tensors, before: str, linear: list[str]) -> Callable[[], nn.Module]:
        if self.activation is None:
            after = next(name for name in linear if _numbers(name) > _numbers(before))
            raise self._unknown(
                head, f"which function is between {self.place}.{before} and {self.place}.{after}"
            )
        return ACTIVATIONS[self.activation]

    def _unknown(self, tensors: Tensors, what: str) -> ModelError:
        """The error for a computation that the file leaves open, with Python code that defines it."""
        layers = [f"nn.Linear({w.shape[1]}, {w.shape[0]})" for w in tensors.values() if w.ndim == 2]
        return ModelError(
            f"{self.source}: has the body of {self.name} and another head at {self.place}, and does not say "
            f"{what}. If it is a sequence, --head-activation names the function between its linear layers: "
            f"{', '.join(ACTIVATIONS)}. Or build it in Python: model.{self.place} = "
            f"nn.Sequential({', nn.ReLU(), '.join(layers)}); model.load_state_dict(weights), and pass the "
            "model to fcnconv.load, or save it with torch.onnx.export"
        )


def _is_linear(tensors: Tensors) -> bool:
    return "weight" in tensors and tensors["weight"].ndim > 1


def _numbers(name: str) -> list[int]:
    return [int(part) for part in name.split(".") if part.isdigit()]


def _gap(before: str, after: str) -> bool:
    """Whether a layer without tensors can stand between two layers of a sequence."""
    a, b = _numbers(before), _numbers(after)
    return a[:-1] != b[:-1] or b[-1] - a[-1] > 1


def _layout(layers: list[Callable[[], nn.Module]]) -> str:
    return ", ".join(
        f"{kind.func.__name__}({', '.join(map(str, kind.args))})"
        if isinstance(kind, partial)
        else kind.__name__
        for kind in layers
    )


def unparametrized(tensors: Tensors) -> Tensors:
    """Combines weights that weight normalisation and spectral normalisation store in parts.

    The names of these parts in torch before 2.0 and the current names are both recognised.

    - Weight normalisation (Salimans and Kingma, 2016): w = g · v / ‖v‖, with one norm per index of the axes
      where g is longer than 1.
    - Spectral normalisation (Miyato et al., 2018): w / (uᵀ W v), with W the matrix form of w.
    """
    whole_tensors = dict(tensors)
    for key in tensors:
        for pieces, whole in (
            (("_g", "_v"), lambda g, v: _normed(g, v)),
            (("_orig", "_u", "_v"), lambda w, u, v: _spectral(w, u, v)),
        ):
            name = key.removesuffix(pieces[0])
            names = [f"{name}{piece}" for piece in pieces]
            if name != key and name not in whole_tensors and all(part in tensors for part in names):
                whole_tensors[name] = whole(*(tensors[part] for part in names))
                for part in names:
                    whole_tensors.pop(part, None)
        match = re.fullmatch(r"(.*\.)?parametrizations\.(\w+)\.original(0?)", key)
        if match is None:
            continue
        base = f"{match[1] or ''}parametrizations.{match[2]}."
        name = f"{match[1] or ''}{match[2]}"
        if match[3] and f"{base}original1" in tensors:
            whole_tensors[name] = _normed(tensors[key], tensors[f"{base}original1"])
        elif f"{base}0._u" in tensors and f"{base}0._v" in tensors:
            whole_tensors[name] = _spectral(tensors[key], tensors[f"{base}0._u"], tensors[f"{base}0._v"])
        else:
            continue
        whole_tensors = {part: value for part, value in whole_tensors.items() if not part.startswith(base)}
    return whole_tensors


def _normed(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    axes = [axis for axis in range(v.ndim) if g.ndim != v.ndim or g.shape[axis] == 1]
    normed: torch.Tensor = v * (g / v.norm(dim=axes, keepdim=True))
    return normed.detach()


def _spectral(w: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weight: torch.Tensor = w / torch.dot(u, w.flatten(1) @ v)
    return weight.detach()


def some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
