"""Networks of timm (the extra ``timm``): for one's own weights, or with those of its hub."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import ModelError, UsageError, first_line
from fcnconv.models.architecture import Architecture, named_or_numbered
from fcnconv.models.facts import Facts, remembered
from fcnconv.models.spec import ModelSpec
from fcnconv.provenance import Channels

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Config:
    """What timm tells of a network: how its default weights are used, and where its hub has them."""

    window: int
    eval_size: int
    mean: Channels
    std: Channels
    num_classes: int
    repository: str | None


def timm_architecture(name: str) -> Architecture:
    """timm's network of this name, used as its default weights are.

    name: such as ``resnet18`` or ``resnet18.a1_in1k``. Raises ModelError without timm, and UsageError.
    """
    config = _config(name)
    make = partial(_make, name, config.window)
    return Architecture(f"timm/{name}", make, config.window, config.eval_size, config.mean, config.std)


def timm_spec(name: str) -> ModelSpec:
    """timm's network of this name with the weights that its hub has for it."""
    config, architecture = _config(name), timm_architecture(name)
    return ModelSpec(
        name=architecture.name,
        window=architecture.window,
        eval_size=architecture.eval_size,
        mean=architecture.mean,
        std=architecture.std,
        labels=partial(named_or_numbered, None, config.num_classes, architecture.name),
        weights=partial(_from_hub, name, config.repository),
        build=partial(architecture.build, architecture.window),
        arch=architecture.name,
    )


def _remembered(kind: str, name: str, find: Callable[[], Facts], read: Callable[[Facts], Any]) -> Any:
    """As `facts.remembered`, for what depends on the installed timm and nothing else. Raises ModelError."""
    try:
        version = importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError("networks of timm need the extra timm; run: pip install 'fcnconv[timm]'") from error
    return remembered((kind, name, version), find, read)


def _config(name: str) -> _Config:
    def found() -> Facts:
        import timm

        if not timm.is_model(name):
            close = timm.list_models(f"{name[:6]}*")[:3]
            hint = f"; it has {', '.join(close)}" if close else ""
            raise UsageError(f"timm has no model {name!r}{hint}")
        config = timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg(input_size=(3, 224, 224))
        window = config.input_size[1]
        eval_size = round(window / (config.crop_pct or 1.0))
        (r, g, b), (sr, sg, sb) = config.mean, config.std
        colours = (r, g, b), (sr, sg, sb)
        return asdict(_Config(window, eval_size, *colours, config.num_classes, config.hf_hub_id))

    def read(facts: Facts) -> _Config:
        return _Config(**facts | {key: tuple(map(float, facts[key])) for key in ("mean", "std")})

    config: _Config = _remembered("timm", name, found, read)
    return config


def _make(name: str, own_window: int, window: int, num_classes: int) -> nn.Module:
    import timm

    # Only networks that depend on it, such as transformers, accept the size of their input.
    size: dict[str, Any] = {"img_size": window} if window != own_window else {}
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, exportable=True, **size)
    except TypeError:
        model = timm.create_model(name, num_classes=num_classes, exportable=True)
    return model.eval()


def _from_hub(name: str, repository: str | None) -> Path:
    if not repository:
        raise ModelError(f"timm/{name}: timm's hub has no weights for it; give a file and --arch timm/{name}")

    def fetched() -> Facts:
        from huggingface_hub import hf_hub_download

        try:
            return {"path": hf_hub_download(repository, "model.safetensors")}
        except Exception as error:  # its errors, of many libraries, share no parent
            raise ModelError(
                f"timm/{name}: the weights cannot be fetched from {repository} ({first_line(error)}); "
                f"give a file of them with --model FILE --arch timm/{name}"
            ) from error

    def there(facts: Facts) -> Path:
        path = Path(facts["path"])
        path.stat()
        return path

    # The hub's own client is slow to import, and asks the hub each time.
    path: Path = _remembered("timm-weights", name, fetched, there)
    return path
