"""Running the command: in the process of the tests, which is fast, or in a process of its own.

`run_here` calls the real ``main`` with its own arguments, environment and standard streams. The streams are
descriptors 0, 1 and 2, so whatever a C library or a child process writes is captured too. Use `run_process`
where the process itself is the subject: what it imports, how it ends, signals, pipes and terminals.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from patience import PATIENCE

Done = subprocess.CompletedProcess[bytes]
Command = Callable[..., Done]

FIXED = ("PYTHON", "LD_", "LC_", "LANG", "OMP_", "MALLOC_", "HF_", "TZ")
"""Beginnings of the environment variables that a process reads once, when it starts or imports a library."""


def run_process(
    *args: str | Path, stdin: bytes | None = None, cwd: Path | None = None, **environment: str
) -> Done:
    """Runs the command in a process of its own, without a terminal.

    Args:
        args: what follows ``fcnconv`` on the command line.
        stdin: what comes through a pipe; by default standard input is empty.
        cwd: the working directory; by default that of the tests.
        environment: variables to set.
    """
    return subprocess.run(
        [sys.executable, "-m", "fcnconv", *map(str, args)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=cwd,
        env=os.environ | environment,
        timeout=PATIENCE,
    )


def run_here(
    *args: str | Path, stdin: bytes | None = None, cwd: Path | None = None, **environment: str
) -> Done:
    """Runs the command in this process. It takes and returns the same as `run_process`."""
    fixed = [name for name in environment if name.startswith(FIXED)]
    if fixed:
        raise ValueError(f"{fixed[0]} has no effect on a running process: use the fixture fcnconv_process")
    from fcnconv.cli.app import main

    argv = ["fcnconv", *map(str, args)]
    with ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        stack.enter_context(patch.dict(os.environ, environment))
        stack.enter_context(patch.object(sys, "argv", argv))
        # The real one ends the process, which is that of the tests.
        stack.enter_context(patch("fcnconv.cli.app.end_process", sys.exit))
        for context in (_own_logging(), _own_signals(), _folder(cwd)):
            stack.enter_context(context)
        with _streams(stdin, out.fileno(), err.fileno()), _own_warnings():
            status = _status(main)
        return subprocess.CompletedProcess(argv, status, *map(_content, (out, err)))


def assert_refused(done: Done, words: str, status: int = 2) -> None:
    """Asserts that a command gave no answer and one line on standard error.

    Args:
        done: the command.
        words: what the line must contain, in this order: the wrong value, and what to do next. ``...`` stands
            for anything between them. The wording around them is free.
        status: the exit status.
    """
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (status, b""), message
    pattern = ".*".join(map(re.escape, words.split(" ... ")))
    assert re.fullmatch(rf"fcnconv: .*{pattern}.*\n", message), message


def run_line(line: str, cwd: Path) -> Done:
    """Runs a line of shell in a folder: in this process if it is one command, else in bash.

    A pipe into ``cat``, with which a page avoids what only a terminal gets, changes nothing here.
    """
    alone = re.fullmatch(r"fcnconv ([^|<>&;$`\n]*?)(?: \| cat)?", line.partition(" # ")[0].strip())
    if not alone:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", "-o", "pipefail", "-c", line]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=cwd,
            env=os.environ | {"PATH": path},
            timeout=PATIENCE,
        )
    words: list[str] = []
    for word in shlex.split(alone[1], posix=False):  # with its quotes, which protect a pattern
        (plain,) = shlex.split(word)
        found = sorted(glob.glob(plain, root_dir=cwd)) if plain == word else []  # noqa: PTH207
        words += found or [plain]
    return run_here(*words, cwd=cwd)


def _status(main: Callable[[], None]) -> int:
    """Calls `main`, and returns the exit status that Python gives to its process."""
    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0


def _content(file: Any) -> bytes:
    file.seek(0)
    content: bytes = file.read()
    return content


@contextmanager
def _streams(stdin: bytes | None, out: int, err: int) -> Iterator[None]:
    """Descriptors 0 to 2 and Python's streams as a process has them that is started with these."""
    before = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    for stream in streams[1:]:
        stream.flush()
    source = _pipe(stdin) if stdin is not None else os.open(os.devnull, os.O_RDONLY)
    try:
        for number, descriptor in enumerate((source, out, err)):
            os.dup2(descriptor, number)
        os.close(source)
        with (
            open(0, encoding="utf-8", errors="surrogateescape", closefd=False) as sys.stdin,
            open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
            open(2, "w", 1, encoding="utf-8", closefd=False) as sys.stderr,
        ):
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(before):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _pipe(content: bytes) -> int:
    """The end of a pipe through which these bytes come."""
    end, start = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(start, "wb") as file:  # noqa: PTH123
            file.write(content)

    threading.Thread(target=feed, daemon=True).start()
    return end


@contextmanager
def _folder(cwd: Path | None) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _own_signals() -> Iterator[None]:
    """What `main` does with signals ends with it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_logging() -> Iterator[None]:
    """No handler and no level of the command's outlives it, and none was there before."""
    log = logging.getLogger("fcnconv")
    handlers, level = log.handlers[:], log.level
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Warnings are written to standard error, or ignored, as Python does by default; pytest makes errors of
    them.
    """

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for silent in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", silent)
        warnings.showwarning = show
        yield
