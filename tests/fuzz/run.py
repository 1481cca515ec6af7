"""Gives every way in altered files, many, and tells what should never happen: an error that is not the
program's own, a hang, the end of the process, or much memory.

    python tests/fuzz/run.py                          # every way in, 100,000 inputs each
    python tests/fuzz/run.py tiff zarr --inputs 5000
    python tests/fuzz/run.py --guided                 # led by coverage: pip install atheris
    python tests/fuzz/run.py tiff --show 4711         # one input again, with its traceback

An input is made of its number, so that the same numbers are the same inputs. They are read in a process of
their own, which a hang or a crash in C code takes with it; it goes on with the next. The exit status is 1 if
anything was found.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from mutations import mutated
from targets import TARGETS, Target
from watch import SECONDS, Outcome, memory_limit, watched

BATCH = 20_000
"""Inputs of a process: what libraries leak does not add up."""

TELL = 100
"""Inputs after which it is told what became of them, which would be lost with the process."""

GRACE_S = 5
"""Seconds after which a process that does not end a hang itself is ended."""


@dataclass
class Tally:
    """What became of the inputs of a way in. failures: what happened, and the number of its first input.
    times: how often. grown: bytes by which they made a process grow at most. seconds: of all together.
    """

    target: str
    inputs: int = 0
    answered: int = 0
    crashes: int = 0
    hangs: int = 0
    grown: int = 0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome, number: int) -> None:
        self.inputs += 1
        self.answered += outcome.answered
        self.grown += outcome.grown
        if outcome.failure:
            self.crashes += "hang" not in outcome.failure
            self.hangs += "hang" in outcome.failure
            self.failures.setdefault(outcome.failure, number)
            self.times[outcome.failure] = self.times.get(outcome.failure, 0) + 1

    def add(self, other: Tally) -> None:
        for name in ("inputs", "answered", "crashes", "hangs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.grown = max(self.grown, other.grown)
        for failure, number in other.failures.items():
            self.failures.setdefault(failure, number)
            self.times[failure] = self.times.get(failure, 0) + other.times[failure]

    def line(self) -> str:
        return (
            f"{self.target}: {self.inputs:,} inputs in {self.seconds:.0f} s, {self.answered:,} answered, "
            f"{self.crashes:,} crashes, {self.hangs:,} hangs, at most {self.grown / 1e6:.0f} MB"
        )


class Corpus:
    """The sound files of a way in, in a folder, one of which is altered at a time."""

    def __init__(self, target: Target, folder: Path):
        self.target, self.folder = target, folder
        self.sound = [(path, path.read_bytes()) for path in target.seeds(folder)]

    def input(self, number: int, seed: int) -> tuple[int, bytes]:
        """Which file an input alters, and what it then holds."""
        random = Random(f"{self.target.name} {seed} {number}")
        which = random.randrange(len(self.sound))
        return which, mutated(self.sound[which][1], random)

    def check(self) -> None:
        """Reads the sound files, which imports what they need. Raises AssertionError if one is refused."""
        for which, (path, content) in enumerate(self.sound):
            outcome = self.read(which, content)
            assert outcome.answered, f"{path.name}: {outcome}"

    def read(self, which: int, content: bytes) -> Outcome:
        """What the program does with a file of this content."""
        path, sound = self.sound[which]
        path.write_bytes(content)
        try:
            return watched(self.target.read, path)
        finally:
            path.write_bytes(sound)


def tally(
    corpus: Corpus,
    numbers: range,
    seed: int = 0,
    place: mmap.mmap | None = None,
    tell: Callable[[Tally], object] = lambda found: None,
) -> Tally:
    """Reads inputs in this process. For a watcher: place is where the number of the present one is told, and
    `tell` is told now and then what became of those before.
    """
    found = Tally(corpus.target.name)
    for number in numbers:
        if place is not None:
            place[:8] = number.to_bytes(8, "little")
        found.count(corpus.read(*corpus.input(number, seed)), number)
        if found.inputs % TELL == 0:
            tell(found)
    tell(found)
    return found


def fuzz(target: Target, inputs: int, seed: int, seconds: float, guided: bool) -> Tally:
    """Reads inputs in processes of their own, until there were so many or the time is over."""
    total, start, number = Tally(target.name), time.monotonic(), 0
    while number < inputs and time.monotonic() - start < seconds:
        stop = min(number + BATCH, inputs)
        number = _batch(target, total, range(number, stop), seed, start + seconds, guided)
    total.seconds = time.monotonic() - start
    return total


def _batch(target: Target, total: Tally, numbers: range, seed: int, until: float, guided: bool) -> int:
    """Reads some inputs in a process, and gives the number to go on with."""
    with tempfile.TemporaryDirectory() as folder:
        place, told = Path(folder, "place"), Path(folder, "told")
        place.write_bytes(numbers.start.to_bytes(8, "little"))
        command = [sys.executable, __file__, target.name, "--seed", str(seed), "--worker", folder]
        command += ["--from", str(numbers.start), "--inputs", str(len(numbers))]
        with Path(folder, "stderr").open("wb") as said_there:
            process = subprocess.Popen(
                command + ["--guided"] * guided,
                env={**os.environ, "XDG_CACHE_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.DEVNULL,
                stderr=said_there,
            )
        present, since, hung = -1, time.monotonic(), False
        while process.poll() is None:
            time.sleep(0.05)
            now, number = time.monotonic(), int.from_bytes(place.read_bytes(), "little")
            if number != present:
                present, since = number, now
            hung = now - since > SECONDS + GRACE_S + 30 * (number == numbers.start)  # which waits for imports
            if hung or now > until:
                process.kill()
                process.wait()
        if told.exists():
            total.add(Tally(**json.loads(told.read_text())))
        if process.returncode == 0 or (not hung and time.monotonic() > until):
            return numbers.stop
        present = int.from_bytes(place.read_bytes(), "little")
        said = Path(folder, "stderr").read_text(errors="replace").strip().splitlines()
        failure = "a hang in C code" if hung else f"the process ended: {process.returncode}: {said[-1:]}"
        total.count(Outcome(False, "", failure, 0, 0), present)
        return present + 1


def _work(arguments: argparse.Namespace) -> None:
    """What a process does: reads its inputs, and tells what became of them in the end."""
    folder = Path(arguments.worker)
    with (folder / "place").open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
        target = TARGETS[arguments.targets[0]]
        numbers = range(arguments.start, arguments.start + arguments.inputs)
        (folder / "corpus").mkdir()
        corpus = Corpus(target, folder / "corpus")
        corpus.check()
        with memory_limit():
            if arguments.guided:
                from guided import follow

                follow(corpus, numbers, arguments.seed, place, partial(_tell, folder))
            else:
                tally(corpus, numbers, arguments.seed, place, partial(_tell, folder))


def _tell(folder: Path, found: Tally) -> None:
    part = folder / "part"
    part.write_text(json.dumps(asdict(found)))
    part.replace(folder / "told")


def _show(target: Target, number: int, seed: int) -> None:
    """Reads one input, without catching anything."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(target, Path(folder))
        which, content = corpus.input(number, seed)
        path = corpus.sound[which][0]
        path.write_bytes(content)
        print(f"{path.relative_to(folder)}, {len(content)} bytes: {content[:300]!r}", file=sys.stderr)
        target.read(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each way in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each way in, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--guided", action="store_true", help="led by coverage, with atheris")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each way in")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="read this input alone")
    parser.add_argument("--from", type=int, default=0, dest="start", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    return arguments


def _run(arguments: argparse.Namespace) -> Iterator[Tally]:
    for name in arguments.targets or TARGETS:
        target = TARGETS[name]
        if target.here:
            yield fuzz(target, arguments.inputs, arguments.seed, arguments.seconds, arguments.guided)


def main() -> int:
    arguments = _arguments()
    if arguments.worker:
        _work(arguments)
        return 0
    if arguments.show is not None:
        _show(TARGETS[arguments.targets[0]], arguments.show, arguments.seed)
        return 0
    failed = 0
    for found in _run(arguments):
        print(json.dumps(asdict(found)) if arguments.json else found.line(), flush=True)
        for failure, number in found.failures.items():
            print(f"  input {number}, {found.times[failure]} times: {failure}", file=sys.stderr, flush=True)
        failed += len(found.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
