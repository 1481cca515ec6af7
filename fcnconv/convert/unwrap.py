"""Prepares a classifier for tracing: a copy without wrappers, with all weights as ordinary tensors.

Users have modules in many states: wrapped for several GPUs or for averaging, compiled, scripted, quantised,
with activations of the last training step in attributes, with weights that each call computes. The copy has
none of this. A module that cannot be converted raises an error that names the reason.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fcnconv.errors import WAY_OUT, ConversionError
from fcnconv.models.module import check_weights, copied, unwrapped


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
