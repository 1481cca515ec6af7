"""Where many images come from: paths, a list of paths, or the members of a tar stream; each as it comes."""

from __future__ import annotations

import glob
import os
import sys
import tarfile
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from fcnconv.errors import ImageError, UsageError
from fcnconv.images import cannot_open, count_frames, is_url, rereadable
from fcnconv.parsing import Frame

CARDS = "fcnconv.report"
"""The folder of what a report shows, in a folder of maps: thumbnails, which are no images to map."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Input:
    """One image to come. name: what messages and results call it. image: a path, or an encoded file.

    frame: the number of one of its frames or pages, from 1; None is the first.
    """

    name: str
    image: str | bytes
    frame: int | None = None


def from_paths(paths: Iterable[str]) -> Iterator[Input]:
    """Paths as they are; ``-`` is an image on standard input."""
    return (Input(path, path) for path in paths)


def from_sources(sources: Sequence[str], suffixes: Container[str], besides: Path) -> Iterator[Input]:
    """The images that files, folders and patterns name, each as it is found.

    Of a folder, all files below it with one of `suffixes`, in the order of their names; none that are hidden,
    and none in the folder `besides` or a report's. Of a pattern, which is one of the shell's, with ``**`` for
    any folders, the files with such a suffix.

    Raises UsageError at once if a pattern matches none.
    """
    for source in sources:
        if _is_pattern(source) and not any(True for _ in _matching(source, suffixes)):
            raise UsageError(f"{source}: no image matches")
    return (Input(path, path) for source in sources for path in _found(source, suffixes, besides))


def _found(source: str, suffixes: Container[str], besides: Path) -> Iterable[str]:
    if _is_pattern(source):
        return sorted(_matching(source, suffixes))
    return _below(source, suffixes, besides) if Path(source).is_dir() else [source]


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not is_url(source) and not Path(source).exists()


def _matching(pattern: str, suffixes: Container[str]) -> Iterator[str]:
    paths = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - paths as they were named, "./" and all
    files = (path for path in paths if Path(path).suffix.lower() in suffixes and Path(path).is_file())
    return (path for path in files if CARDS not in Path(path).parts)


def _below(folder: str, suffixes: Container[str], besides: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "." and name != CARDS and Path(parent, name).resolve() != besides.resolve()
        )
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in suffixes:
                yield os.path.join(parent, name)  # noqa: PTH118 - likewise


def from_list(path: str, separator: bytes) -> Iterator[Input]:
    """The paths in a file (``-``: standard input), one after each `separator`; empty ones are left out.

    Each is given as soon as it was read, so that a slow list can be answered while it is written.
    """
    option = "--from0" if separator == b"\0" else "--files-from"
    with _opened(path, option) as file:
        rest = b""
        while chunk := os.read(file.fileno(), _CHUNK):
            *names, rest = (rest + chunk).split(separator)
            yield from from_paths(os.fsdecode(name) for name in names if name)
        if rest:
            yield Input(os.fsdecode(rest), os.fsdecode(rest))


def from_tar(path: str) -> Iterator[Input]:
    """The files in a tar archive (``-``: standard input), compressed or not, read as a stream."""
    with _opened(path, "--tar") as file:
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
def _opened(path: str, option: str) -> Iterator[BinaryIO]:
    """A list or an archive. option: of the command line, that names it."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - only the opening is explained, not what the reader does
    except OSError as error:
        raise cannot_open(path, error, f"fcnconv classify {option} -") from error
    with file:
        yield file


def listed_inputs(
    paths: Sequence[str], files_from: str | None, from0: str | None, tar: str | None
) -> Iterator[Input]:
    """The images of a list or an archive, if one is given, else those of `paths`."""
    if files_from:
        return from_list(files_from, b"\n")
    if from0:
        return from_list(from0, b"\0")
    return from_tar(tar) if tar else from_paths(paths)


def framed(inputs: Iterable[Input], frame: Frame | None) -> Iterator[Input]:
    """The frames or pages that are asked for of each input: one, or each. Those of a file that has several
    are called by its name and their number, as in ``photo.gif#3``.
    """
    for item in inputs:
        if frame is None:
            yield item
            continue
        image = rereadable(item.image) if isinstance(item.image, str) else item.image
        count = count_frames(image)
        for number in range(1, count + 1) if frame == "all" else [frame]:
            name = item.name if count == 1 else f"{item.name}#{number}"
            yield Input(name, image, number)


def sharded(inputs: Iterable[Input], shard: tuple[int, int]) -> Iterator[Input]:
    """Every N-th input, from the I-th on. shard: (I, N)."""
    first, step = shard
    return islice(inputs, first - 1, None, step)
