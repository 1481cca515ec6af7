"""Who works on which image, in a folder that several processes share, on one machine or many.

A claim is a file that only one process can create. Its owner touches it now and then; whoever else wants the
image takes the claim over when the owner is gone: at once where both see the same processes, else when
nothing has touched the file for `STALE` seconds. These are counted on the waiting side's own clock that
nobody sets, so that clocks which differ or jump do not matter.

A claim that is taken over tells how many died with it: an image that takes all memory is not tried for ever.
What somebody died with is taken over only by who works on it alone, lest its neighbours be blamed.
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

from fcnconv.system.leftovers import beside, remove_leftovers
from fcnconv.system.processes import here, is_alive, started
from fcnconv.system.records import parse_json

BEAT, STALE = 20.0, 150.0
"""Seconds between two touches of a claim, and without one until it is taken over."""


@dataclass(frozen=True)
class Owner:
    """A process, told apart from all others.

    machine, pid, started: see `system.processes`.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(here(), os.getpid(), started(os.getpid()))

    def is_gone(self) -> bool:
        """Whether it is known to have ended."""
        return self.machine == here() and not (is_alive(self.pid) and started(self.pid) == self.started)


@dataclass(frozen=True)
class Claim:
    """What is in a claim's file. name: what is claimed. deaths: of owners while they worked on it alone, or
    with others the first time.
    """

    name: str
    owner: Owner
    deaths: int = 0

    @classmethod
    def none(cls, name: str) -> Claim:
        """That of a place where nobody claims anything."""
        return cls(name, Owner("", 0, ""))


class Locks:
    """The claims that this process has in a folder, and those of others. Threads may share it.

    folder: of the claims' files; it is made when it is needed.
    """

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE):
        self.folder, self.beat, self.stale = folder, beat, stale
        self._owner = Owner.me()
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[int, float]] = {}  # of others: when touched, and when that was seen
        self._lock = threading.Lock()
        self._beating = False

    def take(self, name: str, *, alone: bool = False) -> Claim | None:
        """The claim to an image, which is this process's until `release`; None while another works on it.

        alone: whether it will be worked on alone; else None also where the one who worked on it is gone.

        Raises OSError.
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
        """Whether somebody else is known to hold a claim: on this machine at once, else when it was touched
        since `take` saw it first.
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
        """A claim that is waited for. Raises OSError."""
        while (claim := self.take(name, alone=True)) is None:
            time.sleep(0.05)
        try:
            yield claim
        finally:
            self.release(name)

    def clear(self) -> None:
        """Removes the claims of owners that are gone, once all images have been dealt with."""
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
        """Whether the claim's file could be created, being in nobody's hands. It appears whole."""
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
        """The claim instead of a stale one, unless another process is faster. One at a time tries, so that
        none removes what another has just put there.
        """
        turn = path.with_name(f"{path.name}.turn")
        if not self._create(turn, Claim(found.name, self._owner)):
            other = self._read(turn)
            if other is not None and self._is_stale(turn, other):  # it was killed within these lines
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
        """What a claim's file says; of one that is damaged, that nobody is known."""
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
    """Gives a file another name. Raises FileExistsError if that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the file is there a moment before its content
        with path.open("xb") as file:
            file.write(temporary.read_bytes())
