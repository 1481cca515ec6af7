"""The output of the commands: tables for people, tab-separated lines and JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from fcnconv.errors import FcnconvError, UsageError, command_line_text, printable
from fcnconv.system.files import STANDARD_OUTPUT
from fcnconv.system.stdout import data_stream, print_data

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fcnconv.api.classifier import Classifier
    from fcnconv.api.maps import ScoreMap
    from fcnconv.batch.folders import Outcome
    from fcnconv.grid import Box
    from fcnconv.models import ModelSpec
    from fcnconv.scores import Classification, Prediction
    from fcnconv.scores.regions import Located, Region
    from fcnconv.writers import OutputSpec

T = TypeVar("T")

PREVIEW_SCALE = "448px"
"""The scan size of a preview, two windows high: enough cells for a small picture, whatever the image's size.
"""


PREVIEW_SIDE = 2048
"""The longest side of the photo in pixels, many more than a terminal has."""


def complain(error: FcnconvError) -> None:
    """Reports an error on stderr, in one line."""
    print(f"fcnconv: {printable(command_line_text(error))}", file=sys.stderr)


def standard_input() -> str:
    """Returns the name of standard input as an image. Raises UsageError if it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("no image given: name a file, or send one to standard input")
    return "-"


def refuse_terminal(out: str, what: str) -> None:
    """Raises UsageError if `out` is standard output and a terminal. what: the output, as the message names
    it.
    """
    if out in STANDARD_OUTPUT and data_stream().isatty():
        raise UsageError(f"{what} will not be written to a terminal; redirect it, or name a file with --out")


def report(
    results: Iterator[tuple[str, T | FcnconvError]],
    show: Callable[[str, T], None],
    *,
    as_json: bool,
    debug: bool,
    count: Callable[[T | FcnconvError], None] = lambda _: None,
) -> int:
    """Shows each result as soon as it is available, and reports each error. Returns the number of errors.

    Args:
        results: Names and their results.
        show: Shows a result.
        as_json: Whether an error is printed as JSON as well.
        debug: Whether the first error is raised.
        count: Called with each result after it was shown.
    """
    failed = 0
    for name, result in results:
        if isinstance(result, FcnconvError):
            failed += 1
            complain(result)
            if as_json:
                print_json_line({"path": name, "error": str(result)})
            if debug:
                raise result
        else:
            show(name, result)
        data_stream().flush()
        count(result)
    return failed


def printer(classifier: Classifier, *, as_json: bool, preview: bool) -> Callable[[str, Classification], None]:
    """Returns a function that shows a classification: as JSON, as a table on a terminal, else as
    tab-separated lines.
    """
    show = print_json if as_json else print_table if data_stream().isatty() else print_lines
    if not preview:
        return show

    def both(path: str, result: Classification) -> None:
        show(path, result)
        preview_best(classifier, path, result)

    return both


def print_lines(path: str, result: Classification) -> None:
    """Prints one line per prediction: path, rank, category, probability and box, separated by tabs."""
    for p in result.predictions:
        box = ",".join(map(str, p.box))
        print_data(_one_line(path), p.rank, p.category, f"{p.probability:.4f}", box)


def print_regions(path: str, located: Located) -> None:
    """Prints one line per region: path, category, probability and box, separated by tabs."""
    for region in located.regions:
        box = ",".join(map(str, region.box))
        print_data(_one_line(path), region.category, f"{region.probability:.4f}", box)


def print_regions_json(path: str, located: Located) -> None:
    """Prints one JSON object on a line: the image, and its regions with their outlines."""
    print_json_line(located.record())


def print_regions_table(path: str, located: Located) -> None:
    """Prints a table of the regions for people: category, probability with a bar, and box."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=data_stream())
    longest = _longest_bar(console, located.regions)
    table = _titled_table(path, located.width, located.height, "category")
    for region in located.regions:
        bar = _probability_bar(region.probability, longest)
        table.add_row(Text(region.category), bar, _box_text(region.box))
    console.print(table)
    if not located.regions:
        print_data("no region found")


def located_printer(*, as_json: bool) -> Callable[[str, Located], None]:
    """Returns a function that shows the regions of an image: as JSON, as a table on a terminal, else as
    tab-separated lines.
    """
    if as_json:
        return print_regions_json
    return print_regions_table if data_stream().isatty() else print_regions


def print_made(name: str, made: Outcome, *, as_json: bool) -> None:
    """Prints the file of an image's answer on a line, or the image's outcome as JSON."""
    if as_json:
        record: dict[str, Any] = {"path": name, "map": made.path, "new": made.new}
        print_json_line(record | (made.agreement.record() if made.agreement else {}))
    else:
        print_data(_one_line(made.path))


def _one_line(path: str) -> str:
    """Returns a file name in which characters that would break a line of columns are escaped as in C."""
    return path.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def print_json(path: str, result: Classification) -> None:
    """Prints one JSON object on a line: the image, how it was scanned, and its predictions."""
    predictions = [asdict(p) | {"probability": round(p.probability, 6)} for p in result.predictions]
    rest = {"width": result.width, "height": result.height, "model": result.model}
    scales = [round(scale, 4) for scale in result.scales]
    info = {**rest, "scales": scales, "temperature": result.temperature}
    print_json_line({"path": path, **info, "predictions": predictions})


def print_json_line(record: dict[str, Any]) -> None:
    """Prints a record as one line of JSON. Characters are escaped only if UTF-8 cannot hold them."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: JSON can only hold it escaped
        text = json.dumps(record)
    print_data(text)


def show_map(score_map: ScoreMap, output: OutputSpec) -> None:
    """Draws the photo and its maps on the terminal, then lists the top classes of the windows.

    Without a selection, it draws the map of the top class.
    """
    from rich.console import Console

    from fcnconv.api.maps import log_foremost
    from fcnconv.cli.preview import draw_map
    from fcnconv.scores import shown
    from fcnconv.writers.output_spec import photo_of
    from fcnconv.writers.pictures import hint_if_faint, winners_floor

    chosen, floor = output.selections, winners_floor(output.options, score_map.labels)
    if not chosen and not output.options.argmax:
        chosen = (log_foremost(score_map),)
    photo = photo_of(score_map.info, PREVIEW_SIDE)
    draw_map(Console(file=data_stream()), photo, score_map, chosen, at_least=floor)
    seen = shown(score_map.class_maps(chosen) if chosen else score_map.top_k(1)[1])
    hint_if_faint(float(seen.max()), [selection.name for selection in chosen], floor if not chosen else None)
    best = score_map.best_windows(output.options.top_k)
    widest = max(len(p.category) for p in best)
    for p in best:
        print_data(f"{p.probability:.3f}  {p.category:{widest}}  at {','.join(map(str, p.box))}")


def preview_best(classifier: Classifier, path: str, result: Classification) -> None:
    """Draws a small picture of the photo, and one of the place of its first class."""
    from rich.console import Console

    from fcnconv.cli.preview import draw_map
    from fcnconv.writers.output_spec import photo_of

    score_map = classifier(path, scales=PREVIEW_SCALE)
    best = result.predictions[0]
    selection = classifier.labels.same(best.class_idx, best.category)
    photo = photo_of(score_map.info, PREVIEW_SIDE)
    draw_map(Console(file=data_stream()), photo, score_map, [selection], share=0.6)


def print_table(path: str, result: Classification) -> None:
    """Prints a table for people: rank, category, probability with a bar, and box."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=data_stream())
    longest = _longest_bar(console, result.predictions, len("rank"))
    table = _titled_table(path, result.width, result.height, "rank", "category")
    for p in result.predictions:
        table.add_row(
            str(p.rank), Text(p.category), _probability_bar(p.probability, longest), _box_text(p.box)
        )
    console.print(table)


def _titled_table(path: str, width: int, height: int, *columns: str) -> Table:
    """Returns an empty table about an image, with these columns and columns of probabilities and boxes."""
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((path, "bold"), f"  {width} × {height}")
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name == "rank" else "left")
    table.add_column("probability", no_wrap=True)
    table.add_column("box", no_wrap=True)
    return table


SHORTEST_BAR, LONGEST_BAR = 8, 40
"""Shortest and longest length, in characters, of the bar of probability 1. The width of the terminal decides.
"""


def _longest_bar(console: Console, rows: Sequence[Prediction | Region], others: int = 0) -> int:
    """Returns the length of the bar of probability 1. others: the width of all columns but class, bar and
    box.
    """
    if not rows:
        return LONGEST_BAR
    category, box = max(len(row.category) for row in rows), max(len(_box_text(row.box)) for row in rows)
    room = console.width - others - category - box - len("  0.123   ")
    return min(max(room, SHORTEST_BAR), LONGEST_BAR)


def _probability_bar(probability: float, longest: int) -> Text:
    from rich.text import Text

    return Text.assemble(f"{probability:.3f} ", ("█" * round(longest * probability), "green"))


def _box_text(box: Box) -> str:
    return ",".join(map(str, box))


def print_classes(rows: Iterable[tuple[str, str, str]], *, aligned: bool) -> None:
    """Prints one line per class: index, WordNet id and names, separated by tabs; or in columns, where names
    that are longer than the terminal is wide continue on the next line.
    """
    if not aligned:
        for row in rows:
            print_data(*row)
        return
    listed = list(rows)
    first, second = (max(len(row[column]) for row in listed) for column in (0, 1))
    indent = first + second + 4 if second else first + 2
    width = max(shutil.get_terminal_size().columns - indent, 20)
    for index, wnid, names in listed:
        start = f"{index:>{first}}  {wnid:{second}}  " if second else f"{index:>{first}}  "
        lines = textwrap.wrap(names, width, break_on_hyphens=False) or [""]
        print_data(start + lines[0])
        for line in lines[1:]:
            print_data(" " * indent + line)


_MODEL_COLUMNS = ("name", "source", "parameters", "accuracy", "window", "stride", "field", "local", "here")


def model_record(spec: ModelSpec) -> dict[str, Any]:
    """Returns the known facts about a listed model without opening it, for programs; None if unknown."""
    facts = spec.published
    assert facts is not None, "custom models are not listed"
    return {
        "name": spec.name,
        "source": facts.source,
        "weights": facts.weights,
        "parameters": facts.parameters,
        "accuracy": facts.accuracy,
        "window": spec.window,
        "stride": facts.stride,
        "receptive_field": facts.receptive_field,
        "local": facts.local,
        "mode": spec.mode,
        "on_disk": facts.on_disk(),
    }


def _model_row(spec: ModelSpec) -> tuple[str, ...]:
    words = {True: "yes", False: "no", None: "-"}
    known = model_record(spec)
    return (
        known["name"],
        known["source"],
        f"{known['parameters'] / 1e6:.1f}M",
        f"{known['accuracy']:.1f}",
        str(known["window"]),
        str(known["stride"] or "-"),
        str(known["receptive_field"] or "-"),
        words[known["local"]],
        words[known["on_disk"]],
    )


def print_models(listed: list[ModelSpec], *, aligned: bool) -> None:
    """Prints one line per model: in columns of sufficient width with a heading, or separated by tabs."""
    if not aligned:
        for spec in listed:
            print_data(*_model_row(spec))
        return
    rows = [_MODEL_COLUMNS, *map(_model_row, listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    others = sum(width + 2 for width in widths[1:])
    widths[0] = min(widths[0], max(shutil.get_terminal_size().columns - others, len("name")))
    for name, *rest in rows:
        if len(name) > widths[0]:  # too long for a column: it gets its own line
            print_data(name)
            name = ""
        cells = zip((name, *rest), widths, strict=True)
        print_data("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
