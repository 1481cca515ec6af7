"""The options of the command line. An option has the same meaning in every command.

`fcnconv.options` and `models.own` define the options; this module converts them to typer's parameters.
Besides their own options, the commands have:

    classify   ClassifyOptions, Listed inputs, NetworkOptions, ReadOptions, OwnModel, --model, --json
    heatmap    ScanOptions, OutputOptions, NetworkOptions, ReadOptions, OwnModel, --model
    batch      ScanOptions, OutputOptions, Listed inputs, NetworkOptions, ReadOptions, OwnModel, --model,
               --json
    verify     NetworkOptions, ReadOptions, OwnModel, --model, --json
    prepare, export, classes        OwnModel, --model (and --mode, --stride, --json)
    classify, heatmap, batch        --progress
    all        --quiet, --debug
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import typer

from fcnconv.cli import HELP_ALL
from fcnconv.cli.fast_start import READERS, reader_for
from fcnconv.cli.progress_bar import ProgressKind
from fcnconv.errors import UsageError, printable
from fcnconv.labels import folded, imagenet
from fcnconv.models import models
from fcnconv.options import EVERY_IMAGE, OptionInfo, option_info
from fcnconv.options.parsing import parse_number

log = logging.getLogger("fcnconv")


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """A stream to the current ``sys.stderr``: above a progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _OneLine(logging.Formatter):
    """A formatter that puts a message on one line and escapes control characters. Messages contain file names
    and texts from files, which must not control the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["fcnconv.debug"] = value
    return value


def _set_quiet(value: bool) -> bool:
    log.setLevel(logging.ERROR if value else logging.INFO)
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(_OneLine("fcnconv: %(message)s"))
        log.addHandler(handler)
    return value


def _show_all_help(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[HELP_ALL] = True
        print(ctx.get_help())
        raise typer.Exit


MANY = 15
"""Number of options above which a command has a short help, and --help-all for all of them."""

HelpAll = Annotated[
    bool,
    typer.Option("--help-all", callback=_show_all_help, is_eager=True, help="Show all options and exit."),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_set_quiet,
        help="Log only errors.",
        rich_help_panel="Running",
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=_set_debug,
        is_eager=True,
        help="Show the traceback of an error.",
        rich_help_panel="Running",
    ),
]
Progress = Annotated[
    ProgressKind,
    OptionInfo(
        "auto: a bar on a terminal; plain: one line per minute; or none.",
        flags=("--progress",),
        metavar="HOW",
        group="Running",
    ),
]
Json = Annotated[bool, OptionInfo("Print one JSON object per line.", flags=("--json",), group="")]
Format = Annotated[
    str | None,
    OptionInfo(
        "Output format, if FILE's suffix does not name it.",
        flags=("--format", "-f"),
        metavar="NAME",
        group="",
    ),
]


def complete_model(incomplete: str) -> list[str]:
    """Returns the names of models that begin with a text."""
    return [name for name in models() if name.startswith(incomplete)]


def complete_class(incomplete: str) -> list[tuple[str, str]]:
    """Returns the names of ImageNet's categories and concepts that begin with a text, each with a
    description, as words that need no quotes in a shell.
    """
    start = folded(incomplete)
    words = {}
    for selection in imagenet().selections():
        for name in map(folded, selection.names):
            if name.startswith(start):
                size = len(selection.classes)
                words[name.replace(" ", "_")] = "category" if size == 1 else f"{size} categories"
    return sorted(words.items())


_COMPLETE: dict[str, Callable[[str], Any]] = {"--model": complete_model, "--class": complete_class}

Model = Annotated[
    str,
    OptionInfo(
        "Network: a name, a file of weights, a folder, or hf-hub:USER/REPO.",
        flags=("--model", "-m"),
        metavar="NAME",
        group="",
    ),
]

NamedModel = Annotated[
    str | None,
    OptionInfo(
        "Network, instead of MODEL, as in other commands.",
        flags=("--model", "-m"),
        metavar="NAME",
        group="",
    ),
]


def named_once(argument: str | None, option: str | None, default: str | None = None) -> str:
    """Returns the model that a command names, as its argument or by --model. Raises UsageError for both or
    neither.
    """
    if argument is not None and option is not None:
        raise UsageError(f"the model is named twice, {argument!r} and --model {option}; leave out one")
    model = argument or option or default
    if model is None:
        raise UsageError("name a model; 'fcnconv models' lists the known names")
    return model


@dataclass(frozen=True)
class Listed:
    """Images that a file lists or an archive contains, as an alternative to arguments."""

    files_from: Annotated[
        str | None,
        OptionInfo(
            "Read paths from a file, one per line; - is standard input.", metavar="FILE", group="Input"
        ),
    ] = None
    from0: Annotated[
        str | None,
        OptionInfo(
            "Read paths from a file, with a null byte after each (find -print0).",
            metavar="FILE",
            group="Input",
        ),
    ] = None
    tar: Annotated[
        str | None,
        OptionInfo("Read images from a tar archive; - is standard input.", metavar="FILE", group="Input"),
    ] = None

    def values(self) -> tuple[str | None, str | None, str | None]:
        """The three values, in order."""
        return self.files_from, self.from0, self.tar

    def is_file(self) -> bool:
        """Whether the list is a file, which can be read twice."""
        path = self.files_from or self.from0
        return path not in (None, "-") and Path(str(path)).is_file()

    def check(self, named: bool) -> None:
        """Raises UsageError if images are named in several ways. named: whether arguments name images."""
        if sum(map(bool, (named, self.files_from, self.from0, self.tar))) > 1:
            raise UsageError("name images in one way: as arguments, or by --files-from, --from0 or --tar")


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command in typer's form. typer supports single parameters only, so a parameter that is a
    dataclass of options becomes one parameter per field. The command receives the dataclass made from their
    values.

    The function has a dictionary as its attribute `READERS`: the reader of each parameter that typer need not
    convert, see `cli.fast_start`.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, type] = {
        name: cast("type", p.annotation) for name, p in parameters.items() if is_dataclass(p.annotation)
    }
    shown: dict[str, inspect.Parameter] = {}
    for name, parameter in parameters.items():
        if name not in groups:
            shown[name] = _typer_parameter(name, parameter.annotation, parameter.default)
            continue
        plain = groups[name]()
        for field, (value, note) in option_info(groups[name]).items():
            shown[field] = _typer_parameter(field, Annotated[value, note], getattr(plain, field))

    if len(shown) > MANY:
        shown["help_all"] = _typer_parameter("help_all", HelpAll, False)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        given.pop("help_all", None)  # it has taken effect already
        made = {}
        for name, kind in groups.items():
            of_it = {field: given.pop(field) for field in option_info(kind)}
            values = {field: _value(value) for field, value in of_it.items()}
            made[name] = kind(**values)
        command(**given, **made)

    run.__signature__ = inspect.Signature([*shown.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in shown.items()}
    readers = {name: reader_for(p.annotation) for name, p in shown.items()}
    setattr(run, READERS, {name: reader for name, reader in readers.items() if reader})
    return run


def _value(given: Any) -> Any:
    """Converts typer's value of an option to the value in the dataclass."""
    return tuple(given) if isinstance(given, list) else given


def _typer_parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Returns a parameter with the information that typer needs, if its annotation uses fcnconv's own
    notation.
    """
    value, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if notes and isinstance(notes[0], OptionInfo):
        value, option, default = _typer_option(name, value, notes[0], default)
        annotation = Annotated[value, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _typer_option(name: str, value: Any, note: OptionInfo, default: Any) -> tuple[Any, Any, Any]:
    """Returns the type, the option and the default of a field in typer's form."""
    flags = note.flags or (f"--{name.replace('_', '-')}",)
    kinds = (value, *get_args(value))
    number = next((kind for kind in (int, float) if kind in kinds), None)
    read, told_help = note.read, note.help
    if read is None and number is not None:
        read = partial(parse_number, flags[0], number, note.least, note.most)
    if default not in (None, False, (), 0, EVERY_IMAGE) and "[default" not in told_help:
        told_help += f" [default: {_text(default)}]"
    if read is not None:
        value = str | None
    elif value == tuple[str, ...]:
        value, default = list[str], []
    parser = None if read is None else (lambda given: read(given) if isinstance(given, str) else given)
    choices = next((arg for arg in kinds if get_origin(arg) is Literal), None)
    option = typer.Option(
        *flags,
        help=told_help,
        metavar=note.metavar or ("|".join(get_args(choices)) if choices else None),
        parser=parser,
        envvar=note.envvar,
        show_default=False,
        autocompletion=_COMPLETE.get(flags[0]),
        rich_help_panel=note.group or None,
    )
    return value, option, default


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
