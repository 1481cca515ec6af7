"""How much hostile input each way in was given, and what it did.

python benchmarks/hardening.py [--seconds 40] [--inputs 100000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]

Row = tuple[str, str, str, str, str]
"""The way in, how many inputs, crashes, hangs, and by how much memory it grew at most."""


def altered_files(arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for each way in, of files altered at random and, where atheris is, led by coverage."""
    sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
    from targets import TARGETS

    for guided in (False, True) if find_spec("atheris") else (False,):
        command = [sys.executable, str(ROOT / "tests/fuzz/run.py"), "--json"]
        command += ["--seconds", str(arguments.seconds), "--inputs", str(arguments.inputs)]
        with subprocess.Popen(command + ["--guided"] * guided, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                about = TARGETS[told["target"]].about + (", led by coverage" if guided else "")
                memory = f"{told['grown'] / 1e6:.0f} MB"
                yield about, f"{told['inputs']:,}", f"{told['crashes']:,}", f"{told['hangs']:,}", memory


ROWS: tuple[Callable[[argparse.Namespace], Iterator[Row]], ...] = (altered_files,)
"""What the table is made of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="for each way in, at most")
    parser.add_argument("--inputs", type=int, default=100_000, help="for each way in, at most")
    arguments = parser.parse_args()
    print("| way in | inputs | crashes | hangs | peak memory |\n|---|--:|--:|--:|--:|")
    for make in ROWS:
        for row in make(arguments):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
