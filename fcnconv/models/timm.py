"""Networks from timm (the extra ``timm``), for custom weights or with the weights from timm's hub."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import ModelError, UsageError
from fcnconv.models.architecture import Architecture, named_or_numbered
from fcnconv.models.hub import hub_file
from fcnconv.models.spec import ModelSpec
from fcnconv.models.torchvision import NO_FCN
from fcnconv.provenance import Channels
from fcnconv.system.records import Facts, remembered

if TYPE_CHECKING:
    from torch import nn


TRANSFORMERS = frozenset(
    (
        *("beit", "cait", "convit", "crossvit", "deit", "eva", "maxxvit", "mvitv2", "naflexvit", "tnt"),
        *(
            "twins",
            "swin_transformer",
            "swin_transformer_v2",
            "swin_transformer_v2_cr",
            "vision_transformer",
            "volo",
        ),
        *("vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam"),
    )
)
"""Modules of timm whose networks have no fully convolutional form. All others are converted to find out."""


@dataclass(frozen=True)
class _Config:
    """timm's facts about a network: how to use its default weights, where they are, and which module defines
    it.
    """

    window: int
    eval_size: int
    mean: Channels
    std: Channels
    num_classes: int
    repository: str | None
    module: str


def timm_architecture(name: str, arguments: Mapping[str, Any] | None = None) -> Architecture:
    """The timm network with this name, with the settings of its default weights.

    Args:
        name: such as ``resnet18`` or ``resnet18.a1_in1k``.
        arguments: arguments of its constructor.

    Raises:
        ModelError: timm is not installed.
        UsageError: timm has no such network.
    """
    config = _config(name)
    given = dict(arguments or {})
    make = partial(_make, name, config.window, given)
    suffix = f" {json.dumps(given, sort_keys=True)}" if given else ""
    return Architecture(
        f"timm/{name}{suffix}",
        make,
        config.window,
        config.eval_size,
        config.mean,
        config.std,
        no_fcn=NO_FCN if config.module in TRANSFORMERS else "",
    )


def timm_spec(name: str) -> ModelSpec:
    """The timm network with this name, with its weights from timm's hub."""
    config, architecture = _config(name), timm_architecture(name)
    return ModelSpec(
        name=architecture.name,
        window=architecture.window,
        eval_size=architecture.eval_size,
        mean=architecture.mean,
        std=architecture.std,
        labels=partial(named_or_numbered, None, config.num_classes, architecture.name),
        weights=partial(_from_hub, name, config.repository),
        build=partial(architecture.build, architecture.window, len(config.mean)),
        arch=architecture.name,
        no_fcn=architecture.no_fcn,
    )


def _remembered(name: str, find: Callable[[], Facts], read: Callable[[Facts], Any]) -> Any:
    """Like `records.remembered`, for facts that depend only on the installed timm. Raises ModelError."""
    try:
        version = importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError("networks of timm need the extra timm; run: pip install 'fcnconv[timm]'") from error
    return remembered(("timm", name, version), find, read)


def _config(name: str) -> _Config:
    def find() -> Facts:
        import timm

        if not timm.is_model(name):
            close = timm.list_models(f"{name[:6]}*")[:3]
            hint = f"; it has {', '.join(close)}" if close else ""
            raise UsageError(f"timm has no model {name!r}{hint}")
        try:
            config = timm.models.get_pretrained_cfg(name)
        except RuntimeError as error:  # the tag is wrong; `is_model` ignores it
            tagged = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")[:3])
            raise UsageError(
                f"timm has no weights {name!r}; it has {tagged or 'none of this model'}"
            ) from error
        config = config or timm.models.PretrainedCfg(input_size=(3, 224, 224))
        window = config.input_size[1]
        eval_size = round(window / (config.crop_pct or 1.0))
        colours = tuple(config.mean), tuple(config.std)
        module = timm.model_entrypoint(name.partition(".")[0]).__module__.rpartition(".")[2]
        return asdict(_Config(window, eval_size, *colours, config.num_classes, config.hf_hub_id, module))

    def read(facts: Facts) -> _Config:
        return _Config(**facts | {key: tuple(map(float, facts[key])) for key in ("mean", "std")})

    config: _Config = _remembered(name, find, read)
    return config


def _make(name: str, own_window: int, arguments: dict[str, Any], window: int, num_classes: int) -> nn.Module:
    import timm

    # Only networks that depend on it, such as transformers, accept the size of their input.
    size: dict[str, Any] = {"img_size": window} if window != own_window else {}
    try:
        model: nn.Module = timm.create_model(
            name, num_classes=num_classes, exportable=True, **size, **arguments
        )
    except TypeError:
        model = timm.create_model(name, num_classes=num_classes, exportable=True, **arguments)
    return model.eval()


def _from_hub(name: str, repository: str | None) -> Path:
    if not repository:
        raise ModelError(f"timm/{name}: timm's hub has no weights for it; give a file and --arch timm/{name}")

    path = hub_file(repository, "main", "model.safetensors")
    if path is None:
        raise ModelError(
            f"timm/{name}: {repository} has no model.safetensors; give a file and --arch timm/{name}"
        )
    return path
