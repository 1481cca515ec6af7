"""A network without its weights: how a weights file fills it, and how the file names its classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import ModelError
from fcnconv.labels import Labels, imagenet, named, numbered
from fcnconv.models.spec import AS_THEY_ARE, WeightOptions
from fcnconv.models.weight_files import file_sha256
from fcnconv.provenance import Activation, Channels
from fcnconv.system.records import Facts, remembered

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.models.checkpoint import Tensors
    from fcnconv.models.heads import Fit

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Architecture:
    """A network without its weights, with the defaults for using it.

    The remaining fields are as in `ModelSpec`.

    Attributes:
        name: its name in `OwnModel.arch`.
        make: builds the network for a window in pixels and a number of classes, in evaluation mode.
        finish: makes the network with its weights return logits and nothing else; None if it already does.
        weights: how to read a weights file.
        rename: renames the tensors of a file to the names that the network uses; None if they match.
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
        """Builds the network of a weights file, with as many classes as the weights have.

        Args:
            window: side of the input, in pixels.
            channels: channels of its images.
            weights: the file.

        Raises:
            ModelError: the weights are for another number of channels.
        """
        from fcnconv.models.fitting import fill, take_channels

        make, source = partial(self.make, window), str(weights)
        fitted, _ = self._fitted(window, weights)
        network = take_channels(fitted.network(make), fitted.tensors, channels, source)
        network = fill(network, fitted.tensors, source)
        return network if self.finish is None else self.finish(network)

    def _fitted(self, window: int, weights: Path) -> tuple[Fit, tuple[str, ...] | None]:
        """How the tensors of a file become the network's, and the class names in the file."""
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
        """The labels of a weights file.

        The names are the given ones, else the names in the file, else one label per class. Counting the
        classes takes torch and happens when the file is first seen; after that, the count is known by the
        SHA-256 of the file.

        Args:
            window: side of the input, in pixels.
            categories: the given names, in index order; None if no names were given.
            weights: the file.
            activation: as for `Labels.under`.

        Raises:
            ModelError: the number of given names differs from the number of classes.
        """

        def count_classes() -> Facts:
            fitted, categories = self._fitted(window, weights)
            return {"num_classes": fitted.num_classes, "categories": categories}

        def read(facts: Facts) -> tuple[int, tuple[str, ...] | None]:
            return int(facts["num_classes"]), facts["categories"] and tuple(facts["categories"])

        key = "classes", self.name, str(window), file_sha256(weights), "named"
        count, names = remembered(key, count_classes, read)
        if categories is None and names is not None and len(names) != count:
            log.warning("%s: names %d classes, and the network has %d", weights, len(names), count)
            names = None
        return named_or_numbered(categories or names, count, str(weights), activation)


def named_or_numbered(
    categories: tuple[str, ...] | None, num_classes: int, name: str, activation: Activation | None = None
) -> Labels:
    """The labels of a network: the given names, else ImageNet's if it has 1000 classes, else numbers.

    Args:
        categories: the given names, in index order; None if no names were given.
        num_classes: number of classes of the network.
        name: name of the network, for messages.
        activation: as for `Labels.under`.

    Raises:
        ModelError: the number of names differs from the number of classes.
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
