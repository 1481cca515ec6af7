"""What the commands print: tables for people, tab-separated lines and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fcnconv.errors import FcnconvError
from fcnconv.stdout import data_stream, print_data

if TYPE_CHECKING:
    from pathlib import Path

    from fcnconv.classifier import Classifier
    from fcnconv.labels import Selection
    from fcnconv.models.listing import Listing
    from fcnconv.scores import Classification, ScoreMap
    from fcnconv.sources import ImageSource

PREVIEW_SCALE = "448px"
"""Two windows high: enough cells for a small picture, whatever the image's own size."""


PREVIEW_SIDE = 2048
"""Pixels of the photo's longest side, many more than a terminal has."""


def complain(error: FcnconvError) -> None:
    """Tells an error on stderr, in one line."""
    print(f"fcnconv: {error}".replace("\n", "\\n"), file=sys.stderr)


def print_lines(path: str, result: Classification) -> None:
    """One line a prediction: path, rank, category, probability and box, separated by tabs."""
    for p in result.predictions:
        box = ",".join(map(str, p.box))
        print_data(_one_line(path), p.rank, p.category, f"{p.probability:.4f}", box)


def print_path(path: Path) -> None:
    """A file's name on a line."""
    print_data(_one_line(str(path)))


def _one_line(path: str) -> str:
    """A file name with what would break a line of columns written as in C."""
    return path.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def print_json(path: str, result: Classification) -> None:
    """One JSON object on a line: the image, how it was scanned, and its predictions."""
    predictions = [asdict(p) | {"probability": round(p.probability, 6)} for p in result.predictions]
    rest = {"width": result.width, "height": result.height, "model": result.model}
    scales = [round(scale, 4) for scale in result.scales]
    about = {**rest, "scales": scales, "temperature": result.temperature}
    print_json_line({"path": path, **about, "predictions": predictions})


def print_json_line(record: dict[str, Any]) -> None:
    """A record as one line of JSON, with characters as they are where UTF-8 can hold them."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: JSON can hold it only escaped
        text = json.dumps(record)
    print_data(text)


def print_preview(source: ImageSource, score_map: ScoreMap, chosen: Sequence[Selection], k: int) -> None:
    """The photo and its maps as pictures of letters, then the k classes that are best in some window."""
    from rich.console import Console

    from fcnconv.console.preview import show_map
    from fcnconv.sources import read_within

    show_map(Console(file=data_stream()), read_within(source, PREVIEW_SIDE), score_map, chosen)
    for p in score_map.best_windows(k):
        print_data(f"{p.probability:.3f}  {p.category}  at {','.join(map(str, p.box))}")


def preview_best(classifier: Classifier, path: str, result: Classification) -> None:
    """A small picture of the photo, and one of where its first class is."""
    from rich.console import Console

    from fcnconv.console.preview import show_map
    from fcnconv.sources import read_within

    source = classifier.open(path)
    score_map = classifier(source, scales=PREVIEW_SCALE)
    selection = classifier.labels.find(result.predictions[0].wnid or result.predictions[0].category)
    photo = read_within(source, PREVIEW_SIDE)
    show_map(Console(file=data_stream()), photo, score_map, [selection], share=0.6)


def print_table(path: str, result: Classification) -> None:
    """A table for people: rank, category, probability with a bar, and box."""
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
    Console(file=data_stream()).print(table)


_MODEL_COLUMNS = ("name", "source", "parameters", "accuracy", "window", "stride", "field", "local", "here")


def _model_row(listing: Listing) -> tuple[str, ...]:
    words = {True: "yes", False: "no", None: "-"}
    return (
        listing.name,
        listing.source,
        f"{listing.parameters / 1e6:.1f}M",
        f"{listing.accuracy:.1f}",
        str(listing.window),
        str(listing.stride or "-"),
        str(listing.receptive_field or "-"),
        words[listing.local],
        words[listing.on_disk],
    )


def print_models(listed: list[Listing], *, aligned: bool) -> None:
    """One line a model: with a heading in columns as wide as what is in them, or separated by tabs."""
    if not aligned:
        for listing in listed:
            print_data(*_model_row(listing))
        return
    rows = [_MODEL_COLUMNS, *map(_model_row, listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print_data("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
