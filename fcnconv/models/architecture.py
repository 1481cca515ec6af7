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
from fcnconv.models.facts import remembered
from fcnconv.models.packaged import file_sha256
from fcnconv.provenance import Activation, Channels

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Architecture:
    """A network without its weights, and how they are used unless something else is said.

    name: what `OwnModel.arch` calls it.
    make: builds it for a window in pixels and a number of classes, in evaluation mode.
    finish: makes of it, when it has its weights, what gives logits and nothing else; None if it does.
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

    def build(self, window: int, channels: int, weights: Path) -> nn.Module:
        """The network of a file of weights, made for as many classes as they have.

        channels: of its images. Raises ModelError if the weights are for others.
        """
        from fcnconv.models.checkpoint import count_classes, fill, read_tensors, skeleton, take_channels

        make = partial(self.make, window)
        tensors = read_tensors(weights)
        count = count_classes(make, tensors, str(weights))
        network = take_channels(skeleton(lambda: make(count)), tensors, channels, str(weights))
        network = fill(network, tensors, str(weights))
        return network if self.finish is None else self.finish(network)

    def labels(
        self,
        window: int,
        categories: tuple[str, ...] | None,
        weights: Path,
        activation: Activation | None = None,
    ) -> Labels:
        """The labels of a file of weights: the names that were given, else one for each class that it has.

        The classes are counted when the file is first seen, which takes torch; after that they are known by
        its SHA-256. Raises ModelError if there are more or fewer names.
        """

        def counted() -> dict[str, object]:
            from fcnconv.models.checkpoint import count_classes, read_tensors

            tensors = read_tensors(weights)
            return {"num_classes": count_classes(partial(self.make, window), tensors, str(weights))}

        key = "classes", self.name, str(window), file_sha256(weights)
        count = remembered(key, counted, lambda facts: int(facts["num_classes"]))
        return named_or_numbered(categories, count, str(weights), activation)


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
