"""The cards of the report: the thumbnails of an image, one per class, and the other data of the report about
it.

A card is one JPEG file. Its EXIF image description contains the data as JSON. The thumbnails are stacked in
it, so that the report can show the map of any class that is searched for. One file appears complete, machines
that share a folder need no common log, and the report can be made from the folder alone.
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
"""Longest side of a thumbnail in pixels."""


@dataclass(frozen=True)
class Card:
    """The data of the report about an image.

    Attributes:
        path: The image's path as the user named it.
        width, height: The image's size in pixels.
        peaks: See `MapSummary.peaks`.
        shown: The index of the peak whose map the thumbnail shows.
        agreement: The estimated agreement with crops, 0 to 1; None if nothing was compared.
        panels: The number of thumbnails in the file: one for each of `peaks`, or a single one for the class
            `shown`.
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
    """Returns the card of an image, and its thumbnails: one for each of its peaks, stacked.

    Args:
        name: The name of the image.
        photo: uint8 (H, W, 3), in the size of a thumbnail.
        glance: The summary of the map.
        agreement: See `Card`.
    """
    (shown, _), peaks, grid = glance.foremost(), glance.peaks(), glance.info.grid
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
    """Returns the data of a card; None if the file is not a card, or is damaged."""
    try:
        with Image.open(path) as image:
            fields = parse_json(image.getexif()[ExifTags.Base.ImageDescription])
        peaks = tuple(Peak(**peak) for peak in fields.pop("peaks"))
        return Card(**fields, peaks=peaks)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
