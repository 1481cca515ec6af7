"""The commands: each parses, makes one call, and prints or writes. A command is a file and a function."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

COMMANDS = (
    *("classify", "heatmap", "locate", "batch", "classes", "models"),
    *("verify", "prepare", "export", "doctor"),
)
"""Their names, in the order of the help."""

HELP_ALL = "fcnconv.help_all"
"""The key of a context's `meta` that is true while all options of a command are shown."""


def command(name: str) -> Callable[..., None]:
    """The function of a command, imported when it is asked for."""
    function: Callable[..., None] = getattr(import_module(f"fcnconv.cli.{name}"), name)
    return function
