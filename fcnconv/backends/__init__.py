"""What runs a network over a region. A backend is a function; each file here makes one kind.

The table below has one row a backend: a function that opens a model in one of the two modes. `fcn` runs the
converted network, which shares features between windows; `windows` runs the original one on every real crop.

Nothing here imports torch or numpy, so that the command line can list the backends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcnconv.errors import PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.provenance import Mode

if TYPE_CHECKING:
    from fcnconv.grid import Geometry
    from fcnconv.scan.tiles import Parts
    from fcnconv.scores import FloatArray

log = logging.getLogger("fcnconv")

Run = Callable[["FloatArray"], "FloatArray"]
"""float32 (N, 3, H, W), normalised -> float32 logits (N, num_classes, rows, cols)."""


@dataclass(frozen=True)
class Network:
    """A model that is ready to run.

    weights_sha256: of the file that its weights came from.
    parts: what it needs, whole or in parts.
    """

    run: Run
    geometry: Geometry
    weights_sha256: str
    parts: Parts


def _onnx(spec: ModelSpec, mode: Mode, device: str, stride: int | None) -> Network:
    if device not in ("auto", "cpu"):
        raise UsageError(f"the onnx backend runs on the processor; for --device {device} use --backend torch")
    from fcnconv.backends.onnx import open_onnx

    return open_onnx(spec, mode, stride)


def _torch(spec: ModelSpec, mode: Mode, device: str, stride: int | None) -> Network:
    from fcnconv.backends.torch import open_torch

    return open_torch(spec, mode, device, stride)


Open = Callable[[ModelSpec, Mode, str, "int | None"], Network]

BACKENDS: dict[str, Open] = {"onnx": _onnx, "torch": _torch}


def open_network(
    spec: ModelSpec,
    mode: Mode = "fcn",
    backend: str = "auto",
    device: str = "auto",
    stride: int | None = None,
) -> Network:
    """The model, ready to run.

    backend: a row of `BACKENDS`, or ``auto``: a plan if there can be one, else torch.
    device: ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``. On ``auto`` only the torch backend looks for a
        GPU, since the looking costs the import of torch.
    stride: pixels between windows; None is the model's own.

    Raises UsageError and ModelError, and ConversionError before any weights are fetched if it is known that
    `fcn` mode cannot be had.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:N, mps")
    if mode == "fcn":
        spec.require_fcn()
        if stride is not None:
            spec.require_stride(stride)
    if backend != "auto":
        return BACKENDS[backend](spec, mode, device, stride)
    if device in ("auto", "cpu") and spec.arch:
        try:
            return _onnx(spec, mode, "cpu", stride)
        except PlanError as error:
            log.info("%s; running with torch instead", error)
            return _torch(spec, mode, "cpu", stride)
    return _torch(spec, mode, device, stride)
