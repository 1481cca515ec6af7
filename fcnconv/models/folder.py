"""Reads shared models: a folder, or a repository of the hub, with weights and a ``config.json``.

Three kinds are supported: timm's, transformers' and WSInfer's. The keys in ``config.json`` determine the
kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fcnconv.errors import ALLOW_TORCHSCRIPT, ModelError, UsageError
from fcnconv.models.architecture import Architecture
from fcnconv.models.hub import HUB, files_of, parse_repository
from fcnconv.models.own import OwnModel, described_spec, find_architecture
from fcnconv.models.spec import ModelSpec
from fcnconv.models.torchscript import torchscript_spec
from fcnconv.models.weight_files import program_kind, refuse_program
from fcnconv.system.records import parse_json

log = logging.getLogger("fcnconv")

FOLDER = "local-dir:"
"""Prefix for the name of a folder. The path of a folder works without it."""

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt", "pytorch_model.pth", "model.pth")
"""Names of weights files in a folder. The first one that exists is used."""

TORCHSCRIPT = "torchscript_model.pt"
"""The program in a folder from WSInfer's zoo. It runs only if the user allows it."""

DESCRIPTIONS = ("config.json", "preprocessor_config.json")
"""The files that describe the weights in a folder."""

Files = Callable[[str], Path | None]
"""The files of a folder: name -> path, or None if the file does not exist."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Described:
    """The description of a model in a folder: how to build the network, and how to use it."""

    architecture: Callable[[], Architecture]
    own: OwnModel


def is_folder(name: str) -> bool:
    """Whether `name` is the folder of a model, or a repository of the hub."""
    return name.startswith((HUB, FOLDER)) or Path(name).joinpath("config.json").is_file()


def folder_spec(name: str, own: OwnModel, table: dict[str, ModelSpec]) -> ModelSpec:
    """The spec of a folder or a repository.

    Args:
        name: the folder or the repository.
        own: the user's description, which overrides the description in the folder.
        table: the known models.

    Raises:
        UsageError: the options contradict the folder.
        ModelError: the folder cannot be read, or its kind is unknown.
    """
    if name.startswith(HUB):
        files = files_of(*parse_repository(name))
    else:
        files = _of_folder(Path(name.removeprefix(FOLDER)))
    path = files("config.json")
    if path is None:
        raise ModelError(f"{name}: has no config.json, which describes its weights")
    config = read_json(path)
    kind = next((kind for key, kind in KINDS.items() if key in config), None)
    if kind is None:
        raise ModelError(
            f"{path}: unknown kind of model: it has none of the keys {', '.join(map(repr, KINDS))}; name "
            "the weights file itself, with --arch"
        )
    try:
        described = kind(_Found(name, config, files, table, own))
        own = own.over(described.own)
        if own.allow_torchscript and _weights(files) is None:
            return torchscript_spec(name, partial(_required, name, files, _torchscript), own)
        architecture = described.architecture()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"{path}: cannot be read as the kind of model that it describes: {error!r}"
        ) from error
    if own.allow_torchscript:
        log.info("%s: using the weights without code; no permission is needed", name)
    return described_spec(name, partial(_required, name, files, _weights), own, architecture)


def files_of_folder(name: str) -> list[Path]:
    """The files that a folder of a model may be read from; an empty list for other models."""
    if name.startswith(HUB) or not is_folder(name):
        return []
    return [Path(name.removeprefix(FOLDER), filename) for filename in (*DESCRIPTIONS, *WEIGHTS, TORCHSCRIPT)]


def _of_folder(folder: Path) -> Files:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    return lambda filename: folder / filename if (folder / filename).is_file() else None


def _weights(files: Files) -> Path | None:
    """The first weights file in a folder that contains no code."""
    paths = (path for filename in WEIGHTS if (path := files(filename)))
    return next((path for path in paths if program_kind(path) is None), None)


def _torchscript(files: Files) -> Path | None:
    """The first TorchScript file in a folder."""
    paths = (path for filename in (TORCHSCRIPT, *WEIGHTS) if (path := files(filename)))
    return next((path for path in paths if program_kind(path) == "TorchScript"), None)


def _required(name: str, files: Files, find: Callable[[Files], Path | None]) -> Path:
    """The file that `find` finds in a folder.

    Raises:
        ModelError: the file does not exist. The message says what to do.
    """
    if (path := find(files)) is not None:
        return path
    missing = f"{name}: has no file of weights, {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}"
    if find is _torchscript:
        raise ModelError(f"{missing}, and no {TORCHSCRIPT}")
    if name.startswith(HUB):  # do not download a program only to refuse it
        raise ModelError(
            f"{missing}. If it has {TORCHSCRIPT}, which contains code, and you trust that, add "
            f"{ALLOW_TORCHSCRIPT}"
        )
    program = _torchscript(files)
    raise ModelError(missing) if program is None else refuse_program(program, "TorchScript")


def read_json(path: Path) -> Config:
    """Reads the object in a JSON file. Raises ModelError if this fails."""
    try:
        record = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ModelError(f"{path}: expected a JSON object, not a {type(record).__name__}")
    return record


@dataclass(frozen=True)
class _Found:
    """A folder whose ``config.json`` has been read. `own` is the user's description."""

    name: str
    config: Config
    files: Files
    table: dict[str, ModelSpec]
    own: OwnModel


def _timm(found: _Found) -> Described:
    """A timm model: ``architecture``, ``pretrained_cfg``, ``label_names``, ``model_args``."""
    config = found.config
    from fcnconv.models.timm import timm_architecture

    used = config.get("pretrained_cfg") or config  # timm's first files had a single level
    _, window, _ = used.get("input_size") or (3, 224, 224)
    names, texts = config.get("label_names"), config.get("label_descriptions") or {}
    categories = tuple(str(texts.get(name, name)) for name in names) if names else None
    own = OwnModel(
        categories=categories,
        window=window,
        eval_size=round(window / (used.get("crop_pct") or 1.0)),
        mean=used.get("mean"),
        std=used.get("std"),
    )
    return Described(partial(timm_architecture, config["architecture"], config.get("model_args") or {}), own)


def _transformers(found: _Found) -> Described:
    """A transformers model: ``model_type``, ``id2label``, and a separate file for the preprocessing of
    images.
    """
    from fcnconv.models.transformers import preparation, transformers_architecture

    config, own = found.config, found.own
    network = partial(transformers_architecture, config)
    labels = config.get("id2label")
    categories = tuple(labels[key] for key in sorted(labels, key=int)) if labels else None
    prepared = found.files("preprocessor_config.json")
    if prepared is None:
        side = own.window or config.get("image_size")
        if not isinstance(side, int) or own.mean is None or own.std is None:
            raise ModelError(
                f"{found.name}: has no preprocessor_config.json, which describes the preprocessing; put it "
                "next to config.json, or give --window, --mean and --std"
            )
        return Described(network, OwnModel(categories=categories, window=side))
    return Described(network, preparation(read_json(prepared), categories, str(prepared)))


def _wsinfer(found: _Found) -> Described:
    """A WSInfer model (see its ``schemas/model-config.schema.json``).

    Its tiles have ``patch_size_pixels`` at ``spacing_um_px``, and a transform may resize them.
    """
    config, table = found.config, found.table
    window, mean, std = config["patch_size_pixels"], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for step in config.get("transform", ()):
        given = step.get("arguments") or {}
        if step["name"] == "Resize":
            size = given["size"]
            window = size if isinstance(size, int) else size[0]
        elif step["name"] == "Normalize":
            mean, std = tuple(given["mean"]), tuple(given["std"])
        elif step["name"] != "ToTensor":
            raise ModelError(f"its images pass through {step['name']}, which fcnconv does not support")
    name, spacing = (
        config["architecture"],
        float(config["spacing_um_px"]),
    )  # float refuses a list, which * repeats
    own = OwnModel(
        categories=tuple(config["class_names"]),
        window=window,
        eval_size=window,
        mean=mean,
        std=std,
        mpp=spacing * config["patch_size_pixels"] / window,
    )
    return Described(partial(find_architecture, name if name in table else f"timm/{name}", table), own)


KINDS: dict[str, Callable[[_Found], Described]] = {
    "spacing_um_px": _wsinfer,
    "architecture": _timm,  # may also name transformers' wrapper
    "model_type": _transformers,
}
"""A key of ``config.json`` that distinguishes each kind from the kinds after it -> the function that reads
it.
"""
