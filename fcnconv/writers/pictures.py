"""Formats to look at: the photo with classes' probabilities over it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fcnconv import __version__
from fcnconv.errors import UsageError
from fcnconv.render.draw import Style, draw_classes, draw_winners
from fcnconv.scores import AnyMap
from fcnconv.sources import read_within
from fcnconv.writers.contents import Choice, chosen_names, provenance
from fcnconv.writers.kept import keep


def write_picture(path: Path, score_map: AnyMap, choice: Choice, format: str) -> None:
    """The photo with the chosen selections over it, a panel each, or with the winner of each cell.

    The provenance is in the EXIF image description, as JSON, and in a PNG also in the text ``fcnconv``.

    format: Pillow's name of the file format.
    """
    if choice.photo is None or not (choice.selections or choice.winners):
        raise UsageError("a picture shows a class over the photo; name one with --class")
    names, kept = chosen_names(score_map, choice), keep(score_map, choice.selections, 1)
    photo = read_within(choice.photo, choice.max_side)
    if choice.winners:
        best = kept.probability.argmax(-1) if kept.class_idx is None else kept.class_idx[:, :, 0]
        picture = draw_winners(photo, best, kept.probability.max(-1), score_map.grid, names)
    else:
        picture = draw_classes(photo, kept.probability, score_map.grid, names, Style(cells=choice.cells))
    record = json.dumps(provenance(score_map))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = record
    exif[ExifTags.Base.Software] = f"fcnconv {__version__}"
    text = PngInfo()
    text.add_text("fcnconv", record)
    with path.open("wb") as file:
        picture.save(file, format, quality=90, exif=exif, pnginfo=text)
