"""What runs a network over a region. A backend is a function; each has a row in the table below.

A row opens a model in one of the two modes. `fcn` runs the converted network, which shares features between
windows; `windows` runs the original one on every real crop.

Nothing here imports torch or numpy, so that the command line can list the backends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fcnconv.errors import PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.options import NetworkOptions, Precision
from fcnconv.parsing import parse_device
from fcnconv.provenance import Mode

if TYPE_CHECKING:
    from fcnconv.backends.network import Needs, Network

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
    from fcnconv.backends.network import LOGITS_ALONE
    from fcnconv.backends.onnx import open_onnx

    return open_onnx(spec, mode, stride, needs or LOGITS_ALONE)


def _openvino(
    spec: ModelSpec, mode: Mode, device: str, stride: int | None, precision: Precision, needs: Needs | None
) -> Network:
    _on_processor("openvino", device)
    from fcnconv.backends.network import LOGITS_ALONE
    from fcnconv.backends.openvino import open_openvino

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
    """The model, ready to run. For real crops of a network that runs converted, the same with another mode.

    backend: a row of `BACKENDS`, or ``auto``: a plan if there can be one and no GPU is asked for, else torch.
        A plan is run by ONNX Runtime, and in bfloat16 by OpenVINO.
    device: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``. On ``auto`` only the torch backend looks for a
        GPU, since the looking costs the import of torch.
    stride: pixels between windows; None is the model's own.
    precision: as in `options.NetworkOptions`.
    needs: what else the work will need of it, so that all plans are made now; None is nothing else.

    Raises UsageError and ModelError, and ConversionError before any weights are fetched if it is known that
    `fcn` mode cannot be had.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    parse_device(device)
    if mode == "fcn":
        spec.require_fcn()
        if stride is not None:
            spec.require_stride(stride)
    if backend != "auto":
        return BACKENDS[backend](spec, mode, device, stride, precision, needs)
    if device in ("auto", "cpu") and not spec.no_plan:
        try:
            of_plan = _openvino if precision == "bfloat16" else _onnx
            return of_plan(spec, mode, device, stride, precision, needs)
        except PlanError as error:
            log.info("%s; running with torch instead", error)
    return _torch(spec, mode, device, stride, precision, needs)


WORTH = 1.2
"""How many times as fast another precision must be for it to be told."""


def faster_precision(spec: ModelSpec, options: NetworkOptions) -> str | None:
    """A line on how much faster the model would be in bfloat16, as measured on this machine; None where it
    would not, where a precision or a backend was chosen, or without OpenVINO.
    """
    if (options.precision, options.backend, options.device) not in {
        ("auto", backend, device) for backend in ("auto", "onnx") for device in ("auto", "cpu")
    }:
        return None
    if spec.no_plan or find_spec("openvino") is None:
        return None
    from fcnconv.backends.openvino import in_bfloat16

    found = in_bfloat16(spec, options.mode or spec.mode, options.stride)
    if found is None or found.faster < WORTH:
        return None
    return (
        f"--precision bfloat16 runs the network {found.faster:.1f} times as fast here; its logits differ by "
        f"up to {found.error:.1e} of the largest"
    )
