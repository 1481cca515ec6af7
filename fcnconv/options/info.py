"""How an option is shown and read on the command line: a note on a field of a dataclass of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True)
class OptionInfo:
    """How the command line shows and reads a field of options.

    help: the help text.
    flags: the flags on the command line; if empty, ``--`` and the field's name.
    metavar: the placeholder for the value in the help.
    group: the heading under which the help lists the option.
    read: parses the value from text; None if the type is enough.
    least, most: the bounds of a number.
    envvar: an environment variable that sets the option.
    complete: returns the values that start with a text, for completion in the shell.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    group: str = "Map"
    read: Callable[[str], Any] | None = None
    least: float | None = None
    most: float | None = None
    envvar: str | None = None
    complete: Callable[[str], Any] | None = None


def option_info(options: type) -> dict[str, tuple[Any, OptionInfo]]:
    """The fields of a dataclass that are options: name -> (type, `OptionInfo`)."""
    hints = get_type_hints(options, include_extras=True)
    infos = {}
    for field in fields(options):
        value, *notes = get_args(hints[field.name]) or (None,)
        if notes and isinstance(notes[0], OptionInfo):
            infos[field.name] = value, notes[0]
    return infos


def flag(options: type, field: str) -> str:
    """The flag of a field of options on the command line."""
    _, note = option_info(options)[field]
    return note.flags[0] if note.flags else f"--{field.replace('_', '-')}"
