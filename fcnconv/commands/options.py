"""The options of the command line. An option means the same in every command that has it."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnconv.backends import BACKENDS
from fcnconv.commands import completion
from fcnconv.errors import UsageError
from fcnconv.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from fcnconv.batch.inputs import Input
    from fcnconv.classifier import Classifier
    from fcnconv.models.own import OwnModel

log = logging.getLogger("fcnconv")


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["fcnconv.debug"] = value
    return value


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what ``sys.stderr`` is at the time: above a progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _set_quiet(value: bool) -> bool:
    log.setLevel(logging.ERROR if value else logging.INFO)
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("fcnconv: %(message)s"))
        log.addHandler(handler)
    return value


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|FILE",
        help="The network, by name or by its file of weights.",
        autocompletion=completion.complete_model,
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        "-c",
        metavar="NAME|INDEX|WNID|CONCEPT",
        help="A class to write, or all classes of a concept; may be repeated.",
        autocompletion=completion.complete_class,
    ),
]
Values = Annotated[str, typer.Option(metavar="KIND", help="What to write: probabilities or logits.")]
Winners = Annotated[
    bool, typer.Option("--argmax", help="In a picture, show the most probable class of each window.")
]
Cells = Annotated[
    bool, typer.Option("--cells", help="In a picture, fill each window's own cell; no interpolation.")
]
Store = Annotated[
    str,
    typer.Option(
        metavar="all|top-k|auto",
        help="Keep every class of a window, or the -k best (npz); auto: the best of maps over 1 GiB.",
    ),
]
Join = Annotated[str, typer.Option(metavar="max|mean", help="What a class scores where several scales meet.")]
MaxSide = Annotated[int, typer.Option(min=64, metavar="PX", help="Longest side of a picture, in pixels.")]
Refine = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Score this share of the windows, the least sure, again as real crops.",
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Read paths, one a line, from a file; - is standard input."),
]
From0 = Annotated[str | None, typer.Option(metavar="FILE", help="The same, each path ended by a null byte.")]
Tar = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read images from a tar archive; - is standard input.")
]
Scales = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Sizes to scan at, separated by commas: a factor of the image's own size (1, 0.5), a short side "
        "(256px), 'fit', the model's evaluation size, or 'auto', the own size and its halves down to that.",
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many classes to give.")]
AtLeast = Annotated[
    float,
    typer.Option(
        min=0, max=1, metavar="P", help="The least probability that counts (geojson; --level concept)."
    ),
]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Refuse images of more pixels than this.")
]
Mode = Annotated[
    str,
    typer.Option(
        metavar="fcn|windows", help="The converted network, fast; or the original on real crops, exact."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar="FCNCONV_BACKEND",
        help=f"What runs the network: auto, {', '.join(BACKENDS)}.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="Where torch runs it: auto, cpu, cuda, cuda:N or mps.")
]
Temperature = Annotated[
    str,
    typer.Option(
        metavar="auto|T",
        help="Divides the logits of a dense scan before they become probabilities: the model's measured "
        "one, or a number; 1 is off.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, metavar="PX", help="Pixels between windows: 16, 8, 4 or 2 for a finer map."),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory for the scan, as in 2GB, the default; less if less is free."),
]
Tile = Annotated[
    int | None, typer.Option(min=1, metavar="PX", help="Side of a tile, instead of a choice by memory.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Say nothing but errors on stderr.")
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show the traceback of an error.")
]


def _own_options(
    arch: Annotated[
        str | None, typer.Option(metavar="NAME", help="With a file of weights: its network, as resnet18.")
    ] = None,
    categories: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its classes, one name a line, in index order.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="The side of its native input.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="What its input is centred on, of 0 to 1.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="What its input is divided by.")] = None,
    spec: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON file of all these.", show_default=False)
    ] = None,
) -> None:
    """The options of a model of one's own: named as `load` names them."""


def _network_options(
    model: Model = DEFAULT_MODEL,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    temperature: Temperature = "auto",
    stride: Stride = None,
    max_memory: MaxMemory = None,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
) -> None:
    """The options of a network and how it is run: named as `load` names them."""


def with_own_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with `_own_options` beside its own ones, which reach it together, as its argument `own`."""
    return _gathered(command, "own", [_own_options], lambda taken: taken)


def with_classifier(command: Callable[..., None]) -> Callable[..., None]:
    """A command with all options of a classifier, of which its argument `open_classifier` makes one."""
    return _gathered(command, "open_classifier", [_network_options, _own_options], _opener)


OpenClassifier = Callable[[], "Classifier"]
"""What `with_classifier` gives a command. Raises what `load` does."""


def _opener(taken: dict[str, Any]) -> OpenClassifier:
    temperature = parse_temperature(taken.pop("temperature"))

    def open_classifier() -> Classifier:
        from fcnconv.classifier import load

        return load(**taken, temperature=temperature)

    return open_classifier


def _gathered(
    command: Callable[..., None],
    argument: str,
    groups: list[Callable[..., None]],
    value: Callable[[dict[str, Any]], Any],
) -> Callable[..., None]:
    """A command with the options of `groups`, which reach it as one argument: their `value` by name."""
    options = {name: option for group in groups for name, option in _parameters(group).items()}
    own = {name: option for name, option in _parameters(command).items() if name != argument}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        taken = {name: given.pop(name) for name in options}
        command(**given, **{argument: value(taken)})

    last = {name: own.pop(name) for name in ("quiet", "debug") if name in own}
    shown = own | options | last
    run.__signature__ = inspect.Signature([*shown.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in shown.items()}
    return run


def _parameters(command: Callable[..., None]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command, eval_str=True).parameters)


def described(own: dict[str, Any]) -> OwnModel:
    """What `_own_options` say of a model. Raises UsageError."""
    from fcnconv.models.own import describe

    return describe(**own)


def parse_temperature(temperature: str) -> float | None:
    """The number that ``--temperature`` names; None for ``auto``. Raises UsageError."""
    if temperature == "auto":
        return None
    try:
        number = float(temperature)
    except ValueError:
        number = 0
    if not 0.01 <= number <= 100:
        raise UsageError(
            f"a temperature of {temperature!r} cannot be used; give 'auto' or a number such as 0.75"
        )
    return number


def standard_input() -> str:
    """The name of standard input as an image. Raises UsageError if that is a terminal."""
    if sys.stdin.isatty():
        raise UsageError("no image given: name a file, or send one to standard input")
    return "-"


def listed_inputs(
    named: bool, files_from: str | None, from0: str | None, tar: str | None
) -> Iterator[Input] | None:
    """The images of a list or an archive; None if neither is given. named: whether arguments name some.

    Raises UsageError if images are named in more than one way.
    """
    from fcnconv.batch.inputs import from_list, from_tar

    if sum(map(bool, (named, files_from, from0, tar))) > 1:
        raise UsageError("name images in one way: as arguments, or by --files-from, --from0 or --tar")
    if files_from:
        return from_list(files_from, b"\n")
    if from0:
        return from_list(from0, b"\0")
    return from_tar(tar) if tar else None


def parse_shard(text: str) -> Callable[[Iterable[Input]], Iterator[Input]]:
    """What takes the inputs that ``I/N`` names: every N-th, from the I-th on. Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    first, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= step:
        raise UsageError(f"unknown shard {text!r}; give I/N, as in 1/8, 2/8, … 8/8")
    return lambda inputs: islice(inputs, first - 1, None, step)
