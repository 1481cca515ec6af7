"""Breaks lines of fcnconv one at a time, and counts how many of these mutants the tests catch.

    python benchmarks/mutants.py                      # 20 lines, drawn from all rooms of the package
    python benchmarks/mutants.py --count 40 --seed 7
    python benchmarks/mutants.py --list               # only shows what would be broken
    python benchmarks/mutants.py --executing          # only the tests that execute a line: minutes
    python benchmarks/mutants.py --record lines.db    # reuses the record of the first run
    python benchmarks/mutants.py -- -m 'not giant'    # other tests than the default ones

A mutant changes one expression: ``<`` becomes ``<=``, ``+`` becomes ``-``, ``and`` becomes ``or``, a
condition is negated, a number grows by one. The lines are drawn evenly from the folders and modules of the
package, and the same seed gives the same mutants of the same source. A copy of the repository is changed,
never the repository.

First the tests run once unchanged, with a record of the tests that execute each line. A mutant is then
given to the tests that execute its line, until one fails. If none does, all tests run, as some start
processes of their own, which the record does not see. A survivor is a gap in the tests, or a change that
makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
IGNORED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "shared")
"""What no test reads."""

HANGS = 3600.0
"""Seconds after which the tests of a mutant are given up."""

ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*"}


@dataclass(frozen=True)
class Mutant:
    """A change of one expression.

    Attributes:
        path: the file, relative to the repository.
        line: the number of the line, from 1 on.
        before: the line as it is.
        after: the line as it becomes.
    """

    path: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before.strip()}  ->  {self.after.strip()}"


@functools.cache
def mutants_of(path: Path) -> tuple[Mutant, ...]:
    """All changes of the functions of a file, each within one line. Some are no Python: see `_parses`."""
    return tuple(_mutants(path))


def _mutants(path: Path) -> Iterator[Mutant]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    name = path.relative_to(ROOT).as_posix()
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for statement in function.body:
            for node in ast.walk(statement):
                for (row, start, end), new in _changes(node):
                    # Offsets count bytes of UTF-8.
                    raw = lines[row - 1].encode()
                    after = (raw[:start] + new.encode() + raw[end:]).decode()
                    if after != lines[row - 1]:
                        yield Mutant(name, row, lines[row - 1], after)


def _changes(node: ast.AST) -> Iterator[tuple[tuple[int, int, int], str]]:
    """Places (line, first byte, last byte) within a node's own lines, and what is put there."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield from _between(node.left, node.comparators[0], f" {COMPARISONS[type(node.ops[0])]} ")
    elif (
        isinstance(node, ast.BinOp)
        and type(node.op) in ARITHMETIC
        and not isinstance(node.left, ast.Constant)
    ):
        yield from _between(node.left, node.right, f" {ARITHMETIC[type(node.op)]} ")
    elif isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield from _between(node.values[0], node.values[1], other)
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        test = node.test
        if test.lineno == test.end_lineno and test.end_col_offset is not None:
            place = (test.lineno, test.col_offset, test.end_col_offset)
            yield place, f"(not ({ast.unparse(test)}))"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.end_col_offset:
        yield (node.lineno, node.col_offset, node.end_col_offset), str(node.value + 1)


def _between(left: ast.expr, right: ast.expr, new: str) -> Iterator[tuple[tuple[int, int, int], str]]:
    if left.end_lineno == right.lineno and left.end_col_offset is not None:
        yield (right.lineno, left.end_col_offset, right.col_offset), new


def _parses(mutant: Mutant) -> bool:
    lines = (ROOT / mutant.path).read_text(encoding="utf-8").splitlines()
    try:
        ast.parse("\n".join([*lines[: mutant.line - 1], mutant.after, *lines[mutant.line :]]))
    except SyntaxError:  # a parenthesis was between the two sides
        return False
    return True


def draw(count: int, seed: int) -> list[Mutant]:
    """Mutants from all rooms of the package in turn, at most one for each line."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "fcnconv").rglob("*.py")):
        room = path.relative_to(ROOT / "fcnconv").parts[0]
        rooms.setdefault(room, []).append(path)
    source = random.Random(seed)
    order = sorted(rooms)
    source.shuffle(order)
    drawn: list[Mutant] = []
    places: set[tuple[str, int]] = set()
    for turn in range(10 * count):
        if len(drawn) == count:
            break
        found = [mutant for path in rooms[order[turn % len(order)]] for mutant in mutants_of(path)]
        found = [mutant for mutant in found if (mutant.path, mutant.line) not in places]
        source.shuffle(found)
        chosen = next(filter(_parses, found), None)
        if chosen:
            drawn.append(chosen)
            places.add((chosen.path, chosen.line))
    return drawn


def pytest(copy: Path, *arguments: str, **environment: str) -> int:
    """Runs tests in a copy of the repository, with more variables; the exit status."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--no-header",
        "--tb=no",
        *arguments,
    ]
    variables = os.environ | {"PYTHONPATH": str(copy)} | environment
    try:
        done = subprocess.run(command, cwd=copy, env=variables, stdout=subprocess.DEVNULL, timeout=HANGS)
    except subprocess.TimeoutExpired:  # the mutant loops for ever: nobody would overlook that
        return 1
    return done.returncode


def tests_of(record: Path, mutant: Mutant) -> list[str]:
    """The tests that execute a mutant's line in the process of the tests, the most specific first: those that
    execute the fewest lines of its file.
    """
    from coverage import CoverageData

    data = CoverageData(str(record))
    data.read()
    file = next((file for file in data.measured_files() if file.endswith("/" + mutant.path)), "")
    contexts = data.contexts_by_lineno(file) if file else {}
    lines = Counter(context.rpartition("|")[0] for line in contexts.values() for context in line if context)
    near = {context.rpartition("|")[0] for context in contexts.get(mutant.line, []) if context}
    return sorted(near, key=lambda test: (lines[test], test))


def is_caught(copy: Path, record: Path, mutant: Mutant, more: list[str], executing: bool) -> str:
    """How a mutant was caught; nothing for a survivor. executing: no other tests are run."""
    path = copy / mutant.path
    sound = path.read_text(encoding="utf-8")
    lines = sound.splitlines(keepends=True)
    lines[mutant.line - 1] = mutant.after + "\n"
    path.write_text("".join(lines), encoding="utf-8")
    try:
        near = tests_of(record, mutant)
        if near and pytest(copy, "-x", "-n", "0", *near[:400], *more) not in (0, 5):
            return f"by one of {len(near)} tests that execute the line"
        if executing:
            return ""
        return "by another test" if pytest(copy, "-x", "-n", "2", "--dist", "worksteal", *more) else ""
    finally:
        path.write_text(sound, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="only show the mutants")
    parser.add_argument("--executing", action="store_true", help="only run the tests that execute a line")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="the record of the first run, made if missing"
    )
    parser.add_argument("more", nargs="*", help="arguments of pytest, after --")
    given = parser.parse_args()
    drawn = draw(given.count, given.seed)
    if given.list:
        print(*drawn, sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "fcnconv")
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        record = (given.record or copy / ".coverage").absolute()
        if not record.exists():
            start = time.monotonic()
            measured = ("--cov", "--cov-context=test", "--cov-report=")
            two = ("-n", "2", "--dist", "worksteal")
            if pytest(copy, *two, *measured, *given.more, COVERAGE_FILE=str(record)):
                sys.exit("the tests fail without any change")
            print(f"{time.monotonic() - start:.0f} s without a change", flush=True)
        caught = 0
        for mutant in drawn:
            start = time.monotonic()
            how = is_caught(copy, record, mutant, given.more, given.executing)
            caught += bool(how)
            print(f"{mutant}\n    {f'caught {how}' if how else 'SURVIVED'}", end="", flush=True)
            print(f", {time.monotonic() - start:.0f} s", flush=True)
        print(f"{caught} of {len(drawn)} mutants caught")


if __name__ == "__main__":
    main()
