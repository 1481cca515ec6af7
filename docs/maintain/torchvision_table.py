"""Prints fcnconv/data/torchvision.tsv: the published classifiers of the torchvision that is installed.

python docs/maintain/torchvision_table.py > fcnconv/data/torchvision.tsv

Window, sizes, normalisation, parameters, accuracy and URL come from the weights' own metadata; stride,
receptive field and locality from the network, traced without its weights. It takes about two minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torchvision

from fcnconv.convert import converted_geometry
from fcnconv.models.checkpoint import skeleton
from fcnconv.models.torchvision import COLUMNS, make_network

TRANSFORMERS = ("vit_", "swin_", "maxvit_")


def rows(model: str) -> Iterator[list[str]]:
    """A row for each of a model's weights that classify, the default ones first."""
    entries = torchvision.models.get_model_weights(model)
    default = entries.DEFAULT
    for weights in sorted(entries, key=lambda entry: entry is not default):
        if weights.meta["categories"] is None:  # VGG16's features alone have no classifier
            continue
        preset = weights.transforms()
        (window,), (eval_size,) = preset.crop_size, preset.resize_size
        accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert math.isfinite(accuracy)
        yield [
            model,
            weights.name,
            str(window),
            str(eval_size),
            ",".join(map(str, preset.mean)),
            ",".join(map(str, preset.std)),
            str(weights.meta["num_params"]),
            str(accuracy),
            *geometry(model, window),
            weights.url,
        ]


def geometry(model: str, window: int) -> tuple[str, str, str]:
    """Stride, receptive field and locality at a window, each ``-`` where there is no converted form."""
    if model.startswith(TRANSFORMERS):
        return "-", "-", "-"
    found = converted_geometry(skeleton(lambda: make_network(model, window)).to("meta"), window)
    return str(found.stride), str(found.receptive_field), "yes" if found.local else "no"


if __name__ == "__main__":
    print(*COLUMNS, sep="\t")
    for name in torchvision.models.list_models(module=torchvision.models):
        for row in rows(name):
            print(*row, sep="\t", flush=True)
