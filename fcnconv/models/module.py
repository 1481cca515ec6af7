"""A classifier that was built in Python: any module that computes logits from images."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcnconv.errors import UsageError
from fcnconv.labels import Labels
from fcnconv.models.architecture import named_or_numbered
from fcnconv.models.copying import check_weights, checked_copy, unwrapped
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
