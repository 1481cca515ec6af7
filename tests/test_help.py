"""The help: short, without noise, what most need first; and its examples, which are run as they stand."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
from commands import assert_refused, run_line
from conftest import SAMPLES, Command

from fcnconv.api.classifier import Classifier
from fcnconv.cli import COMMANDS, command
from fcnconv.cli.app import ABOUT, LEFT, help_page


def examples_in(about: str) -> list[str]:
    """The commands among the examples of a help text, without their comments."""
    lines = [line for line in about.splitlines() if line.startswith(" ") and line.strip()]
    return [line.split("  #")[0].strip() for line in lines]


ABOUTS = {"": ABOUT} | {name: inspect.getdoc(command(name)) or "" for name in COMMANDS}
EXAMPLES = [
    pytest.param(name, line, id=line, marks=pytest.mark.slow if "--stride" in line else ())
    for name, about in ABOUTS.items()
    for line in examples_in(about)
]


def shown(fcnconv: Command, name: str, columns: int = 80, flag: str = "-h") -> str:
    return fcnconv(*name.split(), flag, COLUMNS=str(columns)).stdout.decode()


def has_short_help(name: str) -> bool:
    return bool(name) and "help_all" in inspect.signature(command(name)).parameters


PAGES = [(name, "-h") for name in ABOUTS] + [(name, "--help-all") for name in ABOUTS if has_short_help(name)]


@pytest.mark.parametrize("name", ABOUTS)
def test_each_help_has_two_examples_on_its_first_screen(fcnconv: Command, name: str) -> None:
    page = shown(fcnconv, name)
    first = "\n".join(page.splitlines()[:24])
    lines = examples_in(ABOUTS[name])
    assert len(lines) == 2 and all(line in first for line in lines)
    assert page.startswith("Usage: fcnconv ")


@pytest.mark.parametrize(("name", "flag"), PAGES)
def test_a_help_is_short_and_without_noise(fcnconv: Command, name: str, flag: str) -> None:
    page = shown(fcnconv, name, flag=flag)
    assert max(map(len, page.splitlines())) <= 80
    assert not re.search(r"range|x>=|<=x|<\w+>|list\[|INTEGER|TEXT", page)
    for entry in re.findall(r"^  -.*(?:\n {10,}.*)*", page, re.M):
        first, *more = entry.splitlines()
        assert len(more) <= 1 + (len(first) <= 2 + LEFT + 3), entry  # an option may have a line to itself
    wide = shown(fcnconv, name, columns=200, flag=flag)
    assert max(map(len, wide.splitlines())) <= 100 and len(wide) <= len(page)


def options_in(page: str) -> set[str]:
    """The options that a page explains, each by its first long flag."""
    return {re.findall(r"--[\w-]+", line)[0] for line in re.findall(r"^  -\S.*", page, re.M)}


@pytest.mark.parametrize("name", [name for name in ABOUTS if has_short_help(name)])
def test_the_short_help_has_ten_options_and_names_the_other_groups(fcnconv: Command, name: str) -> None:
    short, whole = shown(fcnconv, name), shown(fcnconv, name, flag="--help-all")
    explained, every = options_in(short), options_in(whole)
    assert {"--help", "--help-all"} < explained < every
    assert len(explained) <= 12 and (name != "heatmap" or len(explained) == 12)
    more = short.split("More options")[1]
    counts = (
        len(re.findall(r"--(?!help-all)[\w-]+", more)),
        sum(map(int, re.findall(r"and (\d+) more", more))),
    )
    assert sum(counts) == len(every - explained)
    assert len(short.splitlines()) <= 52


@pytest.mark.parametrize("name", ["", "heatmap", "doctor"])
def test_help_is_a_command_too(fcnconv: Command, name: str) -> None:
    assert fcnconv("help", *name.split(), COLUMNS="80").stdout.decode() == shown(fcnconv, name)


def test_help_of_an_unknown_command_is_refused(fcnconv: Command) -> None:
    assert_refused(fcnconv("help", "heatmpa"), "'heatmpa' ... 'heatmap'")


def test_the_commands_come_first_and_a_line_each(fcnconv: Command) -> None:
    page = shown(fcnconv, "")
    section = page.split("Commands:\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in section.splitlines()] == list(COMMANDS)


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_works_as_it_stands(name: str, line: str, tmp_path: Path, lite0: Classifier) -> None:
    (tmp_path / "photos").mkdir()
    for path in ("photo.jpg", "photos/a.jpg", "photos/b c.jpg"):
        shutil.copy(SAMPLES / "chelsea.png", tmp_path / path)
    done = run_line(line, tmp_path)
    assert done.returncode == 0, done.stderr
    if out := re.search(r"-o (\S+)", line):
        assert (tmp_path / out[1]).exists()
    else:
        assert done.stdout
    assert f"fcnconv {name}" in line


def test_a_page_of_help_is_laid_out() -> None:
    beside = " " * (LEFT + 4)
    about = "One\nline.\n\n    a -b    # c\n\nMore of it,\nwrapped."
    page = help_page(
        "a [B]", about, {"Options": [("-b", "word " * 4), ("--" + "l" * LEFT, "x")], "None": []}, 30
    )
    assert page == (
        "Usage: a [B]\n\nOne line.\n\nMore of it, wrapped.\n\nExamples:\n  a -b    # c\n\nOptions:\n"
        f"  -b{' ' * LEFT}word\n{(beside + 'word' + chr(10)) * 3}  --{'l' * LEFT}\n{beside}x\n"
    )
    assert examples_in(about) == ["a -b"]
