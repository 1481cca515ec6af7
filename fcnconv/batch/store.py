"""Storage for the answers of a batch: a folder on a disk, or an address of an object store.

In both, a file appears complete or not at all. A disk that several machines share also holds their claims on
images. An object store does not, because most have no file that only one process can create.
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
    """A folder on a disk. The methods take names of files below it, with slashes, and raise OSError."""

    root: Path
    claims: Locks = field(compare=False, repr=False)

    @classmethod
    def at(cls, root: Path) -> Disk:
        """Returns the store for a folder, which need not exist."""
        return cls(root, Locks(root / INNER / "claims"))

    def place(self, name: str) -> str:
        """Returns the path of a file for messages."""
        return str(self.root / name)

    def has(self, name: str, since: int) -> bool:
        """Returns whether a file exists whose time of change, in nanoseconds, is not before `since`."""
        try:
            return self.root.joinpath(name).stat().st_mtime_ns >= since
        except (FileNotFoundError, NotADirectoryError):
            return False

    def read(self, name: str, errors: str = "strict") -> str | None:
        """Returns the text of a file; None if it does not exist. errors: as for `bytes.decode`."""
        try:
            return self.root.joinpath(name).read_text(encoding="utf-8", errors=errors)
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Replaces the text of a file. File names in it that are not UTF-8 keep their bytes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with whole_file(self.root / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")

    @contextmanager
    def writing(self, name: str, since: int, *, folder: bool = False) -> Iterator[Path]:
        """Yields a path for writing a file or a zarr store, which appears under its name when the block ends
        without an error.

        Its time of change is then not before `since`, whatever the clock says.

        Raises:
            OutputError: The file cannot be written.
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
        """Opens a file for random access."""
        return self.root.joinpath(name).open("rb")

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""
        self.root.joinpath(name).unlink(missing_ok=True)

    def files(self) -> Iterator[str]:
        """Yields the names of all files except the claims."""
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root)
            if path.is_file() and name.parts[0] != INNER:
                yield name.as_posix()

    def newest(self) -> int:
        """Returns the latest time of change of a file, in nanoseconds; 0 if there are no files."""
        times = (self.root.joinpath(name).stat().st_mtime_ns for name in self.files())
        return max(times, default=0)

    def clear(self) -> None:
        """Removes temporary files of processes that were killed."""
        self.claims.clear()
        with suppress(OSError):
            self.root.joinpath(INNER).rmdir()


@dataclass(frozen=True)
class Bucket:
    """All files below an address, such as ``s3://bucket/maps``, accessed with fsspec. It has the same methods
    as `Disk`.

    Existing files are listed once, so that a million images do not need a million requests.
    """

    address: str
    claims: None = None

    def place(self, name: str) -> str:
        """Returns the address of a file for messages."""
        return f"{shown_address(self.address)}/{name}"

    def has(self, name: str, since: int) -> bool:
        """Returns whether a file existed when the batch began. since: 0, or later than any existing file."""
        return not since and name in self._there

    def read(self, name: str, errors: str = "strict") -> str | None:
        """Returns the text of a file; None if it does not exist. errors: as for `bytes.decode`."""
        with self._explained(name):
            try:
                return bytes(self._system.cat_file(f"{self._root}/{name}")).decode(errors=errors)
            except FileNotFoundError:
                return None

    def write(self, name: str, text: str) -> None:
        """Replaces the text of a file, see `Disk.write`."""
        with self._explained(name):
            self._system.pipe_file(f"{self._root}/{name}", text.encode(errors="surrogateescape"))

    @contextmanager
    def writing(self, name: str, since: int, *, folder: bool = False) -> Iterator[Path]:
        """Yields a path for writing a file, which is uploaded when the block ends without an error. Raises
        OutputError.
        """
        with tempfile.TemporaryDirectory(prefix="fcnconv-") as place:
            temporary = Path(place, "out")
            try:
                yield temporary
            except OSError as error:
                raise no_room(error, f"the output for {self.place(name)}") from error
            with self._explained(name):
                target = f"{self._root}/{name}"
                self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._system.put_file(str(temporary), target)

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Opens a file for random access."""
        with self._explained(name):
            file = self._system.open(f"{self._root}/{name}", "rb")
        with file:
            yield file

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""
        with self._explained(name), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")

    def files(self) -> Iterator[str]:
        """Yields the names of all files."""
        return iter(self._there)

    def newest(self) -> int:
        """Returns 0: the times of remote files are not compared."""
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
        """Converts errors of the storage inside the block to OutputError."""
        return explained(self.address, "cannot be reached", OutputError, self.place(name))


AnswerStore = Disk | Bucket


def open_store(out: str) -> AnswerStore:
    """Returns the storage for a path or an address."""
    return Bucket(out.rstrip("/")) if is_address(out) else Disk.at(Path(out))
