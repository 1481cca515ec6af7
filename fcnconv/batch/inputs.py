"""The sources of many images: paths and addresses, lists of them, folders, and tar archives. Each image is
yielded as soon as it is known.
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
from fcnconv.options.parsing import Frame
from fcnconv.system.progress import counted

log = logging.getLogger("fcnconv")

CARDS = "fcnconv.report"
"""The folder of a report's files in a folder of maps. It contains thumbnails, which are not images to map."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Member:
    """A file in a tar archive that is not compressed.

    Attributes:
        archive: The path of the archive.
        offset: The position of the file's first byte in the archive.
        size: The number of its bytes.
    """

    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Returns its bytes. Raises ImageError."""
        try:
            with Path(self.archive).open("rb") as file:
                if (
                    self.offset + self.size > os.fstat(file.fileno()).st_size
                ):  # checked before memory is allocated
                    raise ImageError(
                        f"{self.archive}: the archive is truncated: a file in it extends past its end"
                    )
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise cannot_open(self.archive, error) from error


@dataclass(frozen=True)
class Refused:
    """A file that is not read, and the reason."""

    reason: str

    def read(self) -> bytes:
        """Raises ImageError."""
        raise ImageError(self.reason)


MOST_BYTES = 1 << 30
"""Largest size in bytes of a file in an archive that is read as a stream. A larger file is not an image but
an attack on the memory.
"""


@dataclass(frozen=True)
class Input:
    """An image to process.

    Attributes:
        name: Its name in messages and results.
        image: A path or an address, an encoded file, or its place in an archive.
        frame: The number of one of its frames or pages, from 1; None is the first.
    """

    name: str
    image: str | bytes | Member | Refused
    frame: int | None = None

    def content(self) -> str | bytes:
        """Returns a path, an address or an encoded file. Raises ImageError."""
        return self.image if isinstance(self.image, (str, bytes)) else self.image.read()


def from_paths(paths: Iterable[str]) -> Iterator[Input]:
    """Yields paths and addresses without modification; ``-`` is an image on standard input."""
    return (Input(shown_address(path), path) for path in map(local_path, paths))


def from_sources(sources: Sequence[str], suffixes: Container[str], besides: Path) -> Iterator[Input]:
    """Yields the images that files, folders and patterns name, each as soon as it is found.

    - A folder stands for all files below it with one of `suffixes` and all zarr stores, sorted by name.
      Hidden files, the folder `besides` and the folders of reports are omitted; see `_Folder`.
    - A pattern is a shell pattern; ``**`` matches any folders. It stands for the matching files with
      such a suffix.
    - An archive, ``.tar``, stands for its files with such a suffix. Their names begin with the archive's
      path.

    Everything but archives may be remote: see `images.remote`.

    Raises:
        UsageError: A pattern matches no image. It is raised at once.
    """
    sources = [local_path(source) for source in sources]
    for source in sources:
        if _is_pattern(source) and not any(True for _ in _matching(source, suffixes)):
            raise UsageError(f"{source}: no image matches this pattern")

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
    """Returns the images of an address: one file, all images below a folder, or the matches of a pattern."""
    pattern = "*" in source
    if not (pattern or source.endswith("/") or not Path(source).suffix):
        return [source]
    system, path = file_system(source)
    with explained(source, "cannot be listed"):
        names = system.glob(path) if pattern else system.find(path)
    images = [name for name in names if Path(name).suffix.lower() in suffixes]
    if not images:
        raise UsageError(f"{shown_address(source)}: contains no image")
    return map(system.unstrip_protocol, sorted(images))


def _members(path: str, suffixes: Container[str]) -> Iterator[Input]:
    """Yields the images in an uncompressed archive by their position in it. Only the names are read."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isreg() and not member.sparse and Path(member.name).suffix.lower() in suffixes:
                    yield Input(f"{path}/{member.name}", Member(path, member.offset_data, member.size))
    except MemoryError:
        raise
    except Exception as error:  # tarfile raises any exception; the images found so far are processed anyway
        reason = f"{path}: not a complete tar archive: {error}; to read a compressed one, use --tar"
        yield Input(path, Refused(reason))


def _matching(pattern: str, suffixes: Container[str]) -> Iterator[str]:
    """Yields the images that a shell pattern matches. A folder that several links lead to is listed once."""
    places: dict[str, str] = {}
    first: dict[str, str] = {}
    paths = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - paths as the user wrote them, with "./"
    for path in paths:
        parent = os.path.dirname(path)  # noqa: PTH120 - likewise
        place = places.setdefault(parent, os.path.realpath(parent))
        if first.setdefault(place, parent) != parent or CARDS in Path(path).parts:
            continue
        if (_is_source(path, suffixes) and Path(path).is_file()) or _is_zarr(path):
            yield path


def _is_zarr(path: str) -> bool:
    """Returns whether a path is the folder of a zarr store, by its name and content."""
    return Path(path).suffix.lower() in STORES and is_store(Path(path))


STORES = (".zarr",)
"""Suffixes of folders that contain one image each."""


class _Folder:
    """A folder whose images are listed, sorted by name.

    Links to folders are followed, and each folder is listed once, so that circular links end. A folder that
    cannot be listed becomes an input that fails. Pipes, sockets and devices are not images. Files that are
    skipped because of their suffix are counted.
    """

    def __init__(self, folder: str, suffixes: Container[str], besides: Path):
        self.folder, self.suffixes, self.besides = folder, suffixes, besides.resolve()
        self.seen: set[tuple[int, int]] = set()
        self.passed: Counter[str] = Counter()

    def images(self) -> Iterator[str | Input]:
        """Yields the images below the folder, and a failing input for each folder that cannot be listed."""
        yield from self._below(self.folder)
        if self.passed:
            each = ", ".join(
                f"{suffix or 'no suffix'} {count:,}" for suffix, count in self.passed.most_common(5)
            )
            _report_passed(self.folder, self.passed.total(), each)

    def _below(self, folder: str) -> Iterator[str | Input]:
        try:
            found = os.stat(folder)  # noqa: PTH116 - paths as the user wrote them, with "./"
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


@lru_cache  # a batch lists its folders twice: to count the images, and to map them
def _report_passed(folder: str, count: int, each: str) -> None:
    log.info("%s: skipping %s without the suffix of an image (%s)", folder, counted(count, "file"), each)


def _may_be_image(entry: os.DirEntry[str]) -> bool:
    """Returns whether it is a file, or a broken link, which fails when it is opened."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:  # circular links
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # circular links
        return False


def _is_source(path: str, suffixes: Container[str]) -> bool:
    suffix = Path(path).suffix.lower()
    return suffix == ".tar" or suffix in suffixes


def from_list(path: str, separator: bytes) -> Iterator[Input]:
    """Yields the paths in a file (``-``: standard input), which `separator` separates. Empty paths are
    omitted.

    A list of lines may be in Windows style: with carriage returns, with a byte-order mark, in UTF-16, and
    with quotes around a path. Each path is yielded as soon as it is read, so that a slow list can be
    processed while it is written.
    """
    with _opened(path) as file:
        rest = b""
        decode: Callable[[bytes], bytes] | None = None
        lines = separator == b"\n"
        read = getattr(file, "read1", file.read)  # reads what is available, without waiting for more
        while chunk := read(_CHUNK):
            if decode is None:
                decode = _decoder(chunk) if lines else bytes
            *names, rest = (rest + decode(chunk)).split(separator)
            yield from from_paths(_paths(names, lines))
        yield from from_paths(_paths([rest], lines))


def _decoder(start: bytes) -> Callable[[bytes], bytes]:
    """Returns a function that converts the chunks of a list that begins like this to UTF-8 without a
    byte-order mark.
    """
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
    """Yields the files in a tar archive (``-``: standard input), compressed or not, read as a stream."""
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
        except (
            Exception
        ) as error:  # tarfile raises any exception: a TypeError for a gzip file with a truncated header
            name = "standard input" if path == "-" else path
            raise ImageError(f"{name}: not a complete tar archive: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Opens a list or an archive."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if is_address(path):
        with opened_elsewhere(path) as elsewhere:
            yield elsewhere
        return
    try:
        file = Path(local_path(path)).open("rb")  # noqa: SIM115 - only errors of opening are converted
    except OSError as error:
        raise cannot_open(path, error) from error
    with file:
        yield file


def listed_inputs(
    paths: Sequence[str], files_from: str | None, from0: str | None, tar: str | None
) -> Iterator[Input]:
    """Yields the images of a list or an archive, if one is given, else the images at `paths`."""
    if files_from:
        return from_list(files_from, b"\n")
    if from0:
        return from_list(from0, b"\0")
    return from_tar(tar) if tar else from_paths(paths)


def framed(inputs: Iterable[Input], frame: Frame | None) -> Iterator[Input]:
    """Yields the requested frames or pages of each input: one, or all of them. A frame of a file with several
    frames is named by the file's name and its number, as in ``photo.gif#3``.
    """
    for item in inputs:
        if frame is None:
            yield item
            continue
        try:
            image = rereadable(item.image) if isinstance(item.image, str) else item.content()
        except ImageError:  # opening it reports the error
            yield item
            continue
        count = count_frames(image)
        for number in range(1, count + 1) if frame == "all" else [frame]:
            name = item.name if count == 1 else f"{item.name}#{number}"
            yield Input(name, image, number)


def digest(name: str) -> int:
    """Returns a 64-bit number for the name of an image, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")


def sharded(inputs: Iterable[Input], shard: tuple[int, int]) -> Iterator[Input]:
    """Yields the inputs of the I-th of N parts. The part follows from the name, so that a growing list moves
    no image to another part. shard: (I, N).
    """
    part, parts = shard
    return (item for item in inputs if parts == 1 or digest(os.path.normpath(item.name)) % parts == part - 1)
