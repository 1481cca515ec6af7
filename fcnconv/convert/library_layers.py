"""Replaces library layers that pad and slide, or normalise, by torch's own layers.

timm's convolutions with SAME padding, weight standardisation or blurring compute their padding from the input
size, and their weights anew in each call, which no tracer follows. At the native size both are known, and at
every size that differs by whole strides they are the same. So each such layer is observed once. If it does
one padding and one sliding operation, these replace it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fcnconv.convert.probes import Float64

_ARGUMENTS = {
    "pad": "input pad mode value",
    "conv2d": "input weight bias stride padding dilation groups",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
}
"""The observed functions, and the names of their arguments in order."""

_PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}

Call = tuple[str, dict[str, Any], torch.Tensor]
"""The name of a function, its arguments by name, and its result."""


class _Watch(TorchFunctionMode):
    """Records the calls of the functions of `_ARGUMENTS` inside this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _ARGUMENTS:
            given = dict(zip(_ARGUMENTS[name].split(), args, strict=False))
            self.calls.append((name, given | (kwargs or {}), result))
        return result


def plain(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The model with such layers replaced, or the model itself if it has none.

    Args:
        model: the model. It stays unchanged. The result shares its tensors; weights that its layers compute
            are new, in float64.
        x: float (N, 3, window, window), at the native size.
    """
    replacements: dict[nn.Module, nn.Module | None] = {}

    def watch(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if layer in replacements or len(inputs) != 1:  # a layer that is called twice may get two sizes
            replacements[layer] = None
        else:
            replacements[layer] = _normalisation(layer) or _sliding(layer, inputs[0])

    layers = [layer for layer in model.modules() if type(layer).__module__.partition(".")[0] != "torch"]
    layers = [layer for layer in layers if _small(layer)]
    if not layers:
        return model
    with _hooked(layers, watch):
        model(x)
    made = {id(old): new for old, new in replacements.items() if new is not None}
    if not made:
        return model
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    replaced: nn.Module = copy.deepcopy(model, {**shared, **made})
    return replaced.eval()


def _small(layer: nn.Module) -> bool:
    """Whether a layer can be one of these: it contains no layers, except those that follow a
    normalisation.
    """
    return {name for name, _ in layer.named_children()} <= ({"drop", "act"} if _is_norm(layer) else set())


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d)


@contextmanager
def _hooked(layers: list[nn.Module], watch: Any) -> Iterator[None]:
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _normalisation(layer: nn.Module) -> nn.Module | None:
    """A batch normalisation with its activation as two layers, so that the first one can be folded."""
    if not isinstance(layer, nn.BatchNorm2d):
        return None
    norm = nn.BatchNorm2d(layer.num_features, layer.eps, affine=False)
    norm.affine = layer.affine
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(norm, name, getattr(layer, name))
    return nn.Sequential(norm, *layer.children()).eval()


def _sliding(layer: nn.Module, x: Any) -> nn.Module | None:
    """A padding and a sliding layer that are equivalent to a layer for its input; None if the layer does
    more.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        return None
    with Float64(), _Watch() as watched:
        output = layer.forward(x)
    calls = watched.calls
    for call, source in zip(calls, [x, *(result for _, _, result in calls)], strict=False):
        if call[1]["input"] is not source:
            return None
    if not calls or calls[-1][2] is not output or [name for name, _, _ in calls[:-1]] not in ([], ["pad"]):
        return None
    made = _made(*calls[-1][:2])
    layers = [made] if len(calls) == 1 else [_padding(**calls[0][1]), made]
    if made is None or layers[0] is None:
        return None
    replaced = nn.Sequential(*layers).eval()  # type: ignore[arg-type]
    return replaced if _equal(layer, replaced, x) else None


def _padding(
    input: torch.Tensor, pad: Any, mode: str = "constant", value: float | None = None
) -> nn.Module | None:
    left, right, top, bottom = (*map(int, pad), 0, 0)[:4]
    if mode == "constant":
        return nn.ConstantPad2d((left, right, top, bottom), value or 0.0)
    return _PADS[mode]((left, right, top, bottom)) if mode in _PADS else None


def _made(name: str, given: dict[str, Any]) -> nn.Module | None:
    given = {key: value for key, value in given.items() if key != "input"}
    if name == "max_pool2d":
        given.pop("return_indices", None)
        return nn.MaxPool2d(**given)
    if name == "avg_pool2d":
        return nn.AvgPool2d(**given)
    if name != "conv2d":
        return None
    weight, bias = given.pop("weight"), given.pop("bias", None)
    channels = weight.shape[1] * given.get("groups", 1)
    with torch.device("meta"):
        conv = nn.Conv2d(channels, len(weight), weight.shape[2:], bias=bias is not None, **given)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def _equal(layer: nn.Module, replaced: nn.Module, x: torch.Tensor) -> bool:
    """Whether both layers give the same result for another image. They do not if weights depend on the
    image.
    """
    if x.device.type == "meta":
        return True
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
    with Float64():
        expected, actual = layer.forward(noise), replaced(noise)
    return expected.shape == actual.shape and torch.allclose(expected, actual, rtol=1e-9, atol=1e-9)
