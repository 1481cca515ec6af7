"""Commands in the process of the tests do what they do in a process of their own, and leave no trace."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
from commands import run_here, run_line, run_process
from conftest import SAMPLES

CHELSEA = SAMPLES / "chelsea.png"


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["classify", CHELSEA, "missing.png", "--json", "-k", "1"], None),
        (["heatmap", "-f", "npy", "-o", "-", "--anchors", "0"], CHELSEA.read_bytes()),
        (["classify", "--debug", "missing.png"], None),
        (["heatmap", CHELSEA, "-o", "x.png", "--values", "odds"], None),
        (["--version"], None),
        ([], None),
    ],
    ids=["answers and errors", "a pipe", "a traceback", "wrong usage", "the version", "nothing"],
)
def test_a_command_does_the_same_here(arguments: list[str | Path], stdin: bytes | None) -> None:
    here, there = run_here(*arguments, stdin=stdin), run_process(*arguments, stdin=stdin)
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    if "--debug" in arguments:  # more functions are on the stack here
        assert here.stderr.splitlines()[-1] == there.stderr.splitlines()[-1] and b"Traceback" in here.stderr
    else:
        assert here.stderr == there.stderr


def test_nothing_of_a_command_stays(tmp_path: Path) -> None:
    def state() -> list[object]:
        log = logging.getLogger("fcnconv")
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
        streams = [sys.stdin, sys.stdout, sys.stderr, *(os.fstat(number).st_ino for number in range(3))]
        descriptors = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
        return [
            *handlers,
            *streams,
            descriptors,
            dict(os.environ),
            Path.cwd(),
            sys.argv,
            log.level,
            *log.handlers,
        ]

    run_here("models", "zzz")  # what is imported and kept once
    before = state()
    assert run_here("models", "zzz", "-q", cwd=tmp_path, FCNCONV_BACKEND="onnx").returncode == 2
    assert run_here("classify", "-", stdin=b"no image" * 100_000).returncode == 1
    assert state() == before


def test_what_does_not_go_through_python_is_captured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def loud() -> None:
        os.write(1, b"out\n")
        os.system("echo err >&2; cat")
        warnings.warn("beware", stacklevel=1)
        sys.exit("the end")

    monkeypatch.setattr("fcnconv.cli.app.main", loud)
    done = run_here(stdin=b"in\n")
    assert (done.returncode, done.stdout) == (1, b"out\nin\n")
    first, *middle, last = done.stderr.decode().splitlines()
    assert first == "err" and any("UserWarning: beware" in line for line in middle) and last == "the end"


def test_what_only_a_new_process_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="PYTHONPATH has no effect on a running process"):
        run_here("--version", PYTHONPATH="here")


@pytest.mark.usefixtures("lite0")
def test_a_line_finds_files_as_a_shell_does(tmp_path: Path) -> None:
    for name in ("a.png", "b c.png"):
        (tmp_path / name).write_bytes(b"no image")
    for line, names in (
        ("fcnconv classify *.png  # all of them", ["a.png", "b c.png"]),
        ("fcnconv classify 'b c.png' | cat", ["b c.png"]),
        ("fcnconv classify *.png | cat; false", ["a.png", "b c.png"]),  # by bash
    ):
        done = run_line(line, tmp_path)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines() == [
            f"fcnconv: {name}: not an image that Pillow can decode" for name in names
        ]
