"""The backends, which run a network over a region. A backend is a function with a row in the table below.

A row opens a model in one of the two modes. `fcn` runs the converted network, which shares features between
windows. `windows` runs the original network on every crop.

Nothing here imports torch or numpy, so that the command line can list the backends quickly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fcnconv.errors import PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.options import NetworkOptions, Precision
from fcnconv.options.parsing import parse_device
from fcnconv.provenance import Mode

if TYPE_CHECKING:
    from fcnconv.scan.network import Needs, Network

log = logging.getLogger("fcnconv")

Open = Callable[[ModelSpec, Mode, str, "int | None", Precision, "Needs | None"], "Network"]
"""(model, mode, device, stride, precision, needs) -> the model, ready to run; as for `open_network`."""


def _onnx(
    spec: ModelSpec, mode: Mode, device: str, stride: int | None, precision: Precision, needs: Needs | None
) -> Network:
    _on_processor("onnx", device)
    if precision == "bfloat16":
        raise UsageError(
            "the onnx backend computes in float32; for --precision bfloat16 use --backend openvino"
        )
    from fcnconv.backends.onnx import open_onnx
    from fcnconv.scan.network import LOGITS_ALONE

    return open_onnx(spec, mode, stride, needs or LOGITS_ALONE)


def _openvino(
    spec: ModelSpec, mode: Mode, device: str, stride: int | None, precision: Precision, needs: Needs | None
) -> Network:
    _on_processor("openvino", device)
    from fcnconv.backends.openvino import open_openvino
    from fcnconv.scan.network import LOGITS_ALONE

    needs = needs or LOGITS_ALONE
    return open_openvino(spec, mode, stride, "bfloat16" if precision == "bfloat16" else "float32", needs)


def _torch(
    spec: ModelSpec, mode: Mode, device: str, stride: int | None, precision: Precision, needs: Needs | None
) -> Network:
    from fcnconv.backends.torch import open_torch

    return open_torch(spec, mode, device, stride, precision)


def _on_processor(backend: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"the {backend} backend runs on the processor; for --device {device} use --backend torch"
        )


BACKENDS: dict[str, Open] = {"onnx": _onnx, "openvino": _openvino, "torch": _torch}


def open_network(
    spec: ModelSpec,
    mode: Mode = "fcn",
    backend: str = "auto",
    device: str = "auto",
    stride: int | None = None,
    precision: Precision = "auto",
    needs: Needs | None = None,
) -> Network:
    """Opens a model so that it is ready to run.

    To score crops with a network that runs converted, open it again with the other mode.

    Args:
        spec: the model.
        mode: ``fcn`` or ``windows``.
        backend: a row of `BACKENDS`, or ``auto``: a plan if possible and no GPU is asked for, else torch.
            ONNX Runtime runs the plan; OpenVINO runs it in bfloat16, and if it processes the images of
            `needs` in less time.
        device: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``. On ``auto``, only the torch backend looks
            for a GPU, because looking costs the import of torch.
        stride: pixels between windows; None is the model's own.
        precision: as in `options.NetworkOptions`.
        needs: what else the work needs from the network, so that all plans are made now; None is nothing
            else.

    Raises:
        UsageError: the backend, the device or the stride is not available.
        ModelError: the model cannot be opened.
        ConversionError: `fcn` mode is impossible. If this is known beforehand, no weights are downloaded.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    parse_device(device)
    if mode == "fcn":
        spec.require_fcn()
        if stride is not None:
            spec.require_stride(stride)
    if backend == "auto":
        backend = "torch"
        if device in ("auto", "cpu") and not spec.no_plan:
            backend = "openvino" if precision == "bfloat16" or _pays(spec, mode, stride, needs) else "onnx"
        try:
            return _opened(backend, spec, mode, device, stride, precision, needs)
        except PlanError as error:
            log.info("%s; running with torch instead", error)
            backend = "torch"
    return _opened(backend, spec, mode, device, stride, precision, needs)


def _opened(
    backend: str,
    spec: ModelSpec,
    mode: Mode,
    device: str,
    stride: int | None,
    precision: Precision,
    needs: Needs | None,
) -> Network:
    network = BACKENDS[backend](spec, mode, device, stride, precision, needs)
    return replace(network, backend=backend)


MANY = 100
"""The number of images from which it is measured whether OpenVINO is faster in float32. The measurement takes
a few seconds, once for each network and machine.
"""


def _pays(spec: ModelSpec, mode: Mode, stride: int | None, needs: Needs | None) -> bool:
    """Whether the work takes less time on OpenVINO in float32 than on ONNX Runtime."""
    if needs is None or needs.images < MANY or find_spec("openvino") is None:
        return False
    from fcnconv.backends.openvino import in_float32

    pace = in_float32(spec, mode, stride)
    if pace is None or needs.images < pace.pays_from:
        return False
    log.info("running on OpenVINO, which takes %.2f of the time of ONNX Runtime here", 1 / pace.faster)
    return True


WORTH = 1.2
"""Minimum speed-up at which another precision is suggested."""


def faster_precision(spec: ModelSpec, options: NetworkOptions) -> str | None:
    """A sentence on the speed-up of bfloat16, as measured on this machine.

    Returns None if bfloat16 is not faster, if a precision or a backend was chosen, or without OpenVINO.
    """
    if (options.precision, options.backend, options.device) not in {
        ("auto", backend, device) for backend in ("auto", "onnx") for device in ("auto", "cpu")
    }:
        return None
    if spec.no_plan or find_spec("openvino") is None:
        return None
    from fcnconv.backends.openvino import in_bfloat16

    pace = in_bfloat16(spec, options.mode or spec.mode, options.stride)
    if pace is None or pace.faster < WORTH:
        return None
    return (
        f"--precision bfloat16 runs the network {pace.faster:.1f} times as fast here; its logits differ by "
        f"up to {pace.error:.1e} of the largest"
    )
