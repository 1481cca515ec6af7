"""What runs a network over a region. A backend is a function; each file here makes one kind.

The table below has one row a backend: a function that opens a model in one of the two modes. `fcn` runs the
converted network, which shares features between windows; `windows` runs the original one on every real crop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from fcnconv.errors import ConversionError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.scan import Geometry
from fcnconv.scores import FloatArray

Run = Callable[[FloatArray], FloatArray]
"""float32 (N, 3, H, W), normalised -> float32 logits (N, num_classes, rows, cols)."""

Mode = Literal["fcn", "windows"]


@dataclass(frozen=True)
class Network:
    """A model that is ready to run. weights_sha256: of the file that its weights came from."""

    run: Run
    geometry: Geometry
    weights_sha256: str


def _torch(spec: ModelSpec, mode: Mode) -> Network:
    from fcnconv.backends.torch import open_torch

    return open_torch(spec, mode)


BACKENDS: dict[str, Callable[[ModelSpec, Mode], Network]] = {"torch": _torch}


def parse_mode(text: str) -> Mode:
    """The mode that `text` names. Raises UsageError."""
    for known in get_args(Mode):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown mode {text!r}; known: {', '.join(get_args(Mode))}")


def open_network(spec: ModelSpec, mode: Mode = "fcn", backend: str = "auto") -> Network:
    """The model, ready to run, on a row of `BACKENDS` or the best of them (``auto``).

    Raises UsageError and ModelError, and ConversionError before any weights are fetched if it is known that
    `fcn` mode cannot be had.
    """
    name = "torch" if backend == "auto" else backend
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    if mode == "fcn" and spec.no_fcn:
        raise ConversionError(
            f"{spec.name} has no fully convolutional form: {spec.no_fcn}; score real crops instead with "
            "--mode windows"
        )
    return BACKENDS[name](spec, mode)
