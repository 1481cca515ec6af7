"""Networks that were saved as a sequence of another network's children.

Their tensors have the numbers of the children instead of their names. Two kinds are known:

- A fastai learner. ``0`` is the sequence of the children up to the pooling, or timm's network, and ``1`` is a
  head of its own. `learner` builds both.
- An encoder such as ``nn.Sequential(*list(resnet.children())[:-1])``. `with_names` gives its tensors the
  names that the network itself uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from fcnconv.errors import ModelError
from fcnconv.models.checkpoint import Tensors, log_once, skeleton
from fcnconv.models.heads import ACTIVATIONS, COUNTER, Fit
from fcnconv.models.spec import HeadActivation

Make = Callable[[int], nn.Module]

_NUMBERED = re.compile(r"(.*?)\d+\..+")
_SIDE = 96
"""Side of the image on which a network is tried, in pixels."""


class TimmBody(nn.Module):
    """The feature map of a network of timm, under the name that fastai gives it: (N, channels, H, W) ->
    (N, C, h, w).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.forward_features(x)  # type: ignore[operator]
        return features


class ConcatPool(nn.Module):
    """The maximum and the average of each channel, in the order of fastai's AdaptiveConcatPool2d:
    (N, C, h, w) -> (N, 2 C, 1, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.highest, self.average = nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.highest(x), self.average(x)], 1)


def learner(
    make: Make, tensors: Tensors, source: str, activation: HeadActivation | None = None
) -> Fit | None:
    """The network of a fastai learner; None if the tensors do not belong to one with this body.

    Args:
        make: builds the network that the body comes from, for a number of classes.
        tensors: the tensors of the file.
        source: the file, for messages.
        activation: the function after each hidden linear layer; None is fastai's ReLU.

    Raises:
        ModelError: the head is not one that fastai makes, and the file leaves open what it computes.
    """
    head = {key[2:]: value for key, value in tensors.items() if re.fullmatch(r"1\.\d+\.\w+", key)}
    body = {key[2:]: value for key, value in tensors.items() if key.startswith("0.")}
    layers = _head_layers(head)
    if not layers or len(head) + len(body) != len(tensors):
        return None
    try:
        trial = skeleton(lambda: _body(make(2), body)).to("meta").eval()
        features = int(trial(torch.empty(1, 3, _SIDE, _SIDE, device="meta")).shape[1])
    except (RuntimeError, TypeError, ValueError, AttributeError):  # children of another network
        return None
    entering = layers[min(layers)].entering
    if _names(trial.state_dict()) != _names(body) or entering not in (features, 2 * features):
        return None
    twice, hidden = entering == 2 * features, _linear(layers)[:-1]
    if not _is_of_fastai(layers) and (twice or (hidden and activation is None)):
        shown = ", ".join(f"1.{number}" for number in sorted(layers))
        raise ModelError(
            f"{source}: has a body and a head of its own ({shown}), and does not say how the features are "
            "pooled, or which function is between its linear layers. If they are averaged, "
            "--head-activation names the function. Or build it in Python: model = nn.Sequential(body, "
            "nn.Sequential(…)); model.load_state_dict(weights), and pass the model to fcnconv.load"
        )
    pool = ConcatPool if twice else partial(nn.AdaptiveAvgPool2d, 1)
    between = ACTIVATIONS[activation or "relu"]
    log_once(
        f"{source}: a body and a head, as fastai writes them; built the head with "
        f"{'maximum and average' if twice else 'average'} pooling"
        + (f" and {activation or 'relu'} between its linear layers" if hidden else "")
    )
    return Fit(
        tensors,
        layers[max(_linear(layers))].leaving,
        arrange=lambda network: nn.Sequential(_body(network, body), _head(layers, pool, between)),
    )


def _names(tensors: Iterable[str]) -> set[str]:
    return {name for name in tensors if not name.endswith(COUNTER)}


def _body(network: nn.Module, tensors: Tensors) -> nn.Module:
    """The children of a network up to the last one that the tensors belong to."""
    if all(name.startswith("model.") for name in tensors):
        network.reset_classifier(0, "")  # type: ignore[operator]
        return TimmBody(network)
    last = max(int(name.partition(".")[0]) for name in tensors)
    return nn.Sequential(*list(network.children())[: last + 1])


@dataclass(frozen=True)
class _Layer:
    """A layer of a head, with its numbers of features in and out."""

    make: Callable[[], nn.Module]
    entering: int
    leaving: int
    linear: bool


def _head_layers(tensors: Tensors) -> dict[int, _Layer] | None:
    """The layers of a fastai head that have tensors, by their numbers; None for another kind of head.

    A pooling and a flattening come first. A function, which has no tensors, follows each hidden linear layer.
    """
    layers: dict[int, _Layer] = {}
    for number in sorted({int(name.partition(".")[0]) for name in tensors}):
        weight = tensors.get(f"{number}.weight")
        if weight is None or number < 2:
            return None
        out, bias = len(weight), f"{number}.bias" in tensors
        if f"{number}.running_mean" in tensors:
            layers[number] = _Layer(partial(nn.BatchNorm1d, out), out, out, False)
        elif weight.ndim == 2:
            entering = int(weight.shape[1])
            layers[number] = _Layer(partial(nn.Linear, entering, out, bias=bias), entering, out, True)
        else:
            return None
    linear = _linear(layers)
    return layers if linear and not any(number + 1 in layers for number in linear[:-1]) else None


def _linear(layers: dict[int, _Layer]) -> list[int]:
    return [number for number, layer in layers.items() if layer.linear]


def _is_of_fastai(layers: dict[int, _Layer]) -> bool:
    """Whether fastai's `create_head` makes such layers: each linear one follows a normalisation."""
    normal = [number for number, layer in layers.items() if not layer.linear]
    return all(any(n - 2 <= before < n for before in normal) for n in _linear(layers))


def _head(
    layers: dict[int, _Layer], pool: Callable[[], nn.Module], between: Callable[[], nn.Module]
) -> nn.Module:
    """A fastai head. Places without tensors hold dropout, and here nothing."""
    hidden = _linear(layers)[:-1]
    head = [pool(), nn.Flatten()]
    for number in range(2, max(layers) + 1):
        activation = between() if number - 1 in hidden else nn.Identity()
        head.append(layers[number].make() if number in layers else activation)
    return nn.Sequential(*head)


def with_names(make: Make, wanted: Collection[str], tensors: Tensors, source: str, arch: str) -> Tensors:
    """The tensors of an encoder with the names of the network whose children it consists of.

    They stay as they are if they do not belong to such an encoder.

    Args:
        make: builds the network, for a number of classes.
        wanted: the names of the network's tensors.
        tensors: the tensors of the file.
        source, arch: the file and the name of the network, for messages.

    Raises:
        ModelError: the network does more than to call its children one after another, so that the encoder
            computes something else.
    """
    children = [name for name, _ in skeleton(lambda: make(2)).named_children()]
    for prefix in sorted({match[1] for name in tensors if (match := _NUMBERED.fullmatch(name))}):
        renamed = {}
        for name, tensor in tensors.items():
            number, _, rest = name.removeprefix(prefix).partition(".")
            inside = name.startswith(prefix) and number.isdigit() and int(number) < len(children)
            renamed[f"{children[int(number)]}.{rest}" if inside else name] = tensor
        if 2 * sum(name in wanted for name in renamed) > len(wanted):
            if not _is_sequence(make):
                raise ModelError(
                    f"{source}: has the layers of {arch} as a sequence, which computes something else than "
                    f"{arch}; build the network in Python, and pass it to fcnconv.load"
                )
            return renamed
    return tensors


def _is_sequence(make: Make) -> bool:
    """Whether a network does nothing but call its children in their order, and flatten before the last."""
    network = make(2).eval()
    *body, last = network.children()
    x = torch.randn(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    with suppress(RuntimeError, TypeError, ValueError), torch.no_grad():
        return torch.allclose(nn.Sequential(*body, nn.Flatten(), last)(x), network(x))
    return False
