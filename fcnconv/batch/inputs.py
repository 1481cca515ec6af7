"""Where many images come from: paths and addresses, lists of them, folders, and tar archives; each as it
comes.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import logging
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from fcnconv.errors import ImageError, UsageError
from fcnconv.images.ome_zarr import is_store
from fcnconv.images.reading import cannot_open, count_frames, rereadable
from fcnconv.images.remote import (
    explained,
    file_system,
    is_address,
    local_path,
    opened_elsewhere,
    shown_address,
)
from fcnconv.parsing import Frame

log = logging.getLogger("fcnconv")

CARDS = "fcnconv.report"
"""The folder of what a report shows, in a folder of maps: thumbnails, which are no images to map."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Member:
    """A file in a tar archive that is not compressed. offset, size: where its bytes lie."""

    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes. Raises ImageError."""
        try:
            with Path(self.archive).open("rb") as file:
                if self.offset + self.size > os.fstat(file.fileno()).st_size:  # before room is made for it
                    raise ImageError(f"{self.archive}: cut short: a file in it ends behind its end")
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise cannot_open(self.archive, error) from error


@dataclass(frozen=True)
class Refused:
    """A file that is not read, and why."""

    reason: str

    def read(self) -> bytes:
        """Raises ImageError."""
        raise ImageError(self.reason)


MOST_BYTES = 1 << 30
"""Of a file in an archive that is read as a stream: more is no image but an attempt on the memory."""


@dataclass(frozen=True)
class Input:
    """One image to come. name: what messages and results call it. image: a path or an address, an encoded
    file, or where that lies in an archive.

    frame: the number of one of its frames or pages, from 1; None is the first.
    """

    name: str
    image: str | bytes | Member | Refused
    frame: int | None = None

    def content(self) -> str | bytes:
        """A path, an address or an encoded file, for whoever opens it. Raises ImageError."""
        return self.image if isinstance(self.image, (str, bytes)) else self.image.read()


def from_paths(paths: Iterable[str]) -> Iterator[Input]:
    """Paths and addresses as they are; ``-`` is an image on standard input."""
    return (Input(shown_address(path), path) for path in map(local_path, paths))


def from_sources(sources: Sequence[str], suffixes: Container[str], besides: Path) -> Iterator[Input]:
    """The images that files, folders and patterns name, each as it is found.

    Of a folder, all files below it with one of `suffixes` and all stores of zarr, in the order of their
    names, but nothing hidden, nor what lies in the folder `besides` or a report's; see `_Folder`. Of a
    pattern, which is one of the shell's, with ``**`` for any folders, the files with such a suffix. Of an
    archive, ``.tar``, its files with such a suffix; its own path is the start of their names. All but
    archives may lie elsewhere: see `images.remote`.

    Raises UsageError at once if a pattern matches none.
    """
    sources = [local_path(source) for source in sources]
    for source in sources:
        if _is_pattern(source) and not any(True for _ in _matching(source, suffixes)):
            raise UsageError(f"{source}: no image matches")

    def found() -> Iterator[Input]:
        for source in sources:
            for path in _found(source, suffixes, besides):
                if isinstance(path, Input):
                    yield path
                elif path.lower().endswith(".tar") and not is_address(path):
                    yield from _members(path, suffixes)
                else:
                    yield from from_paths([path])

    return found()


def _found(source: str, suffixes: Container[str], besides: Path) -> Iterable[str | Input]:
    if is_address(source):
        return _found_elsewhere(source, suffixes)
    if _is_pattern(source):
        return sorted(_matching(source, suffixes))
    if not Path(source).is_dir() or is_store(Path(source)):
        return [source]
    return _Folder(source, suffixes, besides).images()


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not is_address(source) and not Path(source).exists()


def _found_elsewhere(source: str, suffixes: Container[str]) -> Iterable[str]:
    """What an address names: a file, all images below a folder, or those that match a pattern."""
    pattern = "*" in source
    if not (pattern or source.endswith("/") or not Path(source).suffix):
        return [source]
    system, path = file_system(source)
    with explained(source, "cannot be listed"):
        names = system.glob(path) if pattern else system.find(path)
    images = [name for name in names if Path(name).suffix.lower() in suffixes]
    if not images:
        raise UsageError(f"{shown_address(source)}: no image is there")
    return map(system.unstrip_protocol, sorted(images))


def _members(path: str, suffixes: Container[str]) -> Iterator[Input]:
    """The images in an archive that is not compressed, by where they lie in it: nothing but the names is
    read.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isreg() and not member.sparse and Path(member.name).suffix.lower() in suffixes:
                    yield Input(f"{path}/{member.name}", Member(path, member.offset_data, member.size))
    except MemoryError:
        raise
    except Exception as error:  # tarfile raises anything; and what else was found is worked on all the same
        reason = f"{path}: not a whole tar archive: {error}; one that is compressed is read with --tar"
        yield Input(path, Refused(reason))


def _matching(pattern: str, suffixes: Container[str]) -> Iterator[str]:
    """The images that a pattern of the shell's matches, each folder that links lead to once."""
    places: dict[str, str] = {}
    first: dict[str, str] = {}
    paths = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - paths as they were named, "./" and all
    for path in paths:
        parent = os.path.dirname(path)  # noqa: PTH120 - likewise
        place = places.setdefault(parent, os.path.realpath(parent))
        if first.setdefault(place, parent) != parent or CARDS in Path(path).parts:
            continue
        if (_is_source(path, suffixes) and Path(path).is_file()) or _is_zarr(path):
            yield path


def _is_zarr(path: str) -> bool:
    """Whether a path is the folder of a zarr store, by its name and what is in it."""
    return Path(path).suffix.lower() in STORES and is_store(Path(path))


STORES = (".zarr",)
"""Suffixes of folders that hold one image each."""


class _Folder:
    """A folder whose images are listed, in the order of their names.

    Links to folders are followed, and each folder is listed once, so that links in a circle end. A folder
    that cannot be listed is an input that fails. Pipes, sockets and devices are no images. What is
    passed over by its suffix is counted.
    """

    def __init__(self, folder: str, suffixes: Container[str], besides: Path):
        self.folder, self.suffixes, self.besides = folder, suffixes, besides.resolve()
        self.seen: set[tuple[int, int]] = set()
        self.passed: Counter[str] = Counter()

    def images(self) -> Iterator[str | Input]:
        """The images below the folder, and an input that fails for each folder that cannot be listed."""
        yield from self._below(self.folder)
        if self.passed:
            each = ", ".join(
                f"{suffix or 'no suffix'} {count:,}" for suffix, count in self.passed.most_common(5)
            )
            _report_passed(self.folder, self.passed.total(), each)

    def _below(self, folder: str) -> Iterator[str | Input]:
        try:
            found = os.stat(folder)  # noqa: PTH116 - paths as they were named, "./" and all
            if (found.st_dev, found.st_ino) in self.seen:
                return
            self.seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"{folder}: the folder cannot be listed: {error.strerror or error}"
            yield Input(folder, Refused(reason))
            return
        files = [entry for entry in entries if entry.name[0] != "." and not _is_folder(entry)]
        for entry in files:
            if not _is_source(entry.name, self.suffixes):
                self.passed[Path(entry.name).suffix.lower()] += 1
            elif _may_be_image(entry):
                yield entry.path
        for entry in entries:
            if entry.name[0] == "." or entry.name == CARDS or not _is_folder(entry):
                continue
            if _is_zarr(entry.path):
                yield entry.path
            elif Path(entry.path).resolve() != self.besides:
                yield from self._below(entry.path)


@lru_cache  # a batch lists its folders twice: to count their images, and to map them
def _report_passed(folder: str, count: int, each: str) -> None:
    log.info(
        "%s: %d files are passed over, as their suffixes are not those of images (%s)", folder, count, each
    )


def _may_be_image(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that leads nowhere, which fails when it is opened."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:  # links in a circle
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_source(path: str, suffixes: Container[str]) -> bool:
    suffix = Path(path).suffix.lower()
    return suffix == ".tar" or suffix in suffixes


def from_list(path: str, separator: bytes) -> Iterator[Input]:
    """The paths in a file (``-``: standard input), one after each `separator`; empty ones are left out.

    A list of lines may be as Windows writes it: with carriage returns, a byte-order mark, in UTF-16, and with
    quotes around a path. Each path is given as soon as it was read, so that a slow list can be answered while
    it is written.
    """
    with _opened(path) as file:
        rest = b""
        decode: Callable[[bytes], bytes] | None = None
        lines = separator == b"\n"
        read = getattr(file, "read1", file.read)  # what is there, without waiting for more
        while chunk := read(_CHUNK):
            if decode is None:
                decode = _decoder(chunk) if lines else bytes
            *names, rest = (rest + decode(chunk)).split(separator)
            yield from from_paths(_paths(names, lines))
        yield from from_paths(_paths([rest], lines))


def _decoder(start: bytes) -> Callable[[bytes], bytes]:
    """What makes UTF-8 without a byte-order mark of the pieces of a list that begins like this."""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if start.startswith(mark):
            decoder = codecs.getincrementaldecoder(name)("replace")
            return lambda chunk: decoder.decode(chunk).lstrip("\ufeff").encode("utf-8", "surrogatepass")
    mark = codecs.BOM_UTF8 if start.startswith(codecs.BOM_UTF8) else b""
    return lambda chunk: chunk.removeprefix(mark)


def _paths(names: Iterable[bytes], lines: bool) -> Iterator[str]:
    for name in names:
        if lines:
            name = name.removesuffix(b"\r")
            quoted = len(name) > 2 and name[:1] == name[-1:] and name[:1] in (b'"', b"'")
            name = name[1:-1] if quoted and not os.path.lexists(name) else name
        if name.strip() if lines else name:
            yield os.fsdecode(name)


def from_tar(path: str) -> Iterator[Input]:
    """The files in a tar archive (``-``: standard input), compressed or not, read as a stream."""
    with _opened(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None and member.size > MOST_BYTES:
                        reason = f"{member.name}: has {member.size:,} bytes, over the limit of {MOST_BYTES:,}"
                        yield Input(member.name, Refused(f"{reason}; unpack it and name the file"))
                    elif content is not None:
                        yield Input(member.name, content.read())
        except MemoryError:
            raise
        except Exception as error:  # tarfile raises anything: a TypeError for a gzip file cut in its header
            name = "standard input" if path == "-" else path
            raise ImageError(f"{name}: not a whole tar archive: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A list or an archive."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if is_address(path):
        with opened_elsewhere(path) as elsewhere:
            yield elsewhere
        return
    try:
        file = Path(local_path(path)).open("rb")  # noqa: SIM115 - only the opening is explained
    except OSError as error:
        raise cannot_open(path, error) from error
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
        try:
            image = rereadable(item.image) if isinstance(item.image, str) else item.content()
        except ImageError:  # whoever opens it tells
            yield item
            continue
        count = count_frames(image)
        for number in range(1, count + 1) if frame == "all" else [frame]:
            name = item.name if count == 1 else f"{item.name}#{number}"
            yield Input(name, image, number)


def digest(name: str) -> int:
    """A number of 64 bits for the name of an image, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")


def sharded(inputs: Iterable[Input], shard: tuple[int, int]) -> Iterator[Input]:
    """The inputs that are the I-th of N parts: by their names, so that a list which grows moves none of them
    to another part. shard: (I, N).
    """
    part, parts = shard
    return (item for item in inputs if parts == 1 or digest(os.path.normpath(item.name)) % parts == part - 1)
