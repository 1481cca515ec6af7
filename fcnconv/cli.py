"""The command line as a process: the commands under one name, their errors as one line and an exit status.

What it says goes to stderr, what it makes to stdout.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fcnconv import __version__
from fcnconv.commands import COMMANDS, command
from fcnconv.console.printing import complain
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.stdout import guarded


class _Group(TyperGroup):
    """The commands, with every error of theirs told in one line and turned into the exit status."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except FcnconvError as error:
            complain(error)
            if ctx.meta.get("fcnconv.debug"):
                raise
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error
        except BrokenPipeError as error:  # the reader has enough: end as SIGPIPE would, without a word
            raise typer.Exit(141) from error
        except OSError as error:
            complain(FcnconvError(f"{error.filename or 'standard output'}: {error.strerror or error}"))
            if ctx.meta.get("fcnconv.debug"):
                raise
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except MemoryError as error:
            complain(FcnconvError("out of memory; choose a smaller --scales"))
            raise typer.Exit(1) from error


class _Command(TyperCommand):
    """A command, whose standard output nothing but its data can reach."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with guarded():
            return super().invoke(ctx)


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with the commands of these names."""
    app = typer.Typer(
        cls=_Group,
        help="Classify every window of an image, of any size.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name in names:
        app.command(name, cls=_Command)(command(name))
    return app


def main() -> None:
    """Runs the command line and exits with its status: 0 all done, 1 some input failed, 2 wrong usage."""
    for name in ("SIGTERM", "SIGHUP"):  # asked to stop: temporary files go before the process does
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names are bytes: print them as they came
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        named = [name for name in sys.argv[1:2] if name in COMMANDS]  # its own imports are enough
        make_app(named or COMMANDS)(prog_name="fcnconv")
    except Exception as error:  # what --debug asked to see, or a mistake of ours
        if "--debug" in sys.argv:
            raise
        complain(FcnconvError(f"unexpected {type(error).__name__}: {error}; --debug shows where"))
        sys.exit(1)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass
