"""Files of weights: reading them as data, never as code, and putting them into a network.

A pickle can run any code when it is loaded, so torch's restricted unpickler reads ``.pth`` and ``.pt``, and
whatever it would not read is refused. ``.safetensors`` holds nothing but tensors.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fcnconv.errors import ModelError, first_line

Tensors = dict[str, torch.Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "ema", "model_ema")
"""Keys under which training scripts put the state dict beside their optimiser's."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
"""What DataParallel, torch.compile, Lightning and others put before every tensor's name."""

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_DENSENET_1 = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")
_SHOWN = 5


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file of weights by name, wrappers and prefixes removed.

    path: ``.safetensors``, else what ``torch.save`` wrote: a state dict, or a checkpoint that holds one.

    Raises ModelError for a file that is missing, that holds no state dict, or that would run code.
    """
    try:
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from error
    return _without_prefixes(_state_dict(found, path), path)


def _torch_file(path: Path) -> object:
    try:
        _refuse_programs(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (ModelError, OSError):
        raise
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), "")
        raise ModelError(
            f"{path}: refused: the file asks for more than tensors, and loading it would run code from it "
            f"({reason.strip() or 'not a plain state dict'}); save model.state_dict() instead of the model"
        ) from error
    except Exception as error:  # what is damaged makes the unpickler raise anything
        raise ModelError(
            f"{path}: not a file of weights that torch can read ({first_line(error)})"
        ) from error


def _refuse_programs(path: Path) -> None:
    """TorchScript and torch.export files hold programs, which torch cannot load without trusting them; and an
    archive that unpacks to more than it is would be a bomb: torch's own are not compressed.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2] for name in archive.namelist()}
        unpacked = sum(info.file_size for info in archive.infolist())
    program = any(entry.startswith(("code/", "models/")) or entry == "archive_format" for entry in entries)
    if program:
        raise ModelError(
            f"{path}: refused: TorchScript and torch.export files are programs, and torch loads them only on "
            "trust; save the state dict and name its architecture with --arch, or pass the loaded module to "
            "fcnconv.load in Python"
        )
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


def _state_dict(found: object, path: Path) -> Mapping[str, Any]:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        keys = f" (it has {', '.join(map(repr, list(found)[:_SHOWN]))})" if isinstance(found, Mapping) else ""
        raise ModelError(f"{path}: no state dict in it{keys}; save model.state_dict()")
    return found


def _without_prefixes(state: Mapping[str, Any], path: Path) -> Tensors:
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    for name, tensor in tensors.items():
        if not _is_held(tensor):
            raise ModelError(f"{path}: {name} claims {_sides(tensor)} values, which the file does not hold")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return {modern_name(name): value for name, value in tensors.items() if not name.startswith(_AUXILIARY)}


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


def fill(model: nn.Module, tensors: Tensors, source: str) -> nn.Module:
    """The model with these tensors, in float32 and evaluation mode.

    source: the file, for the error. Raises ModelError with the names that are missing, unknown or misshapen.
    """
    wanted = model.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items() if n not in counters}
    misfits = [
        *(f"{name} is missing" for name in wanted if name not in tensors and name not in counters),
        *(f"{name} is unknown" for name in tensors if name not in wanted),
        *(
            f"{name} is {_sides(tensors[name])}, not {_sides(wanted[name])}"
            for name in wanted
            if name in tensors and tensors[name].shape != wanted[name].shape
        ),
    ]
    if misfits:
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ModelError(
            f"{source}: not the weights of this {type(model).__name__}: {'; '.join(misfits[:_SHOWN])}{more}"
        )
    # The network's own metadata go with the tensors: without a version, MNASNet takes them for old ones.
    state = wanted | {name: torch.zeros((), dtype=torch.long) for name in counters} | tensors
    model.load_state_dict(_with_metadata(state, wanted), assign=True)
    return model.requires_grad_(False).eval()


def _with_metadata(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> Any:
    from collections import OrderedDict

    ordered: Any = OrderedDict(state)
    ordered._metadata = getattr(like, "_metadata", None)
    return ordered


def _sides(tensor: torch.Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"


def count_classes(make: Callable[[int], nn.Module], tensors: Tensors, source: str) -> int:
    """The number of classes of some weights for a kind of network, read from its last layer's tensors.

    make: builds the network for a number of classes. Its last layer is what changes with that number.

    Raises ModelError if the weights have no such layer.
    """
    one, other = (skeleton(lambda n=n: make(n)).state_dict() for n in (1000, 1001))  # type: ignore[misc]
    heads = [name for name, tensor in one.items() if tensor.shape != other[name].shape]
    found = [name for name in heads if name in tensors and tensors[name].ndim]
    if not found:
        raise ModelError(
            f"{source}: no {' or '.join(heads) or 'classifying layer'} in it, so these weights are not of "
            f"this architecture; it has {', '.join(list(tensors)[:_SHOWN])} …"
        )
    return int(tensors[found[0]].shape[0])


def take_channels(model: nn.Module, tensors: Tensors, channels: int, source: str) -> nn.Module:
    """The model, its first convolution made for images of as many channels as its weights are.

    channels: that its images will have. Raises ModelError if these are others.
    """
    convolutions = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    images = ((name, layer) for name, layer in convolutions if layer.in_channels in (3, channels))
    name, first = next(images, ("", None))
    weight = tensors.get(f"{name}.weight")
    if first is None or weight is None or weight.ndim != 4 or first.groups != 1:
        return model
    if weight.shape[1] != channels:
        raise ModelError(
            f"{source}: the network takes images of {weight.shape[1]} channels, and mean and std are of "
            f"{channels}; give --mean and --std with a number for each channel"
        )
    if first.in_channels != channels:
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty((len(first.weight), channels, *first.kernel_size)))
    return model


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
