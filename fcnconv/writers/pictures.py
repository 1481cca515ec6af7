"""Formats to look at: the photo with classes' probabilities over it, and the page of the viewer."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fcnconv.errors import UsageError
from fcnconv.render.draw import Style, draw_classes, draw_winners
from fcnconv.scores import ScoreStream
from fcnconv.viewer import viewer_page
from fcnconv.writers.contents import MADE_BY, Choice, keep, photo_of, provenance, source_of


def write_picture(path: Path, stream: ScoreStream, choice: Choice, format: str) -> None:
    """The photo with the chosen selections over it, a panel each, or with the winner of each cell.

    The provenance is in the EXIF image description, as JSON, and in a PNG also in the text ``fcnconv``.

    format: Pillow's name of the file format.
    """
    options, about = choice.options, stream.about
    if not (choice.selections or options.argmax):
        raise UsageError("a picture shows a class over the photo; name one with --class")
    photo = photo_of(about, options.max_side)
    kept = keep(stream, choice.selections, 1)
    if options.argmax:
        best = kept.probability.argmax(-1) if kept.class_idx is None else kept.class_idx[:, :, 0]
        picture = draw_winners(photo, best, kept.probability.max(-1), about.grid, choice.names(about))
    else:
        style = Style(cells=options.cells)
        picture = draw_classes(photo, kept.probability, about.grid, choice.names(about), style)
    record = json.dumps(provenance(stream))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = record
    exif[ExifTags.Base.Software] = MADE_BY
    text = PngInfo()
    text.add_text("fcnconv", record)
    with path.open("wb") as file:
        picture.save(file, format, quality=90, exif=exif, pnginfo=text)


def write_viewer(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The viewer, with the chosen selections offered first."""
    photo, options = source_of(stream.about), choice.options
    page = viewer_page(
        stream, photo, lambda: provenance(stream), shown=choice.selections, max_side=options.max_side
    )
    with path.open("w", encoding="utf-8") as file:
        file.writelines(page)
