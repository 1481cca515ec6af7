"""Locks on images, in a folder that several processes share, on one machine or many.

A claim is a file that only one process can create. Its owner touches it regularly. Another process takes the
claim over when the owner is gone: at once if both see the same processes, else when the file was not touched
for `STALE` seconds. The waiting process counts these seconds on its own monotonic clock, so that clocks which
differ or jump do not matter.

A claim that is taken over records how many owners died with it, so that an image that exhausts the memory is
not tried forever. An image that an owner died with is taken over only by a process that works on it alone, so
that images processed at the same time are not blamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fcnconv.system.leftovers import beside, here, is_alive, remove_leftovers, started
from fcnconv.system.records import parse_json

BEAT, STALE = 20.0, 150.0
"""Seconds between two touches of a claim, and seconds without a touch until it is taken over."""


@dataclass(frozen=True)
class Owner:
    """A process, distinguished from all others.

    Attributes:
        machine: See `system.processes`.
        pid: The number of the process.
        started: When it began, see `system.processes`.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """Returns this process."""
        return cls(here(), os.getpid(), started(os.getpid()))

    def is_gone(self) -> bool:
        """Returns whether the process is known to have ended."""
        return self.machine == here() and not (is_alive(self.pid) and started(self.pid) == self.started)


@dataclass(frozen=True)
class Claim:
    """The content of a claim's file.

    Attributes:
        name: What is claimed.
        owner: The process that claims it.
        deaths: The number of owners that died while they worked on it alone, or the first time while they
            also worked on other images.
    """

    name: str
    owner: Owner
    deaths: int = 0

    @classmethod
    def none(cls, name: str) -> Claim:
        """Returns the claim of a name that nobody claims."""
        return cls(name, Owner("", 0, ""))


class Locks:
    """The claims of this process in a folder, and the claims of others. Threads may share it.

    Attributes:
        folder: The folder of the claims' files, which is made when it is needed.
    """

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE):
        self.folder, self.beat, self.stale = folder, beat, stale
        self._owner = Owner.me()
        self._held: set[Path] = set()
        self._seen: dict[
            Path, tuple[int, float]
        ] = {}  # of others: the time of the last touch, and when that was seen
        self._lock = threading.Lock()
        self._beating = False

    def take(self, name: str, *, alone: bool = False) -> Claim | None:
        """Claims an image for this process until `release`. Returns None while another process works on it.

        Args:
            name: The image.
            alone: Whether the process will work on this image alone. If False, None is also returned if the
                previous owner died.

        Raises:
            OSError: The claim cannot be read or written.
        """
        path = self._path(name)
        if self._create(path, claim := Claim(name, self._owner)):
            return claim
        found = self._read(path)
        if found is None or not alone or not self._is_stale(path, found):
            return None
        return self._take_over(path, found)

    def release(self, name: str) -> None:
        """Ends this process's claim."""
        path = self._path(name)
        with self._lock:
            self._held.discard(path)
        with suppress(OSError):
            path.unlink()

    def is_alive(self, name: str) -> bool:
        """Returns whether another process is known to hold a claim: on this machine from the processes, else
        whether it was touched since `take` first saw it.
        """
        path = self._path(name)
        found = self._read(path)
        if found is None:
            return False
        if found.owner.machine == self._owner.machine:
            return not found.owner.is_gone()
        with self._lock:
            before = self._seen.get(path)
        try:
            return before is not None and path.stat().st_mtime_ns != before[0]
        except OSError:
            return False

    @contextmanager
    def holding(self, name: str) -> Iterator[Claim]:
        """Waits for a claim and holds it until the block ends. Raises OSError."""
        while (claim := self.take(name, alone=True)) is None:
            time.sleep(0.05)
        try:
            yield claim
        finally:
            self.release(name)

    def clear(self) -> None:
        """Removes the claims of dead owners, after all images have been processed."""
        remove_leftovers(self.folder, again=True)
        with suppress(OSError):
            for path in self.folder.iterdir():
                found = self._read(path)
                if found is not None and self._is_stale(path, found):
                    path.unlink()
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        return self.folder / hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()

    def _create(self, path: Path, claim: Claim) -> bool:
        """Creates the claim's file, which appears complete. Returns False if another process has one."""
        temporary = beside(path, "tmp")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(claim)), encoding="utf-8")
            _link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        with self._lock:
            self._held.add(path)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._touch, daemon=True).start()
        return True

    def _take_over(self, path: Path, found: Claim) -> Claim | None:
        """Replaces a stale claim, or returns None if another process is faster. Only one process tries at a
        time, so that none removes a claim that another has just made.
        """
        turn = path.with_name(f"{path.name}.turn")
        if not self._create(turn, Claim(found.name, self._owner)):
            other = self._read(turn)
            if other is not None and self._is_stale(turn, other):  # the process was killed within these lines
                turn.unlink(missing_ok=True)
            return None
        try:
            claim = Claim(found.name, self._owner, found.deaths + 1)
            if self._read(path) != found:
                return None
            path.unlink()
            return claim if self._create(path, claim) else None
        finally:
            with self._lock:
                self._held.discard(turn)
                self._seen.pop(path, None)
            turn.unlink(missing_ok=True)

    def _touch(self) -> None:
        while True:
            time.sleep(self.beat)
            with self._lock:
                held = list(self._held)
            for path in held:
                with suppress(OSError):
                    os.utime(path)

    def _read(self, path: Path) -> Claim | None:
        """Returns the content of a claim's file. A damaged file counts as a claim by an unknown owner."""
        try:
            found = parse_json(path.read_bytes())
            return Claim(found["name"], Owner(**found["owner"]), int(found["deaths"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError):
            return Claim.none("")

    def _is_stale(self, path: Path, found: Claim) -> bool:
        if found.owner == self._owner:
            return False
        if found.owner.is_gone():
            return True
        try:
            touched = path.stat().st_mtime_ns
        except OSError:
            return False
        with self._lock:
            before, since = self._seen.get(path, (None, 0.0))
            if before != touched:
                self._seen[path] = touched, time.monotonic()
                return False
            return time.monotonic() - since > self.stale


def _link(temporary: Path, path: Path) -> None:
    """Gives a file another name. Raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the file exists for a moment without content
        with path.open("xb") as file:
            file.write(temporary.read_bytes())
