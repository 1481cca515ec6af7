"""A custom model in an ONNX file: how to use it, its network in torch, and the program for its crops."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import WAY_OUT, ConversionError, ModelError, UsageError, first_line
from fcnconv.labels import Labels
from fcnconv.models.architecture import named_or_numbered
from fcnconv.models.own import IMAGENET_MEAN, IMAGENET_STD, OwnModel, colours, existing, read_spec
from fcnconv.models.spec import ModelSpec
from fcnconv.models.weight_files import file_sha256
from fcnconv.provenance import Activation, Channels
from fcnconv.system.onnx_runtime import onnx_runtime
from fcnconv.system.records import Facts, remembered

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import nn

    from fcnconv.models.onnx_file import Graph

log = logging.getLogger("fcnconv")

WINDOW = 224
"""Default side of the window for a graph that accepts images of any size."""

TOLERANCE = 1e-4
"""Maximum difference between the logits of the network in torch and in ONNX Runtime, as a share of the
largest logit.
"""


@dataclass(frozen=True)
class _Facts:
    """Facts about the network in a file.

    `window` is None if the network accepts any size, and `beside` lists the separate files of weights.
    """

    window: int | None
    channels: int
    num_classes: int
    mean: Channels | None
    std: Channels | None
    activation: Activation | None
    categories: tuple[str, ...] | None
    beside: tuple[str, ...]


def onnx_spec(path: Path, own: OwnModel) -> ModelSpec:
    """The spec of a classifier in an ONNX file.

    The file determines the window, the channels, the number of classes, the normalisation inside the graph,
    the activation at its end and the class names in its metadata. `own` and the JSON file next to the ONNX
    file complete this, and override it.

    Raises:
        ModelError: the file is not an image classifier.
        UsageError: an option contradicts the file.
    """
    beside = path.with_suffix(".json")
    own = own.over(read_spec(beside)) if beside.is_file() else own
    if own.arch is not None:
        raise UsageError(f"{path}: an ONNX file is its own architecture; leave out --arch {own.arch}")
    existing(path)
    facts = _facts(path, own.window)
    if facts.window is not None and own.window not in (None, facts.window):
        raise UsageError(f"{path}: takes windows of {facts.window} px only; leave out --window {own.window}")
    window = facts.window or own.window or WINDOW
    mean, std = _normalisation(str(path), facts, own)
    if len(mean) != facts.channels:
        raise UsageError(
            f"{path}: the network takes images of {facts.channels} channels; give --mean and --std with "
            "one number per channel"
        )
    activation = own.activation or facts.activation
    return ModelSpec(
        name=str(path),
        window=window,
        eval_size=own.eval_size or round(window * 8 / 7),
        mean=mean,
        std=std,
        labels=partial(_labels, own.categories or facts.categories, facts.num_classes, str(path), activation),
        weights=partial(existing, path),
        build=partial(_network, window),
        temperature=own.temperature or 1.0,
        pixel_size=own.pixel_size,
        arch="onnx",
        sha256=partial(_sha256, facts.beside),
        crops=partial(crops_program, window=window),
    )


def _labels(
    categories: tuple[str, ...] | None, num_classes: int, name: str, activation: Activation | None
) -> Labels:
    return named_or_numbered(categories, num_classes, name, activation)


def _normalisation(name: str, facts: _Facts, own: OwnModel) -> tuple[Channels, Channels]:
    if facts.mean is not None and facts.std is not None:
        if own.mean is not None or own.std is not None:
            raise UsageError(f"{name}: the graph normalises images itself; leave out --mean and --std")
        return facts.mean, facts.std
    if own.mean is None and own.std is None:
        log.info(
            "%s: does not contain the normalisation of images; using ImageNet's mean and std, unless "
            "--mean and --std give others",
            name,
        )
    if facts.channels != 3:
        grey = (sum(IMAGENET_MEAN) / 3,) * facts.channels, (sum(IMAGENET_STD) / 3,) * facts.channels
        return colours(name, own, *grey)
    return colours(name, own, IMAGENET_MEAN, IMAGENET_STD)


def _sha256(beside: tuple[str, ...], path: Path) -> str:
    """The SHA-256 of an ONNX file together with its separate files of weights."""
    if not beside:
        return file_sha256(path)
    parts = [file_sha256(path.parent / name) for name in (path.name, *beside)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _facts(path: Path, window: int | None) -> _Facts:
    def find() -> Facts:
        from fcnconv.models.onnx_file import external_files, parse, read_graph

        graph = read_graph(path)
        if graph.height != graph.width:
            raise ModelError(
                f"{path}: takes images of {graph.height or 'any'} × {graph.width or 'any'} px, and windows "
                "are square"
            )
        mean, std = _inside(graph)
        return {
            "window": graph.height,
            "channels": graph.channels,
            "num_classes": _count(path, graph, graph.height or window or WINDOW),
            "mean": mean,
            "std": std,
            "activation": graph.activation,
            "categories": graph.categories,
            "beside": [str(each.relative_to(path.parent)) for each in external_files(parse(path), path)],
        }

    def read(facts: Facts) -> _Facts:
        for name in facts["beside"]:
            (path.parent / name).stat()
        lists = ("mean", "std", "categories", "beside")
        known: dict[str, Any] = dict(facts) | {key: facts[key] and tuple(facts[key]) for key in lists}
        return _Facts(**known)

    return remembered(("onnx", file_sha256(path), str(window)), find, read)


def _inside(graph: Graph) -> tuple[Channels | None, Channels | None]:
    """The mean and std of the normalisation inside a graph; None if the graph does not normalise.

    The constants show whether the graph expects intensities from 0 to 1 or from 0 to 255: a factor of about
    1/255 or an offset of about 128 means 0 to 255.
    """
    if graph.whole_numbers:
        return (0.0,) * graph.channels, (1 / 255,) * graph.channels
    if graph.scale is None or graph.shift is None:
        return None, None
    of_bytes = abs(graph.scale).max() < 0.1 or abs(graph.shift).max() > 10
    std = 1 / (graph.scale * (255 if of_bytes else 1))
    return tuple(map(float, -graph.shift * std)), tuple(map(float, std))


def _count(path: Path, graph: Graph, window: int) -> int:
    """The number of classes, from a run on one image of zeros."""
    import numpy as np

    from fcnconv.models.onnx_file import program

    try:
        session = _session(program(graph))
        shape = (graph.batch or 1, graph.channels, window, window)
        (scores,) = session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise ModelError(f"{path}: does not run at {window} × {window} px ({first_line(error)})") from error
    if scores.ndim != 2:
        sides = " × ".join(map(str, scores.shape))
        raise ModelError(f"{path}: gives {sides} values, not one vector of scores per image")
    return int(scores.shape[1])


def _session(model: bytes) -> InferenceSession:
    """Opens a session that logs only errors."""
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session: InferenceSession = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session


def crops_program(path: Path, window: int) -> bytes:
    """The graph as an ONNX program: float32 (N, channels, window, window) -> logits (N, num_classes)."""
    from fcnconv.models.onnx_file import program, read_graph

    return program(read_graph(path))


def _network(window: int, path: Path) -> nn.Module:
    """The graph as a torch network, checked against ONNX Runtime. Raises ConversionError if this fails."""
    import numpy as np
    import torch

    from fcnconv.models.onnx_file import program, read_graph
    from fcnconv.models.onnx_reader import UnreadableError, as_torch

    graph = read_graph(path)
    try:
        network = as_torch(graph, window, str(path))
    except UnreadableError as error:
        raise ConversionError(f"{error}; {WAY_OUT}") from error
    session = _session(program(graph))
    count = graph.batch or 1  # ONNX Runtime gets one batch at a time, and torch gets all at once
    shape = (2 * count, graph.channels, window, window)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    if graph.whole_numbers:
        x = np.floor(np.random.default_rng(0).random(shape, np.float32) * 256)
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: part})[0] for part in (x[:count], x[count:])])
    try:
        with torch.inference_mode():
            actual = network(torch.from_numpy(x)).numpy()
    except RuntimeError as error:  # torch's error for shapes that contain the number of images
        raise ConversionError(
            f"{path}: its graph is valid for {count} image at a time only ({first_line(error)}); {WAY_OUT}"
        ) from error
    difference = float(abs(actual - expected).max() / max(abs(expected).max(), 1e-30))
    if not difference <= TOLERANCE:
        raise ConversionError(
            f"{path}: as read, its scores differ from ONNX Runtime's by {difference:.1e} of the largest, "
            f"over {TOLERANCE:.0e}; {WAY_OUT}"
        )
    return network
