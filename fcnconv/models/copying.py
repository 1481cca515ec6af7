"""Copies of torch modules as people hold them: wrapped, scripted, quantised, or with activations in
attributes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import torch
from torch import nn

from fcnconv.errors import ModelError, first_line


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
                f"{name} has no values, as it is on the meta device; load the weights before converting"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinity"
            raise ModelError(f"the weights contain {kind}: {name}; the training may have diverged")


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers with their names; those of TorchScript and of quantised modules too."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a module. Activations that it keeps in attributes are copied without their gradient,
    which torch refuses to copy.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in _tensors(vars(module).values()):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, memo)


def _tensors(values: Iterable[Any], depth: int = 3) -> Iterator[torch.Tensor]:
    """The tensors in values, and in lists, tuples and dictionaries among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (list, tuple, dict)):
            yield from _tensors(value.values() if isinstance(value, dict) else value, depth - 1)


def float_copy(model: nn.Module) -> nn.Module:
    """A copy of a module on the processor, in float32 and evaluation mode, without gradients.

    A TorchScript module is copied by saving and loading it; a quantised one keeps its types.
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
    """A classifier that is given one image at a time: for one whose answer depends on the batch that an image
    is in."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = [self.model(image) for image in torch.split(x, 1)]
        return torch.cat([each[None] if each.ndim == 1 else each for each in logits])


def checked_copy(model: nn.Module, channels: int, window: int) -> nn.Module:
    """A copy of a classifier that answers for each image by itself, see `image_by_image`."""
    return image_by_image(float_copy(model), channels, window, type(model).__name__)


def image_by_image(duplicate: nn.Module, channels: int, window: int, name: str) -> nn.Module:
    """A classifier that answers for each image by itself, also where the given one needs them one by one.

    duplicate: in evaluation mode. name: of the classifier, for messages.

    Raises ModelError if it answers differently each time, or gives no logits (N, num_classes).
    """
    x = torch.rand(2, channels, window, window, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            single = duplicate(x[:1])
            again = duplicate(x[:1])
        except Exception as error:  # the model's own code raises whatever it likes
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
    alone = same and single.ndim == 2 and not quantised  # whose rounding depends on the other images
    return duplicate if alone else OneByOne(duplicate).eval()
