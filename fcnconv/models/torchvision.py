"""torchvision's classifiers: ``data/torchvision.tsv`` has one row for each set of published weights.

``docs/maintain/torchvision_table.py`` builds this table from torchvision's metadata and by tracing each
network. So naming or listing a model imports neither torch nor torchvision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.labels import imagenet
from fcnconv.models.architecture import Architecture
from fcnconv.models.download import fetch, hub_path
from fcnconv.models.spec import ModelSpec, Published
from fcnconv.provenance import Channels

if TYPE_CHECKING:
    from torch import nn

COLUMNS = (
    *("model", "weights", "window", "eval_size", "mean", "std", "parameters", "accuracy"),
    *("stride", "receptive_field", "local", "url"),
)

NO_FCN = "its attention is tied to the size of the native input"
"""Why the vision transformers (ViT, Swin, MaxViT) cannot be converted."""

FROM_TENSORFLOW = ("googlenet", "inception_v3")


def torchvision_models() -> dict[str, ModelSpec]:
    """Every published classifier, by each of its names.

    ``resnet50.IMAGENET1K_V1`` names one set of weights, and ``resnet50`` is torchvision's default for the
    model.
    """
    table: dict[str, ModelSpec] = {}
    for spec in _rows():
        table.setdefault(spec.arch, replace(spec, name=spec.arch))
        table[spec.name] = spec
    return table


def _rows() -> Iterator[ModelSpec]:
    """One spec per row, the default weights of a model before its other weights."""
    lines = files("fcnconv").joinpath("data/torchvision.tsv").read_text(encoding="utf-8").splitlines()
    for line in lines[1:]:
        row = dict(zip(COLUMNS, line.split("\t"), strict=True))
        convertible = row["stride"] != "-"
        yield ModelSpec(
            name=f"{row['model']}.{row['weights']}",
            window=int(row["window"]),
            eval_size=int(row["eval_size"]),
            mean=_channels(row["mean"]),
            std=_channels(row["std"]),
            labels=imagenet,
            weights=partial(fetch, row["url"]),
            build=partial(_build, row["model"], int(row["window"])),
            stride=int(row["stride"]) if convertible else 32,
            arch=row["model"],
            no_fcn="" if convertible else NO_FCN,
            published=Published(
                source="torchvision",
                weights=row["weights"],
                parameters=int(row["parameters"]),
                accuracy=float(row["accuracy"]),
                stride=int(row["stride"]) if convertible else None,
                receptive_field=int(row["receptive_field"]) if convertible else None,
                local=row["local"] == "yes" if convertible else None,
                on_disk=hub_path(row["url"]).is_file,
            ),
        )


def _channels(text: str) -> Channels:
    red, green, blue = map(float, text.split(","))
    return red, green, blue


def make_network(arch: str, window: int, num_classes: int = 1000, published: bool = False) -> nn.Module:
    """torchvision's network with this name, in evaluation mode, without auxiliary heads.

    Args:
        arch: the name.
        window: side of its input in pixels, which determines the number of positions in a ViT.
        num_classes: number of classes.
        published: whether to build it for its published weights. GoogLeNet and Inception v3 were trained in
            TensorFlow, and convert torchvision's normalisation to their own.
    """
    import torchvision  # type: ignore[import-untyped]

    options: dict[str, int] = {"num_classes": num_classes}
    if arch in FROM_TENSORFLOW:
        options |= {"aux_logits": False, "init_weights": False}
    if arch.startswith("vit_"):
        options |= {"image_size": window}
    model: nn.Module = torchvision.models.get_model(arch, weights=None, **options)
    if arch in FROM_TENSORFLOW:
        model.transform_input = published  # type: ignore[assignment]
    return model.eval()


def torchvision_architecture(spec: ModelSpec) -> Architecture:
    """The network of one of these models, without its weights."""
    # With published weights, these two normalise to -1..1 inside. Here, mean and std state it instead.
    half = (0.5, 0.5, 0.5)
    mean, std = (half, half) if spec.arch in FROM_TENSORFLOW else (spec.mean, spec.std)
    make = partial(make_network, spec.arch)
    return Architecture(spec.arch, make, spec.window, spec.eval_size, mean, std, spec.stride, spec.no_fcn)


def _build(arch: str, window: int, weights: Path) -> nn.Module:
    from fcnconv.models.checkpoint import read_tensors
    from fcnconv.models.fitting import fill, fit

    def make(num_classes: int) -> nn.Module:
        return make_network(arch, window, num_classes, published=True)

    fitted = fit(make, read_tensors(weights), str(weights), arch)
    return fill(fitted.network(make), fitted.tensors, str(weights))
