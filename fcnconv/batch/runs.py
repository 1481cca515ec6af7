"""One run over the images of a batch: an engine does the work, and here it is told what came of it.

An engine is a function of inputs and of whether each is to be worked on alone. It gives what became of each,
in their order; what is left for later is asked for again once the rest is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from fcnconv.batch.inputs import Input, digest
from fcnconv.batch.job import Job
from fcnconv.batch.map_folder import MapFolder, answer_name
from fcnconv.batch.outcome import Later, Outcome
from fcnconv.batch.packed import Pack, PackedFiles, Packer, among
from fcnconv.batch.record import Counts, FolderRecord
from fcnconv.batch.store import open_store
from fcnconv.batch.workers import attempt, each
from fcnconv.errors import FcnconvError, first_line
from fcnconv.images.remote import is_address

log = logging.getLogger("fcnconv")

Target = MapFolder | Pack

Result = tuple[str, Outcome | Later | FcnconvError]
"""An image's name, and what became of it."""

Engine = Callable[[Iterable[Input], int, bool], Generator[Result, None, None]]
"""(inputs, since, alone) -> what became of each, in their order. since, alone: as of `MapFolder.make`."""

WAIT = 0.5
"""Seconds between two looks at images that other processes work on."""


def unanswered(job: Job, inputs: Iterable[Input]) -> Iterator[Input]:
    """The inputs that have no answer yet. Raises UsageError if the folder holds answers in another format."""
    store, suffix = open_store(job.out), job.writer().suffix
    record = FolderRecord(store, job.shard)
    if job.kind is None:
        since = record.since(suffix)
        yield from (item for item in inputs if not store.has(answer_name(item.name, suffix), since))
        return
    parts = PackedFiles(store, job.kind, suffix)
    there = parts.answered(record.since(parts.format))
    yield from (item for item in inputs if not among(digest(parts.key(item.name)), there))


def local_engine(target: Target) -> Engine:
    """Threads of this process. Of images that are worked on alone, one after another."""

    def engine(inputs: Iterable[Input], since: int, alone: bool) -> Generator[Result, None, None]:
        def work(item: Input) -> Outcome | Later:
            return target.make(item, since, alone=alone)

        if alone:
            for item in inputs:
                yield attempt(work, item)
        else:
            yield from each(inputs, work)

    return engine


@dataclass
class BatchRun:
    """A run, and what came of it so far.

    engine: does the work; None is this process. max_failures: after which it is given up; None is never.
    earlier: the failures of runs before, of which some are `mended` now.
    watch: is told what became of each image, as soon as it is known.
    """

    target: Target
    engine: Engine | None = None
    overwrite: bool = False
    max_failures: int | None = None
    watch: Callable[[Outcome | FcnconvError], None] = lambda _: None
    counts: Counts = field(default_factory=Counts)
    failures: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, str] = field(default_factory=dict)
    mended: set[str] = field(default_factory=set)

    def __call__(self, inputs: Iterable[Input]) -> Generator[tuple[str, Outcome | FcnconvError], None, None]:
        """What became of each image, as soon as its answer is in a file.

        In the end, also if it is closed early, the folder tells of it: counts, failures, and the report where
        the format has one.

        Raises UsageError if the folder holds answers that were made in another way, OutputError, and
        FcnconvError after too many failures.
        """
        target = self.target
        target.check()
        record = FolderRecord(target.store, target.shard)
        since = record.agree(target.settings(), overwrite=self.overwrite)
        self.earlier = record.failures()
        start = told = time.monotonic()
        packer: Packer | None = None

        def is_over(name: str) -> bool:
            """Whether a failure of an earlier run is none any more: there is an answer, or no image."""
            return name in self.mended or not (is_address(name) or Path(name).exists())

        def tell(*, at_end: bool) -> None:
            self.counts.seconds = time.monotonic() - start
            try:
                record.count(self.counts)
                record.keep_failures(self.failures, is_over)
                if at_end:
                    target.finish(record.failures(), since)
            except (OSError, FcnconvError) as error:  # the answers are what matters, and each was told of
                log.warning("what came of the run could not be written: %s", first_line(error))

        with ExitStack() as stack:
            if isinstance(target, Pack):
                packer = stack.enter_context(target.packing(since))
            try:
                for name, result in self._results(inputs, since, packer):
                    yield name, result
                    if time.monotonic() - told > record.beat():
                        tell(at_end=False)
                        told = time.monotonic()
                self.counts.finished = True
            finally:
                tell(at_end=True)
                if self.counts.finished:
                    target.store.clear()

    def _results(
        self, inputs: Iterable[Input], since: int, packer: Packer | None
    ) -> Iterator[tuple[str, Outcome | FcnconvError]]:
        """The results, with all those of a part once it is whole."""
        if packer is None:
            yield from self._worked(inputs, since)
            return
        there: list[tuple[str, Outcome]] = []

        def rest() -> Iterator[Input]:
            for item in inputs:
                if packer.has(item.name):
                    there.append((item.name, Outcome(self.target.store.place(""), new=False)))
                else:
                    yield item

        def those_there() -> Iterator[tuple[str, Outcome]]:
            while there:
                name, made = there.pop(0)
                self._count(name, made)
                yield name, made

        try:
            for name, result in self._worked(rest(), since):
                yield from those_there()
                if isinstance(result, FcnconvError):
                    yield name, result
                else:
                    yield from packer.add(name, result)
            yield from those_there()
        finally:
            done = packer.close()
        yield from done

    def _worked(self, inputs: Iterable[Input], since: int) -> Iterator[tuple[str, Outcome | FcnconvError]]:
        """The results as they come; those of images that are left for later at the end."""
        engine = self.engine or local_engine(self.target)
        waiting, alone = inputs, False
        while True:
            later: list[Input] = []
            with closing(engine(waiting, since, alone)) as results:
                for name, result in results:
                    if isinstance(result, Later):
                        later.append(result.item)
                        continue
                    self._count(name, result)
                    yield name, result
                    if self.max_failures is not None and len(self.failures) > self.max_failures:
                        raise FcnconvError(
                            f"given up after {len(self.failures)} failures, the last of {name}; "
                            "what was made is kept: mend it and start again, or raise --max-failures"
                        )
            if not later:
                return
            if not alone:
                log.info("waiting for %d images that other processes work on, or ended at", len(later))
            waiting, alone = later, True
            time.sleep(WAIT)

    def _count(self, name: str, result: Outcome | FcnconvError) -> None:
        if isinstance(result, FcnconvError):
            self.failures[name] = str(result)
            self.counts.failed += 1
        else:
            self.failures.pop(name, None)
            if name in self.earlier:
                self.mended.add(name)
            self.counts.made += result.new
            self.counts.there += not result.new
            self.counts.megapixels += result.megapixels
        self.watch(result)
