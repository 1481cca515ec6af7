"""Formats to look at: the photo with classes' probabilities over it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fcnconv import __version__
from fcnconv.errors import UsageError
from fcnconv.render import Style, draw_classes, draw_winners
from fcnconv.scores import ScoreMap
from fcnconv.writers.contents import Choice, chosen_names, provenance


def write_picture(path: Path, score_map: ScoreMap, choice: Choice, format: str) -> None:
    """The photo with the chosen selections over it, a panel each, or with the winner of each cell.

    The provenance is in the EXIF image description, as JSON, and in a PNG also in the text ``fcnconv``.

    format: Pillow's name of the file format.
    """
    if choice.photo is None or not (choice.selections or choice.winners):
        raise UsageError("a picture shows a class over the photo; name one with --class")
    names = chosen_names(score_map, choice)
    if choice.winners:
        planes = score_map.planes(choice.selections) if choice.selections else score_map.probabilities()
        picture = draw_winners(choice.photo, planes, score_map.grid, names)
    else:
        planes = score_map.planes(choice.selections)
        picture = draw_classes(choice.photo, planes, score_map.grid, names, Style(cells=choice.cells))
    record = json.dumps(provenance(score_map))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = record
    exif[ExifTags.Base.Software] = f"fcnconv {__version__}"
    text = PngInfo()
    text.add_text("fcnconv", record)
    with path.open("wb") as file:
        picture.save(file, format, quality=90, exif=exif, pnginfo=text)
