"""Fast start of the command: each optimisation and what it saves.

A warm ``fcnconv classify photo.jpg`` takes about 0.3 s, most of it imports. Four measures keep it fast:

1. Modules import heavy packages inside the functions that need them: `fcnconv.__getattr__` for public names,
   `cli.command` for one command's own imports, torch and rich everywhere else. tests/test_package.py
   lists what a warm run may import.
2. `read_directly` converts arguments without typer's own conversion, which imports pydantic: a
   fifth of a warm start.
3. `end_process` ends the process without finalising the libraries: a seventh of a warm start (45 ms).
4. A plan is cached in the form that ONNX Runtime optimised for this processor, which loads in a quarter of
   the time: see `backends.onnx`.

Without 2 and 3 the command behaves the same, only slower.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

Reader = Callable[[Any], Any]
"""Converts the typed value of a parameter, its default, or None to the parameter's value.

Raises LookupError if the typed value is not one of the choices.
"""

READERS = "readers"
"""The attribute of a command's function that holds its readers: a dictionary from parameter names to readers.
"""


def reader_for(annotation: Any) -> Reader | None:
    """Returns the reader of a parameter with this annotation; None if only typer can convert it."""
    value, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    parser: Reader | None = next((getattr(note, "parser", None) for note in notes), None)
    if parser:
        return parser
    if value in (str, str | None):
        return _unchanged
    kinds = [kind for kind in (value, *get_args(value)) if get_origin(kind) is Literal]
    if kinds:
        values = {choice: choice for choice in get_args(kinds[0])} | {None: None}
        return values.__getitem__
    return (lambda given: list(given or ())) if value in (list[str], list[str] | None) else None


def read_directly(parameters: Iterable[Any], readers: Mapping[str, Reader]) -> None:
    """Makes click parameters get their values from `readers`, by name. A flag keeps its value.

    Typer converts all other parameters. It also reports missing or wrong ones in its own words.
    """
    for parameter in parameters:
        reader = readers.get(parameter.name, _unchanged if getattr(parameter, "is_flag", False) else None)
        if reader:
            vars(parameter)["process_value"] = partial(_process_value, parameter, reader)


def _process_value(parameter: Any, reader: Reader, ctx: Any, value: Any) -> Any:
    """Replaces click's ``Parameter.process_value``."""
    try:
        if parameter.required and parameter.value_is_missing(value):
            raise LookupError
        value = reader(value)
    except LookupError:
        return type(parameter).process_value(parameter, ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


def _unchanged(given: Any) -> Any:
    return given


def end_process(status: int) -> None:
    """Ends the process: immediately, if all output is written and only daemon threads still run."""
    if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        with suppress(OSError, ValueError, AttributeError):  # closed or not writable: Python reports it below
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    sys.exit(status)
