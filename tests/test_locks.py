"""Locks in a folder that processes share: one has an image, and it is taken over from who is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from patience import wait_until

from fcnconv.batch.locks import Locks, Owner

HOLDS = """
import sys, time
from pathlib import Path
from fcnconv.batch.locks import Locks
claims = Locks(Path(sys.argv[1]))
print(claims.take(sys.argv[2], alone=True) is not None, flush=True)
time.sleep(600)
"""


def holder(folder: Path, name: str = "a.jpg") -> subprocess.Popen[str]:
    """A process that has a claim, once this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "True\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_one_process_has_an_image_until_it_lets_it_go(tmp_path: Path) -> None:
    claims, other = Locks(tmp_path / "claims"), Locks(tmp_path / "claims")
    assert claims.take("a.jpg") and claims.take("b.jpg")
    assert other.take("a.jpg") is None and other.take("a.jpg", alone=True) is None
    claims.release("a.jpg")
    assert other.take("a.jpg") is not None


def test_what_a_killed_process_had_is_taken_over_by_who_works_on_it_alone(tmp_path: Path) -> None:
    claims = Locks(tmp_path)
    process = holder(tmp_path)
    assert claims.take("a.jpg", alone=True) is None and claims.is_alive("a.jpg")
    kill(process)
    assert claims.take("a.jpg") is None and not claims.is_alive("a.jpg")
    claim = claims.take("a.jpg", alone=True)
    assert claim is not None and claim.deaths == 1
    kill(process := holder(tmp_path, "b.jpg"))
    claims.release("a.jpg")
    claims.clear()
    assert not tmp_path.exists()  # nothing is left


def test_deaths_are_counted_from_owner_to_owner(tmp_path: Path) -> None:
    for _ in range(3):
        kill(holder(tmp_path))
    claim = Locks(tmp_path).take("a.jpg", alone=True)
    assert claim is not None and claim.deaths == 3


def elsewhere(folder: Path, name: str = "a.jpg") -> Path:
    """A claim of a process on another machine."""
    claims = Locks(folder)
    claims.take(name)
    (path,) = folder.iterdir()
    told = json.loads(path.read_text())
    told["owner"]["machine"] = "another"
    path.write_text(json.dumps(told))
    return path


@pytest.mark.parametrize("clock", [-1e9, 0, 1e9])
def test_another_machine_is_gone_when_nothing_has_touched_its_claim_whatever_its_clock_says(
    tmp_path: Path, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("fcnconv.batch.locks.time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
    path = elsewhere(tmp_path)
    moment = time.time() + clock
    os.utime(path, (moment, moment))
    claims = Locks(tmp_path, stale=30)
    assert claims.take("a.jpg", alone=True) is None
    now += 20
    os.utime(path, (moment - 7, moment - 7))  # alive, with a clock that was set back
    assert claims.take("a.jpg", alone=True) is None and claims.is_alive("a.jpg") is False
    now += 20
    assert claims.take("a.jpg", alone=True) is None
    now += 20
    assert claims.take("a.jpg", alone=True) is not None


def test_a_process_that_lives_touches_its_claims(tmp_path: Path) -> None:
    claims = Locks(tmp_path, beat=0.05)
    claims.take("a.jpg")
    (path,) = tmp_path.iterdir()
    os.utime(path, (1, 1))
    wait_until(lambda: path.stat().st_mtime > 1, "the claim to be touched")


@pytest.mark.parametrize("gone", [False, True])
def test_of_many_that_want_an_image_at_once_one_gets_it(tmp_path: Path, gone: bool) -> None:
    for number in range(30):
        folder = tmp_path / str(number)
        if gone:
            (folder).mkdir()
            path = elsewhere(folder)
            told = json.loads(path.read_text())
            told["owner"] = vars(Owner.me()) | {"pid": 2**22 + 7}  # no such process
            path.write_text(json.dumps(told))
        barrier, won = threading.Barrier(8), list[int]()

        def want(
            number: int, folder: Path = folder, barrier: threading.Barrier = barrier, won: list[int] = won
        ):
            claims = Locks(folder)
            barrier.wait()
            if claims.take("a.jpg", alone=True):
                won.append(number)

        threads = [threading.Thread(target=want, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
