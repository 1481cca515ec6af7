"""ONNX Runtime, on the processor, quiet and offline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fcnconv.backends import Run
from fcnconv.scores import FloatArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def new_session(model: str | bytes) -> InferenceSession:
    """A session for an ONNX model that says nothing but errors. model: the path of its file, or the content.

    Since 1.29 ONNX Runtime reports its use to its makers unless it is told not to before its import; here it
    is told, if the environment does not say otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def session_run(session: InferenceSession) -> Run:
    """A backend that runs a session's first input to its first output."""
    name = session.get_inputs()[0].name

    def run(x: FloatArray) -> FloatArray:
        logits: FloatArray = session.run(None, {name: x})[0]
        return logits

    return run
