"""How far a piece of work is: one account that everything that works on it reports to.

The work is measured in megapixels that the network has to look at, of the image and of crops alike, and in
rows that are written; a batch is measured in images. The pace so far tells how long the rest takes.

Whoever wants to know makes a `Progress` and works inside `following`. Reports from elsewhere, such as other
threads that work on images of their own, go nowhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

HEAD, HEAD_SECONDS = 0.1, 10.0
"""Share that the bar comes close to before the first report, and the seconds in which it gets to 63 % of it:
an image that is scanned in one piece has no other report.
"""

WRITING = 0.1
"""Share of the bar for the writing of a file, once all is scanned. Most formats take less time."""


@dataclass(frozen=True)
class Work:
    """Work that is to be done.

    Attributes:
        name: Of its stage, under which it is reported.
        doing: What people read meanwhile, such as "scanning".
        amount: How much of it there is, in units of the stage.
        each: What one unit is in the unit that all stages of an account share, such as megapixels.
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
        return rest if rest > 1e-6 * self.done else 0.0  # less is rounding


class Progress:
    """The account of some work.

    Attributes:
        unit: What `Work.each` is measured in.
        usual: What people read while no stage is under way.
        note: What they read beside it, such as a count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """clock: Seconds since some moment."""
        self.clock = clock
        self.start = self.began = self.last = clock()
        self.stages: dict[str, _Stage] = {}
        self.unit, self.usual, self.note = "megapixels", "opening", ""
        self.rows: tuple[int, int] | None = None
        self._highest = 0.0

    def expect(self, *works: Work) -> None:
        """Adds work that is to be done, in the order in which it will be."""
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
        """Corrects how much of a stage is expected, upwards or downwards."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected += amount

    def finished(self, name: str) -> None:
        """Nothing of a stage is left, whatever was expected."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected = stage.done

    def written(self, rows: int, of: int) -> None:
        """So many rows of a file are written."""
        self.last = self.clock()
        self.rows = rows, of

    def restart(self) -> None:
        """The time until now says nothing of the pace."""
        self.began = self.last = self.clock()

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.start

    def left(self) -> float | None:
        """Seconds until all is done, at the pace so far; None until some of it is, or if nothing is left."""
        share = self.share()
        if share is None or share == 1 or not self._reached():
            return None
        return (self.clock() - self.began) * (1 - share) / share

    def share(self) -> float | None:
        """The share of the work that is done; None until work is expected.

        Between two reports it goes on at the pace so far, ever more slowly. It never goes back:

            share = 1 - (1 - s) · exp(-p · t / (1 - s))

        for t seconds after a report of the share s, reached at p a second.
        """
        reached, passed = self._reached(), self.clock() - self.last
        rest, pace = 1 - reached, reached / max(self.last - self.began, 1e-9)
        now = 1 - rest * math.exp(-pace * passed / rest) if rest else 1.0
        if not reached and any(stage.rest for stage in list(self.stages.values())):
            now = HEAD * (1 - math.exp(-(self.clock() - self.began) / HEAD_SECONDS))
        self._highest = max(self._highest, now)
        return self._highest or None

    def _reached(self) -> float:
        """The share that has been reported."""
        stages = list(self.stages.values())  # others may add to them meanwhile
        total = sum(stage.expected * stage.work.each for stage in stages)
        left = sum(stage.rest * stage.work.each for stage in stages)
        scanned = 1 - left / total if total else 0.0
        if self.rows is None:
            return scanned
        rows, of = self.rows
        return (1 - WRITING) * scanned + WRITING * rows / max(of, 1) if total else rows / max(of, 1)

    def doing(self) -> str:
        """What is being done, in words: the first stage that is not complete."""
        names = [stage.work.doing for stage in list(self.stages.values()) if stage.rest]
        if names:
            return names[0]
        return "writing" if self.rows else self.usual

    def measure(self) -> str:
        """How much of it is done, in its unit."""
        stages = list(self.stages.values())
        if self.rows and self.rows[0] and not any(stage.rest for stage in stages):
            return "{:,} of {:,} rows".format(*self.rows)
        total = sum(stage.expected * stage.work.each for stage in stages)
        left = sum(stage.rest * stage.work.each for stage in stages)
        return f"{total - left:,.1f} of {total:,.1f} {self.unit}" if total and self.unit else ""


_following: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Reports from inside, in this thread, go to `progress`."""
    token = _following.set(progress)
    try:
        yield progress
    finally:
        _following.reset(token)


@contextmanager
def during(doing: str) -> Iterator[None]:
    """Work that cannot be measured: people read what is being done."""
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
    """Adds work that is to be done, see `Progress.expect`."""
    if (progress := _following.get()) is not None:
        progress.expect(*works)


def done(name: str, amount: float = 1.0) -> None:
    """Counts work as done, see `Progress.done`."""
    if (progress := _following.get()) is not None:
        progress.done(name, amount)


def more(name: str, amount: float) -> None:
    """Corrects how much is expected, see `Progress.more`."""
    if (progress := _following.get()) is not None:
        progress.more(name, amount)


def finished(name: str) -> None:
    """Nothing of a stage is left, see `Progress.finished`."""
    if (progress := _following.get()) is not None:
        progress.finished(name)


def written(rows: int, of: int) -> None:
    """So many rows of a file are written, see `Progress.written`."""
    if (progress := _following.get()) is not None:
        progress.written(rows, of)


def duration(seconds: float) -> str:
    """A time in words, as exactly as it can be foreseen."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
