"""Running commands as a person does: with a terminal on some of their streams."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 100


@dataclass(frozen=True)
class Shown:
    """What a command did. stdout: what was redirected or piped. terminal: what the terminal showed."""

    status: int
    stdout: bytes
    terminal: str


def in_terminal(command: list[str | Path] | str, *, stdout: bool, cwd: Path | None = None) -> Shown:
    """Runs a command, or a line of bash, whose input and standard error are a terminal.

    stdout: whether that is the terminal too; else it is collected.
    """
    controller, terminal = pty.openpty()
    if isinstance(command, str):
        command = ["bash", "-o", "pipefail", "-c", command]
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    shown: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                shown.append(os.read(controller, 4096))
            except OSError:  # the other end is closed
                return

    with subprocess.Popen(
        list(map(str, command)),
        stdin=terminal,
        stdout=terminal if stdout else subprocess.PIPE,
        stderr=terminal,
        cwd=cwd,
        env=environment,
    ) as process:
        os.close(terminal)
        watcher = threading.Thread(target=watch)
        watcher.start()
        out, _ = process.communicate(timeout=300)
        watcher.join()
    os.close(controller)
    return Shown(process.returncode, out or b"", b"".join(shown).decode())
