"""ONNX Runtime, which sends nothing to its makers here."""

import os
from types import ModuleType


def onnx_runtime() -> ModuleType:
    """Returns the package ``onnxruntime``. No other function may import it.

    Since version 1.29, ONNX Runtime records usage data in the user's cache and sends them to its makers, from
    its import on, unless ``ORT_DISABLE_TELEMETRY`` was set before. Here it is set, unless the user's
    environment sets it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    package: ModuleType = onnxruntime
    return package
