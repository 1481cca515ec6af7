"""The torch backend: channels last, on the CPU in float32 or on a GPU in half precision.

16-bit types run under autocast: convolutions use them, and torch chooses the type of other operations. The
difference from float32 is measured on the model itself when it is opened, and logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from fcnconv.convert import FullyConvolutional, convolutionize
from fcnconv.convert.partition import cut, whole
from fcnconv.convert.probes import probe
from fcnconv.convert.proof import difference
from fcnconv.errors import UsageError
from fcnconv.grid import Geometry
from fcnconv.models import ModelSpec
from fcnconv.options import Precision
from fcnconv.provenance import FLOAT32, Arithmetic, Mode
from fcnconv.scan.network import Network, of_crops
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.machine import fewer_threads, has_bfloat16
from fcnconv.system.once import once

log = logging.getLogger("fcnconv")

CPU = torch.device("cpu")

HALF = {"cuda": torch.float16, "mps": torch.float16}
"""The default 16-bit type of each kind of device. The CPU has no default."""

HALF_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Maximum difference of logits that a 16-bit type may make, as a share of the largest logit.

Above it, float32 is used. float16 keeps 11 bits, 5e-4, in each operation, and bfloat16 keeps 8 bits, 4e-3.
"""


def open_torch(
    spec: ModelSpec,
    mode: Mode,
    device: str = "auto",
    stride: int | None = None,
    precision: Precision = "auto",
) -> Network:
    """Opens a model on torch: built from its weights and, in `fcn` mode, converted and proved.

    Args:
        spec: the model.
        mode: ``fcn`` or ``windows``.
        device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``, which is a GPU if torch sees one.
        stride: pixels between windows; None is the model's own.
        precision: as in `options.NetworkOptions`.

    Raises:
        UsageError: torch does not see the device.
    """
    place = find_device(device)
    if (threads := fewer_threads()) is not None:
        torch.set_num_threads(threads)
    weights = spec.weights()
    network: nn.Module = spec.build(weights).eval()
    if mode == "windows":
        run, _, arithmetic = _placed(network, place, spec.window, None, precision)
        crops = of_crops(run, spec.window, stride or spec.stride, len(spec.labels()), spec.identity(weights))
        return replace(crops, arithmetic=arithmetic)
    converted = convolutionize(network, spec.window, stride)
    geometry = converted.geometry
    run, half, arithmetic = _placed(converted, place, spec.window, geometry, precision)
    stage = whole(converted.network, geometry, run)
    in_stages = partial(torch_stages, converted, place, half) if geometry.local else lambda: (stage,)
    stages, joint = Stages(stage, once(in_stages)), None
    if converted.joint is not None:
        joint = once(partial(_joint_stages, converted, place, half))
    cell_head, identity = converted.conversion.cell_head, spec.identity(weights)
    return Network(run, geometry, identity, stages, arithmetic=arithmetic, cell_head=cell_head, joint=joint)


def _joint_stages(converted: FullyConvolutional, device: torch.device, half: torch.dtype | None) -> Stages:
    """The stages that compute a network's class activations and logits."""
    network, geometry = converted.joint, converted.geometry
    assert network is not None, "the network has no class activations"
    run = run_in_parts(torch_run(network, device, half), geometry, _is_out_of_memory)
    stage = whole(network, geometry, run, activations=True)
    cuts = partial(torch_stages, converted, device, half, joint=True) if geometry.local else lambda: (stage,)
    return Stages(stage, once(cuts))


def _placed(
    network: nn.Module, device: torch.device, window: int, geometry: Geometry | None, precision: Precision
) -> tuple[Forward, torch.dtype | None, Arithmetic]:
    """The function that runs a network on a device, its 16-bit type, and its arithmetic.

    `geometry` is as for `run_in_parts`.
    """
    network.to(device)
    half, arithmetic = half_type(network, device, window, precision)
    return run_in_parts(torch_run(network, device, half), geometry, _is_out_of_memory), half, arithmetic


def torch_stages(
    network: FullyConvolutional,
    device: torch.device = CPU,
    half: torch.dtype | None = None,
    *,
    joint: bool = False,
) -> tuple[Stage, ...]:
    """The network in stages that torch runs.

    Args:
        network: the converted network.
        device, half: as for `torch_run`.
        joint: whether the stages include class activations.
    """
    graph = network.joint if joint else network.network
    assert graph is not None, "the network has no class activations"
    return cut(graph, network.geometry, lambda stage, _: torch_run(stage, device, half), activations=joint)


def find_device(name: str) -> torch.device:
    """The device with this name, after checking that it exists. ``auto`` prefers a GPU to the CPU."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in there if there[kind]))
    device = torch.device(name)
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        usable = ", ".join(kind for kind in there if there[kind])
        raise UsageError(f"torch sees no device {name!r} on this machine; there is {usable}")
    return device


def torch_run(network: nn.Module, device: torch.device = CPU, half: torch.dtype | None = None) -> Forward:
    """Returns a function that runs a network on a whole region.

    Args:
        network: float (N, 3, H, W) -> logits, in evaluation mode, on `device`.
        device: the device.
        half: the 16-bit type for autocast; None computes in float32.
    """
    network = network.to(memory_format=torch.channels_last)

    def run(x: FloatArray) -> FloatArray:
        with torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=half is not None):
            logits: FloatArray = network(_moved(x, device)).float().cpu().numpy()
        return logits

    return run


def half_type(
    network: nn.Module, device: torch.device, window: int, precision: Precision = "auto"
) -> tuple[torch.dtype | None, Arithmetic]:
    """The measured 16-bit type for a network on a device, or None for float32; and the arithmetic."""
    half = HALF.get(device.type) if precision == "auto" else {"bfloat16": torch.bfloat16}.get(precision)
    if half is None:
        return None, FLOAT32
    if device.type == "cpu" and has_bfloat16() is False:
        log.warning("this processor has no native bfloat16; using float32")
        return None, FLOAT32
    error, name = half_error(network, device, half, window), str(half).removeprefix("torch.")
    if error <= HALF_TOLERANCE[half]:
        return half, Arithmetic(name, error)
    log.warning(
        "%s: using float32, because %s would change logits by %.1e of the largest", device, name, error
    )
    return None, FLOAT32


def half_error(network: nn.Module, device: torch.device, half: torch.dtype, window: int) -> float:
    """The largest difference of a logit that half precision makes, as a share of the largest logit."""
    x = _moved(probe(network, 4, window, window).cpu().numpy(), device)
    with torch.inference_mode():
        expected = network(x)
        with torch.autocast(device.type, dtype=half):
            half_logits = network(x).float()
    return difference(expected, half_logits)


def _moved(x: FloatArray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(x)
    if device.type == "cuda":  # from pinned memory, the copy runs in parallel to the CPU
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


def run_in_parts(
    run: Forward, geometry: Geometry | None, is_out_of_memory: Callable[[Exception], bool]
) -> Forward:
    """Returns a function that halves an input for which `run` has no memory: first the batch, then the
    region.

    Args:
        run: runs the network.
        geometry: geometry of the network; None for a classifier, whose images cannot be cut. A network that
            is not local is not cut either, because its halves would not give the scores of the whole region.
        is_out_of_memory: whether an error of `run` means that memory ran out. It may free memory.

    Raises:
        MemoryError: the function raises it if the input cannot be halved further.
    """

    def attempt(x: FloatArray) -> FloatArray:
        try:
            return run(x)
        except Exception as error:  # any kind; out-of-memory errors alone are handled
            if not is_out_of_memory(error):
                raise
        count, _, height, width = x.shape
        if count > 1:
            return np.concatenate([attempt(some) for some in np.array_split(x, 2)])
        if geometry is None or not geometry.local:
            raise MemoryError
        log.debug("out of memory at %d × %d px: halving", width, height)
        return _halved(attempt, x, geometry)

    return attempt


def _halved(run: Forward, x: FloatArray, geometry: Geometry) -> FloatArray:
    """The logits of a region from its two halves along the longer side, each read with its halo."""
    axis = 2 if x.shape[2] >= x.shape[3] else 3
    window, step, halo, phases = geometry.window, geometry.step, geometry.halo, geometry.phases
    cells = (x.shape[axis] - window) // step + 1  # in units of the network's own stride
    end = (cells - 1) * step + window
    pieces = []
    for start, stop in ((0, cells // 2), (cells // 2, cells)):
        first = max(start * step - halo, 0)
        last = min((stop - 1) * step + window + halo, end)
        if start == stop or last - first >= x.shape[axis]:
            raise MemoryError  # with its halo, a half is as large as the whole
        logits = run(np.ascontiguousarray(np.take(x, range(first, last), axis)))
        skipped = start - first // step
        # at a finer stride, no cells follow the last ones
        own = range(
            skipped * phases, (skipped + stop - start) * phases if stop < cells else logits.shape[axis]
        )
        pieces.append(np.take(logits, own, axis))
    return np.concatenate(pieces, axis)
