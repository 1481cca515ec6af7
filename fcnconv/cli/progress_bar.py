"""The progress that standard error shows while a task runs: how much is done, and the remaining time.

On a terminal it is a bar, which appears after one second and disappears at the end. Elsewhere it is nothing,
or a line now and then for a log. A separate thread draws it, and nothing waits for it.
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
"""Seconds until a bar appears, and seconds between two updates."""

MOST = 0.99
"""The largest fraction that is shown. The bar disappears once the file appears."""

FIRST_LINE, NEXT_LINE = 10.0, 60.0
"""Seconds until the first line of progress, and seconds between two lines."""


@contextmanager
def shown(kind: ProgressKind, *, quiet: bool, among_answers: bool = False) -> Iterator[Progress]:
    """Yields a progress that the work inside the block reports to, and shows it meanwhile.

    Args:
        kind: How it is shown.
        quiet: Show nothing.
        among_answers: Whether answers appear on the same terminal, where a bar would be mixed with them.
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
    """Logs a line after `FIRST_LINE` seconds, and then every `NEXT_LINE` seconds, until `stop`."""
    wait = FIRST_LINE
    while not stop.wait(wait):
        log.info("%s", described(progress))
        wait = NEXT_LINE


def bar(progress: Progress, stop: threading.Event) -> None:
    """Draws a bar on standard error, once the task proves long enough, until `stop`."""
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
        TextColumn("{task.fields[times]}", markup=False),
    )
    # Lines for standard error stand above the bar. Standard output is not redirected.
    console = Console(stderr=True)
    with suppress(OSError), Bar(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        task = shown.add_task("", **_looks(progress))
        while not stop.wait(REFRESH):
            shown.update(task, **_looks(progress))


def _looks(progress: Progress) -> dict[str, Any]:
    """Returns the fields of the bar's task. While nothing is measured, the bar only shows activity."""
    share = progress.share()
    known: dict[str, Any] = {"total": None} if share is None else {"total": 1, "completed": min(share, MOST)}
    doing = " ".join(filter(None, (progress.doing(), progress.note)))
    return known | {"doing": doing, "times": _times(progress)}


def described(progress: Progress) -> str:
    """Describes the progress in one line."""
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
    """Counts images on a progress.

    Attributes:
        doing: The description of the work on them.
        inputs: Returns all inputs, which can be counted beforehand; None if they cannot.
    """

    def __init__(self, progress: Progress, doing: str, inputs: Callable[[], Iterable[object]] | None):
        self.progress, self.inputs = progress, inputs
        self.seen = self.failed = 0
        self.total: int | None = None
        self.megapixels = self.seconds = 0.0
        progress.usual, progress.unit = doing, ""  # the note counts the images
        progress.expect(Work(IMAGES, doing, 0))
        if inputs:
            threading.Thread(target=self._look_ahead, args=(inputs,), daemon=True).start()

    def _look_ahead(self, inputs: Callable[[], Iterable[object]]) -> None:
        with suppress(FcnconvError, OSError):  # the work itself meets the same error
            self.total = sum(1 for _ in inputs())

    def count(self, result: object, *, new: bool = True, megapixels: float = 0.0) -> None:
        """Counts an image by its result.

        Args:
            result: The result of the image.
            new: Whether it took time. An answer that existed already does not help to predict the time of
                others.
            megapixels: The size of the image, if it is known.
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
