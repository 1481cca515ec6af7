"""Many images, one after another: each gives a result or an error, and an error does not stop the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from fcnconv.classifier import Classifier
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.images import ImageSource
from fcnconv.scores import Classification


def classify_each(
    classifier: Classifier,
    images: Sequence[str],
    *,
    scales: str,
    k: int,
    at_least: float | None = None,
    progress: bool = False,
) -> Iterator[tuple[str, Classification | FcnconvError]]:
    """Each image's path with its classification, or with the error that it met, in the order given.

    scales, k, at_least: as for `Classifier.classify`.
    progress: draw a bar on standard error, if that is a terminal and there are several images.
    """
    for path in _counted(images) if progress and len(images) > 1 and sys.stderr.isatty() else images:
        try:
            yield path, classifier.classify(path, scales=scales, k=k, at_least=at_least)
        except UsageError:
            raise  # an argument is wrong, and so it is for every other image
        except FcnconvError as error:
            yield path, error


def open_each(classifier: Classifier, images: Sequence[str]) -> Iterator[ImageSource | FcnconvError]:
    """Each image, opened, or the error that it met, in the order given."""
    for path in images:
        try:
            yield classifier.open(path)
        except FcnconvError as error:
            yield error


def _counted(images: Sequence[str]) -> Iterator[str]:
    from rich.console import Console
    from rich.progress import track

    yield from track(images, "classifying", console=Console(stderr=True), transient=True)
