"""A classifier that was built in Python: any module that computes logits from images.

Users have modules in many states: wrapped for several GPUs or for averaging, compiled, scripted, quantised,
with activations of the last training step in attributes, with weights that each call computes. `prepare`
makes a copy that has none of this and can be traced. A module that cannot be converted raises an error that
names the reason.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fcnconv.errors import WAY_OUT, ConversionError, ModelError, UsageError, first_line
from fcnconv.labels import Labels
from fcnconv.models.architecture import named_or_numbered
from fcnconv.models.own import IMAGENET_MEAN, IMAGENET_STD, OwnModel, colours
from fcnconv.models.spec import ModelSpec


def module_spec(model: nn.Module, own: OwnModel) -> ModelSpec:
    """The spec of a classifier in memory: float (N, channels, window, window) -> logits (N, num_classes).

    Args:
        model: the classifier.
        own: its window (default 224), its mean and std (default ImageNet's; their length is the number of
            image channels), and its categories.
    """
    if own.arch is not None:
        raise UsageError(f"arch: a module is its own architecture; leave out {own.arch!r}")
    if own.allow_torchscript is not None:
        raise UsageError("allow_torchscript: this is for files only; leave it out for a loaded module")
    model = unwrapped(model)
    check_weights(model)
    name, window = type(model).__name__, own.window or 224
    mean, std = colours(name, own, IMAGENET_MEAN, IMAGENET_STD)
    return ModelSpec(
        name=name,
        window=window,
        eval_size=own.eval_size or round(window * 8 / 7),
        mean=mean,
        std=std,
        labels=partial(_labels, model, window, own),
        weights=Path,
        build=lambda _: checked_copy(model, len(mean), window),
        temperature=own.temperature or 1.0,
        pixel_size=own.pixel_size,
        sha256=lambda _: state_sha256(model),
        no_plan=f"{name} was built in Python: nothing identifies its code, so a plan cannot be reused",
    )


def _labels(model: nn.Module, window: int, own: OwnModel) -> Labels:
    name, channels = type(model).__name__, len(own.mean or IMAGENET_MEAN)
    with torch.inference_mode():
        logits = checked_copy(model, channels, window)(torch.zeros(1, channels, window, window))
    logits = logits[None] if logits.ndim == 1 else logits
    return named_or_numbered(own.categories, int(logits.shape[1]), name, own.activation)


def state_sha256(model: nn.Module) -> str:
    """The SHA-256 of the state dict of a network.

    It covers the name, type, shape and bytes of each tensor, in order. For values that are not tensors, such
    as the packed weights of a quantised layer, it covers their text.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_quantized:
            digest.update(f"{name} {tensor}\n".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(flat)
    return digest.hexdigest()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside the wrappers that do not change what it computes."""
    while True:
        if isinstance(model, OneByOne):
            model = model.model
            continue
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if not isinstance(inner, nn.Module):
            wrapper = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
            inner = model.module if wrapper or type(model).__name__ == "AveragedModel" else None
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_weights(model: nn.Module) -> None:
    """Raises ModelError if weights are missing (on the ``meta`` device) or contain NaN or infinity."""
    for name, tensor in named_tensors(model):
        if tensor.is_meta:
            raise ModelError(
                f"{name} has no values because it is on the meta device; load the weights before converting"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinity"
            raise ModelError(f"the weights contain {kind}: {name}; the training may have diverged")


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers with their names, also for TorchScript and quantised modules."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a module.

    Activations that the module keeps in attributes are copied without their gradient, because torch refuses
    to copy them otherwise.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in _tensors(vars(module).values()):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, memo)


def _tensors(values: Iterable[Any], depth: int = 3) -> Iterator[torch.Tensor]:
    """The tensors among the values, and inside lists, tuples and dictionaries among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (list, tuple, dict)):
            yield from _tensors(value.values() if isinstance(value, dict) else value, depth - 1)


def float_copy(model: nn.Module) -> nn.Module:
    """Copies a module to the CPU, in float32 and evaluation mode, without gradients.

    A TorchScript module is copied by saving and loading it. A quantised module keeps its types.
    """
    if isinstance(model, torch.jit.ScriptModule):
        with BytesIO() as file:
            torch.jit.save(model, file)
            file.seek(0)
            loaded: nn.Module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
            return loaded.float().eval()
    duplicate = copied(model).cpu().eval()
    for parameter in duplicate.parameters():
        parameter.requires_grad_(False)
    return duplicate.float()


class OneByOne(nn.Module):
    """Passes one image at a time to a classifier whose output depends on the other images of a batch."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = [self.model(image) for image in torch.split(x, 1)]
        return torch.cat([each[None] if each.ndim == 1 else each for each in logits])


def checked_copy(model: nn.Module, channels: int, window: int) -> nn.Module:
    """A copy of a classifier that scores each image independently, see `image_by_image`."""
    return image_by_image(float_copy(model), channels, window, type(model).__name__)


def image_by_image(duplicate: nn.Module, channels: int, window: int, name: str) -> nn.Module:
    """Returns a classifier that scores each image independently of the others in a batch.

    A classifier that depends on the batch is wrapped, so that it gets the images one at a time.

    Args:
        duplicate: the classifier, in evaluation mode.
        channels: channels of its images.
        window: side of its input, in pixels.
        name: name of the classifier, for messages.

    Raises:
        ModelError: its output changes from call to call, or is not logits (N, num_classes).
    """
    x = torch.rand(2, channels, window, window, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            single = duplicate(x[:1])
            again = duplicate(x[:1])
        except Exception as error:  # the model's own code can raise any kind of error
            raise ModelError(
                f"{name} fails on an image of {window} × {window}: {first_line(error)}"
            ) from error
        try:
            pair = duplicate(x)
        except Exception:  # it takes one image at a time
            pair = None
    if not isinstance(single, torch.Tensor) or single.ndim not in (1, 2):
        shape = tuple(single.shape) if isinstance(single, torch.Tensor) else type(single).__name__
        raise ModelError(f"{name} gives {shape}, not logits (N, num_classes)")
    scale = float(single.abs().max())
    if not float((single - again).abs().max()) <= 1e-4 * scale:
        raise ModelError(
            f"{name} answers differently each time; look for dropout that is always on (F.dropout without "
            "training=self.training) or other random numbers"
        )
    quantised = any(".quantized" in type(layer).__module__ for layer in duplicate.modules())
    same = pair is not None and float((pair[:1] - single).abs().max()) <= 1e-3 * scale
    # The rounding of quantised layers depends on the other images.
    alone = same and single.ndim == 2 and not quantised
    return duplicate if alone else OneByOne(duplicate).eval()


def prepare(model: nn.Module) -> nn.Module:
    """Copies a classifier so that it can be traced, in evaluation mode and float32, on the model's device.

    Wrappers (`DataParallel`, `AveragedModel`, `torch.compile`) are removed. Weights that weight or spectral
    normalisation, or another parametrisation, computes in each call are computed once. Further arguments of
    `forward` take their default values. The model itself stays unchanged.

    Raises:
        ConversionError: the module is compiled to TorchScript or quantised.
        ModelError: its weights contain NaN or infinity, or it has none.
    """
    model = unwrapped(model)
    refuse_opaque(model)
    check_weights(model)
    ready = copied(model)
    _compute_weights_once(ready)
    ready = ready.eval().float()
    for parameter in ready.parameters():
        parameter.requires_grad_(False)
    return ready if _takes_one_argument(ready) else _OneArgument(ready).eval()


def refuse_opaque(model: nn.Module) -> None:
    """Raises ConversionError for a module whose code or arithmetic cannot be traced."""
    for name, layer in model.named_modules():
        where = f"its layer {name}" if name else type(model).__name__
        if isinstance(layer, torch.jit.ScriptModule):
            raise ConversionError(
                f"{where} is compiled to TorchScript, whose code cannot be traced; build the module in "
                "Python and "
                f"load its weights with load_state_dict(scripted.state_dict()), or {WAY_OUT}"
            )
        if ".quantized" in type(layer).__module__:
            raise ConversionError(
                f"{where} ({type(layer).__name__}) is quantised, which rounds by the whole image; convert "
                "the "
                f"module before it is quantised, or {WAY_OUT}"
            )


def _compute_weights_once(model: nn.Module) -> None:
    """Replaces weights that each call computes by their values, in place."""
    with torch.no_grad():
        for layer in list(model.modules()):
            if parametrize.is_parametrized(layer):
                _compute_parametrized(layer)
            for key, hook in list(layer._forward_pre_hooks.items()):
                if type(hook).__module__.startswith(
                    "torch.nn.utils."
                ):  # the older weight_norm and spectral_norm
                    hook.remove(layer)  # type: ignore[attr-defined]
                    del layer._forward_pre_hooks[key]


def _compute_parametrized(layer: nn.Module) -> None:
    """Replaces weights that a parametrisation computes by their values, in place.

    torch's own function for removing parametrisations changes the class, which a copy shares with the
    original layer.
    """
    values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    del layer._modules["parametrizations"]
    layer.__class__ = type(layer).__bases__[0]
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _takes_one_argument(model: nn.Module) -> bool:
    parameters = list(inspect.signature(model.forward).parameters.values())
    return len(parameters) == 1 and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL


class _OneArgument(nn.Module):
    """Calls a classifier with the image alone, so that its other arguments have their default values."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)
