"""The README and the pages: what they show is what the program prints, and what they name exists."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_line
from conftest import needs_jq
from pages import ROOT, blocks, examples, same
from patience import PATIENCE
from terminals import in_terminal

from fcnconv.cli import COMMANDS, command

HELP = ROOT / "docs" / "help.md"
PAGES = (
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {HELP}),
    ROOT / "benchmarks" / "README.md",
)
"""What people wrote; docs/help.md is made."""

TUTORIALS = [page for page in PAGES if page.name.startswith("tutorial-")]
"""test_tutorials.py follows these."""

TEXT = {page: page.read_text(encoding="utf-8") for page in (*PAGES, HELP)}
OPTION = re.compile(r"(?<![\w/-])--?[a-z][a-z0-9-]*")
CURL = "curl -s https://example.org/photo.jpg"


def named(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


# The console blocks: a command after "$ ", and what it prints below.


def test_the_comparison_can_fail() -> None:
    assert same("a 0.868\n", "a 0.8681\n") and same("a 5.0e-06\n", "a 7.7e-06\n")
    assert not same("a 0.868\n", "a 0.888\n") and not same("a 0.868\n", "b 0.868\n")
    assert not same("a 5.0e-06\n", "a 5.0\n")


@pytest.mark.parametrize("page", ["README.md", "docs/models.md", "docs/trust.md"])
def test_a_page_has_examples(page: str) -> None:
    assert examples(TEXT[ROOT / page])


@pytest.mark.parametrize(
    ("line", "output"),
    [
        pytest.param(
            *example,
            id=f"{named(page)}: {example[0]}"[:80],
            marks=pytest.mark.slow if "verify" in example[0] else (),
        )
        for page in PAGES
        if page not in TUTORIALS
        for example in examples(TEXT[page])
    ],
)
def test_an_example_prints_what_the_page_says(line: str, output: str) -> None:
    done = run_line(line, ROOT)
    assert done.returncode == 0, done.stderr
    assert same(output, done.stdout.decode()), done.stdout


def test_the_drawing_in_letters_is_what_a_terminal_shows() -> None:
    part = section(TEXT[ROOT / "docs" / "formats.md"], "On the terminal")
    line = re.search(r"`(NO_COLOR=1 [^`]*)`", part)
    (shown,) = blocks(part, "text")
    assert line
    drawn = in_terminal(line[1], stdout=True, cwd=ROOT)
    assert drawn.status == 0, drawn.terminal
    printed = [row.rstrip() for row in re.sub(r"\x1b\[[0-9;]*m", "", drawn.terminal).splitlines()]
    title, *letters, first, second = shown.splitlines()
    assert [title, first, second] == [printed[0], *printed[-2:]]
    assert len(letters) == len(printed) - 3
    pairs = [
        (a, b)
        for row, other in zip(letters, printed[1:-2], strict=True)
        for a, b in zip(row.ljust(100), other.ljust(100), strict=True)
    ]
    assert sum(a == b for a, b in pairs) >= 0.98 * len(pairs)  # a letter may fall on the other side


# The Python: what a comment says a line gives.


def test_the_python_of_the_readme_gives_what_its_comments_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sample_images").symlink_to(ROOT / "sample_images")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(TEXT[ROOT / "README.md"], "python")
    torch.manual_seed(0)
    names: dict[str, object] = {
        "my_classifier": torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=32),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 5),
        ).eval()
    }
    compared = 0
    for line in block.splitlines():
        code, _, comment = line.partition("  # ")
        if code and comment.startswith(("(", "'")):
            assert eval(code, names) == ast.literal_eval(comment), line
            compared += 1
        else:
            exec(code, names)
    assert compared == 3
    assert (tmp_path / "map.png").is_file()


# The pipelines of the README, with and without a terminal.


def pipelines() -> list[Any]:
    """The commands of the section on pipelines, with a local file in the place of a download."""
    (block,) = blocks(section(TEXT[ROOT / "README.md"], "In a pipeline"), "sh")
    assert CURL in block
    lines = block.replace(CURL, "cat photo.jpg").splitlines()
    return [pytest.param(line, marks=[needs_jq] if "| jq" in line else [], id=line[:40]) for line in lines]


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize(
    "terminal", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no terminal", "terminal"]
)
@pytest.mark.parametrize("line", pipelines())
def test_a_pipeline_runs_and_says_something_true(line: str, terminal: bool, tmp_path: Path) -> None:
    photo = (ROOT / "sample_images" / "chelsea.png").read_bytes()
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b c.jpg"):
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "list.txt").write_text("photo.jpg\nphotos/b c.jpg\n")
    if terminal:  # as a person types it: standard error, and what is not redirected, is the terminal
        shown = in_terminal(line, stdout=False, cwd=tmp_path)
        status, stdout, stderr = shown.status, shown.stdout.decode(), shown.terminal
    else:
        done = run_line(line, tmp_path)
        status, stdout, stderr = done.returncode, done.stdout.decode(), done.stderr.decode()
    assert status == 0, stderr
    if "--out" in line:
        assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "Egyptian cat" in stdout or "(3, 8, 1000)" in stdout


# The commands and their options.


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_on_a_page_and_explains_its_options(name: str) -> None:
    assert any(f"fcnconv {name} " in TEXT[page] for page in PAGES)
    assert command(name).__doc__
    for parameter in inspect.signature(command(name), eval_str=True).parameters.values():
        (settings,) = parameter.annotation.__metadata__
        assert settings.help, f"--{parameter.name} of {name} has no help"


def test_the_page_of_help_is_what_the_commands_print() -> None:
    made = subprocess.run(
        [sys.executable, "docs/maintain/make_help.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == TEXT[HELP], (
        "docs/help.md differs from the help that the commands print now; make it again with "
        "'python docs/maintain/make_help.py > docs/help.md'"
    )


def known_options(name: str) -> set[str]:
    """The options that the page of help lists for a command."""
    return set(OPTION.findall(section(TEXT[HELP], f"fcnconv {name}")))


def unknown_options(text: str) -> list[str]:
    """The options that a page gives a command, or names in its prose, and that are in no help.

    In a line of a shell only what stands between ``fcnconv COMMAND`` and the next pipe or comment is ours.
    """
    lines = [
        line for language in ("sh", "console") for block in blocks(text, language) for line in lines_of(block)
    ]
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    every = {option for name in COMMANDS for option in known_options(name)}
    every |= set(OPTION.findall(section(TEXT[HELP], "fcnconv")))
    unknown = [span for span in spans if span.startswith("-") and set(OPTION.findall(span)) - every]
    for line in lines + spans:
        for name, rest in re.findall(r"fcnconv ([a-z]+)([^|#]*)", line):
            wrong = set(OPTION.findall(rest)) - known_options(name) if name in COMMANDS else {name}
            unknown += [f"fcnconv {name} {option}" for option in sorted(wrong)]
    return unknown


def lines_of(block: str) -> list[str]:
    """The commands of a block of shell, without the outputs of a console."""
    whole = block.replace("\\\n", " ").splitlines()
    typed = [line[2:] for line in whole if line.startswith("$ ")]
    return typed or whole


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    assert unknown_options(TEXT[page]) == []


def test_an_option_that_does_not_exist_is_found() -> None:
    assert unknown_options("`--nonesuch 3` and `-k`") == ["--nonesuch 3"]
    assert unknown_options("```sh\nfcnconv classify a.png --argmax | cat -n\n```\n") == [
        "fcnconv classify --argmax"
    ]
    assert unknown_options("`fcnconv nonesuch`") == ["fcnconv nonesuch nonesuch"]


# The links, the pictures and the scripts.


def anchors(text: str) -> set[str]:
    """The names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """The links of a page to files or headings of the repository that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        inside = file.resolve().is_relative_to(ROOT)
        if not (
            inside and file.exists() and (not anchor or anchor in anchors(file.read_text(encoding="utf-8")))
        ):
            broken.append(target)
    return broken


@pytest.mark.parametrize(
    "page", [*PAGES, HELP, ROOT / "sample_images" / "README.md", ROOT / "CHANGELOG.md"], ids=named
)
def test_the_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found() -> None:
    text = "[a](LICENSE) [b](nonesuch.md) [c](docs/trust.md#the-proof) ![d](docs/trust.md#nonesuch)"
    assert broken_links(ROOT / "README.md", text) == ["nonesuch.md", "docs/trust.md#nonesuch"]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=named)
def test_the_readme_links_every_page(page: Path) -> None:
    assert f"({named(page)}" in TEXT[ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_scripts_that_a_page_names_are_there(page: Path) -> None:
    for script in re.findall(r"\bpython ([\w./-]+\.py)", TEXT[page]):
        assert (ROOT / script).is_file(), script


def test_a_glob_over_the_sample_images_means_those_that_its_table_tells_of() -> None:
    folder = ROOT / "sample_images"
    table = re.findall(
        r"^\| `(.*?)` .* \| (.*?) \|$", (folder / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted([*dict(table), "README.md"])
    assert {licence for _, licence in table} == {"CC0", "public domain"}
