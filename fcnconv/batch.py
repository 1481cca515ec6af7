"""Many images: each gives a result or an error, and an error does not stop the rest.

A few are worked on at a time, in threads, so that one is read and resized while another is in the network.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fcnconv.classifier import Classifier
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.scores import Classification

IN_FLIGHT = 3
"""Images that are in memory at a time."""

Result = tuple[str, Classification | FcnconvError]


def classify_each(
    classifier: Classifier, images: Sequence[str], *, scales: str, k: int, progress: bool = False
) -> Iterator[Result]:
    """Each image's path with its classification, or with the error that it met, in the order given.

    progress: draw a bar on standard error, if that is a terminal and there are several images.
    """

    def attempt(path: str) -> Result:
        try:
            return path, classifier.classify(path, scales=scales, k=k)
        except UsageError:
            raise  # an argument is wrong, and so it is for every other image
        except FcnconvError as error:
            return path, error

    results = _in_threads(attempt, images) if len(images) > 1 else map(attempt, images)
    show = progress and len(images) > 1 and sys.stderr.isatty()
    yield from _counted(results, len(images)) if show else results


def _in_threads(attempt: Callable[[str], Result], images: Sequence[str]) -> Iterator[Result]:
    pool, waiting = ThreadPoolExecutor(IN_FLIGHT), deque[Future[Result]]()
    try:
        for path in images:
            waiting.append(pool.submit(attempt, path))
            if len(waiting) == IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the reader of the results has gone
        pool.shutdown(cancel_futures=True)


def _counted(results: Iterator[Result], total: int) -> Iterator[Result]:
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "classifying", total=total, console=Console(stderr=True), transient=True)
