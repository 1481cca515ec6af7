"""The progress of a task: one account that all of its work reports to.

The unit of work is megapixels that the network processes, of the image and of crops alike, and rows that are
written; for a batch it is images. The pace so far predicts the remaining time.

To observe the progress, create a `Progress` and work inside `following`. Reports from elsewhere, such as
other threads that work on their own images, are ignored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

HEAD, HEAD_SECONDS = 0.1, 10.0
"""Fraction that the bar approaches before the first report, and the seconds after which it reaches 63 % of
that fraction. An image that is scanned in one pass has no other report.
"""

WRITING = 0.1
"""Fraction of the bar for the writing of a file, after the scan. Most formats take less time."""


@dataclass(frozen=True)
class Work:
    """Work to be done.

    Attributes:
        name: The stage under which it is reported.
        doing: The description for people, such as "scanning".
        amount: The amount of work, in units of the stage.
        each: The size of one unit in the unit that all stages of a progress share, such as megapixels.
    """

    name: str
    doing: str
    amount: float
    each: float = 1.0


@dataclass
class _Stage:
    work: Work
    expected: float = 0.0
    done: float = 0.0

    @property
    def rest(self) -> float:
        rest = self.expected - self.done
        return rest if rest > 1e-6 * self.done else 0.0  # anything smaller is rounding


class Progress:
    """The progress of some work.

    Attributes:
        unit: The unit of `Work.each`.
        usual: The description for people while no stage is under way.
        note: An additional text, such as a count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Args:
        clock: Returns the seconds since some moment.
        """
        self.clock = clock
        self.start = self.began = self.last = clock()
        self.stages: dict[str, _Stage] = {}
        self.unit, self.usual, self.note = "megapixels", "opening", ""
        self.rows: tuple[int, int] | None = None
        self._highest = 0.0

    def expect(self, *works: Work) -> None:
        """Adds works to be done, in the order in which they will be done."""
        if not self.stages:
            self.restart()
        for work in works:
            stage = self.stages.get(work.name) or _Stage(work)
            stage.expected += work.amount
            self.stages[work.name] = stage

    def done(self, name: str, amount: float = 1.0) -> None:
        """Counts work as done."""
        self.last = self.clock()
        if (stage := self.stages.get(name)) is not None:
            stage.done += amount

    def more(self, name: str, amount: float) -> None:
        """Corrects the expected amount of a stage, upwards or downwards."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected += amount

    def finished(self, name: str) -> None:
        """Marks a stage as complete, whatever amount was expected."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected = stage.done

    def written(self, rows: int, of: int) -> None:
        """Counts the rows of a file that are written so far."""
        self.last = self.clock()
        self.rows = rows, of

    def restart(self) -> None:
        """Excludes the time until now from the pace."""
        self.began = self.last = self.clock()

    def elapsed(self) -> float:
        """Returns the seconds since the beginning."""
        return self.clock() - self.start

    def left(self) -> float | None:
        """Returns the seconds until all work is done, at the pace so far; None before the first work is done,
        or if nothing is left.
        """
        share = self.share()
        if share is None or share == 1 or not self._reached():
            return None
        return (self.clock() - self.began) * (1 - share) / share

    def share(self) -> float | None:
        """Returns the fraction of the work that is done; None until work is expected.

        Between two reports it continues at the pace so far, ever more slowly. It never decreases:

            share = 1 - (1 - s) · exp(-p · t / (1 - s))

        for t seconds after a report of the fraction s, reached at p per second.
        """
        reached, passed = self._reached(), self.clock() - self.last
        rest, pace = 1 - reached, reached / max(self.last - self.began, 1e-9)
        now = 1 - rest * math.exp(-pace * passed / rest) if rest else 1.0
        if not reached and any(stage.rest for stage in list(self.stages.values())):
            now = HEAD * (1 - math.exp(-(self.clock() - self.began) / HEAD_SECONDS))
        self._highest = max(self._highest, now)
        return self._highest or None

    def _reached(self) -> float:
        """Returns the fraction that has been reported."""
        stages = list(self.stages.values())  # other threads may add works meanwhile
        total = sum(stage.expected * stage.work.each for stage in stages)
        left = sum(stage.rest * stage.work.each for stage in stages)
        scanned = 1 - left / total if total else 0.0
        if self.rows is None:
            return scanned
        rows, of = self.rows
        return (1 - WRITING) * scanned + WRITING * rows / max(of, 1) if total else rows / max(of, 1)

    def doing(self) -> str:
        """Returns the description of the first stage that is not complete."""
        names = [stage.work.doing for stage in list(self.stages.values()) if stage.rest]
        if names:
            return names[0]
        return "writing" if self.rows else self.usual

    def measure(self) -> str:
        """Returns the amount of the stage that is done, in its unit."""
        stages = list(self.stages.values())
        if self.rows and self.rows[0] and not any(stage.rest for stage in stages):
            return "{:,} of {:,} rows".format(*self.rows)
        total = sum(stage.expected * stage.work.each for stage in stages)
        left = sum(stage.rest * stage.work.each for stage in stages)
        return f"{total - left:,.1f} of {total:,.1f} {self.unit}" if total and self.unit else ""


_following: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Directs reports from inside the block, in this thread, to `progress`."""
    token = _following.set(progress)
    try:
        yield progress
    finally:
        _following.reset(token)


@contextmanager
def during(doing: str) -> Iterator[None]:
    """Describes work that cannot be measured while the block lasts."""
    progress = _following.get()
    if progress is None:
        yield
        return
    before, progress.usual = progress.usual, doing
    try:
        yield
    finally:
        progress.usual = before


def expect(*works: Work) -> None:
    """Adds works to be done, see `Progress.expect`."""
    if (progress := _following.get()) is not None:
        progress.expect(*works)


def done(name: str, amount: float = 1.0) -> None:
    """Counts work as done, see `Progress.done`."""
    if (progress := _following.get()) is not None:
        progress.done(name, amount)


def more(name: str, amount: float) -> None:
    """Corrects the expected amount, see `Progress.more`."""
    if (progress := _following.get()) is not None:
        progress.more(name, amount)


def finished(name: str) -> None:
    """Marks a stage as complete, see `Progress.finished`."""
    if (progress := _following.get()) is not None:
        progress.finished(name)


def written(rows: int, of: int) -> None:
    """Counts the rows of a file that are written so far, see `Progress.written`."""
    if (progress := _following.get()) is not None:
        progress.written(rows, of)


def counted(count: int, noun: str) -> str:
    """Formats a count with its noun for a message: ``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    """Returns a time in words, as exactly as it can be predicted."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
