"""Prints docs/help.md: the help of fcnconv and of each of its commands, in plain letters at 100 columns.

    python docs/maintain/make_help.py > docs/help.md

The commands come from the command line itself, in the order of its help.
"""

from __future__ import annotations

import os
import subprocess
import sys
from inspect import signature

from fcnconv.cli import COMMANDS, command

PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
OPENING = """\
# Help

Every command with all of its options, as `fcnconv COMMAND --help-all` prints them. `fcnconv COMMAND -h` and
`fcnconv help COMMAND` show the options that most people need. This page is generated; see
[contributing](contributing.md#run-and-test).
"""


def help_of(*names: str) -> str:
    """What ``fcnconv COMMAND --help-all`` prints, or ``--help`` where there are few options; without colours
    and without trailing blanks.
    """
    many = any("help_all" in signature(command(name)).parameters for name in names)
    printed = subprocess.run(
        [sys.executable, "-m", "fcnconv", *names, "--help-all" if many else "--help"],
        env=os.environ | PLAIN,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def page() -> str:
    """The page: a section a command, the first one for fcnconv itself."""
    sections = [OPENING, f"## fcnconv\n\n```text\n{help_of()}\n```\n"]
    sections += [f"## fcnconv {name}\n\n```text\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join(sections)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(page(), end="")
