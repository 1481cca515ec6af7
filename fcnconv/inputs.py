"""Where many images come from: paths, a list of paths, or the members of a tar stream; each as it comes."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fcnconv.errors import ImageError

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Input:
    """One image to come. name: what messages and results call it. image: a path, or an encoded file."""

    name: str
    image: str | bytes


def from_paths(paths: Iterable[str]) -> Iterator[Input]:
    """Paths as they are; ``-`` is an image on standard input."""
    return (Input(path, path) for path in paths)


def from_list(path: str, separator: bytes) -> Iterator[Input]:
    """The paths in a file (``-``: standard input), one after each `separator`; empty ones are left out.

    Each is given as soon as it was read, so that a slow list can be answered while it is written.
    """
    with _opened(path) as file:
        rest = b""
        while chunk := os.read(file.fileno(), _CHUNK):
            *names, rest = (rest + chunk).split(separator)
            yield from from_paths(os.fsdecode(name) for name in names if name)
        if rest:
            yield Input(os.fsdecode(rest), os.fsdecode(rest))


def from_tar(path: str) -> Iterator[Input]:
    """The files in a tar archive (``-``: standard input), compressed or not, read as a stream."""
    with _opened(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    if member.isfile():
                        content = archive.extractfile(member)
                        yield Input(member.name, content.read() if content else b"")
        except (tarfile.TarError, EOFError, OSError) as error:
            name = "standard input" if path == "-" else path
            raise ImageError(f"{name}: not a whole tar archive: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - only the opening is explained, not what the reader does
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened: {error.strerror}") from error
    with file:
        yield file
