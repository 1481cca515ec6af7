"""Answers of many images in few files: Parquet tables, or maps in tar archives.

A file, called a part, holds the answers of some thousand images and appears complete, so that little is lost
if a machine fails. One process writes the parts of a shard; workers on other machines send it their answers.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fcnconv.api.maps import write_map
from fcnconv.batch.folders import MapFolder, Outcome, answer_name
from fcnconv.batch.inputs import Input, digest
from fcnconv.batch.store import AnswerStore
from fcnconv.errors import FcnconvError, OutputError, UsageError, first_line
from fcnconv.images import area
from fcnconv.options import PLAIN_OUTPUT, PLAIN_SCAN, OutputOptions, ScanOptions, flag
from fcnconv.writers.answers import TableFile, image_rows, image_schema, stored
from fcnconv.writers.cell_table import cell_rows, cell_schema

IMAGES, BYTES, ROWS = 10_000, 1 << 30, 5_000_000
"""Limits of a part: images; bytes of maps; rows."""


class PackedFile(Protocol):
    """A file that is being filled."""

    images: int

    def add(self, name: str, content: Any) -> None:
        """Adds the answer of an image."""

    def is_full(self) -> bool:
        """Returns whether the next answer goes into a new file."""

    def close(self) -> None:
        """Completes the file."""


class PackedTable:
    """A Parquet file. An answer is a list of records, each with columns of some rows by name."""

    def __init__(self, path: Path, cells: bool, settings: dict[str, Any]):
        self.table = TableFile(path, cell_schema() if cells else image_schema(), settings)
        self.images = 0

    def add(self, name: str, content: list[dict[str, Any]]) -> None:
        """Adds rows, see `writers.tables`."""
        for columns in content:
            self.table.add(columns)
        self.images += 1

    def is_full(self) -> bool:
        """Returns whether it has `IMAGES` or `ROWS`."""
        return self.images >= IMAGES or self.table.rows >= ROWS

    def close(self) -> None:
        """Completes the file."""
        self.table.close()


class PackedArchive:
    """A tar archive that webdataset can read. An answer is the bytes of a file, which has the same name as in
    a folder of maps.
    """

    def __init__(self, path: Path):
        self.archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `close` closes it
        self.images = 0

    def add(self, name: str, content: bytes) -> None:
        """Adds a file."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.archive.addfile(member, io.BytesIO(content))
        self.images += 1

    def is_full(self) -> bool:
        """Returns whether it has `IMAGES` or `BYTES`."""
        return self.images >= IMAGES or self.archive.offset >= BYTES

    def close(self) -> None:
        """Completes the file."""
        self.archive.close()


PackedKind = Literal["tar", "cells", "images"]
"""The kinds of parts: an archive with one file per map; a table with one row for each cell and rank; or a
table with one row for each image and rank of its classification.
"""


@dataclass(frozen=True)
class PackedFiles:
    """The parts in a folder. inner: the suffix of a map in an archive."""

    store: AnswerStore
    kind: PackedKind
    inner: str

    @property
    def suffix(self) -> str:
        """The suffix of a part."""
        return "tar" if self.kind == "tar" else "parquet"

    @property
    def format(self) -> str:
        """The format that the record of a folder with such parts contains."""
        return f"{self.inner}.tar" if self.kind == "tar" else f"parquet of {self.kind}"

    def key(self, name: str) -> str:
        """Returns the key that identifies an image's answer."""
        return answer_name(name, self.inner) if self.kind == "tar" else stored(name)

    def names(self) -> list[str]:
        """Returns all parts of all shards."""
        return [name for name in self.store.files() if _PART.fullmatch(name) and name.endswith(self.suffix)]

    def answered(self, since: int) -> npt.NDArray[np.uint64]:
        """Returns the digests of the keys of all answers, sorted, without the answers in parts that are older
        than `since`.
        """
        parts = (part for part in self.names() if self.store.has(part, since))
        return np.unique(np.fromiter((digest(key) for part in parts for key in self._keys(part)), np.uint64))

    def _keys(self, part: str) -> Iterator[str]:
        """Yields the keys of the answers in a part. Raises OutputError for a file that is not a part."""
        if self.kind == "tar":
            yield from (self.store.read(index_of(part), "surrogateescape") or "").split("\0")[:-1]
            return
        import pyarrow.parquet as pq

        try:
            with self.store.open(part) as file, pq.ParquetFile(file) as table:
                for group in table.iter_batches(columns=["path"]):
                    yield from group.column(0).unique().to_pylist()
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self.store.place(part)}: cannot be read: {first_line(error)}; remove it"
            ) from error


def among(number: int, sorted_numbers: npt.NDArray[np.uint64]) -> bool:
    """Returns whether a number is in a sorted array."""
    place = int(np.searchsorted(sorted_numbers, np.uint64(number)))
    return place < len(sorted_numbers) and int(sorted_numbers[place]) == number


@dataclass(frozen=True)
class Pack:
    """The destination of the packed answers of many images, and how they are made. folder: makes the maps."""

    folder: MapFolder
    kind: PackedKind

    @property
    def parts(self) -> PackedFiles:
        """The parts in the destination."""
        return PackedFiles(self.store, self.kind, self.folder.writer.suffix)

    @property
    def store(self) -> AnswerStore:
        """Where the parts are stored."""
        return self.folder.store

    @property
    def shard(self) -> tuple[int, int]:
        """(I, N), the part of the images that is processed."""
        return self.folder.shard

    def check(self) -> None:
        """Raises UsageError for an option that has no effect on a table of images."""
        if self.kind != "images":
            return
        given, plain = asdict(self.folder.scan), asdict(PLAIN_SCAN)
        given.update(asdict(self.folder.output.options))
        plain.update(asdict(PLAIN_OUTPUT), scales=given["scales"], top_k=given["top_k"])
        for name, value in given.items():
            if value != plain[name]:
                options = ScanOptions if hasattr(PLAIN_SCAN, name) else OutputOptions
                raise UsageError(
                    f"{flag(options, name)} changes nothing in a table of images; add --cells-table for one "
                    "of windows"
                )

    def settings(self) -> dict[str, Any]:
        """Returns everything except the image that an answer depends on, by name."""
        return self.folder.settings() | {"format": self.parts.format}

    def make(self, item: Input, since: int, *, alone: bool = False) -> Outcome:
        """Returns the answer about an image, which is not written yet. Raises ImageError and OutputError."""
        folder, scan = self.folder, self.folder.scan
        source = folder.open(item)
        content: Any
        agreement = None
        if self.kind == "images":
            found = folder.classifier.classify(source, scales=scan.sizes, k=folder.output.options.top_k)
            content = [image_rows(item.name, found)]
        else:
            stream = folder.share.stream(source, scan)
            if self.kind == "cells":
                content = list(cell_rows(item.name, stream, folder.output))
            else:
                with tempfile.TemporaryDirectory(prefix="fcnconv-") as place:
                    file = Path(place, "map")
                    write_map(stream, file, folder.writer, folder.output)
                    content = file.read_bytes()
            agreement = stream.finish().agreement
        return Outcome("", True, agreement, area(source.size) / 1e6, content)

    def finish(self, failures: dict[str, str], since: int) -> None:
        """Does nothing: packed answers have no report."""

    @contextmanager
    def packing(self, since: int) -> Iterator[Packer]:
        """Yields the packer of this shard, which no other process fills. When the block ends, in whatever
        way, all answers so far are in a part.

        Args:
            since: As for `Disk.writing`.

        Raises:
            OutputError: A part cannot be written, or another process is writing this shard.
        """
        name = "shard {} of {}".format(*self.shard)
        claims = self.store.claims
        while claims and claims.take(name, alone=True) is None:
            if claims.is_alive(name):
                raise OutputError(
                    f"{self.store.place('')}: another process is writing {name} there; wait for it, or give "
                    "each a --shard of its own"
                )
            time.sleep(1)  # until it is clear whether a machine that is not visible from here is gone
        try:
            yield Packer(self, since)
        finally:
            if claims:
                claims.release(name)

    def open_part(self, path: Path) -> PackedFile:
        """Returns a file to fill."""
        if self.kind == "tar":
            return PackedArchive(path)
        return PackedTable(path, self.kind == "cells", self.settings())


class Packer:
    """Fills the parts of a shard, one after another. Raises OutputError.

    Answers are in a part once `add` or `close` has returned them.
    """

    def __init__(self, pack: Pack, since: int):
        self.pack, self.parts, self.since = pack, pack.parts, since
        start = "{}-{}-of-{}-".format("maps" if pack.kind == "tar" else "answers", *pack.shard)
        own, others = re.compile(rf"{start}(\d+)\..*"), re.compile(rf"\w+-\d+-of-{pack.shard[1]}-.*")
        names = self.parts.names()
        numbers = (int(match[1]) for match in map(own.fullmatch, names) if match)
        self._start, self._number = start, 1 + max(numbers, default=-1)
        self._there, self._made = self.parts.answered(since), set[int]()
        # Parts that were made with other settings go, except parts of other shards of the same division.
        for part in names:
            if not pack.store.has(part, since) and (own.fullmatch(part) or not others.fullmatch(part)):
                pack.store.remove(part)
        self._part: PackedFile | None = None
        self._writing = ExitStack()
        self._waiting: list[tuple[str, Outcome]] = []

    def has(self, name: str) -> bool:
        """Returns whether an image has its answer in any part."""
        number = digest(self.parts.key(name))
        return number in self._made or among(number, self._there)

    def add(self, name: str, made: Outcome) -> list[tuple[str, Outcome]]:
        """Takes an answer, and returns the answers whose part is complete by now."""
        with self._explained():
            if self._part is None:
                path = self._writing.enter_context(self.pack.store.writing(self._file, self.since))
                self._part = self.pack.open_part(path)
            self._part.add(self.parts.key(name), made.content)
        self._made.add(digest(self.parts.key(name)))
        self._waiting.append((name, replace(made, path=self.pack.store.place(self._file), content=None)))
        return self.close() if self._part.is_full() else []

    def close(self) -> list[tuple[str, Outcome]]:
        """Completes the current part, if there is one, and returns the answers in it."""
        if self._part is None:
            return []
        with self._explained():
            self._part.close()
            if self.pack.kind == "tar":  # before the part, which counts only with its index
                keys = "".join(f"{self.parts.key(name)}\0" for name, _ in self._waiting)
                self.pack.store.write(index_of(self._file), keys)
            self._writing.close()
        done, self._waiting, self._part = self._waiting, [], None
        self._number += 1
        return done

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Discards a part that cannot be completed, and its answers, which the next run computes again."""
        try:
            yield
        except (OSError, FcnconvError) as error:
            with suppress(OSError, FcnconvError):
                self._writing.__exit__(type(error), error, None)
            self._part, self._waiting = None, []
            if isinstance(error, FcnconvError):
                raise
            file = self.pack.store.place(self._file)
            raise OutputError(f"{file}: cannot be written: {error.strerror or error}") from error

    @property
    def _file(self) -> str:
        return f"{self._start}{self._number:05}.{self.parts.suffix}"


_PART = re.compile(r"(answers|maps)-\d+-of-\d+-\d+\.(parquet|tar)")


def index_of(part: str) -> str:
    """Returns the index file of an archive. It lists the archive's names, with a null byte after each."""
    return part.removesuffix(".tar") + ".names"
