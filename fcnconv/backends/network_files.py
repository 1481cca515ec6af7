"""Writes a converted network to a file that other programs can run, for images of any height and width.

`FORMATS` has a function for each suffix. The written content is read again and compared with the network
before it is saved.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcnconv.backends.build_plan import prove_export
from fcnconv.backends.onnx import onnx_run
from fcnconv.convert import FullyConvolutional, convolutionize
from fcnconv.convert.onnx_export import export_onnx
from fcnconv.convert.probes import channels_of
from fcnconv.errors import PlanError, UsageError, first_line
from fcnconv.labels import Labels
from fcnconv.models import ModelSpec
from fcnconv.provenance import Conversion, Identity
from fcnconv.scores import FloatArray
from fcnconv.system.files import written
from fcnconv.version import __version__


@dataclass(frozen=True)
class NetworkFileInfo:
    """The description of a network in its file: the model, the conversion and the classes.

    The network's input is ``(intensity - mean) / std``, with sides of ``window + step · n`` pixels, where
    `step` is the network's native stride.
    """

    identity: Identity
    conversion: Conversion
    labels: Labels

    def record(self) -> str:
        """The description as JSON. The file contains it under the name ``fcnconv``."""
        geometry, proof = self.conversion.geometry, self.conversion.proof
        return json.dumps(
            {
                **asdict(self.identity),
                "version": __version__,
                **asdict(geometry),
                "step": geometry.step,
                "categories": self.labels.categories,
                "activation": self.labels.activation,
                "conversion_error": proof.relative_error,
                "rounding": proof.rounding,
            }
        )


def _onnx(network: FullyConvolutional, about: NetworkFileInfo) -> tuple[bytes, float]:
    import onnx

    window = network.geometry.window
    model = export_onnx(network, window, any_size=True)
    error = prove_export(network, onnx_run(model), window, any_size=True)
    read = onnx.load_from_string(model)
    onnx.helper.set_model_props(read, {"fcnconv": about.record()})
    return read.SerializeToString(), error


def _pt2(network: FullyConvolutional, about: NetworkFileInfo) -> tuple[bytes, float]:
    any_size = torch.export.Dim.AUTO
    window, step = network.geometry.window, network.geometry.step
    example = torch.zeros(2, channels_of(network, window, window), window + step, window + 2 * step)
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), _one_cell_too():
            warnings.simplefilter("ignore")
            shapes: Any = ({0: any_size, 2: any_size, 3: any_size},)
            program = torch.export.export(network.network, (example,), dynamic_shapes=shapes)
            torch.export.save(program, file, extra_files={"fcnconv": about.record()})
            file.seek(0)
            run = _module_run(torch.export.load(file).module())
            error = prove_export(network, run, window, any_size=True)
    except Exception as reason:  # the exporter and its guards raise errors of many types
        advice = f"{about.identity.model} cannot be exported to .pt2 for every size; try .onnx"
        raise PlanError(f"{advice} ({first_line(reason)})") from reason
    return file.getvalue(), error


@contextmanager
def _one_cell_too() -> Iterator[None]:
    """Makes torch.export treat a map of one cell like larger maps, not as a special case.

    The setting has no public name. In a version of torch without it, the proof refuses the file.
    """
    from torch.fx.experimental import _config

    before = getattr(_config, "backed_size_oblivious", None)
    if before is None:
        yield
        return
    _config.backed_size_oblivious = True
    try:
        yield
    finally:
        _config.backed_size_oblivious = before


def _module_run(module: nn.Module) -> Callable[[FloatArray], FloatArray]:
    def run(x: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = module(torch.from_numpy(x)).numpy()
        return logits

    return run


FORMATS: dict[str, Callable[[FullyConvolutional, NetworkFileInfo], tuple[bytes, float]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
}
"""Suffix -> a function that returns the content of the file, and the largest difference of a logit from the
network, as a share of the largest logit."""


def export_format(out: str, format: str | None) -> str:
    """The entry of `FORMATS` that `format` names, or else the suffix of `out`. Raises UsageError."""
    name = (format or ("" if out == "-" else Path(out).suffix)).lstrip(".").lower()
    if name not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise UsageError(f"{out}: a network is exported as {known}; use one of these suffixes, or --format")
    return name


def export(
    spec: ModelSpec, out: str, format: str, stride: int | None = None
) -> tuple[NetworkFileInfo, float]:
    """Write the converted network of a model to the file `out`, or to standard output if that is ``-``.

    Args:
        spec: the model.
        out: the path, or ``-``.
        format: an entry of `FORMATS`.
        stride: pixels between windows. None is the native stride.

    Returns:
        The description in the file, and the largest difference of a logit between the file and the network,
        as a share of the largest logit.

    Raises:
        UsageError: the stride does not apply to the model.
        ModelError: the network cannot be converted or exported.
        OutputError: the file cannot be written.
    """
    spec.require_fcn()
    if stride is not None:
        spec.require_stride(stride)
    weights = spec.weights()
    network = convolutionize(spec.build(weights), spec.window, stride)
    about = NetworkFileInfo(spec.identity(weights), network.conversion, spec.labels())
    content, error = FORMATS[format](network, about)
    with written(out) as path:
        path.write_bytes(content)
    return about, error
