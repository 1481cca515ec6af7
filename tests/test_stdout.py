"""Standard output belongs to data: with a terminal on standard error, on both, on neither, and closed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command
from terminals import in_terminal, until_there

from fcnconv.system.stdout import data_stream, guarded

COFFEE, CHELSEA = SAMPLES / "coffee.png", SAMPLES / "chelsea.png"
FCNCONV = [sys.executable, "-m", "fcnconv"]


@pytest.mark.usefixtures("lite0")
def test_answers_reach_a_file_while_a_bar_counts_them_on_the_terminal(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    names = f"(printf '{COFFEE}\\n{CHELSEA}\\n'; {until_there(shown)}; echo '{COFFEE}')"
    line = f"{names} | fcnconv classify --files-from - -k 1 > answers"
    done = in_terminal(line, stdout=False, cwd=tmp_path, await_text=("classifying 2", shown))
    assert done.status == 0
    rows = [line.split("\t") for line in (tmp_path / "answers").read_text().splitlines()]
    assert [row[2] for row in rows] == ["espresso", "Egyptian cat", "espresso"]
    assert "espresso" not in done.terminal and "classifying" in done.terminal


@pytest.mark.usefixtures("lite0")
def test_json_and_errors_part_ways() -> None:
    done = in_terminal([*FCNCONV, "classify", "--json", COFFEE, "missing.jpg", CHELSEA], stdout=False)
    assert done.status == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(record)[1] for record in records] == ["width", "error", "width"]
    assert "fcnconv: missing.jpg: cannot be opened: No such file or directory" in done.terminal


@pytest.mark.usefixtures("lite0")
def test_batch_lists_its_maps_in_a_file_and_nothing_else(tmp_path: Path) -> None:
    command = [*FCNCONV, "batch", COFFEE, CHELSEA, "-o", tmp_path / "maps", "-f", "json", "-k", "1"]
    done = in_terminal(command, stdout=False)
    assert done.status == 0
    names = [Path(name) for name in done.stdout.decode().splitlines()]
    assert [name.name for name in names] == ["coffee.png.json", "chelsea.png.json"]
    assert all(name.is_file() for name in names)
    assert "2 images: 2 written" in done.terminal and ".json" not in done.terminal


@pytest.mark.usefixtures("lite0")
def test_on_a_terminal_people_get_tables_and_the_bar_leaves_them_whole() -> None:
    done = in_terminal([*FCNCONV, "classify", COFFEE, CHELSEA, "-k", "1"], stdout=True)
    assert done.status == 0 and done.stdout == b""
    assert "espresso" in done.terminal and "Egyptian cat" in done.terminal and "█" in done.terminal


@pytest.mark.usefixtures("lite0")
def test_binary_data_goes_through_whole() -> None:
    command = f"fcnconv heatmap '{COFFEE}' -f npy -o - | cat"
    done = in_terminal(command, stdout=False)
    assert done.status == 0
    assert np.frombuffer(done.stdout[128:], np.float32).reshape(6, 12, 1000).sum() == pytest.approx(
        72, abs=1e-3
    )


PRINTS = (
    "import ctypes, os, sys; from fcnconv.cli.app import main; import fcnconv.labels as labels\n"
    "known = labels.imagenet\n"
    "def noisy():\n"
    "    print('by python'); os.write(1, b'by descriptor\\n'); os.system('echo by a child')\n"
    "    libc = ctypes.CDLL(None); libc.puts(b'by C'); libc.fflush(None); return known()\n"
    "import fcnconv.models; fcnconv.models.imagenet = noisy\n"
    "sys.argv = ['fcnconv', 'classes', 'espresso maker']; main()"
)


def test_neither_python_nor_c_nor_a_child_can_print_among_the_data() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "550\tn03297495\tespresso maker\n"
    assert set(done.stderr.splitlines()) == {"by python", "by descriptor", "by a child", "by C"}


def test_a_closed_standard_output_is_told() -> None:
    command = f"'{sys.executable}' -m fcnconv classes espresso >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("fcnconv: standard output ") and "/dev/null" in done.stderr


def test_a_closed_standard_error_keeps_nobody_from_the_data() -> None:
    command = f"'{sys.executable}' -m fcnconv classes 'espresso maker' 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "550\tn03297495\tespresso maker\n")


def test_afterwards_everything_is_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with guarded():
        print("talk")
        print("data", file=data_stream())
    assert sys.stdout is before and data_stream() is before
    print("again")
    assert capfd.readouterr() == ("data\nagain\n", "talk\n")


def test_help_and_version_are_data_too(fcnconv: Command) -> None:
    assert fcnconv("--version").stdout.strip()
    assert b"--top-k" in fcnconv("classify", "--help").stdout
