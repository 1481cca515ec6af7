"""Display formats: the photo with class probabilities over it, and the viewer's page."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fcnconv.errors import UsageError
from fcnconv.labels import Labels, Selection
from fcnconv.options import OutputOptions
from fcnconv.render.draw import FLOOR, Style, Winners, spread
from fcnconv.render.sheet import Frame, class_sheet, sheet_shape, winners_sheet
from fcnconv.scores import FloatArray, MapInfo, ScoreStream, shown, top_k
from fcnconv.viewer import viewer_page
from fcnconv.writers.output_spec import (
    MADE_BY,
    PICTURE_SIDE,
    CellRecord,
    Kept,
    OutputSpec,
    keep,
    photo_of,
    provenance,
    source_of,
    told,
)

log = logging.getLogger("fcnconv")

_CONTENDERS = 5
"""Best classes per cell that a picture of the top classes uses: between two cells, a third class may be the
top class.
"""

_COMPRESSED = 1
"""zlib level of PNG files. The default level 6 takes 2.5 times as long for 2 % fewer bytes (photos of 640 ×
480 px).
"""


def write_picture(path: Path, stream: ScoreStream, output: OutputSpec, format: str) -> None:
    """Writes the picture of `picture_of` to a file.

    The EXIF image description contains the provenance as JSON. A PNG also contains text chunks: the JSON in
    ``fcnconv``, and a sentence in ``Description``.

    Args:
        path: The file.
        stream: The map.
        output: The selections and options.
        format: Pillow's name of the file format.
    """
    picture = plain_picture_of(stream, output) if output.options.plain else picture_of(stream, output)
    record = json.dumps(provenance(stream))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = record
    exif[ExifTags.Base.Software] = MADE_BY
    text = PngInfo()
    text.add_text("Description", told(stream))
    text.add_text("Software", MADE_BY)
    text.add_text("fcnconv", record)
    with path.open("wb") as file:
        picture.save(file, format, quality=90, compress_level=_COMPRESSED, exif=exif, pnginfo=text)


def picture_of(stream: ScoreStream, output: OutputSpec) -> Image.Image:
    """Returns the photo with one panel per selection, or with the top class of each cell, and a legend below.

    No side is longer than ``options.max_side``.

    Raises:
        UsageError: No class is selected, or the map has no photo, or an option does not apply.
    """
    options, info = output.options, stream.info
    if not (output.selections or options.argmax):
        raise UsageError("a picture shows a class over the photo; name one with --class")
    width, height = info.grid.image_size
    side = options.max_side or PICTURE_SIDE
    if options.raw and info.grid.phases == 1:
        raise UsageError(
            "--raw shows the map of a finer stride, whose pictures are smooth; this map has the network's own"
        )
    panels = 1 if options.argmax else len(output.selections) * (2 if options.raw else 1)
    across, down = sheet_shape(panels, (width, height))
    share = side / max(across * width, down * height)
    photo = photo_of(info, max(round(max(width, height) * min(share, 1)), 1))
    kept = keep(stream, output.selections, _CONTENDERS)
    outlines = _outlines(kept, output) if options.outline else []
    raw = kept.probability
    if info.grid.phases > 1 and not (options.cells or options.argmax):
        kept = replace(kept, probability=smooth(raw, info.grid.phases))
    style = Style(cells=options.cells, colormap=options.colormap)
    frame = Frame(not options.no_legend, told(stream) if options.footer else "", side)
    names = output.names(info)
    if options.argmax:
        floor = winners_floor(options, info.labels)
        winners = Winners.of(*_best_first(kept), info.grid, names, floor)
        picture = winners_sheet(photo, lambda photo: winners.draw(photo, style), winners.key, frame=frame)
        hint_if_faint(float(shown(kept.probability).max()), [], floor)
    else:
        planes = shown(kept.probability)
        titles = [
            _title(info, selection, float(planes[:, :, k].max()), smoothed=kept.probability is not raw)
            for k, selection in enumerate(output.selections)
        ]
        hint_if_faint(float(planes.max()), names)
        if options.raw:
            beside = [
                f"{selection.name}, not smoothed; up to {shown(raw[:, :, k]).max():.2f}"
                for k, selection in enumerate(output.selections)
            ]
            titles = [title for pair in zip(titles, beside, strict=True) for title in pair]
            planes = np.stack([planes, shown(raw)], axis=-1).reshape(*planes.shape[:2], -1)  # pairs
            outlines = [rings for rings in outlines for _ in range(2)]
        picture = class_sheet(
            photo,
            planes,
            info.grid,
            titles,
            style=style,
            stretch=options.stretch,
            outlines=outlines,
            frame=frame,
        )
    return picture


def _outlines(kept: Kept, output: OutputSpec) -> list[list[npt.NDArray[np.float64]]]:
    """Returns the rings of the regions of each selection, in pixels of the image."""
    from fcnconv.scores.regions import placement_of_windows, regions_of_each  # only regions need shapely

    placement = placement_of_windows(kept.info.grid)
    found = regions_of_each(kept.probability, placement, output.selections, output.options)
    return [[ring for region in regions for ring in region.rings] for regions in found]


def _title(info: MapInfo, selection: Selection, highest: float, *, smoothed: bool) -> str:
    """Returns the legend's title of a class: its name, its probability for the whole image if
    `Classifier.classify` lists it, and the highest probability in the picture.
    """
    listed = info.answer().predictions if info.answer is not None else ()
    whole = next((p.probability for p in listed if (p.class_idx,) == selection.classes), None)
    place = "smoothed, up to" if smoothed else f"highest in a {info.unit}"
    if whole is not None:
        return f"{selection.name} {whole:.2f}; {place} {highest:.2f}"
    return f"{selection.name}, {'smoothed, ' if smoothed else ''}up to {highest:.2f}"


def smooth(planes: FloatArray, phases: int) -> FloatArray:
    """Returns the mean over squares of one native stride, for a map with a finer stride. Networks respond
    differently to shifts within a stride, which draws stripes and crosses over fine maps.

    Args:
        planes: float32 (rows, cols, n).
        phases: The number of cells per native stride.
    """
    for axis in (0, 1):
        ends = [(phases // 2, (phases - 1) // 2) if axis == each else (0, 0) for each in range(3)]
        padded = np.pad(planes, ends, mode="edge")
        planes = sliding_window_view(padded, phases, axis).mean(-1, dtype=np.float32)
    return planes


def plain_picture_of(stream: ScoreStream, output: OutputSpec) -> Image.Image:
    """Returns the probability of the selection in grey, in the size of the photo or of ``options.max_side``.

    0 is black, as is everything outside the region of interest; 1 is white. The picture has 8 bits, or 16
    bits with ``options.dtype`` uint16. Beyond the centres of the outermost windows, their values are
    extended.
    """
    options, info = output.options, stream.info
    longest = max(info.grid.image_size)
    share = min((options.max_side or PICTURE_SIDE) / longest, 1)
    width, height = (max(round(side * share), 1) for side in info.grid.image_size)
    plane = keep(stream, output.selections[:1], 1).probability[:, :, 0]
    most = np.iinfo(np.dtype(options.dtype or "uint8"))
    grey = np.empty((height, width), most.dtype)
    for rows, values in spread(plane, info.grid, (height, width), Style(cells=options.cells)):
        grey[rows] = np.rint(values * most.max)
    return Image.fromarray(grey)


def _best_first(kept: Kept) -> tuple[npt.NDArray[np.integer], FloatArray]:
    """Returns the classes of each cell and their probabilities, best first, with or without a selection."""
    if kept.class_idx is not None:
        return kept.class_idx, kept.probability
    order = top_k(kept.probability, kept.probability.shape[-1])
    return order, np.take_along_axis(kept.probability, order, -1)


def winners_floor(options: OutputOptions, labels: Labels) -> float:
    """Returns the probability that the top class of a place needs to be coloured. The default for independent
    classes is 1/2.
    """
    usual = 0.5 if labels.activation == "sigmoid" else FLOOR
    return usual if options.at_least is None else options.at_least


def hint_if_faint(highest: float, names: Sequence[str], floor: float | None = None) -> None:
    """Logs a hint if no shown class is probable anywhere.

    Args:
        highest: The highest probability that is shown.
        names: The names of the shown classes; empty if the picture shows top classes.
        floor: The probability that a top class needs.
    """
    if highest >= (FLOOR if floor is None else floor):
        return
    if names:
        log.info(
            "%s: not found; the highest probability is %s. 'fcnconv classify' lists what the image shows, "
            "and other --scales may find more",
            ", ".join(names[:3]),
            f"{highest:.3f}" if highest >= 0.0005 else "below 0.001",
        )
    else:
        log.info("no class reaches --at-least %g; the highest probability is %.3f", floor, highest)


def write_viewer(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the viewer's page, which offers the selections first."""
    photo, options = source_of(stream.info), output.options

    def made() -> CellRecord:  # called after the map is packed
        return provenance(stream)

    page = viewer_page(stream, photo, made, shown=output.selections, max_side=options.max_side)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(page)
