"""Measuring peers side by side: each in a process of its own, in turns, the median of the rounds.

The turns make the peers share the machine's good and bad moments, so that their ratios can be trusted where
their times cannot.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

CALM = 0.3
"""Seconds before each round, in which the threads of the peer before stop waiting for more work."""


@dataclass(frozen=True)
class Work:
    """What a peer does in a round. share: of the whole work; its time is divided by it."""

    do: Callable[[], object]
    share: float = 1.0


@dataclass
class Measured:
    """A peer's rounds. seconds: each round's. peak: the largest resident memory of its process, in MB."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def median(self) -> float:
        """Seconds of the round in the middle."""
        return statistics.median(self.seconds)


def in_turns(
    peers: dict[str, Callable[[], Work]], rounds: int, slow: Sequence[str] = ()
) -> dict[str, Measured]:
    """The peers' times, after one round that does not count. slow: peers that get one round in all."""
    workers = {name: _start(prepare) for name, prepare in peers.items()}
    measured = {name: Measured() for name in peers}
    for round in range(rounds + 1):
        for name, (_, pipe) in workers.items():
            if name in slow and round != 1:
                continue
            time.sleep(CALM)
            pipe.send("round")
            seconds, measured[name].peak = pipe.recv()
            if round > 0:
                measured[name].seconds.append(seconds)
    for process, pipe in workers.values():
        pipe.send("end")
        process.join()
    return measured


def commands_in_turns(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, Measured]:
    """The times of whole processes, from start to exit, after one round that does not count."""
    measured = {name: Measured() for name in commands}
    for round in range(rounds + 1):
        for name, command in commands.items():
            seconds, peak = run_command(command)
            if round > 0:
                measured[name].seconds.append(seconds)
                measured[name].peak = max(measured[name].peak, peak)
    return measured


def run_command(command: Sequence[str], **environment: str) -> tuple[float, int]:
    """Seconds and peak memory in MB of one process; exits if the process fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment
    )
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)}: failed\n{said.decode()}")
    return seconds, usage.ru_maxrss // 1024


def matrix_rate(precision: str = "float32") -> float:
    """The machine's rate of multiplications and additions in torch's matrix product, in GMAC/s."""
    import torch

    a = torch.randn(2048, 2048).to(getattr(torch, precision))
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2048**3 / min(seconds) / 1e9


def table(
    measured: dict[str, Measured], against: str, extra: tuple[str, Callable[[float], str]] | None = None
) -> None:
    """Prints a row a peer: its median time, the time as a multiple of `against`'s, the peak memory.

    extra: a last column, its title and what it says of a time.
    """
    base = measured[against].median
    print(f"| | time | against ours | peak memory |{f' {extra[0]} |' if extra else ''}")
    print(f"|---|---|---|---|{'---|' if extra else ''}")
    for name, m in measured.items():
        more = f" {extra[1](m.median)} |" if extra else ""
        print(f"| {name} | {m.median:.3f} s | {m.median / base:.2f} | {m.peak} MB |{more}")


def _start(prepare: Callable[[], Work]):  # type: ignore[no-untyped-def]
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(there, prepare), daemon=True)
    process.start()
    return process, here


def _serve(pipe: Connection, prepare: Callable[[], Work]) -> None:
    work = prepare()
    while pipe.recv() != "end":
        start = time.perf_counter()
        work.do()
        seconds = (time.perf_counter() - start) / work.share
        pipe.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
