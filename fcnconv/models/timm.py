"""Networks of timm (the extra ``timm``): for one's own weights, or with those of its hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnconv.errors import ModelError, UsageError
from fcnconv.models.own import Architecture, own_build, unnamed
from fcnconv.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def timm_architecture(name: str) -> Architecture:
    """timm's network of this name, used as its default weights are.

    name: such as ``resnet18`` or ``resnet18.a1_in1k``. Raises ModelError without timm, and UsageError.
    """
    config = _config(name)
    window, crop = config.input_size[1], config.crop_pct or 1.0
    return Architecture(partial(_make, name), window, round(window / crop), config.mean, config.std)


def timm_spec(name: str) -> ModelSpec:
    """timm's network of this name with the weights that its hub has for it."""
    config, architecture = _config(name), timm_architecture(name)
    return ModelSpec(
        name=f"timm/{name}",
        window=architecture.window,
        eval_size=architecture.eval_size,
        mean=architecture.mean,
        std=architecture.std,
        labels=partial(unnamed, config.num_classes, f"timm/{name}"),
        weights=partial(_from_hub, name, config.hf_hub_id),
        build=partial(own_build, None, partial(architecture.make, architecture.window)),
        arch=f"timm/{name}",
    )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ModelError("networks of timm need the extra timm; run: pip install 'fcnconv[timm]'") from error
    return timm


def _config(name: str) -> Any:
    timm = _timm()
    if not timm.is_model(name):
        close = timm.list_models(f"{name[:6]}*")[:3]
        hint = f"; it has {', '.join(close)}" if close else ""
        raise UsageError(f"timm has no model {name!r}{hint}")
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg(input_size=(3, 224, 224))


def _make(name: str, window: int, num_classes: int) -> nn.Module:
    timm = _timm()
    # Only networks that depend on it, such as transformers, accept the size of their input.
    size = {"img_size": window} if window != _config(name).input_size[1] else {}
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, exportable=True, **size)
    except TypeError:
        model = timm.create_model(name, num_classes=num_classes, exportable=True)
    return model.eval()


def _from_hub(name: str, repository: str | None) -> Path:
    if not repository:
        raise ModelError(f"timm/{name}: timm's hub has no weights for it; give a file and --arch timm/{name}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # its errors, of many libraries, share no parent
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"timm/{name}: the weights cannot be fetched from {repository} ({reason}); "
            f"give a file of them with --model FILE --arch timm/{name}"
        ) from error
