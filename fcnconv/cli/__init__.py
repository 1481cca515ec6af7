"""The commands of the command line. A command is one file with one function, which parses, makes one call,
and prints or writes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

COMMANDS = (
    *("classify", "heatmap", "locate", "batch", "classes", "models"),
    *("verify", "prepare", "export", "doctor"),
)
"""The names of the commands, in the order of the help."""

HELP_ALL = "fcnconv.help_all"
"""The key of a context's `meta` that is true while the help shows all options of a command."""


def command(name: str) -> Callable[..., None]:
    """Imports and returns the function of a command."""
    function: Callable[..., None] = getattr(import_module(f"fcnconv.cli.{name}"), name)
    return function
