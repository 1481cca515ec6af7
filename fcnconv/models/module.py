"""A classifier that was built in Python: any module that makes logits of images."""

from __future__ import annotations

import copy
import hashlib
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fcnconv.errors import ModelError, UsageError, first_line
from fcnconv.labels import Labels
from fcnconv.models.architecture import named_or_numbered
from fcnconv.models.own import IMAGENET_MEAN, IMAGENET_STD, OwnModel, colours
from fcnconv.models.spec import ModelSpec


def module_spec(model: nn.Module, own: OwnModel) -> ModelSpec:
    """The spec of a classifier in memory: float (N, channels, window, window) -> logits (N, num_classes).

    own: its window (224 if it is not said), preprocessing (ImageNet's), of as many channels as its images
        have, and categories.
    """
    if own.arch is not None:
        raise UsageError(f"arch: a module is its own architecture, and needs no {own.arch!r}")
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
        build=lambda _: copy.deepcopy(model).cpu().float().requires_grad_(False).eval(),
        temperature=own.temperature or 1.0,
        pixel_size=own.pixel_size,
        sha256=lambda _: state_sha256(model),
    )


def _labels(model: nn.Module, window: int, own: OwnModel) -> Labels:
    name = type(model).__name__
    image = torch.zeros(1, len(own.mean or IMAGENET_MEAN), window, window)
    try:
        with torch.inference_mode():
            logits = copy.deepcopy(model).cpu().float().eval()(image)
    except Exception as error:  # the model's own code raises whatever it likes
        raise ModelError(f"{name} fails on an image of {window} × {window}: {first_line(error)}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"{name} gives {shape}, not logits (N, num_classes)")
    return named_or_numbered(own.categories, int(logits.shape[1]), name, own.activation)


def state_sha256(model: nn.Module) -> str:
    """The SHA-256 of a network's state dict: each tensor's name, type, shape and bytes, in its order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
