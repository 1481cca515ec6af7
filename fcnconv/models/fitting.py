"""Puts the tensors of a file into a network, under any prefix and with any head that the file describes.

The body must fit exactly. A head that differs from the network's own is built from the names of its tensors,
as far as these names determine the computation. For anything else, the error asks the user.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fcnconv.errors import ModelError
from fcnconv.models.checkpoint import Tensors, choose_average, is_averaged, log_once, sides, skeleton
from fcnconv.models.heads import COUNTER, Fit, HeadBuilder, some, unparametrized
from fcnconv.models.nearest import nearest_text
from fcnconv.models.sequences import learner, with_names
from fcnconv.models.spec import AS_THEY_ARE, WeightOptions

_AUXILIARY = re.compile(r"(aux1|aux2|AuxLogits)\.")
_TRAINING = re.compile(
    r"(.*[._])?(criterion|loss\w*|\w+_loss|metrics?|\w+_metrics?|\w*acc(uracy)?|auroc|f1\w*|teacher|ema|momentum\w*|"
    r"train_\w+|valid_\w+|val_\w+|test_\w+|mixup|cutmix|normalize|normalization|preprocess\w*)\..*"
)
"""Names of modules that training adds to the network: losses, metrics, teachers."""
_SHOWN = 5


def fit(
    make: Callable[[int], nn.Module],
    tensors: Tensors,
    source: str,
    name: str,
    options: WeightOptions = AS_THEY_ARE,
) -> Fit:
    """Finds the tensors of a network in a file, and its head.

    Args:
        make: builds the network for a number of classes. Only its last layer changes with this number.
        tensors: the tensors of the file, with the names of the file.
        source: the file, for messages.
        name: name of the network, for messages.
        options: the user's choices for the file.

    Raises:
        ModelError: the body belongs to another network, or the head cannot be built from the file.
    """
    one, other = (skeleton(lambda n=n: make(n)).state_dict() for n in (1000, 1001))  # type: ignore[misc]
    heads = [key for key, tensor in one.items() if tensor.shape != other[key].shape]
    tensors = unparametrized(tensors)
    if (whole := learner(make, tensors, source, options.head_activation)) is not None:
        return whole
    if 2 * max(_counts(one, tensors).values(), default=0) < len(one):
        tensors = with_names(make, one, tensors, source, name)
    prefix, others = _prefixes(one, tensors, options.ema, source)
    tensors = {key: value for key, value in tensors.items() if not key.startswith(others)}
    inside = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    outside = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    fitted = _own_head(one, heads, inside) or _other_head(one, heads, inside, outside, source, name, options)
    if fitted is None:
        misfits = _misfits({key: value for key, value in one.items() if key not in heads}, inside)
        if not misfits:
            raise ModelError(_without_head(source, name, heads, _groups_beside(one, inside, outside)))
        raise ModelError(_not_of(source, name, misfits, tensors))
    left = _left_over(fitted, one, inside, outside)
    named = inside | outside
    if foreign := [key for key in left if not _harmless(key, named[key])]:
        raise ModelError(
            f"{source}: has more layers than {name}: {some(foreign)}; how they are used is not known. "
            "Build the network in Python and pass it to fcnconv.load, or save it with torch.onnx.export"
        )
    if layers := [key for key in left if named[key].ndim]:
        log_once(f"{source}: ignoring {some(layers)}, which only training uses")
    unused = {*left, *filter(_AUXILIARY.match, fitted.tensors)}
    return replace(fitted, tensors={key: value for key, value in fitted.tensors.items() if key not in unused})


def _counts(wanted: Mapping[str, Any], tensors: Tensors) -> dict[str, int]:
    """The number of the network's tensor names that follow each prefix in a file."""
    counts: dict[str, int] = defaultdict(int)
    for key in tensors:
        place = 0
        while True:  # the network's own name may start after any dot
            if key[place:] in wanted:
                counts[key[:place]] += 1
            place = key.find(".", place) + 1
            if not place:
                break
    return counts


def _prefixes(
    wanted: Mapping[str, Any], tensors: Tensors, ema: bool | None, source: str
) -> tuple[str, tuple[str, ...]]:
    """The prefix of most of the network's tensor names in a file, and the prefixes of the weights that are
    not used.
    """
    counts = _counts(wanted, tensors)
    if not counts:
        return "", ()
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    averaged = {prefix: prefix for prefix in best if is_averaged(prefix)}
    plain = {prefix: prefix for prefix in best if prefix not in averaged}
    chosen = list(choose_average(averaged, plain, ema, source)) if len(best) > 1 else best
    if len(chosen) > 1 and 2 * most < len(wanted):
        return "", ()  # of another network, with some of the same names in each of its blocks
    if len(chosen) > 1:
        raise ModelError(
            f"{source}: contains several networks, under {' and '.join(map(repr, chosen))}, and does not say "
            "which is meant; save one of them to a file of its own"
        )
    return chosen[0], tuple(prefix for prefix in best if prefix != chosen[0])


def _misfits(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """The tensors that are missing or have another shape, as text. Counters are ignored."""
    misfits = []
    for key, tensor in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in found:
            misfits.append(f"{key} is missing")
        elif found[key].shape != tensor.shape and not _other_channels(found[key], tensor):
            misfits.append(f"{key} is {sides(found[key])}, not {sides(tensor)}")
    return misfits


def _other_channels(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether two weights belong to a first convolution with different numbers of channels, see
    `take_channels`.
    """
    a, b = list(found.shape), list(wanted.shape)
    return len(a) == len(b) == 4 and b[1] == 3 and a[:1] + a[2:] == b[:1] + b[2:]


# Heads


def _modules(keys: list[str]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def _own_head(one: Mapping[str, torch.Tensor], heads: list[str], inside: Tensors) -> Fit | None:
    """The network's own head, for any number of classes. A head without biases gets biases of 0."""
    weights = [key for key in heads if one[key].ndim > 1]
    if not weights or not all(key in inside and inside[key].ndim == one[key].ndim for key in weights):
        return None
    counts = set()
    for key in weights:
        axis = next(n for n, length in enumerate(one[key].shape) if length == 1000)
        if [*inside[key].shape[:axis], *inside[key].shape[axis + 1 :]] != [
            length for n, length in enumerate(one[key].shape) if n != axis
        ]:
            return None
        counts.add(int(inside[key].shape[axis]))
    if len(counts) != 1 or _misfits({key: value for key, value in one.items() if key not in heads}, inside):
        return None
    biases = {key: torch.zeros(min(counts)) for key in heads if key not in inside}
    return Fit(inside | biases, min(counts))


def _other_head(
    one: Mapping[str, torch.Tensor],
    heads: list[str],
    inside: Tensors,
    outside: Tensors,
    source: str,
    name: str,
    options: WeightOptions,
) -> Fit | None:
    """The head in the place of the network's own, in the place of a container around it, or next to the
    network.
    """
    modules = _modules(heads)
    if len(modules) != 1:
        return None
    place = modules[0]
    while place:
        body = {key: value for key, value in one.items() if not key.startswith(f"{place}.")}
        if not _misfits(body, inside):
            found = _below(inside, f"{place}.")
            beside = {} if found else _beside(one, inside, outside)
            if found or beside:
                head = HeadBuilder(place, source, name, options.head_activation, _features(one, place))
                return head.fit(found or beside, {key: inside[key] for key in body if key in inside})
        place = place.rpartition(".")[0]
    return None


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _beside(one: Mapping[str, torch.Tensor], inside: Tensors, outside: Tensors) -> Tensors:
    """The tensors of the only other module next to a network without a head."""
    groups = _groups_beside(one, inside, outside)
    return next(iter(groups.values())) if len(groups) == 1 else {}


def _groups_beside(one: Mapping[str, torch.Tensor], inside: Tensors, outside: Tensors) -> dict[str, Tensors]:
    """The tensors of each module next to a network that has layers, by its name."""
    others = outside | {key: value for key, value in inside.items() if key not in one}
    names = dict.fromkeys(
        key.partition(".")[0] for key in others if not _TRAINING.fullmatch(key) and "." in key
    )
    groups = {name: _below(others, f"{name}.") for name in names}
    return {name: group for name, group in groups.items() if any(v.ndim > 1 for v in group.values())}


def _without_head(source: str, name: str, heads: list[str], beside: dict[str, Tensors]) -> str:
    if not beside:
        return (
            f"{source}: has the body of {name} and no head ({' or '.join(heads)}), so it computes features "
            "instead of classes"
        )
    module = heads[0].rpartition(".")[0]
    return (
        f"{source}: has the body of {name} and, next to it, {some(list(beside))}; which of these give the "
        f"classes, and in which order, is not known. Build it in Python: model.{module} = nn.Sequential(…); "
        "model.load_state_dict(weights), and pass the model to fcnconv.load, or save it with "
        "torch.onnx.export"
    )


def _features(one: Mapping[str, torch.Tensor], place: str) -> int:
    """The number of features that enter the head at a place, which is the input size of the first layer
    there.
    """
    first = next(value for key, value in one.items() if key.startswith(f"{place}.") and value.ndim > 1)
    return int(first.shape[1])


def _left_over(fitted: Fit, one: Mapping[str, Any], inside: Tensors, outside: Tensors) -> list[str]:
    """The names of the tensors that do not belong to the network."""
    used = {id(value) for value in fitted.tensors.values()}
    known = [key for key in inside if key in one or _AUXILIARY.match(key)]
    skipped = {id(inside[key]) for key in known}
    others = [*inside.items(), *outside.items()]
    return [key for key, value in others if id(value) not in used | skipped]


def _harmless(key: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor can be ignored: a counter, or a tensor that training adds."""
    return tensor.ndim == 0 or key.endswith(COUNTER) or _TRAINING.fullmatch(key) is not None


def _not_of(source: str, name: str, misfits: list[str], tensors: Tensors) -> str:
    more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    nearest = nearest_text(tensors)
    return f"{source}: not the weights of {name}: {'; '.join(misfits[:_SHOWN])}{more}" + (
        f". The nearest networks are {nearest}" if nearest else ""
    )


# Filling


def fill(model: nn.Module, tensors: Tensors, source: str) -> nn.Module:
    """Fills a model with tensors and returns it, in float32 and evaluation mode.

    Args:
        model: the network.
        tensors: the tensors, with the names of the network.
        source: the file, for messages.

    Raises:
        ModelError: names are missing or unknown, or shapes differ. The message lists them.
    """
    wanted = model.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items() if n not in counters}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"{source}: {count:,} of the {tensor.numel():,} values of {name} are NaN or infinite; take a "
                "checkpoint from before the training diverged"
            )
    misfits = [
        *(f"{name} is missing" for name in wanted if name not in tensors and name not in counters),
        *(f"{name} is unknown" for name in tensors if name not in wanted),
        *(
            f"{name} is {sides(tensors[name])}, not {sides(wanted[name])}"
            for name in wanted
            if name in tensors and tensors[name].shape != wanted[name].shape
        ),
    ]
    if misfits:
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ModelError(
            f"{source}: not the weights of this {type(model).__name__}: {'; '.join(misfits[:_SHOWN])}{more}"
        )
    # Pass the network's own metadata along: without a version, MNASNet assumes an old format.
    state = wanted | {name: torch.zeros((), dtype=torch.long) for name in counters} | tensors
    model.load_state_dict(_with_metadata(state, wanted), assign=True)
    return model.requires_grad_(False).eval()


def _with_metadata(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> Any:
    from collections import OrderedDict

    ordered: Any = OrderedDict(state)
    ordered._metadata = getattr(like, "_metadata", None)
    return ordered


def take_channels(model: nn.Module, tensors: Tensors, channels: int, source: str) -> nn.Module:
    """Adapts the first convolution of a model to the number of channels in its weights.

    Args:
        model: the network.
        tensors: its weights.
        channels: channels of the images.
        source: the file, for messages.

    Raises:
        ModelError: the weights and the images have different numbers of channels.
    """
    convolutions = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    images = ((name, layer) for name, layer in convolutions if layer.in_channels in (3, channels))
    name, first = next(images, ("", None))
    weight = tensors.get(f"{name}.weight")
    if first is None or weight is None or weight.ndim != 4 or first.groups != 1:
        return model
    if weight.shape[1] != channels:
        raise ModelError(
            f"{source}: the network takes images of {weight.shape[1]} channels, and mean and std are for "
            f"{channels}; give --mean and --std with one number per channel"
        )
    if first.in_channels != channels:
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty((len(first.weight), channels, *first.kernel_size)))
    return model
