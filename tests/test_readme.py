"""The README's console blocks: each command is run, and prints what the README says it prints."""

import inspect
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminals import in_terminal

from fcnconv.commands import COMMANDS, command

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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme_and_explains_its_options(name: str) -> None:
    assert f"fcnconv {name} " in README
    assert command(name).__doc__
    for parameter in inspect.signature(command(name), eval_str=True).parameters.values():
        (settings,) = parameter.annotation.__metadata__
        assert settings.help, f"--{parameter.name} of {name} has no help"


def pipelines() -> list[str]:
    """The commands of the section on pipelines, with a local file in the place of a download."""
    section = README.split("## In a pipeline")[1].split("\n## ")[0]
    block = re.search(r"^```sh\n(.*?)^```", section, re.M | re.S)
    assert block
    return block[1].replace("curl -s https://example.org/photo.jpg", "cat photo.jpg").splitlines()


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "terminal"])
@pytest.mark.parametrize("command", pipelines(), ids=lambda text: text[:40])
def test_a_pipeline_runs_and_says_something_true(command: str, terminal: bool, tmp_path: Path) -> None:
    photo = (ROOT / "sample_images" / "chelsea.png").read_bytes()
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b c.jpg"):
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "list.txt").write_text("photo.jpg\nphotos/b c.jpg\n")
    if terminal:  # as a person types it: standard error, and what is not redirected, is the terminal
        shown = in_terminal(command, stdout=False, cwd=tmp_path)
        status, stdout, stderr = shown.status, shown.stdout.decode(), shown.terminal
    else:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        status, stdout, stderr = done.returncode, done.stdout, done.stderr
    assert status == 0, stderr
    if "--out" in command:
        assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "Egyptian cat" in stdout or "(3, 8, 1000)" in stdout
