"""The record of a folder of answers: the settings, the outcome of each run, and the failures.

``fcnconv.json`` holds the settings, and under ``runs`` the counts of the last run of each shard.
``failures.jsonl`` holds one line with the reason for each image that has no answer. Processes that share the
folder change these files one at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from fcnconv.batch.report import is_reports
from fcnconv.batch.store import AnswerStore, Disk
from fcnconv.errors import OutputError, UsageError
from fcnconv.system.records import parse_json

MANIFEST, FAILURES = "fcnconv.json", "failures.jsonl"

SINCE, RUNS = "since", "runs"
"""Keys of fcnconv.json besides the settings: the earliest time of change, in nanoseconds, of answers made
with these settings; and the runs.
"""

BEAT = 60.0
"""Seconds between two updates of a run's counts. The interval is longer if many shards share the file."""


@dataclass
class Counts:
    """The counts of a run so far.

    Attributes:
        made: Images whose answer was computed.
        there: Images whose answer existed.
        failed: Images that failed.
        megapixels: The size of the images in `made`.
        seconds: The time that the run took.
        finished: Whether all images have been processed.
    """

    made: int = 0
    there: int = 0
    failed: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class FolderRecord:
    """The record of a folder of answers. shard: (I, N), the shard of these runs."""

    store: AnswerStore
    shard: tuple[int, int]

    def agree(self, settings: Mapping[str, Any], *, overwrite: bool) -> int:
        """Stores the settings in the folder, or checks that the stored ones are the same.

        Returns the time since which answers are made with them, see `SINCE`. Settings without any answer,
        from a run that failed, are ignored.

        Raises:
            UsageError: The folder contains answers that were made with other settings.
            OutputError: The record cannot be read or written.
        """
        try:
            return self._agree(json.loads(json.dumps(settings)), overwrite)
        except OSError as error:
            place = self.store.place("")
            raise OutputError(f"{place}: cannot be written: {error.strerror or error}") from error

    def _agree(self, settings: Mapping[str, Any], overwrite: bool) -> int:
        with self._alone():
            before = {} if overwrite and isinstance(self.store, Disk) else self._read()
            changed = next((n for n, v in settings.items() if n not in before or before[n] != v), None)
            if changed is not None:
                if before and any(map(self._is_answer, self.store.files())):
                    old, new = before.get(changed), settings[changed]
                    again = ", or make them again with --overwrite" if isinstance(self.store, Disk) else ""
                    raise UsageError(
                        f"{self.store.place('')}: contains maps made with {changed} {old!r}, not {new!r}; "
                        f"name another folder{again}"
                    )
                # later than every existing file, even if the clock was set back since
                since = max(time.time_ns(), self.store.newest() + 1)
                before = {**settings, SINCE: since, RUNS: {}}
                self._write(before)
        if isinstance(self.store, Disk):
            return int(before[SINCE])
        return time.time_ns() if overwrite else 0

    def since(self, format: str) -> int:
        """Returns the time of `SINCE`; 0 if the folder has no record.

        Raises:
            UsageError: The answers in the folder have another format.
        """
        stored = self._read()
        if stored.get("format", format) != format:
            raise UsageError(
                f"{self.store.place('')}: contains answers in {stored['format']}; give --format "
                f"{stored['format']}, or name another folder"
            )
        return int(stored.get(SINCE, 0)) if isinstance(self.store, Disk) else 0

    def count(self, counts: Counts) -> None:
        """Records the counts of this shard's run so far."""
        with self._alone():
            stored = self._read(damaged=True)
            if stored:
                runs = stored.get(RUNS)
                own = {
                    **asdict(counts),
                    "megapixels": round(counts.megapixels, 3),
                    "seconds": round(counts.seconds, 1),
                }
                stored[RUNS] = {
                    **(runs if isinstance(runs, dict) else {}),
                    "/".join(map(str, self.shard)): own,
                }
                self._write(stored)

    def beat(self) -> float:
        """Returns the seconds between two calls of `count` during a run."""
        return max(BEAT, float(self.shard[1]))

    def failures(self) -> dict[str, str]:
        """Returns the images that have no answer, with the reasons."""
        return {line["path"]: line["error"] for line in self._failures()}

    def keep_failures(self, new: dict[str, str], has_answer: Callable[[str], bool]) -> None:
        """Adds failures to the recorded ones, and removes those that have an answer by now."""
        with self._alone():
            kept = {name: reason for name, reason in self.failures().items() if not has_answer(name)} | new
            if kept or self.store.read(FAILURES) is not None:
                lines = (json.dumps({"path": name, "error": reason}) + "\n" for name, reason in kept.items())
                self.store.write(FAILURES, "".join(lines))

    def _failures(self) -> Iterator[dict[str, str]]:
        for line in (self.store.read(FAILURES) or "").splitlines():
            try:
                found = parse_json(line)
                yield {"path": str(found["path"]), "error": str(found["error"])}
            except (ValueError, TypeError, LookupError):
                continue

    def _alone(self) -> AbstractContextManager[object]:
        """Locks the record against changes by other processes until the block ends."""
        return self.store.claims.holding(MANIFEST) if self.store.claims else nullcontext()

    def _read(self, *, damaged: bool = False) -> dict[str, Any]:
        """Returns the content of fcnconv.json. damaged: accept a file that is not JSON, which then counts as
        empty.
        """
        try:
            return dict(parse_json(self.store.read(MANIFEST) or "{}"))
        except (ValueError, TypeError) as error:
            if damaged:
                return {}
            raise OutputError(
                f"{self.store.place(MANIFEST)}: damaged ({error}); remove it, or give --overwrite"
            ) from error

    def _write(self, stored: Mapping[str, Any]) -> None:
        self.store.write(MANIFEST, json.dumps(stored, indent=1) + "\n")

    @staticmethod
    def _is_answer(name: str) -> bool:
        return name not in (MANIFEST, FAILURES) and not is_reports(name)
