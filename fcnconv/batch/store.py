"""Where the answers of a batch lie: a folder on a disk, or below the address of an object store.

What is written appears whole or not at all, in both. A disk that several machines share also tells who works
on what; an object store does not, as most have no file that only one can create.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from fcnconv.batch.locks import Locks
from fcnconv.errors import OutputError
from fcnconv.images.remote import explained, file_system, is_address, shown_address
from fcnconv.system.files import whole_file, written
from fcnconv.system.scratch import no_room

INNER = ".fcnconv"
"""The folder of the claims, in a folder of answers."""


@dataclass(frozen=True)
class Disk:
    """A folder. Its methods take names of files below it, with slashes; they raise OSError."""

    root: Path
    claims: Locks = field(compare=False, repr=False)

    @classmethod
    def at(cls, root: Path) -> Disk:
        """A folder, whether it is there yet or not."""
        return cls(root, Locks(root / INNER / "claims"))

    def place(self, name: str) -> str:
        """What people call a file."""
        return str(self.root / name)

    def has(self, name: str, since: int) -> bool:
        """Whether a file is there that is not older than `since`, nanoseconds of its time of change."""
        try:
            return self.root.joinpath(name).stat().st_mtime_ns >= since
        except (FileNotFoundError, NotADirectoryError):
            return False

    def read(self, name: str, errors: str = "strict") -> str | None:
        """The text of a file; None if it is not there. errors: of decoding, as `bytes.decode` has them."""
        try:
            return self.root.joinpath(name).read_text(encoding="utf-8", errors=errors)
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Replaces the text of a file, in which names of files that are not UTF-8 keep their bytes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with whole_file(self.root / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")

    @contextmanager
    def writing(self, name: str, since: int, *, folder: bool = False) -> Iterator[Path]:
        """A path to write a file to, or a zarr store, which appears under its name when the block ends well,
        and is not older than `since` then, whatever the clock says. Raises OutputError.
        """
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            inside = path.parent.resolve().is_relative_to(self.root.resolve()) and not path.is_symlink()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        if not inside:
            raise OutputError(
                f"{path}: a link leads out of the folder there; remove it, or name another --out"
            )
        with written(str(path), folder=folder) as temporary:
            yield temporary
            if temporary.stat().st_mtime_ns < since:
                os.utime(temporary, ns=(since, since))

    def open(self, name: str) -> BinaryIO:
        """A file, to be read from any place."""
        return self.root.joinpath(name).open("rb")

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self.root.joinpath(name).unlink(missing_ok=True)

    def files(self) -> Iterator[str]:
        """The names of all files, without the claims."""
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root)
            if path.is_file() and name.parts[0] != INNER:
                yield name.as_posix()

    def newest(self) -> int:
        """The latest time of change of a file, in nanoseconds; 0 if there is none."""
        times = (self.root.joinpath(name).stat().st_mtime_ns for name in self.files())
        return max(times, default=0)

    def clear(self) -> None:
        """Removes what is left of processes that ended too early."""
        self.claims.clear()
        with suppress(OSError):
            self.root.joinpath(INNER).rmdir()


@dataclass(frozen=True)
class Bucket:
    """All that is below an address, such as ``s3://bucket/maps``, by fsspec. Its methods are those of `Disk`.

    What is there already is listed once, so that a million images do not take a million questions.
    """

    address: str
    claims: None = None

    def place(self, name: str) -> str:
        """What people call a file."""
        return f"{shown_address(self.address)}/{name}"

    def has(self, name: str, since: int) -> bool:
        """Whether a file was there when the batch began. since: 0, or later than anything that is there."""
        return not since and name in self._there

    def read(self, name: str, errors: str = "strict") -> str | None:
        """The text of a file; None if it is not there. errors: of decoding, as `bytes.decode` has them."""
        with self._explained(name):
            try:
                return bytes(self._system.cat_file(f"{self._root}/{name}")).decode(errors=errors)
            except FileNotFoundError:
                return None

    def write(self, name: str, text: str) -> None:
        """Replaces the text of a file, as `Disk.write`."""
        with self._explained(name):
            self._system.pipe_file(f"{self._root}/{name}", text.encode(errors="surrogateescape"))

    @contextmanager
    def writing(self, name: str, since: int, *, folder: bool = False) -> Iterator[Path]:
        """A path to write a file to, which is sent when the block ends well. Raises OutputError."""
        with tempfile.TemporaryDirectory(prefix="fcnconv-") as place:
            temporary = Path(place, "out")
            try:
                yield temporary
            except OSError as error:
                raise no_room(error, f"what goes to {self.place(name)}") from error
            with self._explained(name):
                target = f"{self._root}/{name}"
                self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._system.put_file(str(temporary), target)

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """A file, to be read from any place."""
        with self._explained(name):
            file = self._system.open(f"{self._root}/{name}", "rb")
        with file:
            yield file

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self._explained(name), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")

    def files(self) -> Iterator[str]:
        """The names of all files."""
        return iter(self._there)

    def newest(self) -> int:
        """0: times elsewhere are not compared."""
        return 0

    def clear(self) -> None:
        """Does nothing: there are no claims."""

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        system, root = file_system(self.address)
        return system, root.rstrip("/")

    @property
    def _system(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @cached_property
    def _there(self) -> frozenset[str]:
        with self._explained(""):
            try:
                found = self._system.find(self._root)
            except FileNotFoundError:
                return frozenset()
        start = self._root.lstrip("/") + "/"
        return frozenset(name.lstrip("/").removeprefix(start) for name in found)

    def _explained(self, name: str) -> AbstractContextManager[None]:
        """While it lasts, what the storage raises becomes an OutputError."""
        return explained(self.address, "cannot be reached", OutputError, self.place(name))


AnswerStore = Disk | Bucket


def open_store(out: str) -> AnswerStore:
    """Where answers go, by a path or an address."""
    return Bucket(out.rstrip("/")) if is_address(out) else Disk.at(Path(out))
