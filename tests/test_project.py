"""The files around the code: citation, container, the page for agents."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run_here, run_line
from conftest import SAMPLES
from test_docs import OPTION, TEXT, examples, known_options, same, unknown_options

import fcnconv
from fcnconv.cli import COMMANDS

ROOT = Path(__file__).parents[1]
LLMS = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
BUILD_SECONDS = 1800


def test_the_citation_names_the_version_and_the_licence() -> None:
    yaml = pytest.importorskip("yaml", reason="no PyYAML: pip install '.[test]'")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fcnconv.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_container_copies_all_that_the_package_is_built_from() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for name in line.split()}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "fcnconv"}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)


def has_docker() -> bool:
    """Whether there is a Docker daemon that answers."""
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([docker, "info"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """The image that the Dockerfile makes."""
    if not has_docker():
        pytest.skip("no Docker daemon: start one to build and run the Dockerfile")
    subprocess.run(["docker", "build", "-q", "-t", "fcnconv-test", ROOT], check=True, timeout=BUILD_SECONDS)
    yield "fcnconv-test"
    subprocess.run(["docker", "image", "rm", "-f", "fcnconv-test"], check=True, capture_output=True)


@pytest.mark.slow
def test_the_container_classifies_without_a_network(container: str) -> None:
    command = ["docker", "run", "--rm", "-i", "--network", "none", container, "classify", "-", "--json"]
    photo = (SAMPLES / "coffee.png").read_bytes()
    done = subprocess.run(command, input=photo, capture_output=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["category"] == "espresso"
    assert b"Preparing" not in done.stderr, "the plan should be in the image already"


# The page for agents.


def test_the_page_for_agents_names_every_command_and_only_real_options() -> None:
    assert {name for name in COMMANDS if f"`fcnconv {name}" not in LLMS} == set()
    assert unknown_options(LLMS) == []
    table = re.findall(r"^\| `fcnconv (\w+)[^|]*\|.*\|(.*)\|$", LLMS, re.M)
    assert [name for name, _ in table] == list(COMMANDS)
    for name, options in table:
        assert set(OPTION.findall(options)) <= known_options(name), name


@pytest.mark.parametrize(("line", "output"), examples(LLMS))
def test_an_example_for_agents_prints_what_the_page_says(line: str, output: str) -> None:
    done = run_line(line, ROOT)
    assert same(output, done.stdout.decode()), done.stdout


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ["classify", SAMPLES / "coffee.png", "-k", "1"]),
        (1, ["classify", SAMPLES / "coffee.png", "nonesuch.png", "-k", "1"]),
        (2, ["classify", "--nonesuch"]),
    ],
)
@pytest.mark.usefixtures("lite0")
def test_the_exit_statuses_for_agents_are_true(status: int, arguments: list[str | Path]) -> None:
    assert re.search(rf"^\| {status} \|", LLMS, re.M)
    assert run_here(*arguments).returncode == status


def test_the_keys_that_agents_read_are_in_the_answer() -> None:
    (keys,) = re.findall(r"^Keys of `classify --json`: (.*)\.$", LLMS, re.M)
    record = json.loads(run_here("classify", SAMPLES / "coffee.png", "--json").stdout)
    named = set(re.findall(r"`(\w+)`", keys))
    assert named == set(record) | set(record["predictions"][0])


def test_the_readme_links_the_project_files() -> None:
    readme = TEXT[ROOT / "README.md"]
    for path in ("SECURITY.md", "CITATION.cff", "docs/llms.txt", "docs/contributing.md"):
        assert f"({path})" in readme, path
