"""What hostile input, sudden death and scarcity did to the program, in tables.

    python benchmarks/hardening.py                    # all of it, some hours
    python benchmarks/hardening.py inputs --inputs 5000 --jobs 4
    python benchmarks/hardening.py kills scarcity

inputs: altered copies of files (tests/fuzz/run.py). guided: the same led by coverage, which needs atheris.
kills: the command killed at moments spread over its run (hardening_kills.py). scarcity: the tests of
tests/test_scarcity.py, all of them as root, as only root takes disks and memory away. The exit status is 1 if
anything was found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import hardening_kills as kills

ROOT = Path(__file__).parents[1]

Row = tuple[Sequence[str], bool]
"""The cells of a row, and whether something was found that should not be."""


def altered_files(arguments: argparse.Namespace, *more: str) -> Iterator[Row]:
    """A row for each way in. more: arguments of tests/fuzz/run.py."""
    sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
    from targets import TARGETS

    def given(name: str) -> Row:
        """A way in, in a process of its own. What it tells on stderr is for who looks on."""
        command = [sys.executable, str(ROOT / "tests/fuzz/run.py"), name, "--json"]
        command += ["--inputs", str(arguments.inputs), "--seconds", str(arguments.seconds)]
        command += ["--seed", str(arguments.seed), *more]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
        counts = (f"{told[each]:,}" for each in ("inputs", "crashes", "hangs"))
        return (TARGETS[name].info, *counts, f"{told['grown'] / 1e6:.0f} MB"), bool(told["failures"])

    with ThreadPoolExecutor(arguments.jobs) as pool:
        yield from pool.map(given, (name for name, target in TARGETS.items() if target.here))


def killed_runs(arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each command that was killed."""
    kills.run(kills.command("prepare", "-q"), {})
    for what in kills.CASES:
        found = kills.kill(what, arguments.kills, arguments.seed)
        for problem in (*found.losses, *found.stayed):
            print(f"{what}: {problem}", file=sys.stderr)
        yield found.row(what), bool(found.losses or found.stayed)


def scarce_things(_: argparse.Namespace) -> Iterator[Row]:
    """A row for each test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "tests/test_scarcity.py", f"--junitxml={report}"]
        subprocess.run([*command, "-m", "slow or not slow"], cwd=ROOT, stdout=subprocess.DEVNULL)
        for case in ElementTree.parse(report).iter("testcase"):
            outcome = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
            said = "as it should" if outcome is None else f"{outcome.tag}: {outcome.get('message', '')[:100]}"
            words = case.attrib["name"].removeprefix("test_").replace("_", " ").replace("[", " (")
            yield (words.replace("]", ")"), said), outcome is not None and outcome.tag != "skipped"


@dataclass(frozen=True)
class Table:
    """What is measured: the heads of its columns, and what gives its rows."""

    heads: Sequence[str]
    rows: Callable[[argparse.Namespace], Iterator[Row]]


_OF_INPUTS = "way in", "inputs", "crashes", "hangs", "peak memory"

TABLES = {
    "inputs": Table(_OF_INPUTS, altered_files),
    "guided": Table(_OF_INPUTS, lambda arguments: altered_files(arguments, "--guided")),
    "kills": Table(kills.HEADER, killed_runs),
    "scarcity": Table(("case", "outcome"), scarce_things),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "tables", nargs="*", default=[*TABLES], metavar="TABLE", help=f"of {', '.join(TABLES)}"
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for each way in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each way in, at most")
    parser.add_argument("--jobs", type=int, default=2, help="ways in at once")
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.tables:
        table = TABLES[name]
        print(f"| {' | '.join(table.heads)} |\n|---{'|--:' * (len(table.heads) - 1)}|")
        for cells, found in table.rows(arguments):
            print(f"| {' | '.join(cells)} |", flush=True)
            failed |= found
        print()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
