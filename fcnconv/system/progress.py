"""How far a piece of work is, and how long it will still take: one account that all who work on it report to.

Work is told in stages, each in units of its own (multiply-adds, crops, pixels), with the seconds that a unit
is expected to take. The time between two reports belongs to the stage that the second one is of: so no second
is lost, nobody need say when he begins, and stages may alternate. What is left of a stage is told by its own
pace so far; before it has one, by what was expected, times what the stages of its kind took against that.

Whoever wants to know makes a `Progress` and works inside `following`. Reports from elsewhere, as of other
threads that work on images of their own, go nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

OWN_PACE = 0.08
"""Share of a stage whose measured pace weighs as much as the expected one: the first calls of a network are
slow ones."""

SURE_OF_NETWORK, SURE = 0.05, 1.0
"""Seconds of expected work of a kind, after which what it took weighs as much as what was expected."""


@dataclass(frozen=True)
class Work:
    """Work that is to be done.

    name: of its stage, which reports name. told: what people are told that is done then.
    amount: in units of the stage. seconds: that a unit is expected to take; None where nobody knows.
    network: whether a network does it. Against what is expected, that differs more between machines, and
        otherwise, than all other work does.
    first: seconds that the first report is expected to take beside, of which its pace says nothing.
    """

    name: str
    told: str
    amount: float
    seconds: float | None
    network: bool = False
    first: float = 0.0


@dataclass
class _Stage:
    """What is known of a stage. expected, done: amounts. seconds: that what is done took."""

    work: Work
    expected: float = 0.0
    done: float = 0.0
    seconds: float = 0.0

    def count(self, amount: float, seconds: float) -> None:
        if not self.done:
            seconds = max(seconds - self.work.first, seconds / 2)
        self.done += amount
        self.seconds += seconds

    @property
    def rest(self) -> float:
        rest = self.expected - self.done
        return rest if rest > 1e-6 * self.done else 0.0  # less is rounding


class Progress:
    """The account. clock: seconds since some moment.

    usual: what is told that is done where no stage is. note: what is told beside it, such as a count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.start = self.last = clock()
        self.stages: dict[str, _Stage] = {}
        self.usual, self.note = "opening", ""

    def expect(self, *works: Work) -> None:
        """Adds work that is to be done, in the order in which it will be."""
        for work in works:
            stage = self.stages.get(work.name) or _Stage(work)
            stage.expected += work.amount
            self.stages[work.name] = stage

    def done(self, name: str, amount: float = 1.0) -> None:
        """Counts work as done, and all the time since the last report as the time that it took."""
        now = self.clock()
        if (stage := self.stages.get(name)) is not None:
            stage.count(amount, now - self.last)
        self.last = now

    def more(self, name: str, amount: float) -> None:
        """Corrects how much of a stage is expected, upwards or downwards."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected += amount

    def finished(self, name: str) -> None:
        """Nothing of a stage is left, whatever was expected."""
        if (stage := self.stages.get(name)) is not None:
            stage.expected = stage.done

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.start

    def left(self) -> float | None:
        """Seconds until all that is expected is done; None where nobody knows, or nothing is expected."""
        total, expected = 0.0, False
        for stage in list(self.stages.values()):  # others may add to them meanwhile
            if stage.rest:
                expected = True
                pace = self._pace(stage)
                if pace is None:
                    return None
                total += stage.rest * pace + (0 if stage.done else stage.work.first)
        return max(total - (self.clock() - self.last), 0.0) if expected else None

    def share(self) -> float | None:
        """Of all the time, what has passed: 0 to 1; None while nobody knows."""
        left, passed = self.left(), self.elapsed()
        return None if left is None else passed / max(passed + left, 1e-9)

    def doing(self) -> str:
        """What is being done, in words: the first stage that is not complete."""
        names = [stage.work.told for stage in list(self.stages.values()) if stage.rest]
        return names[0] if names else self.usual

    def _pace(self, stage: _Stage) -> float | None:
        """Seconds that a unit takes."""
        if stage.work.seconds is None:
            return stage.seconds / stage.done if stage.done else None
        weight = OWN_PACE * stage.expected
        expected = stage.work.seconds * self._slowness(stage.work.network)
        return (stage.seconds + weight * expected) / (stage.done + weight)

    def _slowness(self, network: bool) -> float:
        """What the stages of a kind took, against what was expected."""
        alike = [s for s in list(self.stages.values()) if s.work.network == network and s.work.seconds]
        expected = sum(stage.done * (stage.work.seconds or 0.0) for stage in alike)
        sure = SURE_OF_NETWORK if network else SURE
        return (sum(stage.seconds for stage in alike) + sure) / (expected + sure)


_following: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Reports from inside, in this thread, go to `progress`."""
    token = _following.set(progress)
    try:
        yield progress
    finally:
        _following.reset(token)


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


def duration(seconds: float) -> str:
    """A time in words, as exactly as it can be foreseen."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
