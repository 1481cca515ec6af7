"""The OpenVINO backend, on the CPU, from the same plans as ONNX Runtime.

In float32 it takes between 0.86 and 1.18 of the time of ONNX Runtime, depending on the CPU. In bfloat16 it is
about twice as fast, on CPUs that compute in bfloat16 natively (AVX512-BF16, AMX). It takes longer to start.
When a network is first opened on OpenVINO, its difference from ONNX Runtime in float32, its speed-up and its
start are measured on the network itself, and stored next to the plan.

OpenVINO's own cache of compiled networks would save 0.15 s at the start, but stays off: from a cached file
with a few altered bytes, OpenVINO computes wrong results without an error (tried). A plan has its SHA-256.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil
from typing import Any, Literal

import numpy as np

from fcnconv.backends.onnx import onnx_run, open_joint, open_plan, open_plans, open_stages
from fcnconv.backends.plans import Plan, keep
from fcnconv.errors import PlanError, UsageError, first_line
from fcnconv.models import ModelSpec
from fcnconv.provenance import FLOAT32, Arithmetic, Mode
from fcnconv.scan.crops import CROP_BATCH
from fcnconv.scan.network import LOGITS_ALONE, Needs, Network, of_crops
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.machine import fewer_threads, has_bfloat16, processor
from fcnconv.system.once import once
from fcnconv.system.onnx_runtime import onnx_runtime
from fcnconv.system.records import sealed, unsealed

log = logging.getLogger("fcnconv")

Number = Literal["float32", "bfloat16"]
"""The number types that OpenVINO can compute in."""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Maximum difference between the logits of OpenVINO and ONNX Runtime, as a share of the largest logit.

A network that differs more is not run this way. bfloat16 keeps 8 bits, 4e-3, in each operation;
EfficientNet-Lite0 differs by 1e-2.
"""

STEPS = 16
"""Number of steps by which the image of the speed measurement exceeds a window."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a network in OpenVINO on this machine.

    Attributes:
        on: the versions and the CPU for which they are valid.
        error: largest difference of a logit from ONNX Runtime in float32, as a share of the largest logit.
        faster: speed-up over ONNX Runtime.
        seconds: time that ONNX Runtime takes for the image of the measurement, which is about as large as an
            ordinary photo.
        start: seconds that OpenVINO takes to start: its import, and the compilation of the network.
    """

    on: str
    error: float
    faster: float
    seconds: float
    start: float

    @property
    def pays_from(self) -> float:
        """The number of images from which OpenVINO takes less time than ONNX Runtime, its start included."""
        gain = self.seconds * (1 - 1 / self.faster)
        return self.start / gain if gain > 0 else float("inf")

    def __str__(self) -> str:
        gain = f"OpenVINO takes {1 / self.faster:.2f} of the time of ONNX Runtime"
        if self.pays_from == float("inf"):
            return gain
        return f"{gain}, and {self.start:.1f} s to start: it pays from {ceil(self.pays_from)} images on"


def open_openvino(
    spec: ModelSpec, mode: Mode, stride: int | None, number: Number, needs: Needs = LOGITS_ALONE
) -> Network:
    """Opens a model in OpenVINO, from its plan.

    If the CPU has no native bfloat16, or bfloat16 changes the logits too much, float32 is used, and this is
    logged.

    Raises:
        UsageError: OpenVINO is not installed.
        PlanError: the plan cannot be made.
    """
    _require_openvino()
    if number == "bfloat16" and not can_bfloat16():
        log.warning("this processor has no native bfloat16; using float32")
        number = "float32"
    plan = open_plans(spec, mode, stride, needs, _when_used)
    started = _started(plan, number)
    run, measurement = started.run, measured(plan, started, number, spec)
    if not measurement.error <= TOLERANCE[number]:
        problem = f"{number} changes logits of {spec.name} by {measurement.error:.1e} of the largest"
        if number == "float32":
            raise PlanError(f"OpenVINO computes other scores than the network: {problem}")
        log.warning("using float32, because %s", problem)
        return open_openvino(spec, mode, stride, "float32")
    arithmetic = FLOAT32 if number == "float32" else Arithmetic(number, measurement.error)
    identity, record = spec.identity(spec.weights()), plan.record
    if record.geometry is None or plan.whole is None:
        crops = of_crops(run, spec.window, stride or spec.stride, record.num_classes, identity)
        return replace(crops, arithmetic=arithmetic)

    def in_stages() -> tuple[Stage, ...]:
        stages = open_stages(spec, plan, stride, partial(openvino_run, number=number))
        return _holding(stages)

    def joint() -> Stages:
        start = partial(openvino_run, number=number)
        stages = open_joint(spec, stride, start, start)
        return Stages(stages.whole, once(lambda: _holding(stages.cut())))

    stages = Stages(replace(plan.whole, run=run), once(in_stages))
    has_cells = bool(record.cell_head.cells)
    return Network(
        *(run, record.geometry, identity, stages),
        arithmetic=arithmetic,
        cell_head=record.cell_head,
        joint=once(joint) if has_cells else None,
    )


def _holding(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages in OpenVINO. Several stages keep their memory between two runs."""
    return tuple(replace(stage, holds=len(stages) > 1) for stage in stages)


def can_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 natively, according to the system and OpenVINO.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    native = has_bfloat16()
    return "BF16" in _core()[0].get_property("CPU", "OPTIMIZATION_CAPABILITIES") if native is None else native


def in_bfloat16(spec: ModelSpec, mode: Mode, stride: int | None) -> Measured | None:
    """Measurements of a model in bfloat16 on this machine; None if bfloat16 is not available or changes the
    logits too much.
    """
    try:
        return _accurate(spec, mode, stride, "bfloat16") if can_bfloat16() else None
    except UsageError:  # without OpenVINO
        return None


def in_float32(spec: ModelSpec, mode: Mode, stride: int | None) -> Measured | None:
    """Measurements of a model in float32 on this machine; None without OpenVINO, or if its logits are not
    those of ONNX Runtime.
    """
    return _accurate(spec, mode, stride, "float32")


def _accurate(spec: ModelSpec, mode: Mode, stride: int | None, number: Number) -> Measured | None:
    try:
        measurement = measured(open_plan(spec, mode, stride, _when_used), None, number, spec)
    except (UsageError, PlanError):  # without OpenVINO, or a plan
        return None
    return measurement if measurement.error <= TOLERANCE[number] else None


def measured(plan: Plan, started: _Started | None, number: Number, spec: ModelSpec) -> Measured:
    """The stored measurements of a plan's network in OpenVINO.

    If they are missing, or belong to another version or machine, they are measured and stored.

    Args:
        plan: the plan.
        started: the plan in OpenVINO, if it is open.
        number: the number type.
        spec: the model.
    """
    path, on = plan.path.with_suffix(f".{number}.json"), _here()
    try:
        kept = Measured(**unsealed(path.read_bytes()))
        if kept.on == on:
            return kept
    except (OSError, ValueError, TypeError):
        pass  # missing or incomplete
    measurement = _measure(plan, started or _started(plan, number), spec, on)
    try:
        keep(path, sealed(asdict(measurement)).encode())
    except PlanError as error:
        log.info("%s; it will be measured again", error)
    return measurement


def _measure(plan: Plan, started: _Started, spec: ModelSpec, on: str) -> Measured:
    run, channels, window = started.run, len(spec.mean), spec.window
    images = np.random.default_rng(0)
    noise = images.standard_normal((2, channels, window, window), np.float32)
    coarse = images.standard_normal((2, channels, 7, 7), np.float32)
    patches = np.kron(coarse, np.ones((-(-window // 7),) * 2, np.float32))[..., :window, :window]
    x = np.concatenate([noise, patches])
    expected, actual = plan.run(x), run(x)
    scale = float(np.abs(expected).max())
    error = float(np.abs(actual - expected).max()) / scale if scale else 0.0
    side = window + spec.stride * STEPS
    shape = (CROP_BATCH, channels, window, window) if plan.whole is None else (1, channels, side, side)
    x = images.standard_normal(shape, np.float32)
    seconds = _seconds(plan.run, x)
    return Measured(
        on,
        error if np.isfinite(error) else float("inf"),
        faster=seconds / _seconds(run, x),
        seconds=seconds,
        start=started.seconds,
    )


def _seconds(run: Forward, x: FloatArray, times: int = 3) -> float:
    """The shortest time of a run, after a first run that includes the one-time work."""
    run(x)
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run(x)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _here() -> str:
    """The machine and the versions for which a measurement is valid."""
    _require_openvino()  # its import would take as long as its start
    return f"OpenVINO {version('openvino')}, ONNX Runtime {onnx_runtime().__version__}, {processor()}"


def _when_used(model: str | bytes) -> Forward:
    """Runs a plan on ONNX Runtime, and opens it with the first image."""
    opened = once(partial(onnx_run, model))
    return lambda x: opened()(x)


@dataclass(frozen=True)
class _Started:
    """A plan that runs in OpenVINO. seconds: the time of its start, including the import of OpenVINO."""

    run: Forward
    seconds: float


def _started(plan: Plan, number: Number) -> _Started:
    imported, start = _core()[1], time.perf_counter()
    try:
        run = openvino_run(str(plan.path), number)
        return _Started(run, imported + time.perf_counter() - start)
    except Exception as error:  # OpenVINO's errors have no other common base class
        raise PlanError(f"OpenVINO does not run the plan ({first_line(error)})") from error


def openvino_run(model: str | bytes, number: Number) -> Forward:
    """Returns a function that runs an ONNX file, from its first input to its first output.

    Threads that call it at the same time take turns inside OpenVINO, each with a separate request.

    Args:
        model: path or content of the file.
        number: the number type.

    Raises:
        MemoryError: the function raises it if memory runs out.
    """
    core, _ = _core()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[number],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    if (threads := fewer_threads()) is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    requests = threading.local()

    def run(x: FloatArray) -> FloatArray:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        try:
            logits = requests.own.infer({0: np.ascontiguousarray(x)}, share_inputs=True)[0]
        except RuntimeError as error:
            if re.search("alloc", str(error)):
                raise MemoryError from error
            raise
        out: FloatArray = logits.copy()  # the next run overwrites it
        return out

    return run


@once
def _core() -> tuple[Any, float]:
    """OpenVINO's core, and the seconds that its import took."""
    _require_openvino()
    start = time.perf_counter()
    import openvino

    return openvino.Core(), time.perf_counter() - start


def _require_openvino() -> None:
    if find_spec("openvino") is None:
        raise UsageError(
            "the openvino backend, which bfloat16 uses, needs OpenVINO: pip install 'fcnconv[openvino]'"
        )
