"""Files of weights: reading them as data, never as code, and putting them into a network.

A pickle can run any code when it is loaded, so torch's restricted unpickler reads ``.pth`` and ``.pt``, and
whatever it would not read is refused. ``.safetensors`` holds nothing but tensors.
"""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fcnconv.class_names import NamesError, names_of_object
from fcnconv.errors import ModelError, first_line
from fcnconv.models.inert import INERT
from fcnconv.models.programs import program_kind, refuse_program

log = logging.getLogger("fcnconv")

Tensors = dict[str, torch.Tensor]

NAMES = (
    *("class_to_idx", "idx_to_class", "classes", "class_names", "categories", "id2label", "label2id"),
    *("label_names", "labels", "names"),
)
"""Keys under which checkpoints hold the names of classes, the most certain ones first."""

_NOT_WEIGHTS = re.compile(r"opt\w*|(lr_)?sched\w*|scaler|amp|loops|callbacks|rng\w*", re.IGNORECASE)
"""Keys of a training script's other states, whose tensors are no weights of the network."""

_EMA = re.compile(r"(^|[._])(ema|swa|averaged|average)(?=$|[._])|ema_|_ema", re.IGNORECASE)
"""What names of averaged weights contain."""

_DENSENET_1 = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")
_SHOWN = 5
_DEPTH = 8
"""How deep dictionaries are searched for weights."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    tensors: the state dict, its names as the file has them. categories: the names of its classes, in index
    order; None if the file has none. place: under which keys the state dict was found, as ``model.ema``;
    empty for a file that is a state dict itself.
    """

    tensors: Tensors
    categories: tuple[str, ...] | None = None
    place: str = ""


def read_checkpoint(path: Path, ema: bool | None = None) -> Checkpoint:
    """Reads a file of weights: ``.safetensors``, or what ``torch.save`` wrote of tensors and plain values.

    The state dict may lie at any depth under any keys. Where there are several, the averaged one (``ema``) is
    taken, as by the scripts that write them, and that is logged.

    Args:
        path: the file.
        ema: whether to take averaged weights; None takes them where there are some.

    Raises:
        ModelError: the file is missing, holds no state dict, holds several that could be meant, has none of
            the kind that `ema` asks for, or would run code.
    """
    try:
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from error
    place, state = _chosen(dict(_state_dicts(found)), found, ema, path)
    return Checkpoint(_checked(state, path), _categories(found, path), place)


def read_tensors(path: Path) -> Tensors:
    """The state dict of a file of weights, see `read_checkpoint`."""
    return read_checkpoint(path).tensors


@cache
def log_once(message: str) -> None:
    """Logs what is found each time that a file is read."""
    log.info("%s", message)


def is_averaged(name: str) -> bool:
    """Whether a key or a prefix of tensors' names says that the weights are an average."""
    return _EMA.search(name.rstrip(".")) is not None


def _torch_file(path: Path) -> object:
    try:
        _refuse_programs(path)
        with torch.serialization.safe_globals(INERT):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (ModelError, OSError):
        raise
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), "")
        raise ModelError(
            f"{path}: refused: the file asks for more than tensors, and loading it would run code from it "
            f"({_global(reason)}); save model.state_dict() instead of the model, or pass the model to "
            "fcnconv.load in Python"
        ) from error
    except Exception as error:  # what is damaged makes the unpickler raise anything
        raise ModelError(
            f"{path}: not a file of weights that torch can read ({first_line(error)})"
        ) from error


def _global(reason: str) -> str:
    """What a file asks for, from torch's line about it."""
    match = re.search(r"GLOBAL (\S+)", reason)
    return match[1] if match else reason.strip() or "not a plain state dict"


def _refuse_programs(path: Path) -> None:
    """TorchScript and torch.export files hold programs, which torch cannot load without trusting them; and an
    archive that unpacks to more than it is would be a bomb: torch's own are not compressed.
    """
    if not zipfile.is_zipfile(path):
        return
    if kind := program_kind(path):
        raise refuse_program(path, kind)
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ModelError(
            f"{path}: refused: {path.stat().st_size:,} bytes claim to hold {unpacked:,}; weights are not "
            "compressed; load them with torch, and save the state dict again"
        )


def _safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ModelError(
            f"{path}: reading it needs safetensors; run: pip install 'fcnconv[safetensors]'"
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({first_line(error)})") from error


def _state_dicts(found: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dictionary with tensors in it, by the keys that lead to it; what a tensor's name may be a key of
    is searched no further."""
    if isinstance(found, (list, tuple)) and depth < _DEPTH:
        for index, value in enumerate(found[:_SHOWN]):
            yield from _state_dicts(value, f"{place}.{index}".lstrip("."), depth + 1)
    if not isinstance(found, Mapping):
        return
    if any(isinstance(value, torch.Tensor) and isinstance(key, str) for key, value in found.items()):
        yield place, found
    if depth >= _DEPTH:
        return
    for key, value in found.items():
        if isinstance(key, str) and not _NOT_WEIGHTS.fullmatch(key) and not isinstance(value, torch.Tensor):
            yield from _state_dicts(value, f"{place}.{key}".lstrip("."), depth + 1)


def _chosen(
    places: dict[str, Mapping[str, Any]], found: object, ema: bool | None, path: Path
) -> tuple[str, Mapping[str, Any]]:
    """The state dict that is meant, and where it is."""
    if not places:
        keys = f" (it has {', '.join(map(repr, list(found)[:_SHOWN]))})" if isinstance(found, Mapping) else ""
        raise ModelError(f"{path}: no state dict in it{keys}; save model.state_dict()")
    most = max(map(_count, places.values()))
    # Beside the weights there may be single tensors: class weights of a loss, a mean.
    large = {place: state for place, state in places.items() if 2 * _count(state) >= most}
    averaged = {place: state for place, state in large.items() if is_averaged(place)}
    plain = {place: state for place, state in large.items() if place not in averaged}
    if ema and not averaged and not any(is_averaged(key) for state in plain.values() for key in state):
        raise ModelError(f"{path}: holds no averaged weights; leave out --ema")
    if ema is False and not plain:
        raise ModelError(f"{path}: holds averaged weights only; leave out --no-ema")
    wanted = choose_average(averaged, plain, ema, str(path))
    if len(wanted) > 1 and len(set(map(_fingerprint, wanted.values()))) > 1:
        raise ModelError(
            f"{path}: holds several state dicts, under {' and '.join(map(repr, wanted))}, and does not say "
            "which is meant; save one of them to a file of its own"
        )
    place, state = next(iter(wanted.items()))
    return place, state


def choose_average(
    averaged: Mapping[str, Any], plain: Mapping[str, Any], ema: bool | None, source: str
) -> Mapping[str, Any]:
    """Which of a file's weights to take: the averaged or the plain ones, both by name."""
    if averaged and plain and ema is None:
        names = ", ".join(repr(name.rstrip(".")) for name in averaged)
        log_once(f"{source}: took the averaged weights, {names}; --no-ema takes the others")
    return averaged if averaged and ema is not False else plain


def _count(state: Mapping[str, Any]) -> int:
    return sum(isinstance(value, torch.Tensor) for value in state.values())


def _fingerprint(state: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(value.data_ptr() for value in state.values() if isinstance(value, torch.Tensor))


def _categories(found: object, path: Path, depth: int = 0) -> tuple[str, ...] | None:
    """The names of classes that a file has beside its weights; None if there are none that can be read."""
    if not isinstance(found, Mapping) or depth > 3:
        return None
    for key in NAMES:
        names = found.get(key)
        if isinstance(names, (Mapping, list, tuple)) and names and not _holds_tensors(names):
            try:
                return names_of_object(names)
            except NamesError as error:
                log.warning("%s: its %r are no names of classes (%s)", path, key, error)
    return next(
        (
            names
            for key, value in found.items()
            if isinstance(value, Mapping)
            and not _NOT_WEIGHTS.fullmatch(str(key))
            and (names := _categories(value, path, depth + 1))
        ),
        None,
    )


def _holds_tensors(names: Any) -> bool:
    values = names.values() if isinstance(names, Mapping) else names
    return any(isinstance(value, torch.Tensor) for value in values)


def _checked(state: Mapping[str, Any], path: Path) -> Tensors:
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    for name, tensor in tensors.items():
        if not _is_held(tensor):
            raise ModelError(f"{path}: {name} claims {sides(tensor)} values, which the file does not hold")
    return {modern_name(name): value for name, value in tensors.items()}


def _is_held(tensor: torch.Tensor) -> bool:
    """Whether a file holds all values of a tensor. One that repeats some by a stride of 0, or has no values,
    claims any size, and takes that much memory when it is first computed with.
    """
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def modern_name(key: str) -> str:
    """A tensor's name in today's networks: DenseNet's published files still say ``norm.1`` for ``norm1``."""
    return _DENSENET_1.sub(r"\1\2", key)


def sides(tensor: torch.Tensor) -> str:
    """A tensor's shape, for people."""
    return " × ".join(map(str, tensor.shape)) or "a number"


class _Unallocated(TorchFunctionMode):
    """Inside, new parameters get a shape but no memory, and their initialisation is skipped."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**kwargs, "device": "meta"})
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if in_place and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)


def skeleton(make: Callable[[], nn.Module]) -> nn.Module:
    """A network that waits for `fill`: no memory and no time is spent on weights that are replaced anyway."""
    with _Unallocated():
        return make()
