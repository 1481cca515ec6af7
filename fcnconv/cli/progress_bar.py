"""What standard error shows while something takes long: how far it is, and how long it will still take.

On a terminal a bar, once a second has passed, which goes when all is done; elsewhere nothing, or a line now
and then for a log. It is drawn by a thread of its own, and nothing waits for it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from fcnconv.errors import FcnconvError
from fcnconv.system.progress import Progress, Work, duration, following

log = logging.getLogger("fcnconv")

ProgressKind = Literal["auto", "plain", "none"]

LONG, REFRESH = 1.0, 0.2
"""Seconds after which a bar appears, and then is drawn again."""

MOST = 0.99
"""The share that is shown at most: the rest is that the file appears, and then the bar goes."""

FIRST_LINE, NEXT_LINE = 10.0, 60.0
"""Seconds after which a line tells how far it is, and then again."""


@contextmanager
def shown(kind: ProgressKind, *, quiet: bool, among_answers: bool = False) -> Iterator[Progress]:
    """An account that the work inside reports to, and that is shown meanwhile.

    quiet: show nothing. among_answers: answers appear on the same terminal, where a bar would be among them.
    """
    progress, stop = Progress(), threading.Event()
    show = None
    if kind == "plain" and not quiet:
        show = lines
    elif kind == "auto" and not (quiet or among_answers) and sys.stderr and sys.stderr.isatty():
        show = bar
    if show is None:
        yield progress
        return
    thread = threading.Thread(target=show, args=(progress, stop), daemon=True)
    thread.start()
    try:
        with following(progress):
            yield progress
    finally:
        stop.set()
        thread.join()


def lines(progress: Progress, stop: threading.Event) -> None:
    """A line of log after `FIRST_LINE` seconds, and then after each `NEXT_LINE`, until `stop`."""
    wait = FIRST_LINE
    while not stop.wait(wait):
        log.info("%s", described(progress))
        wait = NEXT_LINE


def bar(progress: Progress, stop: threading.Event) -> None:
    """A bar on standard error from when it is clear that it is worth it, until `stop`."""
    wait = LONG
    while not stop.wait(wait):
        left = progress.left()
        if left is None or left > LONG / 2:
            break
        wait = REFRESH
    else:
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[doing]}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[told]}", markup=False),
    )
    # Lines for standard error stand above the bar; standard output is none of its business.
    console = Console(stderr=True)
    with suppress(OSError), Bar(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        task = shown.add_task("", **_looks(progress))
        while not stop.wait(REFRESH):
            shown.update(task, **_looks(progress))


def _looks(progress: Progress) -> dict[str, Any]:
    """The fields of the bar's task. While nothing is measured, the bar only shows that something goes on."""
    share = progress.share()
    known: dict[str, Any] = {"total": None} if share is None else {"total": 1, "completed": min(share, MOST)}
    doing = " ".join(filter(None, (progress.doing(), progress.note)))
    return known | {"doing": doing, "told": _times(progress)}


def described(progress: Progress) -> str:
    """How far it is, on a line."""
    return ": ".join(filter(None, (progress.doing(), progress.note, _times(progress))))


def _times(progress: Progress) -> str:
    share, left, passed = progress.share(), progress.left(), f"{duration(progress.elapsed())} so far"
    if share is None:
        return passed
    rest = "nearly done" if share == 1 else "" if left is None else f"about {duration(left)} left"
    return ", ".join(filter(None, (f"{100 * min(share, MOST):.0f} %", progress.measure(), rest, passed)))


IMAGES = "images"
"""The stage of progress whose unit is an image."""


class Counter:
    """Counts images on an account.

    doing: what is told that is done with them. inputs: gives all that will come, where they can be gone
    through beforehand, to know how many; None where that is not known.
    """

    def __init__(self, progress: Progress, doing: str, inputs: Callable[[], Iterable[object]] | None):
        self.progress, self.inputs = progress, inputs
        self.seen = self.failed = 0
        self.total: int | None = None
        self.megapixels = self.seconds = 0.0
        progress.usual, progress.unit = doing, ""  # the note tells the images
        progress.expect(Work(IMAGES, doing, 0))
        if inputs:
            threading.Thread(target=self._look_ahead, args=(inputs,), daemon=True).start()

    def _look_ahead(self, inputs: Callable[[], Iterable[object]]) -> None:
        with suppress(FcnconvError, OSError):  # whoever works on them meets the same
            self.total = sum(1 for _ in inputs())

    def count(self, result: object, *, new: bool = True, megapixels: float = 0.0) -> None:
        """Counts an image by what became of it. new: whether it took time; what was there already tells
        nothing of how long others will take. megapixels: of the image, where that is known.
        """
        self.seen += 1
        self.megapixels += megapixels
        self.failed += isinstance(result, FcnconvError)
        stage = self.progress.stages[IMAGES]
        if new:
            self.seconds += self.progress.clock() - self.progress.last
            self.progress.done(IMAGES)
        elif not stage.done:
            self.progress.restart()
        note = str(self.seen)
        if self.total is not None:
            stage.expected = stage.done + self.total - self.seen
            note += f" of {self.total}"
        note += f", {self.failed} failed" if self.failed else ""
        if self.seconds:
            note += f", {stage.done / self.seconds:.1f} a second"
            if self.megapixels:
                note += f" ({self.megapixels / self.seconds:.1f} megapixels)"
        self.progress.note = note
