"""Prints the table of networks: one of each family, converted and proved.

Random weights whose logits are of ordinary size (batch normalisation set from a forward pass) take the place
of published ones, which need a download; the proof is of the conversion, not of the weights. How far a dense
map is from crops is a matter of trained weights, so that column is filled for models whose weights are
on disk. The columns float64 and float32 are the largest difference of a logit as a share of the largest: of
the conversion's arithmetic, and of its rounding when it is run.

    python benchmarks/families.py                      # three to five minutes
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from ordinary import ordinary  # noqa: E402

from fcnconv.api.loading import load  # noqa: E402
from fcnconv.convert import convolutionize  # noqa: E402
from fcnconv.errors import FcnconvError  # noqa: E402
from fcnconv.models import find_model  # noqa: E402
from fcnconv.models.torchvision import make_network  # noqa: E402

FAMILIES = (
    "efficientnet_lite0 alexnet vgg11_bn squeezenet1_1 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 "
    "googlenet inception_v3 shufflenet_v2_x1_0 mobilenet_v2 mobilenet_v3_large mnasnet1_0 efficientnet_b0 "
    "efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny vit_b_16 swin_t maxvit_t"
)
PHOTOS = [ROOT / "sample_images" / name for name in ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg")]


def row(name: str) -> tuple[str, ...]:
    """The table's row of one model."""
    spec = find_model(name)
    on_disk = spec.published is not None and spec.published.on_disk()
    if spec.no_fcn:
        return name, f"no: {spec.no_fcn}", "", "", str(spec.window), "", "", "", ""
    torch.manual_seed(0)
    if on_disk:
        model = spec.build(spec.weights())
    else:
        model = ordinary(make_network(name, spec.window), spec.window)
    try:
        network = convolutionize(model, spec.window)
    except FcnconvError as error:
        return name, f"no: {error}", "", "", str(spec.window), "", "", "", ""
    geometry, proof = network.geometry, network.proof
    return (
        name,
        "yes",
        f"{proof.relative_error:.0e}",
        f"{proof.rounding:.0e}",
        str(geometry.window),
        str(geometry.stride),
        str(geometry.receptive_field),
        "yes" if geometry.local else "no",
        f"{agreement(name):.0%}" if on_disk else "",
    )


def agreement(name: str) -> float:
    """The share of the photos' windows where the plain network's map has the first class of the crop."""
    dense, crops = load(name), load(name, mode="windows")
    same = [
        (dense(photo, anchors=0).logits.argmax(-1) == crops(photo).logits.argmax(-1)).ravel()
        for photo in PHOTOS
    ]
    return float(np.concatenate(same).mean())


def main() -> None:
    """Prints the table in Markdown, a row as soon as it is there."""
    columns = "model converted float64 float32 window stride receptive_field local agreement".split()
    print("|", " | ".join(column.replace("_", " ") for column in columns), "|")
    print("|---" * len(columns) + "|")
    for name in FAMILIES.split():
        print("|", " | ".join(row(name)), "|", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
