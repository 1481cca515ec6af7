"""The README's console blocks: each command is run, and prints what the README says it prints."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+\.\d+")


def examples() -> list[tuple[str, str]]:
    """Each command of the ``console`` blocks with the output that follows it."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]


def same(shown: str, printed: str) -> bool:
    """Whether two texts are equal, decimal fractions to two places."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), abs_tol=0.01) for a, b in pairs)


def test_there_are_examples_and_the_comparison_can_fail() -> None:
    assert len(examples()) >= 2
    assert same("a 0.868\n", "a 0.8681\n")
    assert not same("a 0.868\n", "a 0.888\n") and not same("a 0.868\n", "b 0.868\n")


@pytest.mark.parametrize(("command", "output"), examples(), ids=lambda text: text[:50])
def test_an_example_prints_what_the_readme_says(command: str, output: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert same(output, done.stdout), done.stdout
