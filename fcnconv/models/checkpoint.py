"""Reads weights files as data, never as code, and prepares networks to be filled with them.

A pickle can run any code when it is loaded. So torch's restricted unpickler reads ``.pth`` and ``.pt``, and
fcnconv refuses every file that this unpickler rejects. ``.safetensors`` contains only tensors.

The unpickler also rejects a checkpoint with objects that training scripts save with weights: settings, paths,
NumPy numbers. For a fixed list of names (`INERT`), it gets an empty class instead. Nothing is imported, no
code of the file is called, and the values are dropped.
"""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fcnconv.errors import ModelError, first_line
from fcnconv.labels.class_names import NamesError, names_of_object
from fcnconv.models.weight_files import program_kind, refuse_program

log = logging.getLogger("fcnconv")

Tensors = dict[str, torch.Tensor]

NAMES = (
    *("class_to_idx", "idx_to_class", "classes", "class_names", "categories", "id2label", "label2id"),
    *("label_names", "labels", "names"),
)
"""Keys under which checkpoints store class names, the most reliable keys first."""

_NOT_WEIGHTS = re.compile(r"opt\w*|(lr_)?sched\w*|scaler|amp|loops|callbacks|rng\w*", re.IGNORECASE)
"""Keys of other states that a training script saves. Their tensors are not weights of the network."""

_EMA = re.compile(r"(^|[._])(ema|swa|averaged|average)(?=$|[._])|ema_|_ema", re.IGNORECASE)
"""Matches the names of averaged weights."""

_DENSENET_1 = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")
_SHOWN = 5
_DEPTH = 8
"""Maximum depth at which nested dictionaries are searched for weights."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weights file.

    Attributes:
        tensors: the state dict, with the names of the file.
        categories: the class names, in index order; None if the file has no names.
        place: the keys that lead to the state dict, such as ``model.ema``; empty if the file itself is a
            state dict.
    """

    tensors: Tensors
    categories: tuple[str, ...] | None = None
    place: str = ""


def read_checkpoint(path: Path, ema: bool | None = None) -> Checkpoint:
    """Reads a weights file: ``.safetensors``, or tensors and plain values written by ``torch.save``.

    The state dict may lie at any depth under any keys. If there are several, the averaged one (``ema``) is
    used, as in the scripts that write such files, and the choice is logged.

    Args:
        path: the file.
        ema: whether to use averaged weights; None uses them if the file has any.

    Raises:
        ModelError: the file is missing, contains no state dict, contains several candidates, has no weights
            of the kind that `ema` asks for, or would run code.
    """
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from error
    place, state = _chosen(dict(_state_dicts(content)), content, ema, path)
    return Checkpoint(_checked(state, path), _categories(content, path), place)


def read_tensors(path: Path) -> Tensors:
    """The state dict of a weights file, see `read_checkpoint`."""
    return read_checkpoint(path).tensors


@cache
def log_once(message: str) -> None:
    """Logs a message once per process, although the file that causes it is read several times."""
    log.info("%s", message)


def is_averaged(name: str) -> bool:
    """Whether a key or a prefix of tensor names marks averaged weights."""
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
    except Exception as error:  # the unpickler raises any kind of error for a damaged file
        raise ModelError(
            f"{path}: not a file of weights that torch can read ({first_line(error)})"
        ) from error


def _global(reason: str) -> str:
    """The class or function that a file asks for, from torch's message."""
    match = re.search(r"GLOBAL (\S+)", reason)
    return match[1] if match else reason.strip() or "not a plain state dict"


def _refuse_programs(path: Path) -> None:
    """Refuses archives with programs, which torch could not load safely, and archives that unpack to more.

    TorchScript and torch.export files contain programs. An archive that unpacks to more than its size could
    be a zip bomb; torch does not compress its own archives.
    """
    if not zipfile.is_zipfile(path):
        return
    if kind := program_kind(path):
        raise refuse_program(path, kind)
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ModelError(
            f"{path}: refused: {path.stat().st_size:,} bytes claim to contain {unpacked:,}; weights are not "
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


def _state_dicts(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dictionary that contains tensors, with the keys that lead to it.

    Values under keys that can be tensor names are not searched further.
    """
    if isinstance(content, (list, tuple)) and depth < _DEPTH:
        for index, value in enumerate(content[:_SHOWN]):
            yield from _state_dicts(value, f"{place}.{index}".lstrip("."), depth + 1)
    if not isinstance(content, Mapping):
        return
    if any(isinstance(value, torch.Tensor) and isinstance(key, str) for key, value in content.items()):
        yield place, content
    if depth >= _DEPTH:
        return
    for key, value in content.items():
        if isinstance(key, str) and not _NOT_WEIGHTS.fullmatch(key) and not isinstance(value, torch.Tensor):
            yield from _state_dicts(value, f"{place}.{key}".lstrip("."), depth + 1)


def _chosen(
    places: dict[str, Mapping[str, Any]], content: object, ema: bool | None, path: Path
) -> tuple[str, Mapping[str, Any]]:
    """The state dict to use, and the keys that lead to it."""
    if not places:
        keys = (
            f" (it has {', '.join(map(repr, list(content)[:_SHOWN]))})"
            if isinstance(content, Mapping)
            else ""
        )
        raise ModelError(f"{path}: no state dict in it{keys}; save model.state_dict()")
    most = max(map(_count, places.values()))
    # A file may also contain single tensors, such as the class weights of a loss or a mean.
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
            f"{path}: contains several state dicts, under {' and '.join(map(repr, wanted))}, and does not "
            "say which is meant; save one of them to a file of its own"
        )
    place, state = next(iter(wanted.items()))
    return place, state


def choose_average(
    averaged: Mapping[str, Any], plain: Mapping[str, Any], ema: bool | None, source: str
) -> Mapping[str, Any]:
    """Chooses between the averaged and the plain weights of a file, both given by name."""
    if averaged and plain and ema is None:
        names = ", ".join(repr(name.rstrip(".")) for name in averaged)
        log_once(f"{source}: using the averaged weights, {names}; --no-ema uses the others")
    return averaged if averaged and ema is not False else plain


def _count(state: Mapping[str, Any]) -> int:
    return sum(isinstance(value, torch.Tensor) for value in state.values())


def _fingerprint(state: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(value.data_ptr() for value in state.values() if isinstance(value, torch.Tensor))


def _categories(content: object, path: Path, depth: int = 0) -> tuple[str, ...] | None:
    """The class names that a file contains in addition to its weights; None if it has no readable names."""
    if not isinstance(content, Mapping) or depth > 3:
        return None
    lower = {key.lower(): key for key in content if isinstance(key, str)}  # mmpretrain writes CLASSES
    for key in (lower[name] for name in NAMES if name in lower):
        names = content[key]
        if isinstance(names, (Mapping, list, tuple)) and names and not _holds_tensors(names):
            try:
                return names_of_object(names)
            except NamesError as error:
                log.warning("%s: ignoring %r, which does not contain class names (%s)", path, key, error)
    return next(
        (
            names
            for key, value in content.items()
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
    """Whether a file contains all values of a tensor.

    A tensor that repeats values with a stride of 0, or that has no values, can claim any size, and takes that
    much memory when it is first used.
    """
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def modern_name(key: str) -> str:
    """The current name of a tensor. DenseNet's published files still use ``norm.1`` for ``norm1``."""
    return _DENSENET_1.sub(r"\1\2", key)


def sides(tensor: torch.Tensor) -> str:
    """The shape of a tensor as text for messages."""
    return " × ".join(map(str, tensor.shape)) or "a number"


class _Unallocated(TorchFunctionMode):
    """Inside this mode, new parameters get a shape but no memory, and their initialisation is skipped."""

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
    """Builds a network for `fill`, without spending memory or time on weights that are replaced anyway."""
    with _Unallocated():
        return make()


_VALUES = {
    "argparse": ("Namespace",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "datetime": ("datetime", "timedelta", "date", "timezone"),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.dtypes": (
        *("Float64DType", "Float32DType", "Float16DType", "Int64DType", "Int32DType", "Int16DType"),
        *("Int8DType", "UInt8DType", "BoolDType", "StrDType"),
    ),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": ("AnyNode", "IntegerNode", "FloatNode", "StringNode", "BooleanNode", "PathNode"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "typing": ("Any",),
}

_DICTIONARIES = {
    "yacs.config": ("CfgNode",),
    "fvcore.common.config": ("CfgNode",),
    "easydict": ("EasyDict",),
    "addict.addict": ("Dict",),
    "mmengine.config.config": ("ConfigDict",),
    "mmcv.utils.config": ("ConfigDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
}


class _Value:
    """Accepts any arguments, and stores nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Dictionary:
    """Replaces the one kind of dictionary that the unpickler fills and gives attributes."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def _stand_ins(kind: type, names: Mapping[str, tuple[str, ...]]) -> list[type]:
    # torch finds an allowed class by the name that it gives itself.
    return [
        type(name, (kind,), {"__module__": module, "__qualname__": name})
        for module, classes in names.items()
        for name in classes
    ]


INERT: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *_stand_ins(_Value, _VALUES),
    *_stand_ins(_Dictionary, _DICTIONARIES),
]
"""For `torch.serialization.safe_globals`: one class per name, which does nothing."""
