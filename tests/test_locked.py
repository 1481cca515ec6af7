"""One process makes what many want: the others wait, and nobody waits for one that is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import PATIENCE, wait_until

from fcnconv.backends.plans import locked

pytest.importorskip("fcntl", reason="files are locked in the way of POSIX")

MAKE = """
import sys, time
from pathlib import Path
from fcnconv.backends.plans import locked
path = Path(sys.argv[1])
print('ready', flush=True)
with locked(path, lambda: None):
    if not path.exists():
        time.sleep(0.2)
        with path.open('a') as file:
            file.write('made')
"""


def start(path: Path, code: str = MAKE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)


def test_it_is_made_once_and_no_lock_is_left(tmp_path: Path) -> None:
    path = tmp_path / "plan.onnx"
    processes = [start(path) for _ in range(4)]
    assert [process.communicate(timeout=PATIENCE) and process.returncode for process in processes] == [0] * 4
    assert path.read_text() == "made" and list(tmp_path.iterdir()) == [path]


def test_threads_wait_too_and_tell_it(tmp_path: Path) -> None:
    inside: list[int] = []
    waited = threading.Event()

    def second() -> None:
        with locked(tmp_path / "x", waited.set):
            inside.append(2)

    with locked(tmp_path / "x", lambda: pytest.fail("nobody is there yet")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(PATIENCE)
        inside.append(1)
    thread.join(PATIENCE)
    assert inside == [1, 2]


def test_nobody_waits_for_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "plan.onnx"
    slow = MAKE.replace("time.sleep(0.2)", "time.sleep(600)")
    first = start(path, slow)
    wait_until(lambda: any(tmp_path.iterdir()), "the first one to have the lock")
    second = start(path)
    assert second.stdout is not None and second.stdout.readline() == b"ready\n"
    first.send_signal(signal.SIGKILL)
    assert second.wait(PATIENCE) == 0 and path.read_text() == "made"
    first.communicate()
    second.communicate()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_inside_opens_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError), locked(tmp_path / "x", lambda: pytest.fail("still locked")):
            raise ValueError
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("without", ["a folder", "locks"])
def test_where_nothing_can_be_locked_nobody_waits(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuses(*_: int) -> None:
        raise OSError(95, os.strerror(95))

    if without == "locks":
        monkeypatch.setattr(fcntl, "flock", refuses)
    (tmp_path / "file").touch()
    path = tmp_path / ("x" if without == "locks" else "file/x")
    with locked(path, lambda: pytest.fail("waits")), locked(path, lambda: pytest.fail("waits")):
        pass
