"""Many images: each gives a result or an error, and an error does not stop the rest.

A few are worked on at a time, in threads, so that one is read and resized while another is in the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import TypeVar

from fcnconv.batch.inputs import Input
from fcnconv.classifier import Classifier
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.scores import Classification
from fcnconv.sources import ImageSource

IN_FLIGHT = 3
"""Images that are in memory at a time."""

Result = tuple[str, Classification | FcnconvError]

T = TypeVar("T")


def classify_each(
    classifier: Classifier,
    inputs: Iterable[Input],
    *,
    scales: str,
    k: int,
    at_least: float | None = None,
) -> Iterator[Result]:
    """Each input's name with its classification, or with the error that it met, in the order given.

    A result is given as soon as it and all before it are there, also while `inputs` is still waiting for
    more.

    scales, k, at_least: as for `Classifier.classify`.
    """

    def attempt(item: Input) -> Result:
        try:
            source = classifier.open(item.image, scales, name=item.name)
            return item.name, classifier.classify(source, scales=scales, k=k, at_least=at_least)
        except UsageError:
            raise  # an argument is wrong, and so it is for every other image
        except FcnconvError as error:
            return item.name, error

    return in_threads(attempt, inputs)


def in_threads(attempt: Callable[[Input], T], inputs: Iterable[Input]) -> Iterator[T]:
    """The results of `attempt` for each input, in order, `IN_FLIGHT` of them worked on at a time."""
    pool = ThreadPoolExecutor(IN_FLIGHT)
    waiting: Queue[Future[T] | None] = Queue(IN_FLIGHT)

    def feed() -> None:
        try:
            for item in inputs:
                waiting.put(pool.submit(attempt, item))
        except Exception as error:  # of the inputs' own source: it reaches the reader in its turn
            failed: Future[T] = Future()
            failed.set_exception(error)
            waiting.put(failed)
        waiting.put(None)

    # A daemon, as it may be waiting for standard input when the reader of the results has gone.
    threading.Thread(target=feed, daemon=True).start()
    try:
        while (future := waiting.get()) is not None:
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def counted(results: Iterator[T], total: int | None, doing: str) -> Iterator[T]:
    """The same results, with a bar on standard error that counts them, up to `total` if that is known.

    doing: what the bar says.
    """
    from rich.console import Console
    from rich.progress import Progress

    # Lines for standard error stand above the bar; standard output is none of its business.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    with bar:
        yield from bar.track(results, total=total, description=doing)


def open_each(classifier: Classifier, images: Sequence[str]) -> Iterator[ImageSource | FcnconvError]:
    """Each image, opened, or the error that it met, in the order given."""
    for path in images:
        try:
            yield classifier.open(path)
        except FcnconvError as error:
            yield error
