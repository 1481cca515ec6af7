"""Image classifiers of Hugging Face's transformers (the extra ``transformers``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from fcnconv.errors import ModelError, first_line
from fcnconv.models.architecture import Architecture
from fcnconv.models.own import OwnModel
from fcnconv.models.torchvision import NO_FCN
from fcnconv.provenance import Channels

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.models.checkpoint import Tensors


TRANSFORMERS = frozenset(
    (
        *("beit", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "ijepa", "swin", "swinv2"),
        *("vit", "vit_hybrid", "vit_msn"),
    )
)
"""Kinds of networks (``model_type``) that have no fully convolutional form. All others are converted to find
out.
"""


def transformers_architecture(config: Mapping[str, Any]) -> Architecture:
    """The network that a ``config.json`` describes. Raises ModelError."""
    kind = config["model_type"]
    described = json.dumps(config, sort_keys=True).encode()
    # The name contains the whole configuration, because a plan with this name is reused.
    name = f"transformers/{kind}-{hashlib.sha256(described).hexdigest()[:12]}"
    make = partial(_make, dict(config))
    return Architecture(
        name,
        make,
        224,
        256,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        no_fcn=NO_FCN if kind in TRANSFORMERS else "",
        finish=_of_logits,
        rename=partial(_renamed, dict(config)),
    )


def _make(config: dict[str, Any], window: int, num_classes: int) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise ModelError(
            "networks of transformers need the extra; run: pip install 'fcnconv[transformers]'"
        ) from error
    given = {key: value for key, value in config.items() if key not in _NOT_GIVEN}
    try:
        made = AutoConfig.for_model(config["model_type"], **given, num_labels=num_classes)
        model: nn.Module = AutoModelForImageClassification.from_config(made)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"transformers makes no image classifier of a {config['model_type']}: {first_line(error)}"
        ) from error
    return model.float().eval()


def _renamed(config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Renames a file's tensors to the current names, as transformers does when it loads a file.

    If this is impossible, the names are unchanged, and an error follows if they do not fit.
    """
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.utils import logging as theirs

    given = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    level = theirs.get_verbosity()
    theirs.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        made = AutoConfig.for_model(config["model_type"], **given)
        kind = type(AutoModelForImageClassification.from_config(made))  # type: ignore[no-untyped-call]
        model, loading = kind.from_pretrained(
            None, config=made, state_dict=dict(tensors), output_loading_info=True
        )
    except Exception:  # the library's error for weights of another network
        return tensors
    finally:
        theirs.set_verbosity(level)
    return tensors if loading["missing_keys"] else dict(model.state_dict())


_NOT_GIVEN = ("model_type", "id2label", "label2id", "num_labels", "dtype", "torch_dtype")
"""Keys of a configuration that are ignored: the weights determine the number of classes, and are float32."""


def _of_logits(model: nn.Module) -> nn.Module:
    """The network with its logits as its output, instead of a record with several fields."""
    from torch import Tensor, nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.network(x).logits
            return logits

    return Logits().eval()


def preparation(config: Mapping[str, Any], categories: tuple[str, ...] | None, path: str) -> OwnModel:
    """The preprocessing of images that a ``preprocessor_config.json`` describes.

    Args:
        config: content of the file.
        categories: class names.
        path: path of the file, for messages.

    Raises:
        ModelError: fcnconv does not support a step.
    """
    if config.get("do_flip_channel_order"):
        raise ModelError(f"{path}: the network takes blue before red, which fcnconv does not support")
    window, eval_size = _sizes(config)
    factor = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    offset = 1.0 if config.get("rescale_offset") else 0.0
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean, std = (tuple(map(float, config[f"image_{name}"])) for name in ("mean", "std"))
    if config.get("include_top"):  # EfficientNet's intensities are divided once more
        std = tuple(value**2 for value in std)
    return OwnModel(
        categories=categories,
        window=window,
        eval_size=eval_size,
        mean=tuple((value + offset) / factor for value in mean),
        std=tuple(value / factor for value in std),
    )


def _sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """The side of the input, and the short side to which an image is resized first."""
    size = config.get("size", 224)
    side = size if isinstance(size, int) else size.get("shortest_edge") or size["height"]
    crop = config.get("crop_size")
    if config.get("do_center_crop", crop is not None) and crop is not None:
        return (crop if isinstance(crop, int) else crop["height"]), side
    share = config.get("crop_pct")  # ConvNeXt: resized to more and cropped, except at 384 px and more
    return side, round(side / share) if share and side < 384 else side
