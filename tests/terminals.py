"""Running commands as a person does: with a terminal on some of their streams."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from patience import PATIENCE

COLUMNS = 100


@dataclass(frozen=True)
class Shown:
    """What a command did. stdout: what was redirected or piped. terminal: what the terminal showed."""

    status: int
    stdout: bytes
    terminal: str


def in_terminal(
    command: list[str | Path] | str,
    *,
    stdout: bool,
    cwd: Path | None = None,
    await_text: tuple[str, Path] | None = None,
) -> Shown:
    """Runs a command, or a line of bash, whose input and standard error are a terminal.

    Args:
        command: the words of a command, or a line of bash.
        stdout: whether standard output is the terminal too; otherwise it is collected.
        cwd: the working directory; by default that of the tests.
        await_text: a text, and a file that is made as soon as the terminal shows the text. The command can
            wait for the file with `until_there`.
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
            if await_text and await_text[0] in b"".join(shown).decode(errors="replace"):
                await_text[1].touch()

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
        out, _ = process.communicate(timeout=PATIENCE)
        watcher.join()
    os.close(controller)
    return Shown(process.returncode, out or b"", b"".join(shown).decode())


def until_there(file: Path) -> str:
    """A command of bash that waits for a file."""
    return f"until [ -e '{file}' ]; do sleep 0.05; done"
