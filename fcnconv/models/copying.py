"""Copies torch modules in the states that users have them in.

Modules can be wrapped, scripted or quantised, or keep activations in attributes.
"""

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
