"""ONNX Runtime, on the processor, quiet and offline."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING

from fcnconv.backends import Run
from fcnconv.scores import FloatArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def new_session(model: str | bytes, *, shared: bool = False) -> InferenceSession:
    """A session for an ONNX model that says nothing but errors. model: the path of its file, or the content.

    shared: take memory from one arena with all other such sessions, which run in turn, instead of an own one
        each; and do not plan it ahead, for each of many sizes of input (1 GB instead of 3, measured).

    Since 1.29 ONNX Runtime reports its use to its makers unless it is told not to before its import; here it
    is told, if the environment does not say otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if shared:
        _make_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _make_arena() -> None:
    """Makes the process's shared arena, once.

    It grows by doubling: grown by what is asked for, it falls into pieces (2 GB instead of 1.1, measured).
    """
    import onnxruntime

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


def session_run(session: InferenceSession) -> Run:
    """A backend that runs a session's first input to its first output. It raises MemoryError."""
    name = session.get_inputs()[0].name

    def run(x: FloatArray) -> FloatArray:
        try:
            logits: FloatArray = session.run(None, {name: x})[0]
        except Exception as error:  # ONNX Runtime's errors share no class but this
            if re.search("allocat|bad_alloc", str(error)):
                raise MemoryError from error
            raise
        return logits

    return run
