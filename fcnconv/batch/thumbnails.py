"""The cards of the report: the thumbnails of an image, one per class, and what else the report says of it.

A card is one file, a JPEG with the rest as JSON in its EXIF image description. The thumbnails stand in it one
below the other, so that the report can show the map of the class that is searched for. One file appears
whole, machines that share a folder need no common journal, and the report can be made from the folder alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import ExifTags, Image

from fcnconv.batch.summary import MapSummary, Peak
from fcnconv.images import Pixels
from fcnconv.render.draw import draw_plane
from fcnconv.system.records import parse_json
from fcnconv.writers.output_spec import MADE_BY

SIDE = 320
"""Pixels of a thumbnail's longer side."""


@dataclass(frozen=True)
class Card:
    """What the report tells of an image.

    path: the image, as it was named. width, height: its pixels.
    peaks: see `MapSummary.peaks`. shown: which of these the thumbnail shows the map of, from 0.
    agreement: with crops, 0 to 1, estimated; None where nothing was compared.
    panels: thumbnails in the file: one for each of `peaks`, or a single one for the class that is `shown`.
    """

    path: str
    width: int
    height: int
    peaks: tuple[Peak, ...]
    shown: int
    agreement: float | None
    panels: int = 1


def draw_card(
    name: str, photo: Pixels, glance: MapSummary, agreement: float | None
) -> tuple[Card, Image.Image]:
    """The card of an image, and its thumbnails: one for each of its peaks, below each other.

    name: the image. photo: uint8 (H, W, 3), as large as a thumbnail shall be. agreement: see `Card`.
    """
    (shown, _), peaks, grid = glance.foremost(), glance.peaks(), glance.about.grid
    place = [(peak.class_idx, peak.category) for peak in peaks].index((shown.class_idx, shown.name))
    height, width, _ = photo.shape
    column = Image.new("RGB", (width, len(peaks) * height))
    for number, peak in enumerate(peaks):
        column.paste(draw_plane(photo, glance.plane(peak), grid), (0, number * height))
    return Card(name, *grid.image_size, peaks, place, agreement, len(peaks)), column


def write_card(path: Path, card: Card, thumbnails: Image.Image) -> None:
    """Writes a card. Raises OSError."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(asdict(card))
    exif[ExifTags.Base.Software] = MADE_BY
    with path.open("wb") as file:
        thumbnails.save(file, "JPEG", quality=85, exif=exif)


def read_card(path: Path) -> Card | None:
    """What a card tells; None where the file is no card, or is damaged."""
    try:
        with Image.open(path) as image:
            told = parse_json(image.getexif()[ExifTags.Base.ImageDescription])
        peaks = tuple(Peak(**peak) for peak in told.pop("peaks"))
        return Card(**told, peaks=peaks)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
