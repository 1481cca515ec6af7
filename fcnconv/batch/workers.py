"""Processing a few images at a time, in threads, so that one is read and resized while another is in the
network. Each input gives a result or an error, and an error does not stop the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import Queue
from typing import TYPE_CHECKING, TypeVar

from fcnconv.api.classifier import Classifier
from fcnconv.batch.inputs import Input
from fcnconv.errors import FcnconvError, ImageError, UsageError, first_line, lacks_memory
from fcnconv.options import ClassifyOptions, ScanOptions
from fcnconv.scores import Classification
from fcnconv.system.machine import busy, release_memory

if TYPE_CHECKING:
    from fcnconv.scores.regions import Located
    from fcnconv.writers import OutputSpec

IN_FLIGHT = 3
"""Images that are in memory at a time. Each may use its share of a classifier's memory."""

T = TypeVar("T")


def classify_each(
    classifier: Classifier, inputs: Iterable[Input], options: ClassifyOptions
) -> Iterator[tuple[str, Classification | FcnconvError]]:
    """Yields each input's name with its classification or its error, in the given order."""
    share = classifier.share(IN_FLIGHT)
    return each(inputs, lambda item: _classify(share, item, options))


def classify_one(
    classifier: Classifier, item: Input, options: ClassifyOptions
) -> tuple[str, Classification | FcnconvError]:
    """Classifies one input in this thread, with all of the classifier's memory."""
    return attempt(lambda item: _classify(classifier, item, options), item)


def _classify(classifier: Classifier, item: Input, options: ClassifyOptions) -> Classification:
    source = classifier.open(item.content(), options.scales, name=item.name, frame=item.frame)
    return classifier.classify(source, scales=options.scales, k=options.top_k, at_least=options.threshold())


def locate_each(
    classifier: Classifier, inputs: Iterable[Input], scan: ScanOptions, output: OutputSpec
) -> Iterator[tuple[str, Located | FcnconvError]]:
    """Yields each input's name with its regions or its error, in the given order."""
    share = classifier.share(IN_FLIGHT)
    return each(inputs, lambda item: _locate(share, item, scan, output))


def locate_one(
    classifier: Classifier, item: Input, scan: ScanOptions, output: OutputSpec
) -> tuple[str, Located | FcnconvError]:
    """Locates the regions of one input in this thread, with all of the classifier's memory."""
    return attempt(lambda item: _locate(classifier, item, scan, output), item)


def _locate(classifier: Classifier, item: Input, scan: ScanOptions, output: OutputSpec) -> Located:
    from fcnconv.api.locating import locate  # a classification needs no outlines

    source = classifier.open(item.content(), scan.sizes, name=item.name, frame=item.frame)
    return replace(locate(classifier, source, scan, output), name=item.name)


def each(
    inputs: Iterable[Input], work: Callable[[Input], T]
) -> Generator[tuple[str, T | FcnconvError], None, None]:
    """Yields each input's name with the result of `work` or its error, in the given order.

    A result is yielded as soon as it and all earlier results are available, even while `inputs` is waiting
    for more. A UsageError is raised, because a wrong argument is wrong for every image.
    """
    return in_threads(partial(attempt, work), inputs)


def attempt(work: Callable[[Input], T], item: Input) -> tuple[str, T | FcnconvError]:
    """Returns an input's name with the result of `work` or its error. Raises UsageError."""
    try:
        return item.name, work(item)
    except UsageError:
        raise
    except FcnconvError as error:
        return item.name, error
    except MemoryError:
        return item.name, ImageError(f"{item.name}: out of memory; choose a smaller --scales")
    except Exception as error:  # a bug in fcnconv, or a library without memory: the others continue
        reason = f"unexpected {type(error).__name__}: {first_line(error)}; --debug shows where"
        if lacks_memory(error):
            reason = f"out of memory: {first_line(error)}"
        failure = FcnconvError(f"{item.name}: {reason}")
        failure.__cause__ = error
        return item.name, failure
    finally:
        release_memory()


def in_threads(attempt: Callable[[Input], T], inputs: Iterable[Input]) -> Generator[T, None, None]:
    """Yields the results of `attempt` for each input, in order. `IN_FLIGHT` inputs are processed at a time.

    Closing the generator waits for inputs in progress, so that nothing is written afterwards.
    """
    pool = ThreadPoolExecutor(IN_FLIGHT)
    waiting: Queue[Future[T] | None] = Queue(IN_FLIGHT)

    def feed() -> None:
        try:
            for item in inputs:
                waiting.put(pool.submit(attempt, item))
        except Exception as error:  # an error of the inputs' own source: the reader gets it in order
            failed: Future[T] = Future()
            failed.set_exception(error)
            waiting.put(failed)
        waiting.put(None)

    # A daemon, because it may be waiting for standard input after the reader of the results has gone.
    threading.Thread(target=feed, daemon=True).start()
    with busy(IN_FLIGHT):
        try:
            while (future := waiting.get()) is not None:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
