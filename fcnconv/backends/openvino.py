"""OpenVINO, on the processor: its row of the backends, from the same plans as ONNX Runtime.

In float32 it is about as fast, in bfloat16 about twice, on processors that compute in bfloat16 themselves
(AVX512-BF16, AMX); it takes longer to start. How far it is from ONNX Runtime in float32, and how much faster,
is measured on the network itself when it is first opened so, and kept beside the plan.

OpenVINO's own cache of compiled networks would save 0.15 s of a start, and is left off: of a file in it with
a few altered bytes it makes other answers without a word (tried), where a plan has its SHA-256.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from fcnconv.backends.network import LOGITS_ALONE, Needs, Network, of_crops
from fcnconv.backends.onnx import onnx_run, open_joint, open_parts, open_plan, open_plans
from fcnconv.backends.plans import Plan, keep
from fcnconv.errors import PlanError, UsageError, first_line
from fcnconv.models import ModelSpec
from fcnconv.provenance import FLOAT32, Arithmetic, Mode
from fcnconv.scan.crops import CROP_BATCH
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.machine import fewer_threads, has_bfloat16, processor
from fcnconv.system.once import once
from fcnconv.system.records import sealed, unsealed

log = logging.getLogger("fcnconv")

Number = Literal["float32", "bfloat16"]
"""What OpenVINO can compute in."""

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference of a logit from ONNX Runtime's, as a share of the largest, at which a network is still
run so. bfloat16 keeps 8 bits, 4e-3, in each operation; EfficientNet-Lite0 differs by 1e-2.
"""

STEPS = 16
"""By how many steps the image is larger than a window on which the pace is compared."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a network in OpenVINO, on this machine.

    on: the versions and the processor that it holds for. error: largest difference of a logit from ONNX
    Runtime in float32, as a share of the largest. faster: by how much, than ONNX Runtime.
    """

    on: str
    error: float
    faster: float


def open_openvino(
    spec: ModelSpec, mode: Mode, stride: int | None, number: Number, needs: Needs = LOGITS_ALONE
) -> Network:
    """The model in OpenVINO, from its plan; in float32 where the processor has no bfloat16, or it would be
    too far off, which is told. Raises UsageError where OpenVINO is missing, and PlanError.
    """
    _openvino()
    if number == "bfloat16" and not can_bfloat16():
        log.warning("this processor does not compute in bfloat16 itself; it is float32")
        number = "float32"
    plan = open_plans(spec, mode, stride, needs, _when_used)
    run = _started(plan, number)
    found = measured(plan, run, number, len(spec.mean), spec.window, spec.stride)
    if not found.error <= TOLERANCE[number]:
        problem = f"{number} changes logits of {spec.name} by {found.error:.1e} of the largest"
        if number == "float32":
            raise PlanError(f"OpenVINO's answers are not the network's: {problem}")
        log.warning("float32, as %s", problem)
        return open_openvino(spec, mode, stride, "float32")
    arithmetic = FLOAT32 if number == "float32" else Arithmetic(number, found.error)
    identity, record = spec.identity(spec.weights()), plan.record
    if record.geometry is None or plan.whole is None:
        crops = of_crops(run, spec.window, stride or spec.stride, record.num_classes, identity)
        return replace(crops, arithmetic=arithmetic)

    def in_parts() -> tuple[Stage, ...]:
        parts = open_parts(spec, plan, stride, partial(openvino_run, number=number))
        return _holding(parts)

    def joint() -> Stages:
        start = partial(openvino_run, number=number)
        found = open_joint(spec, stride, start, start)
        return Stages(found.whole, once(lambda: _holding(found.cut())))

    parts = Stages(replace(plan.whole, run=run), once(in_parts))
    has_cells = bool(record.cell_head.cells)
    return Network(
        *(run, record.geometry, identity, parts, arithmetic, record.cell_head),
        joint=once(joint) if has_cells else None,
    )


def _holding(parts: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Parts in OpenVINO, which hold their memory between two runs where there are several."""
    return tuple(replace(part, holds=len(parts) > 1) for part in parts)


def can_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 itself, as far as the system and OpenVINO tell. Raises
    UsageError where OpenVINO is missing.
    """
    told = has_bfloat16()
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") if told is None else told


def in_bfloat16(spec: ModelSpec, mode: Mode, stride: int | None) -> Measured | None:
    """What is measured of the model in bfloat16 on this machine; None where it cannot be had so, or would be
    too far off.
    """
    try:
        if not can_bfloat16():
            return None
        plan = open_plan(spec, mode, stride, _when_used)
        found = measured(plan, None, "bfloat16", len(spec.mean), spec.window, spec.stride)
    except (UsageError, PlanError):  # without OpenVINO, or a plan
        return None
    return found if found.error <= TOLERANCE["bfloat16"] else None


def measured(
    plan: Plan, run: Forward | None, number: Number, channels: int, window: int, stride: int
) -> Measured:
    """What is kept beside a plan of its network in OpenVINO; measured and kept if it is not there, or holds
    for another version or machine.

    run: the plan in OpenVINO, if it is open. channels, window, stride: of the network.
    """
    path, on = plan.path.with_suffix(f".{number}.json"), _here()
    try:
        kept = Measured(**unsealed(path.read_bytes()))
        if kept.on == on:
            return kept
    except (OSError, ValueError, TypeError):
        pass  # not there, or not whole
    found = _measure(plan, run or _started(plan, number), channels, window, stride, on)
    try:
        keep(path, sealed(asdict(found)).encode())
    except PlanError as error:
        log.info("%s; it will be measured again", error)
    return found


def _measure(plan: Plan, run: Forward, channels: int, window: int, stride: int, on: str) -> Measured:
    images = np.random.default_rng(0)
    noise = images.standard_normal((2, channels, window, window), np.float32)
    coarse = images.standard_normal((2, channels, 7, 7), np.float32)
    patches = np.kron(coarse, np.ones((-(-window // 7),) * 2, np.float32))[..., :window, :window]
    x = np.concatenate([noise, patches])
    expected, found = plan.run(x), run(x)
    scale = float(np.abs(expected).max())
    error = float(np.abs(found - expected).max()) / scale if scale else 0.0
    side = window + stride * STEPS
    shape = (CROP_BATCH, channels, window, window) if plan.whole is None else (1, channels, side, side)
    x = images.standard_normal(shape, np.float32)
    return Measured(
        on, error if np.isfinite(error) else float("inf"), _seconds(plan.run, x) / _seconds(run, x)
    )


def _seconds(run: Forward, x: FloatArray, times: int = 3) -> float:
    """The least time that a run takes, after one that does what is done once."""
    run(x)
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run(x)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _here() -> str:
    """What a measurement holds for."""
    import onnxruntime

    return f"OpenVINO {_openvino().__version__}, ONNX Runtime {onnxruntime.__version__}, {processor()}"


def _when_used(model: str | bytes) -> Forward:
    """Runs a plan on ONNX Runtime, which is opened with the first image."""
    opened = once(partial(onnx_run, model))
    return lambda x: opened()(x)


def _started(plan: Plan, number: Number) -> Forward:
    try:
        return openvino_run(str(plan.path), number)
    except Exception as error:  # OpenVINO's errors share no class but this
        raise PlanError(f"OpenVINO does not run the plan ({first_line(error)})") from error


def openvino_run(model: str | bytes, number: Number) -> Forward:
    """Runs an ONNX file, given by its path or its content, from its first input to its first output. The run
    raises MemoryError.

    Threads that run it at once take turns inside OpenVINO, each with a request of its own.
    """
    core = _core()
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
        out: FloatArray = logits.copy()  # the next run writes there
        return out

    return run


@once
def _core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            "the openvino backend, which bfloat16 takes, needs OpenVINO: pip install 'fcnconv[openvino]'"
        ) from error
    return openvino
