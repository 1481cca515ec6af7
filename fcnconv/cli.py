"""The command line: parses, makes one call, prints or writes. What it says goes to stderr, what it makes to
stdout.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fcnconv import __version__
from fcnconv.backends import BACKENDS
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from fcnconv.scores import Classification

log = logging.getLogger("fcnconv")


class _Group(TyperGroup):
    """The commands, with every error of theirs told in one line and turned into the exit status."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except FcnconvError as error:
            _complain(error)
            if ctx.meta.get("fcnconv.debug"):
                raise
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error
        except (
            BrokenPipeError
        ) as error:  # the reader has what it wanted: end as SIGPIPE would, without a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from error
        except OSError as error:
            _complain(FcnconvError(f"standard output: {error.strerror}"))
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if ctx.meta.get("fcnconv.debug"):
                raise
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except MemoryError as error:
            _complain(FcnconvError("out of memory; choose a smaller --scales"))
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Group,
    help="Classify every window of an image, of any size.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line and exits with its status: 0 all done, 1 some input failed, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names are bytes: print them as they came
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    app()


def _complain(error: FcnconvError) -> None:
    print(f"fcnconv: {error}".replace("\n", "\\n"), file=sys.stderr)


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["fcnconv.debug"] = value
    return value


def _set_quiet(value: bool) -> bool:
    log.setLevel(logging.ERROR if value else logging.INFO)
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("fcnconv: %(message)s"))
        log.addHandler(handler)
    return value


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


# The one vocabulary: an option means the same in every command that has it.
Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="The network.")]
Scales = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Sizes to scan at, separated by commas: a factor of the image's own size (1, 0.5), a short side "
        "(256px), or 'fit', the model's evaluation size.",
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many classes to give.")]
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
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Say nothing but errors on stderr.")
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show the traceback of an error.")
]


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Image files; none, or -, reads standard input."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    scales: Scales = "fit",
    top_k: TopK = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and image.")] = False,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The most probable classes of each image, and the window where each is most probable.

    On a terminal a table; in a pipe one line a prediction: path, rank, category, probability and box
    (x0,y0,x1,y1 in pixels of the image), separated by tabs.
    """
    paths = images or [_standard_input()]
    from fcnconv.batch import classify_each
    from fcnconv.classifier import load
    from fcnconv.scan import parse_scales

    parse_scales(scales)  # a mistake in it is told before the model loads
    classifier = load(model, mode=mode, backend=backend, device=device, max_pixels=max_pixels)
    show = _print_json if as_json else _print_table if sys.stdout.isatty() else _print_lines
    failed = False
    for path, result in classify_each(classifier, paths, scales=scales, k=top_k, progress=not quiet):
        if isinstance(result, FcnconvError):
            failed = True
            _complain(result)
            if as_json:
                _print_json_line({"path": path, "error": str(result)})
            if debug:
                raise result
        else:
            show(path, result)
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


@app.command()
def heatmap(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="An image file; none, or -, reads standard input.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write; - is standard output.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="The format, if not by the suffix of FILE."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", metavar="NAME|INDEX|WNID|CONCEPT", help="A class to write, or all classes of a concept; may be repeated."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    scales: Scales = "1",
    values: Annotated[
        str, typer.Option(metavar="KIND", help="What to write: probabilities or logits.")
    ] = "probabilities",
    top_k: TopK = 5,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The score map of an image: the probability of every class in every window.

    FILE's suffix names the format: .npy, .npz and .json hold the scores, .png, .jpg and .webp show one class
    (the image's most probable one, or --class) over the photo.
    """
    path = image or _standard_input()
    if out is None:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {_formats()}; '-' is standard output"
        )
    from fcnconv.writers import Choice, find_writer, parse_values, save

    writer, kind = find_writer(out, format), parse_values(values)
    if out == "-" and sys.stdout.isatty():
        raise UsageError("the map will not be written to a terminal; redirect it, or name a file with --out")
    from fcnconv.classifier import load

    classifier = load(model, mode=mode, backend=backend, device=device, max_pixels=max_pixels)
    chosen = tuple(classifier.labels.find(name) for name in classes or ())
    source = classifier.open(path)
    score_map = classifier(source, scales=scales)
    if writer.picture and not chosen:
        best = classifier.classify(source, k=1).predictions[0]
        log.info(
            "showing the image's most probable class, %s (%.2f); choose with --class",
            best.category,
            best.probability,
        )
        chosen = (classifier.labels.category(best.class_idx),)
    photo = source.read((0, 0, *source.size)) if writer.picture else None
    save(score_map, out, writer, Choice(chosen, kind, top_k, photo=photo))


@app.command()
def prepare(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="The network.")] = DEFAULT_MODEL,
    mode: Mode = "fcn",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Makes a model's plan ahead of its first use, proves it and keeps it in the cache; prints its path.

    A run that finds the plan starts without torch. Deleting the file is safe: it is made again when needed.
    """
    from fcnconv.backends import parse_mode
    from fcnconv.backends.onnx import open_plan
    from fcnconv.models import find_model

    plan = open_plan(find_model(model), parse_mode(mode))
    log.info("proved: ONNX Runtime and torch differ by %.1e of the largest logit", plan.record.export_error)
    print(plan.path)


def _formats() -> str:
    from fcnconv.writers import WRITERS

    return ", ".join(WRITERS)


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise UsageError("no image given: name a file, or send one to standard input")
    return "-"


def _print_lines(path: str, result: Classification) -> None:
    for p in result.predictions:
        box = ",".join(map(str, p.box))
        print(_one_line(path), p.rank, p.category, f"{p.probability:.4f}", box, sep="\t")


def _one_line(path: str) -> str:
    """A file name with what would break a line of columns written as in C."""
    return path.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _print_json(path: str, result: Classification) -> None:
    predictions = [asdict(p) | {"probability": round(p.probability, 6)} for p in result.predictions]
    rest = {"width": result.width, "height": result.height, "model": result.model}
    scales = [round(scale, 4) for scale in result.scales]
    _print_json_line({"path": path, **rest, "scales": scales, "predictions": predictions})


def _print_json_line(record: dict[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: JSON can hold it only escaped
        text = json.dumps(record)
    print(text)


def _print_table(path: str, result: Classification) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((path, "bold"), f"  {result.width} × {result.height}")
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("category")
    table.add_column("probability", no_wrap=True)
    table.add_column("box", no_wrap=True)
    for p in result.predictions:
        bar = Text.assemble(f"{p.probability:.3f} ", ("█" * round(20 * p.probability), "green"))
        table.add_row(str(p.rank), Text(p.category), bar, ",".join(map(str, p.box)))
    Console().print(table)
