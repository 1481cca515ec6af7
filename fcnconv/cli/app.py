"""The command line as a process: it combines the commands, writes their help, and turns their errors into one
line and an exit status.

Messages go to stderr, results to stdout.
"""

from __future__ import annotations

import re
import signal
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fcnconv.cli import COMMANDS, HELP_ALL, command
from fcnconv.cli.fast_start import READERS, end_process, read_directly
from fcnconv.cli.mistakes import too_many_arguments, unknown_command, unknown_option
from fcnconv.cli.printing import complain
from fcnconv.errors import FcnconvError, UsageError, first_line, lacks_memory
from fcnconv.system.stdout import guarded
from fcnconv.version import __version__

Entry = tuple[str, str]
"""The typed form of an option or argument, and its meaning."""

LEFT = 18
"""The largest width of the left column. A longer entry has a line of its own."""


def help_page(usage: str, about: str, groups: Mapping[str, Sequence[Entry]], width: int) -> str:
    """Returns the help, with a heading for each group that has entries.

    Args:
        usage: The usage line.
        about: Paragraphs. Indented paragraphs are examples, which come last and are not wrapped.
        groups: The entries of each group.
        width: The width of a line, in characters.
    """
    paragraphs = about.strip().split("\n\n")
    examples = [text for text in paragraphs if text.startswith(" ")]
    prose = [textwrap.fill(" ".join(text.split()), width) for text in paragraphs if text not in examples]
    parts = [f"Usage: {usage}", *prose]
    if examples:
        parts.append(
            "Examples:\n" + "\n".join(textwrap.indent(textwrap.dedent(text), "  ") for text in examples)
        )
    left = min(max(len(typed) for entries in groups.values() for typed, _ in entries), LEFT)
    for name, entries in groups.items():
        if entries:
            parts.append(f"{name}:\n" + "\n".join(_entry(*entry, left, width) for entry in entries))
    return "\n\n".join(parts) + "\n"


def _entry(typed: str, meaning: str, left: int, width: int) -> str:
    lines = textwrap.wrap(meaning, width - left - 4, break_on_hyphens=False) or [""]
    rows = [typed, *lines] if len(typed) > left else [f"{typed:{left}}  {lines[0]}", *lines[1:]]
    return "\n".join(f"  {row}" if i == 0 else " " * (left + 4) + row for i, row in enumerate(rows)).rstrip()


_WrongUsage: type[Exception] = typer.BadParameter.__bases__[0]
"""The exception that typer raises for any argument that it does not understand."""


class _Group(TyperGroup):
    """The group of all commands. It reports each of their errors in one line and turns it into the exit
    status.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        read_directly(self.get_params(ctx), {})
        if args[:1] == ["help"]:  # "help heatmap" means "heatmap --help"
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise unknown_command(args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        made = vars(self)["commands"].items()
        commands = [(name, (command.help or "").partition("\n")[0]) for name, command in made]
        groups = {"Commands": commands, "Options": _entries(self.get_params(ctx))["Options"]}
        usage = f"{ctx.command_path} COMMAND [OPTIONS]"
        formatter.write(help_page(usage, self.help or "", groups, formatter.width))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except FcnconvError as error:
            complain(error)
            if ctx.meta.get("fcnconv.debug"):
                raise
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error
        except BrokenPipeError as error:  # the reader has closed the pipe: end silently, as SIGPIPE would
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
    """A command whose standard output receives nothing but its data."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        read_directly(self.get_params(ctx), getattr(self.callback, READERS, {}))
        ctx.allow_extra_args = True  # raised again, to be reported in fcnconv's own words
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            named = [ctx.params[p.name] for p in self.params if p.param_type_name == "argument"] + extra
            raise too_many_arguments(str(ctx.info_name), named, ctx.params.get("out"))
        return extra

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with guarded():
            return super().invoke(ctx)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        groups = _entries(self.get_params(ctx))
        words = [ctx.command_path, *(metavar for metavar, _ in groups["Arguments"]), "[OPTIONS]"]
        more = ""
        if not ctx.meta.get(HELP_ALL):
            groups, left_out = _short(groups)
            more = "".join(f"\n  {line}" for line in left_out)
        page = help_page(" ".join(words), self.help or "", groups, formatter.width)
        formatter.write(
            page + (f"\nMore options, by group; --help-all explains them:{more}\n" if more else "")
        )


HELP_GROUPS = (
    *("Arguments", "Options", "Map", "Region of interest", "Picture"),
    *("Network", "Custom model", "Input", "Running"),
)
"""The headings of a command's help, the most important first."""


FIRST = 10
"""The number of options that the short help of a command shows. `PREFERRED` selects them if a command has
more.
"""

PREFERRED = (
    *("--out", "--class", "--model", "--format", "--scales", "--stride", "--top-k", "--json", "--at-least"),
    *("--argmax", "--region", "--mode", "--device", "--dry-run"),
    *("--level", "--preview", "--overwrite", "--shard", "--arch", "--categories", "--quiet"),
)
"""The options that most people need, the most important first."""


def _short(groups: dict[str, list[Entry]]) -> tuple[dict[str, list[Entry]], list[str]]:
    """Returns the arguments and the first options of a command, and one line for each group of the remaining
    options.

    A command with few options shows all of them.
    """
    options = {
        flag: entry
        for name, entries in groups.items()
        for entry in entries
        if name != "Arguments"
        for flag in re.findall(r"--[\w-]+", entry[0])
    }
    helps = [options[flag] for flag in ("--help-all", "--help") if flag in options]
    chosen = [options[flag] for flag in PREFERRED if flag in options][:FIRST]
    left_out = {
        name: rest
        for name, entries in groups.items()
        if name != "Arguments" and (rest := [entry for entry in entries if entry not in chosen + helps])
    }
    if "--help-all" not in options:
        return groups, []
    lines = [f"{name}: {_flags(entries)}" for name, entries in left_out.items()]
    return {"Arguments": groups["Arguments"], "Options": chosen + helps}, lines


def _flags(entries: list[Entry]) -> str:
    """Returns the long flags of some options; of many options only the first few."""
    most = 4
    flags = [re.findall(r"--[\w-]+", typed)[-1] for typed, _ in entries]
    return ", ".join(flags[:most]) + (f" and {len(flags) - most} more" if len(flags) > most else "")


def _entries(parameters: Iterable[Any]) -> dict[str, list[Entry]]:
    """Returns the help entries of the parameters, by heading."""
    groups: dict[str, list[Entry]] = {name: [] for name in HELP_GROUPS}
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            groups["Arguments"].append((parameter.metavar, parameter.help))
        else:
            typed = ", ".join(sorted(parameter.opts, key=len))
            typed += "" if parameter.is_flag else f" {parameter.metavar}"
            groups[parameter.rich_help_panel or "Options"].append((typed, parameter.help))
    return groups


ABOUT = """Run an image classifier on images of any size, and see where each class is.

    fcnconv classify photo.jpg              # what it shows
    fcnconv heatmap photo.jpg -o map.png    # where it is

'fcnconv help COMMAND' explains a command and its options.
"""


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Returns the command line with the commands of these names."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    app = typer.Typer(
        cls=_Group,
        help=ABOUT,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=settings,
    )
    app.callback()(_options)
    for name in names:
        app.command(name, cls=_Command, context_settings=settings)(command(name))
    return app


def main() -> None:
    """Runs the command line and exits with its status: 0 all done, 1 some input failed, 2 wrong usage."""
    for name in (
        "SIGTERM",
        "SIGHUP",
    ):  # on a request to stop, temporary files are removed before the process ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names are bytes: print them unchanged
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    end_process(_run())


def _run() -> int:
    """Runs the command line and returns the exit status."""
    named = [name for name in sys.argv[1:2] if name in COMMANDS]  # its own imports suffice
    try:
        return int(make_app(named or COMMANDS)(prog_name="fcnconv", standalone_mode=False) or 0)
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        return ended.code
    except KeyboardInterrupt:  # while modules are still being imported
        return 130
    except _WrongUsage as error:
        return _report_usage(error)
    except Exception as error:  # requested by --debug, or a bug in fcnconv
        if "--debug" in sys.argv:
            raise
        if lacks_memory(error):
            complain(FcnconvError(f"out of memory: {first_line(error)}"))
        else:
            complain(FcnconvError(f"unexpected {type(error).__name__}: {error}; --debug shows where"))
        return 1


def _report_usage(error: Any) -> int:
    """Reports what typer did not understand, and returns the exit status."""
    said, context = error.format_message().strip(), error.ctx
    if not said or "\n" in said:  # the user named no command, so the help was printed
        error.show()
        return int(error.exit_code)
    path = context.command_path if context else "fcnconv"
    if hasattr(error, "possibilities") and path != "fcnconv":
        complain(unknown_option(path.split()[-1], error.option_name, flags_of_commands()))
        return 2
    said = said[0].lower() + said[1:].rstrip(".").replace("Value error, ", "")
    complain(UsageError(f"{said}; '{path} -h' lists the options"))
    return 2


def flags_of_commands() -> dict[str, set[str]]:
    """Returns the flags of each command."""
    commands: dict[str, Any] = vars(typer.main.get_command(make_app()))["commands"]
    return {
        name: {
            flag
            for parameter in made.params
            for flag in (*parameter.opts, *parameter.secondary_opts)
            if flag[0] == "-"
        }
        for name, made in commands.items()
    }


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
