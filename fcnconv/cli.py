"""The command line: parses, makes one call, prints or writes. What it says goes to stderr, what it makes to
stdout.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fcnconv import __version__, completion
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import DEFAULT_MODEL, find_model
from fcnconv.options import (
    AtLeast,
    Backend,
    Debug,
    Device,
    MaxMemory,
    MaxPixels,
    Mode,
    Model,
    Quiet,
    Scales,
    Stride,
    Temperature,
    Tile,
    TopK,
    with_own_options,
)

if TYPE_CHECKING:
    from fcnconv.inputs import Input
    from fcnconv.models.own import OwnModel
    from fcnconv.scores import AnyMap

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
        except BrokenPipeError as error:  # the reader has enough: end as SIGPIPE would, without a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from error
        except OSError as error:
            _complain(FcnconvError(f"{error.filename or 'standard output'}: {error.strerror or error}"))
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
    for name in ("SIGTERM", "SIGHUP"):  # asked to stop: temporary files go before the process does
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names are bytes: print them as they came
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        app(prog_name="fcnconv")
    except Exception as error:  # what --debug asked to see, or a mistake of ours
        if "--debug" in sys.argv:
            raise
        _complain(FcnconvError(f"unexpected {type(error).__name__}: {error}; --debug shows where"))
        sys.exit(1)


def _complain(error: FcnconvError) -> None:
    print(f"fcnconv: {error}".replace("\n", "\\n"), file=sys.stderr)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
@with_own_options
def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Image files; none, or -, reads standard input."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    scales: Scales = "fit",
    top_k: TopK = 5,
    level: Annotated[
        str,
        typer.Option(
            metavar="category|concept",
            help="The k best categories; or one answer, the most specific category or concept that reaches "
            "--at-least.",
        ),
    ] = "category",
    at_least: AtLeast = 0.8,
    files_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read paths, one a line, from a file; - is standard input."),
    ] = None,
    from0: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same, each path ended by a null byte.")
    ] = None,
    tar: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read images from a tar archive; - is standard input.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and image.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="On a terminal, draw where the first class is, in each image.")
    ] = False,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    temperature: Temperature = "auto",
    stride: Stride = None,
    max_memory: MaxMemory = None,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """The most probable classes of each image, and the window where each is most probable.

    On a terminal a table; in a pipe one line a prediction: path, rank, category, probability and box
    (x0,y0,x1,y1 in pixels of the image), separated by tabs.
    """
    inputs, total = _inputs(images or [], files_from, from0, tar)
    from fcnconv.batch import classify_each, counted
    from fcnconv.classifier import load
    from fcnconv.printing import preview_best, print_json, print_json_line, print_lines, print_table
    from fcnconv.scan import parse_scales

    parse_scales(scales)  # a mistake in it is told before the model loads
    if level not in ("category", "concept"):
        raise UsageError(f"unknown level {level!r}; known: category, concept")
    classifier = load(
        model,
        mode=mode,
        backend=backend,
        device=device,
        temperature=_number(temperature),
        max_pixels=max_pixels,
        stride=stride,
        max_memory=max_memory,
        tile=tile,
        **own,
    )
    if preview and (as_json or not sys.stdout.isatty() or not images or "-" in images):
        raise UsageError("--preview draws image files on a terminal; leave it out in a pipe")
    show = print_json if as_json else print_table if sys.stdout.isatty() else print_lines
    failed = False
    sure = at_least if level == "concept" else None
    results = classify_each(classifier, inputs, scales=scales, k=top_k, at_least=sure)
    if total != 1 and not quiet and sys.stderr.isatty() and not sys.stdout.isatty():
        results = counted(results, total)
    for path, result in results:
        if isinstance(result, FcnconvError):
            failed = True
            _complain(result)
            if as_json:
                print_json_line({"path": path, "error": str(result)})
            if debug:
                raise result
        else:
            show(path, result)
            if preview:
                preview_best(classifier, path, result)
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


@app.command()
@with_own_options
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The network.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Images to compare real crops on.")
    ] = None,
    scales: Scales = "1",
    max_windows: Annotated[
        int, typer.Option(min=4, metavar="N", help="Compare at most so many windows, drawn at random.")
    ] = 500,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    backend: Backend = "auto",
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """Proof that the converted network is the classifier, and how far its map is from real crops.

    Without images, the proof at the model's native size; a model that fails it gives exit status 1. With
    images, also the comparison of the dense map with real crops, on windows of these images.
    """
    from fcnconv.batch import open_each
    from fcnconv.classifier import load
    from fcnconv.verify import measure, prove

    spec = find_model(model, _described(own))
    proved = prove(spec)
    agreement, failed = None, False
    if images:
        classifier = load(model, backend=backend, temperature=1, max_pixels=max_pixels, **own)
        sources = []
        for opened in open_each(classifier, images):
            if isinstance(opened, FcnconvError):
                failed = True
                _complain(opened)
            else:
                sources.append(opened)
        agreement = measure(classifier, sources, scales=scales, max_windows=max_windows, seed=seed)
    if as_json:
        from fcnconv.printing import print_json_line

        found = {"model": spec.name, **asdict(proved)}
        print_json_line(found if agreement is None else found | {"agreement": asdict(agreement)})
    else:
        print(proved.text(spec.name))
        if agreement is not None:
            print(f"\n{agreement.text()}")
    if failed:
        raise typer.Exit(1)


@app.command()
@with_own_options
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
        typer.Option(
            "--class",
            "-c",
            metavar="NAME|INDEX|WNID|CONCEPT",
            help="A class to write, or all classes of a concept; may be repeated.",
            autocompletion=completion.complete_class,
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    scales: Scales = "1",
    values: Annotated[
        str, typer.Option(metavar="KIND", help="What to write: probabilities or logits.")
    ] = "probabilities",
    winners: Annotated[
        bool, typer.Option("--argmax", help="In a picture, show the most probable class of each window.")
    ] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="In a picture, fill each window's own cell; no interpolation.")
    ] = False,
    top_k: TopK = 5,
    at_least: AtLeast = 0.5,
    store: Annotated[
        str,
        typer.Option(
            metavar="all|top-k|auto",
            help="Keep every class of a window, or the -k best (npz); auto: the best of maps over 1 GiB.",
        ),
    ] = "auto",
    join: Annotated[
        str, typer.Option(metavar="max|mean", help="What a class scores where several scales meet.")
    ] = "max",
    max_side: Annotated[
        int, typer.Option(min=64, metavar="PX", help="Longest side of a picture, in pixels.")
    ] = 8192,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the scan would cost, and stop.")
    ] = False,
    refine: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Score this share of the windows, the least sure, again as real crops.",
        ),
    ] = 0,
    mode: Mode = "fcn",
    backend: Backend = "auto",
    device: Device = "auto",
    temperature: Temperature = "auto",
    stride: Stride = None,
    max_memory: MaxMemory = None,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """The score map of an image: the probability of every class in every window.

    FILE's suffix names the format: .npy, .npz, .zarr and .tif hold the scores, .json, .csv and .geojson list
    the cells, .png, .jpg and .webp show one class (the image's most probable one, or --class) over the photo,
    and .html is a page to look at them all with.
    """
    path = image or _standard_input()
    preview = out is None and sys.stdout.isatty()
    if out is None and not preview and not dry_run:
        raise UsageError(
            f"name a file to write with --out: its suffix is the format, {_formats()}; '-' is standard output"
        )
    from fcnconv.scales import parse_join
    from fcnconv.writers import Choice, find_writer, parse_store, parse_values, save, stored

    kind = parse_values(values)
    parse_join(join)
    writer = None if out is None else find_writer(out, format, kind)
    parse_store(store, writer, not classes and kind == "probabilities")
    if out == "-" and sys.stdout.isatty():
        raise UsageError("the map will not be written to a terminal; redirect it, or name a file with --out")
    from fcnconv.classifier import load

    classifier = load(
        model,
        mode=mode,
        backend=backend,
        device=device,
        temperature=_number(temperature),
        max_pixels=max_pixels,
        stride=stride,
        max_memory=max_memory,
        tile=tile,
        **own,
    )
    chosen = tuple(classifier.labels.find(name) for name in classes or ())
    source = classifier.open(path)
    if dry_run:
        for estimate in classifier.estimate(source, scales):
            print(f"{path}: {estimate}")
        return
    shows_photo = writer is None or writer.picture
    if shows_photo and not chosen and not winners:
        best = classifier.classify(source, k=1).predictions[0]
        log.info(
            "showing the image's most probable class, %s (%.2f); choose with --class",
            best.category,
            best.probability,
        )
        chosen = (classifier.labels.find(str(best.class_idx)),)
    if out is None or writer is None:
        from fcnconv.printing import print_preview

        whole = classifier(source, scales=scales, refine=refine, join=join)
        print_preview(source, whole, chosen, top_k)
        return
    name = "standard input" if path == "-" else os.path.basename(path)  # noqa: PTH119
    choice = Choice(
        selections=chosen,
        values=kind,
        k=top_k,
        at_least=at_least,
        photo=source,
        max_side=max_side,
        name=name,
        winners=winners,
        cells=cells,
    )
    score_map: AnyMap = classifier.stream(source, scales=scales, join=join)
    if refine:  # which windows are least sure is known at the end
        score_map = classifier(source, scales=scales, refine=refine, join=join)
    save(score_map, out, writer, stored(store, writer, score_map, choice))


@app.command()
@with_own_options
def classes(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A part of a name, or a WordNet id; none lists all.")
    ] = "",
    model: Model = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and name.")] = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """The names that --class knows: a model's categories, and the WordNet concepts above them.

    One line each: the class index (of a concept the number of its categories, as ×118), the WordNet id and
    the names, separated by tabs.
    """
    found = find_model(model, _described(own)).labels().search(pattern)
    if not found:
        raise FcnconvError(f"no category or concept has {pattern!r} in its name")
    from fcnconv.printing import print_json_line

    for s in found:
        if as_json:
            also = {"also": s.also} if s.also else {}
            print_json_line({"name": s.name, "wnid": s.wnid, "classes": s.classes, **also})
        else:
            index = f"×{len(s.classes)}" if s.class_idx is None else str(s.class_idx)
            print(index, s.wnid or "", ", ".join(s.names), sep="\t")


@app.command()
@with_own_options
def prepare(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="The network.")] = DEFAULT_MODEL,
    mode: Mode = "fcn",
    stride: Stride = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """Makes a model's plan ahead of its first use, proves it and keeps it in the cache; prints its path.

    A run that finds the plan starts without torch; each --stride has a plan of its own. Beside it are the
    parts that images too large for memory are scanned with. Deleting the files is safe: they are made again
    when needed.
    """
    from fcnconv.backends import parse_mode
    from fcnconv.backends.onnx import open_parts, open_plan

    found = find_model(model, _described(own))
    plan = open_plan(found, parse_mode(mode), stride)
    log.info("proved: ONNX Runtime and torch differ by %.1e of the largest logit", plan.record.export_error)
    open_parts(found, plan, stride)
    print(plan.path)


@app.command()
@with_own_options
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The network.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FILE", help="Where to write: .onnx or .pt2; - is stdout."),
    ],
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="onnx|pt2", help="If not by the suffix of FILE.")
    ] = None,
    stride: Stride = None,
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    own: dict[str, Any],
) -> None:
    """Writes the converted network, for any height and width, for programs that run ONNX or torch.

    Its input "pixels" is float32 (N, 3, H, W), (intensity 0 to 1 - mean) / std, of at least one window; its
    output "logits" (N, classes, rows, cols). Mean, std, window, stride and categories are in the file, as
    JSON under the name "fcnconv".
    """
    spec = find_model(model, _described(own))
    if out == "-" and sys.stdout.isatty():
        raise UsageError(
            "a network will not be written to a terminal; redirect it, or name a file with --out"
        )
    from fcnconv.export import export as write
    from fcnconv.export import export_format

    about, error = write(spec, out, export_format(out, format), stride)
    log.info(
        "%s, window %d px, stride %d px: proved, its logits differ from torch's by %.1e of the largest",
        *(about.model, about.window, about.stride, error),
    )


@app.command("models")
def list_all(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="Only names that contain this.", show_default=False)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and model.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The models that --model takes by name, and what is known of them before they are opened.

    window, stride and field (the receptive field) are in pixels; accuracy is the published top-1 on ImageNet,
    in percent; local models give tiles the scores of the whole image; "here" are weights that need no
    download. A model without a stride runs in --mode windows only.
    """
    from fcnconv.models.listing import list_models
    from fcnconv.printing import print_json_line, print_models

    listed = list_models(pattern)
    if not listed:
        raise UsageError(f"no model's name contains {pattern!r}; 'fcnconv models' lists them all")
    if as_json:
        for listing in listed:
            print_json_line(asdict(listing))
    else:
        print_models(listed, aligned=sys.stdout.isatty())


def _described(own: dict[str, Any]) -> OwnModel:
    from fcnconv.models.own import describe

    return describe(**own)


def _formats() -> str:
    from fcnconv.writers import WRITERS

    return ", ".join(WRITERS)


def _number(temperature: str) -> float | None:
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


def _inputs(
    paths: list[str], files_from: str | None, from0: str | None, tar: str | None
) -> tuple[Iterable[Input], int | None]:
    """The images that were named in one of the four ways, and how many they are where that is known."""
    from fcnconv.inputs import from_list, from_paths, from_tar

    if sum(map(bool, (paths, files_from, from0, tar))) > 1:
        raise UsageError("name images in one way: as arguments, or by --files-from, --from0 or --tar")
    if files_from:
        return from_list(files_from, b"\n"), None
    if from0:
        return from_list(from0, b"\0"), None
    if tar:
        return from_tar(tar), None
    paths = paths or [_standard_input()]
    return from_paths(paths), len(paths)


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise UsageError("no image given: name a file, or send one to standard input")
    return "-"
