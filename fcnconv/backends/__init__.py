"""What runs a network over a region. A backend is a function; each has a row in the table below.

A row opens a model in one of the two modes. `fcn` runs the converted network, which shares features between
windows; `windows` runs the original one on every real crop.

Nothing here imports torch or numpy, so that the command line can list the backends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fcnconv.errors import PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.options import parse_device
from fcnconv.provenance import Mode

if TYPE_CHECKING:
    from fcnconv.backends.network import Network

log = logging.getLogger("fcnconv")

Open = Callable[[ModelSpec, Mode, str, "int | None"], "Network"]
"""(model, mode, device, stride) -> the model, ready to run. Arguments as for `open_network`."""


def _onnx(spec: ModelSpec, mode: Mode, device: str, stride: int | None) -> Network:
    if device not in ("auto", "cpu"):
        raise UsageError(f"the onnx backend runs on the processor; for --device {device} use --backend torch")
    from fcnconv.backends.onnx import open_onnx

    return open_onnx(spec, mode, stride)


def _torch(spec: ModelSpec, mode: Mode, device: str, stride: int | None) -> Network:
    from fcnconv.backends.torch import open_torch

    return open_torch(spec, mode, device, stride)


BACKENDS: dict[str, Open] = {"onnx": _onnx, "torch": _torch}


def open_network(
    spec: ModelSpec,
    mode: Mode = "fcn",
    backend: str = "auto",
    device: str = "auto",
    stride: int | None = None,
) -> Network:
    """The model, ready to run. For real crops of a network that runs converted, the same with another mode.

    backend: a row of `BACKENDS`, or ``auto``: a plan if there can be one and no GPU is asked for, else torch.
    device: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``. On ``auto`` only the torch backend looks for a
        GPU, since the looking costs the import of torch.
    stride: pixels between windows; None is the model's own.

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
        return BACKENDS[backend](spec, mode, device, stride)
    if device in ("auto", "cpu") and spec.arch:
        try:
            return _onnx(spec, mode, device, stride)
        except PlanError as error:
            log.info("%s; running with torch instead", error)
    return _torch(spec, mode, device, stride)
