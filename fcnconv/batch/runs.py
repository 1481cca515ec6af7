"""A run over the images of a batch: an engine does the work, and `BatchRun` records the outcomes.

An engine is a function of the inputs and of whether each is processed alone. It yields the result of each
input in order. Images that are left for later are passed to it again after the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from fcnconv.batch.folders import Later, MapFolder, Outcome, answer_name
from fcnconv.batch.inputs import Input, digest
from fcnconv.batch.job import Job
from fcnconv.batch.packed import Pack, PackedFiles, Packer, among
from fcnconv.batch.record import Counts, FolderRecord
from fcnconv.batch.store import open_store
from fcnconv.batch.workers import attempt, each
from fcnconv.errors import FcnconvError, first_line
from fcnconv.images.remote import is_address
from fcnconv.system.progress import counted

log = logging.getLogger("fcnconv")

Target = MapFolder | Pack

Result = tuple[str, Outcome | Later | FcnconvError]
"""The name and the result of an image."""

Engine = Callable[[Iterable[Input], int, bool], Generator[Result, None, None]]
"""(inputs, since, alone) -> the result of each input, in order. since, alone: as for `MapFolder.make`."""

WAIT = 0.5
"""Seconds between two checks of images that other processes work on."""


def unanswered(job: Job, inputs: Iterable[Input]) -> Iterator[Input]:
    """Yields the inputs that have no answer yet. Raises UsageError if the folder holds answers in another
    format.
    """
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
    """Returns an engine that uses threads of this process. Images that must be processed alone are processed
    one after another.
    """

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
    """A run and its results so far.

    Attributes:
        engine: Does the work; None is this process.
        max_failures: The run stops after more failures than this; None is never.
        earlier: The failures of earlier runs, some of which are `mended` now.
        watch: Called with the result of each image as soon as it is known.
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
        """Yields the result of each image as soon as its answer is in a file.

        At the end, even if the generator is closed early, the folder's record is written: counts, failures,
        and the report if the format has one.

        Raises:
            UsageError: The folder holds answers that were made with other settings.
            OutputError: The folder cannot be read or written.
            FcnconvError: There were too many failures.
        """
        target = self.target
        target.check()
        record = FolderRecord(target.store, target.shard)
        since = record.agree(target.settings(), overwrite=self.overwrite)
        self.earlier = record.failures()
        start = recorded = time.monotonic()
        packer: Packer | None = None

        def is_over(name: str) -> bool:
            """Returns whether a failure of an earlier run is obsolete: the image has an answer, or no longer
            exists.
            """
            return name in self.mended or not (is_address(name) or Path(name).exists())

        def keep_record(*, at_end: bool) -> None:
            self.counts.seconds = time.monotonic() - start
            try:
                record.count(self.counts)
                record.keep_failures(self.failures, is_over)
                if at_end:
                    target.finish(record.failures(), since)
            except (OSError, FcnconvError) as error:  # the answers matter most, and each was reported
                log.warning("the record of the run could not be written: %s", first_line(error))

        with ExitStack() as stack:
            if isinstance(target, Pack):
                packer = stack.enter_context(target.packing(since))
            try:
                for name, result in self._results(inputs, since, packer):
                    yield name, result
                    if time.monotonic() - recorded > record.beat():
                        keep_record(at_end=False)
                        recorded = time.monotonic()
                self.counts.finished = True
            finally:
                keep_record(at_end=True)
                if self.counts.finished:
                    target.store.clear()

    def _results(
        self, inputs: Iterable[Input], since: int, packer: Packer | None
    ) -> Iterator[tuple[str, Outcome | FcnconvError]]:
        """Yields the results. Results of packed answers are yielded once their part is complete."""
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
        """Yields each result as soon as it is known; images that are left for later come last."""
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
                            f"stopped after {counted(len(self.failures), 'failure')}, the last in {name}; "
                            "existing answers are kept; fix the cause and repeat the command, or raise "
                            "--max-failures"
                        )
            if not later:
                return
            if not alone:
                log.info(
                    "waiting for %s that other processes have claimed, or held when they ended",
                    counted(len(later), "image"),
                )
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
