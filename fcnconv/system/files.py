"""Output destinations: files and folders that appear complete or not at all, devices, pipes and standard
output.

A file or a folder is written under a temporary name next to its final path, and then renamed. If the path is
a device or a FIFO, the bytes are written to it, and it is not replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fcnconv.errors import OutputError, UsageError
from fcnconv.system.leftovers import beside, remove_leftovers
from fcnconv.system.scratch import FULL, no_room
from fcnconv.system.stdout import data_stream

STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""Names of standard output. While a command runs, descriptor 1 is standard error: see `stdout`."""


@contextmanager
def written(out: str, *, folder: bool = False) -> Iterator[Path]:
    """Yields a path to write the output `out` to. The output appears when the block ends without an error.

    Args:
        out: A file, or a folder; ``-`` is standard output. Standard output, a FIFO or a device gets its bytes
            at the end.
        folder: Whether the output is a zarr store.

    Raises:
        OutputError: The system refuses the output.
        BrokenPipeError: The reader has closed the pipe.
    """
    path = Path(out)
    try:
        if folder:
            with whole_folder(path) as temporary:
                yield temporary
        elif out in STANDARD_OUTPUT or _is_passage(path):
            with _passed_on(out) as temporary:
                yield temporary
        else:
            with whole_file(path) as temporary:
                yield temporary
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if out in STANDARD_OUTPUT else out
        raise OutputError(f"{name}: cannot be written: {_reason(error)}") from error


@contextmanager
def _passed_on(out: str) -> Iterator[Path]:
    """Yields a temporary path whose content goes to standard output, a FIFO or a device when the block ends
    without an error.
    """
    place = Path(tempfile.gettempdir())
    remove_leftovers(place)
    with tempfile.TemporaryDirectory(prefix=f"{beside(place / 'fcnconv', 'tmp').name}-") as folder:
        temporary = Path(folder, "out")
        try:
            yield temporary
        except OSError as error:
            if error.errno in FULL:
                raise no_room(error, f"the output for {out}") from error
            raise
        with temporary.open("rb") as made:
            if out in STANDARD_OUTPUT:
                shutil.copyfileobj(made, data_stream().buffer)
                data_stream().buffer.flush()
            else:
                with Path(out).open("wb") as file:
                    shutil.copyfileobj(made, file)


def check_writable(out: str, *, folder: bool = False) -> None:
    """Checks before a computation that `out` can be written.

    Args:
        out: As for `written`.
        folder: As for `written`.

    Raises:
        UsageError: The output cannot be written.
    """
    if out in STANDARD_OUTPUT:
        return
    try:
        target = _resolved(Path(out))
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()  # a name that is too long, or a folder without permission
        if folder and target.exists() and not _replaceable(target):
            raise UsageError(_no_store(out))
        if not folder and (target.is_dir() or out.endswith("/")):
            raise UsageError(f"{out}: this is a folder, not a file; name a file in it")
        if not target.parent.is_dir():
            missing = "is a file, not a folder" if target.parent.exists() else "is missing; make it first"
            raise UsageError(f"{out}: cannot be written: the folder {target.parent} {missing}")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not _is_passage(target):  # only trying reveals file systems that are read-only or full
            tempfile.TemporaryFile(dir=target.parent).close()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UsageError(f"{out}: cannot be written: {_reason(error)}") from error


def refuse_overwriting(out: str, inputs: Iterable[str | Path]) -> None:
    """Raises UsageError if the output `out` is one of the inputs, under any name.

    Args:
        out: The output.
        inputs: Paths; ``-`` is standard input, which may come from a file.
    """
    for name in inputs:
        if out not in STANDARD_OUTPUT and _is_same(out, str(name)):
            read = "standard input" if str(name) == "-" else str(name)
            raise UsageError(f"{out}: would replace its own input, {read}; name another file")


def _is_same(out: str, name: str) -> bool:
    path = Path(out)
    try:
        there = os.fstat(sys.stdin.fileno()) if name == "-" else Path(name).stat()
        return (path.is_file() or path.is_dir()) and os.path.samestat(path.stat(), there)
    except OSError:  # one of them does not exist
        return name != "-" and os.path.realpath(path) == os.path.realpath(name)
    except (ValueError, AttributeError):  # a null byte in a name; no standard input
        return False


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, which replaces `path` when the block ends without an error and
    is removed otherwise. Temporary files of killed processes in the folder are removed too.
    """
    target = _resolved(path)
    temporary = beside(target, "tmp")
    remove_leftovers(target.parent)
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path` for a zarr store. The store replaces `path` when the block ends
    without an error and is removed otherwise.

    Raises:
        OutputError: `path` is neither a zarr store nor an empty folder, and would be lost.
    """
    target = _resolved(path)
    remove_leftovers(target.parent)
    if target.exists() and not _replaceable(target):
        raise OutputError(_no_store(path))
    temporary, old = beside(target, "tmp"), beside(target, "old")
    gone = temporary.with_name(
        f"{temporary.name}-gone"
    )  # under the name `old` it is restored if this process is killed
    try:
        yield temporary
        while not _exchanged(target, temporary, old):
            with suppress(FileNotFoundError):  # another process has put its own there meanwhile
                shutil.rmtree(old.replace(gone), ignore_errors=True)
    except BaseException:
        _remove(temporary)
        with suppress(OSError):  # nothing was there, or another process has put its own there
            old.replace(target)
        raise
    if old.exists():
        shutil.rmtree(old.replace(gone), ignore_errors=True)


def _exchanged(target: Path, temporary: Path, old: Path) -> bool:
    """Moves `target` to `old`, and `temporary` to `target`. Returns whether `target` was free in between."""
    with suppress(FileNotFoundError):
        target.replace(old)
        if not _replaceable(old):  # it appeared meanwhile; the caller restores it
            raise OutputError(_no_store(target))
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _remove(folder: Path) -> None:
    """Removes a store that zarr's threads may still write to after one of them failed."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
        if not folder.exists():  # and once more a moment later
            return


def _replaceable(folder: Path) -> bool:
    """Returns whether a folder is empty, is a zarr store, or is just being replaced by one."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return not names or "zarr.json" in names


def _no_store(path: str | Path) -> str:
    return f"{path}: exists and is not a zarr store; choose another name, or remove it"


def _is_passage(path: Path) -> bool:
    """Returns whether a path is a device, a FIFO or a socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _resolved(path: Path) -> Path:
    return Path(
        os.path.realpath(path)
    )  # `resolve` raises a different error for circular links in each Python version


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
