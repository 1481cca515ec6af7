"""A network without its weights, and how a file of weights fills it and names its classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import ModelError
from fcnconv.labels import Labels, imagenet, named, numbered
from fcnconv.models.facts import Facts, remembered
from fcnconv.models.packaged import file_sha256
from fcnconv.models.weight_options import AS_THEY_ARE, WeightOptions
from fcnconv.provenance import Activation, Channels

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.models.checkpoint import Tensors
    from fcnconv.models.heads import Fit

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Architecture:
    """A network without its weights, and how they are used unless something else is said.

    name: what `OwnModel.arch` calls it.
    make: builds it for a window in pixels and a number of classes, in evaluation mode.
    finish: makes of it, when it has its weights, what gives logits and nothing else; None if it does.
    weights: how a file of weights is read.
    rename: gives a file's tensors the names that the network has for them; None if they have these.
    The rest is as in `ModelSpec`.
    """

    name: str
    make: Callable[[int, int], nn.Module]
    window: int
    eval_size: int
    mean: Channels
    std: Channels
    stride: int = 32
    no_fcn: str = ""
    finish: Callable[[nn.Module], nn.Module] | None = None
    weights: WeightOptions = AS_THEY_ARE
    rename: Callable[[Tensors], Tensors] | None = None

    def build(self, window: int, channels: int, weights: Path) -> nn.Module:
        """The network of a file of weights, made for as many classes as they have.

        channels: of its images. Raises ModelError if the weights are for others.
        """
        from fcnconv.models.fitting import fill, take_channels

        make, source = partial(self.make, window), str(weights)
        found, _ = self._fitted(window, weights)
        network = take_channels(found.network(make), found.tensors, channels, source)
        network = fill(network, found.tensors, source)
        return network if self.finish is None else self.finish(network)

    def _fitted(self, window: int, weights: Path) -> tuple[Fit, tuple[str, ...] | None]:
        """How a file's tensors become the network's, and the names of classes in it."""
        from fcnconv.models.checkpoint import read_checkpoint
        from fcnconv.models.fitting import fit

        checkpoint = read_checkpoint(weights, self.weights.ema)
        tensors = checkpoint.tensors if self.rename is None else self.rename(checkpoint.tensors)
        fitted = fit(partial(self.make, window), tensors, str(weights), self.name, self.weights)
        return fitted, checkpoint.categories

    def labels(
        self,
        window: int,
        categories: tuple[str, ...] | None,
        weights: Path,
        activation: Activation | None = None,
    ) -> Labels:
        """The labels of a file of weights: the names that were given, else those in the file, else one for
        each class that it has.

        The classes are counted when the file is first seen, which takes torch; after that they are known by
        its SHA-256. Raises ModelError if there are more or fewer names.
        """

        def found() -> Facts:
            fitted, categories = self._fitted(window, weights)
            return {"num_classes": fitted.num_classes, "categories": categories}

        def read(facts: Facts) -> tuple[int, tuple[str, ...] | None]:
            return int(facts["num_classes"]), facts["categories"] and tuple(facts["categories"])

        key = "classes", self.name, str(window), file_sha256(weights), "named"
        count, names = remembered(key, found, read)
        if categories is None and names is not None and len(names) != count:
            log.warning("%s: names %d classes, and the network has %d", weights, len(names), count)
            names = None
        return named_or_numbered(categories or names, count, str(weights), activation)


def named_or_numbered(
    categories: tuple[str, ...] | None, num_classes: int, name: str, activation: Activation | None = None
) -> Labels:
    """The labels of a network of so many classes: those given; else ImageNet's if there are as many, or
    numbers. name: of the network. activation: as for `Labels.under`. Raises ModelError if there are more or
    fewer names.
    """
    return _named_or_numbered(categories, num_classes, name).under(activation)


def _named_or_numbered(categories: tuple[str, ...] | None, num_classes: int, name: str) -> Labels:
    if categories is not None:
        if len(categories) != num_classes:
            raise ModelError(
                f"{name}: the network has {num_classes} classes, and {len(categories)} are named"
            )
        return named(categories)
    if num_classes == len(imagenet()):
        log.info("%s: 1000 classes without names are taken for ImageNet's; name them with --categories", name)
        return imagenet()
    return numbered(num_classes)
