"""The ONNX Runtime backend, on the CPU, quiet and offline. It runs plans, without torch."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnconv.backends.plans import (
    Networks,
    Plan,
    Start,
    keep,
    kept_plan,
    locked,
    make_room,
    plan_path,
    read_plan,
    read_stages,
    remove_plan,
    stages_file,
)
from fcnconv.errors import ModelError, PlanError, first_line
from fcnconv.models import ModelSpec
from fcnconv.provenance import Mode
from fcnconv.scan.network import LOGITS_ALONE, Needs, Network, of_crops
from fcnconv.scan.stages import Forward, Stage
from fcnconv.scan.tiling import Stages
from fcnconv.scores import FloatArray
from fcnconv.system.machine import fewer_threads, free_memory, processor, threads_each
from fcnconv.system.once import once
from fcnconv.system.onnx_runtime import onnx_runtime
from fcnconv.system.progress import during

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger("fcnconv")

_FITTED = ".optimised"
"""Suffix for the name of a plan that is optimised for a CPU."""


def open_onnx(spec: ModelSpec, mode: Mode, stride: int | None = None, needs: Needs = LOGITS_ALONE) -> Network:
    """Opens a model on ONNX Runtime, from its plan. A missing or damaged plan is made. Raises PlanError."""
    plan = open_plans(spec, mode, stride, needs)
    identity, record = spec.identity(spec.weights()), plan.record
    if record.geometry is None or plan.whole is None:
        return of_crops(plan.run, spec.window, stride or spec.stride, record.num_classes, identity)
    stages = Stages(plan.whole, once(partial(open_stages, spec, plan, stride)))
    joint = once(partial(open_joint, spec, stride)) if record.cell_head.cells else None
    return Network(plan.run, record.geometry, identity, stages, cell_head=record.cell_head, joint=joint)


def open_plans(
    spec: ModelSpec, mode: Mode, stride: int | None, needs: Needs, start: Start | None = None
) -> Plan:
    """Opens a model's plan, after making everything that `needs` asks for, in one step with one message.

    Args:
        spec: the model.
        mode: ``fcn`` or ``windows``.
        stride: pixels between windows; None is the model's own.
        needs: what the work needs in addition to logits.
        start: runs the plan; None is ONNX Runtime.

    Raises:
        PlanError: the plan itself cannot be made.
    """
    with one_go():
        networks = Networks(spec, stride)
        plan = open_plan(spec, mode, stride, start, networks=networks)
        if mode == "fcn":
            sha256 = spec.sha256(spec.weights())
            joint = needs.activations and bool(plan.record.cell_head.cells)
            # If one of these cannot be made, the code that opens it logs this, and uses torch.
            if joint and not plan_path(spec, mode, sha256, stride, joint=True).exists():
                with suppress(PlanError):
                    open_plan(spec, mode, stride, joint=True, networks=networks)
            if needs.crops and not plan_path(spec, "windows", sha256).exists():
                with suppress(PlanError):
                    open_plan(spec, "windows", networks=networks)
    return plan


def open_joint(
    spec: ModelSpec, stride: int | None, start: Start | None = None, start_stage: Start | None = None
) -> Stages:
    """The stages that compute a model's class activations and logits, from a separate plan, or on torch
    without one.

    Args:
        spec: the model.
        stride: pixels between windows; None is the model's own.
        start, start_stage: run the plan and its stages; None is ONNX Runtime.
    """
    try:
        plan = open_plan(spec, "fcn", stride, start, joint=True)
    except PlanError as error:
        from fcnconv.backends.torch import open_torch

        log.info("%s; running it with torch instead", error)
        on_torch = open_torch(spec, "fcn", "cpu", stride).joint
        assert on_torch is not None, "the same network"
        return on_torch()
    assert plan.whole is not None, "the plan of a converted network"
    return Stages(plan.whole, once(partial(open_stages, spec, plan, stride, start_stage)))


def open_plan(
    spec: ModelSpec,
    mode: Mode,
    stride: int | None = None,
    start: Start | None = None,
    *,
    joint: bool = False,
    networks: Networks | None = None,
) -> Plan:
    """Opens a model's plan from the cache, or makes it and stores it there.

    Args:
        spec: the model.
        mode: ``fcn`` or ``windows``.
        stride: pixels between windows; None is the model's own.
        start: runs the plan; None is ONNX Runtime.
        joint: whether to open the plan that also returns class activations.
        networks: the networks to make the plan from, if several plans are made from the same networks.

    Raises:
        PlanError: the plan cannot be made.
    """
    start = start or onnx_run
    if spec.no_plan:
        raise PlanError(spec.no_plan)
    stride = stride if mode == "fcn" else None  # crops need no separate plan for it
    if stride is not None:
        spec.require_stride(stride)
    weights = spec.weights()
    path = plan_path(spec, mode, spec.sha256(weights), stride, joint=joint)
    read = _fitted if start is onnx_run else partial(read_plan, start=start)
    if path.exists():
        try:
            return read(path)
        except PlanError as error:
            log.info("%s; making it again", error)
    make_room(path)
    kind = "the class activations of " if joint else "the crops of " if mode == "windows" else ""
    what = f"{kind}{spec.name}{f', stride {stride} px' if stride else ''}"
    with locked(path, partial(_wait_for, what)):
        if path.exists():  # another process has made it in the meantime
            with suppress(PlanError):
                return read(path)
        _require_memory(what)
        for fitted in path.parent.glob(f"{path.stem}.*{_FITTED}"):
            remove_plan(fitted)
        with _logged(what) as since:
            from fcnconv.backends.build_plan import make_plan

            networks = networks or Networks(spec, stride)
            made = make_plan(spec, mode, weights, networks, onnx_run, since, joint=joint)
            with kept_plan(path, made.record, made.whole) as temporary:
                temporary.write_bytes(made.model)
        return read(path)


def _fitted(path: Path) -> Plan:
    """Opens the plan in a file, in the version that ONNX Runtime has optimised for this CPU.

    The optimised version is stored next to the plan, and opens in a quarter of the time (EfficientNet-Lite0:
    9 ms instead of 33 ms). It is made if it is missing or damaged. Raises PlanError if the plan itself is
    damaged.
    """
    here = hashlib.sha256(f"{onnx_runtime().__version__} {processor()}".encode()).hexdigest()[:8]
    fitted = path.with_suffix(f".{here}{_FITTED}")
    if fitted.exists():
        with suppress(PlanError):
            return replace(read_plan(fitted, partial(onnx_run, optimised=True)), path=path)
    plan = read_plan(path, onnx_run)
    try:
        with kept_plan(fitted, plan.record, plan.whole) as temporary:
            _session(str(path), save=temporary)
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        log.debug("%s: not stored (%s)", fitted, first_line(error))
    return plan


def open_stages(
    spec: ModelSpec, plan: Plan, stride: int | None = None, start: Start | None = None
) -> tuple[Stage, ...]:
    """The network of a plan in stages: from the file next to the plan, else made and stored there, else on
    torch.

    A network that cannot be cut is one stage. Crops need no stages.

    Args:
        spec: the model.
        plan: its plan.
        stride: pixels between windows; None is the model's own.
        start: runs each stage; None is ONNX Runtime.
    """
    start = start or stage_run
    if plan.whole is None:
        return ()
    if plan.record.geometry is None or not plan.record.geometry.local:
        return (plan.whole,)
    path = plan.path.with_suffix(".parts")
    if path.exists():
        try:
            return read_stages(path, start)
        except PlanError as error:
            log.info("%s; making them again", error)
    what = f"{spec.name} for scans in little memory"
    with locked(path, partial(_wait_for, what)):
        if path.exists():  # another process has made them in the meantime
            with suppress(PlanError):
                return read_stages(path, start)
        _require_memory(what)
        with _logged(what):
            return _made_stages(spec, path, stride, start, joint=plan.whole.activations)


def _made_stages(
    spec: ModelSpec, path: Path, stride: int | None, start: Start, *, joint: bool
) -> tuple[Stage, ...]:
    """Makes the stages of a network, and stores them at `path` if possible."""
    from fcnconv.backends.build_plan import cut_plan
    from fcnconv.backends.torch import torch_stages
    from fcnconv.convert import convolutionize

    network = convolutionize(spec.build(spec.weights()), spec.window, stride)
    try:
        stages, models = cut_plan(network, stage_run, joint=joint)
    except PlanError as error:
        log.info("%s; running the stages with torch instead", error)
        return torch_stages(network, joint=joint)
    try:
        keep(path, stages_file(stages, models))
    except PlanError as error:
        log.info("%s; the stages will be made again", error)
    if start is stage_run:
        return stages
    return tuple(replace(stage, run=start(model)) for stage, model in zip(stages, models, strict=True))


MAKING = 600e6
"""Free bytes needed to import torch and make a plan.

Making the plan of EfficientNet-Lite0 succeeds in a container of 700 MB. In a container of 500 MB, the system
ends the process.
"""


def _require_memory(what: str) -> None:
    """Raises ModelError if so little memory is free that the system would end the process during the making
    of a plan.
    """
    if (free := free_memory()) < MAKING:
        raise ModelError(
            f"making {what} takes {MAKING / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free; "
            "run 'fcnconv prepare' with more free memory once; later runs need less"
        )


def _wait_for(what: str) -> None:
    log.info("waiting for another process, which is making %s", what)


_begun: ContextVar[list[float] | None] = ContextVar("_begun", default=None)
"""Start time of the first of several plans that are made in one step; empty before it, None outside such a
step.
"""


@contextmanager
def one_go() -> Iterator[None]:
    """Inside this context, the making of several plans is logged once. An inner context joins it."""
    if _begun.get() is not None:
        yield
        return
    begun: list[float] = []
    token = _begun.set(begun)
    try:
        yield
    finally:
        _begun.reset(token)
    if begun:
        log.info("prepared in %.1f s", time.perf_counter() - begun[0])


@contextmanager
def _logged(what: str) -> Iterator[float]:
    """Logs that something is made once, and how long it took. Yields the start time."""
    since, begun = time.perf_counter(), _begun.get()
    if not begun:
        log.info("Preparing %s (first use only) …", what)
    if begun is not None:
        begun.append(since)
    with during(f"making {what}"):
        yield since
    if begun is None:
        log.info("prepared in %.1f s", time.perf_counter() - since)


def onnx_run(model: str | bytes, *, optimised: bool = False) -> Forward:
    """Returns a function that runs an ONNX file, from its first input to its first output.

    Small inputs of several images run with few threads each, because waiting for one another then costs
    threads more than they gain (300 photos of 0.2 megapixels take 0.86 of the time).

    Args:
        model: path or content of the file.
        optimised: whether ONNX Runtime made the file from another file.

    Raises:
        MemoryError: the function raises it if memory runs out.
    """
    alone = _session_run(_session(model, optimised=optimised))
    beside_others = once(lambda: _session_run(_session(model, optimised=optimised, threads=threads_each())))

    def run(x: FloatArray) -> FloatArray:
        return (beside_others() if threads_each() and x.size <= SMALL else alone)(x)

    return run


SMALL = 5_000_000
"""Maximum number of values in an input that runs with few threads: 1.6 megapixels, or 32 crops of 224 px."""


def stage_run(model: str | bytes) -> Forward:
    """Returns a function that runs a stage of a network, with memory from the arena that all stages share."""
    run = _session_run(_session(model, shared=True))
    return lambda x: run(np.ascontiguousarray(x))


def _session(
    model: str | bytes,
    *,
    shared: bool = False,
    optimised: bool = False,
    save: Path | None = None,
    threads: int | None = None,
) -> InferenceSession:
    """Opens a session that logs only errors.

    Args:
        model: path or content of the file.
        shared: whether to use one arena for all such sessions, which run in turn, instead of one arena per
            session.
        optimised: whether to use the file without optimising it again.
        save: where to write the optimised file.
        threads: number of threads; None uses all processors.
    """
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # ONNX Runtime would plan one block of memory for each size of image, which comes on top of the memory of
    # the run before: 1.3 GB for a photo of 4 megapixels instead of 0.8, in the same time (measured).
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if (threads := threads or fewer_threads()) is not None:
        options.intra_op_num_threads = threads
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save:
        options.optimized_model_filepath = str(save)
    if shared:
        _arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    # No second attempt on the only provider, since ONNX Runtime would print a message about it.
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


@once
def _arena() -> None:
    """Creates the process's shared arena.

    The arena grows by doubling. If it grew by the size of each request, it would fragment (2 GB instead of
    1.1 GB, measured).
    """
    onnxruntime = onnx_runtime()
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    doubling, default = 0, -1
    how = {
        "max_mem": 0,
        "arena_extend_strategy": doubling,
        "initial_chunk_size_bytes": default,
        "max_dead_bytes_per_chunk": default,
    }
    onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg(how))


def _session_run(session: InferenceSession) -> Forward:
    name, batch = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]

    def run_batch(x: FloatArray) -> FloatArray:
        """Runs as many images at a time as the file accepts, if it accepts only one batch size."""
        if not isinstance(batch, int) or batch == len(x):
            logits: FloatArray = session.run(None, {name: x})[0]
            return logits
        filled = np.concatenate([x, np.zeros((-len(x) % batch, *x.shape[1:]), np.float32)])
        batches = [session.run(None, {name: filled[n : n + batch]})[0] for n in range(0, len(filled), batch)]
        return np.concatenate(batches)[: len(x)]

    def run(x: FloatArray) -> FloatArray:
        try:
            logits = run_batch(x)
        except Exception as error:  # ONNX Runtime's errors have no other common base class
            if re.search("allocat|bad_alloc", str(error)):
                raise MemoryError from error
            raise
        return logits

    return run
