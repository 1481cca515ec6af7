"""Running a network with torch, channels last, on the processor in float32 or on a GPU in half precision.

A GPU computes under autocast: convolutions in 16 bits, the rest as torch sees fit. How far that is from
float32 is measured when the model is opened, on the model itself, and told.
"""

from __future__ import annotations

import logging
import re
from functools import cache, partial

import torch
from torch import nn

from fcnconv.backends import Network, Run
from fcnconv.backends.smaller import run_in_parts
from fcnconv.backends.windows import crop_parts, windows_geometry, windows_run
from fcnconv.convert import FullyConvolutional, convolutionize
from fcnconv.errors import UsageError
from fcnconv.models import ModelSpec
from fcnconv.provenance import Mode
from fcnconv.scan.parts import Part
from fcnconv.scan.tiles import Parts
from fcnconv.scores import FloatArray

log = logging.getLogger("fcnconv")

CPU = torch.device("cpu")

HALF = {"cuda": torch.float16, "mps": torch.float16}
"""The 16-bit type of each kind of device. The processor has none: there float32 is faster, or as fast."""

HALF_TOLERANCE = 2e-2
"""Largest difference of logits that half precision may make, as a share of the largest; float32 is used over
it. Half precision keeps 11 bits, 5e-4, in each operation."""


def open_torch(spec: ModelSpec, mode: Mode, device: str = "auto", stride: int | None = None) -> Network:
    """The model on torch: built from its weights and, in `fcn` mode, converted and proved.

    device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``: a GPU if torch sees one. Raises UsageError
    for one that it does not see.
    """
    place = find_device(device)
    weights = spec.weights()
    network: nn.Module = spec.build(weights).eval()
    if mode == "fcn":
        network = converted = convolutionize(network, spec.window, stride)
        geometry, cut = converted.geometry, converted.geometry
    else:
        geometry, cut = windows_geometry(spec.window, stride or spec.stride), None
    network.to(place)
    half = half_type(network, place, spec.window)
    run = torch_run(network, place, half)
    run = run_in_parts(run, cut, _is_out_of_memory)
    if mode == "fcn":
        parts = _parts(converted, run, place, half)
    else:
        run = windows_run(run, spec.window, geometry.stride)
        parts = crop_parts(run, geometry, len(spec.labels()))
    return Network(run, geometry, spec.sha256(weights), parts)


def _parts(network: FullyConvolutional, run: Run, device: torch.device, half: torch.dtype | None) -> Parts:
    from fcnconv.convert.cuts import whole

    plain = whole(network.network, network.geometry, run)
    if not network.geometry.local:
        return Parts(plain, lambda: (plain,))
    return Parts(plain, cache(partial(torch_parts, network, device, half)))


def torch_parts(
    network: FullyConvolutional, device: torch.device = CPU, half: torch.dtype | None = None
) -> tuple[Part, ...]:
    """The network in parts that torch runs. Arguments as for `torch_run`."""
    from fcnconv.convert.cuts import cut

    return cut(network.network, network.geometry, lambda part, _: torch_run(part, device, half))


def find_device(name: str) -> torch.device:
    """The device of that name, checked to be there. ``auto`` takes a GPU before the processor."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in there if there[kind]))
    device = torch.device(name)
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        usable = ", ".join(kind for kind in there if there[kind])
        raise UsageError(f"torch sees no device {name!r} on this machine; there is {usable}")
    return device


def torch_run(network: nn.Module, device: torch.device = CPU, half: torch.dtype | None = None) -> Run:
    """A backend that runs a network on a whole region.

    network: float (N, 3, H, W) -> logits, in evaluation mode, on `device`.
    half: the 16-bit type for autocast; None computes in float32.
    """
    network = network.to(memory_format=torch.channels_last)

    def run(x: FloatArray) -> FloatArray:
        with torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=half is not None):
            logits: FloatArray = network(_moved(x, device)).float().cpu().numpy()
        return logits

    return run


def half_type(network: nn.Module, device: torch.device, window: int) -> torch.dtype | None:
    """The 16-bit type that a network is run in on a device, or None for float32, after a measurement."""
    half = HALF.get(device.type)
    if half is None:
        return None
    error = half_error(network, device, half, window)
    if error <= HALF_TOLERANCE:
        log.info("%s: half precision; its logits differ from float32 by %.1e of the largest", device, error)
        return half
    log.info("%s: float32, as half precision would change logits by %.1e of the largest", device, error)
    return None


def half_error(network: nn.Module, device: torch.device, half: torch.dtype, window: int) -> float:
    """The largest difference of a logit that half precision makes, as a share of the largest logit."""
    coarse = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    x = _moved(nn.functional.interpolate(coarse, window, mode="bicubic").numpy(), device)
    with torch.inference_mode():
        expected = network(x)
        with torch.autocast(device.type, dtype=half):
            found = network(x).float()
    return float((found - expected).abs().max() / expected.abs().max())


def _moved(x: FloatArray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(x)
    if device.type == "cuda":  # from pinned memory the copy runs beside the processor
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)


def _is_out_of_memory(error: Exception) -> bool:
    if not isinstance(error, torch.OutOfMemoryError) and not re.search(
        "out of memory|can.t allocate memory", str(error)
    ):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True
