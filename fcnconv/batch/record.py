"""What a folder of answers tells of itself: how they were made, what came of each run, and what failed.

``fcnconv.json`` holds the settings, and under ``runs`` the counts of the last run of each shard;
``failures.jsonl`` a line for each image that has no answer, with the reason. Processes that share the folder
change them one at a time.
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
"""What fcnconv.json holds beside the settings: the time of change in nanoseconds that answers made with them
are not older than; and the runs."""

BEAT = 60.0
"""Seconds between two times that a run tells how far it is; more where many shards share the file."""


@dataclass
class Counts:
    """What came of the images of a run so far.

    made, there, failed: images. megapixels: of those that were made. seconds: that it took.
    finished: whether all images have been looked at.
    """

    made: int = 0
    there: int = 0
    failed: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class FolderRecord:
    """What is told in a folder of answers. shard: (I, N), whose runs these are."""

    store: AnswerStore
    shard: tuple[int, int]

    def agree(self, settings: Mapping[str, Any], *, overwrite: bool) -> int:
        """Keeps the settings in the folder, or checks that those in it are the same; gives the time since
        which answers are made so, see `SINCE`. Settings without an answer, of a run that failed, count for
        nothing.

        Raises UsageError if there are answers that were made in another way, OutputError.
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
                        f"{self.store.place('')}: holds maps made with {changed} {old!r}, not {new!r}; "
                        f"name another folder{again}"
                    )
                # later than what is there already, also where the clock was set back since
                since = max(time.time_ns(), self.store.newest() + 1)
                before = {**settings, SINCE: since, RUNS: {}}
                self._write(before)
        if isinstance(self.store, Disk):
            return int(before[SINCE])
        return time.time_ns() if overwrite else 0

    def since(self, format: str) -> int:
        """See `SINCE`; 0 where nothing is there. Raises UsageError if the answers there have another
        format.
        """
        told = self._read()
        if told.get("format", format) != format:
            raise UsageError(
                f"{self.store.place('')}: holds answers in {told['format']}, not {format}; name that"
            )
        return int(told.get(SINCE, 0)) if isinstance(self.store, Disk) else 0

    def count(self, counts: Counts) -> None:
        """Tells what came of this shard's run so far."""
        with self._alone():
            told = self._read(damaged=True)
            if told:
                runs = told.get(RUNS)
                own = {
                    **asdict(counts),
                    "megapixels": round(counts.megapixels, 3),
                    "seconds": round(counts.seconds, 1),
                }
                told[RUNS] = {**(runs if isinstance(runs, dict) else {}), "/".join(map(str, self.shard)): own}
                self._write(told)

    def beat(self) -> float:
        """Seconds between two calls of `count` while a run lasts."""
        return max(BEAT, float(self.shard[1]))

    def failures(self) -> dict[str, str]:
        """The images that have no answer, with the reason."""
        return {line["path"]: line["error"] for line in self._failures()}

    def keep_failures(self, new: dict[str, str], has_answer: Callable[[str], bool]) -> None:
        """Adds failures to those that are kept, of which those go that have an answer by now."""
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
        """While it lasts no other process changes what is told here."""
        return self.store.claims.holding(MANIFEST) if self.store.claims else nullcontext()

    def _read(self, *, damaged: bool = False) -> dict[str, Any]:
        """What fcnconv.json holds. damaged: whether it may be no JSON, and counts for nothing then."""
        try:
            return dict(parse_json(self.store.read(MANIFEST) or "{}"))
        except (ValueError, TypeError) as error:
            if damaged:
                return {}
            raise OutputError(
                f"{self.store.place(MANIFEST)}: damaged ({error}); remove it, or give --overwrite"
            ) from error

    def _write(self, told: Mapping[str, Any]) -> None:
        self.store.write(MANIFEST, json.dumps(told, indent=1) + "\n")

    @staticmethod
    def _is_answer(name: str) -> bool:
        return name not in (MANIFEST, FAILURES) and not is_reports(name)
