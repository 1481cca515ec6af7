"""The viewer's page, assembled from its template and its content."""

from __future__ import annotations

import base64
import html
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

import numpy as np

from fcnconv.images import ImageSource
from fcnconv.labels import Selection
from fcnconv.options import MapKind
from fcnconv.provenance import Agreement, correction_record
from fcnconv.render.colours import colour_map, distinct_colours, opacity_map
from fcnconv.render.draw import KEY_CLASSES, KEY_SHARE
from fcnconv.render.pages import page, readable, script_json, terms
from fcnconv.scores import MapInfo, ScoreStream
from fcnconv.viewer.packing import MAX_VALUES, Packed, pack
from fcnconv.viewer.photo import TILE, PagePhoto, page_photo

PAGE_BYTES = 60_000_000
"""Size in bytes that the finer levels of the photo may fill a page up to. A map's own data takes 5 to 20 MB.
"""

VEIL = 0.65
"""Opacity of the uniform veil, which colours every probability with the same opacity."""

OTHER_KEPT = 64
"""Classes per cell that a page stores of the map's other kinds, so that they add less than the map itself."""

KIND_NAMES: Mapping[MapKind, str] = {"focused": "Focused", "windows": "Windows", "activations": "Activations"}

SCRIPTS = ("scores", "view", "photo", "map", "panel", "regions", "search", "main")
"""The modules of the page's script, in order."""


def viewer_page(
    stream: ScoreStream,
    photo: ImageSource,
    provenance: Callable[[], Mapping[str, str | int | float]],
    *,
    shown: Sequence[Selection] = (),
    max_values: int = MAX_VALUES,
    max_side: int | None = None,
    page_bytes: int = PAGE_BYTES,
) -> Iterator[str]:
    """Yields the whole page in chunks of HTML, to be written as UTF-8.

    Args:
        stream: The map.
        photo: The scanned image.
        provenance: Returns the provenance for the foot of the page, as named scalars. It is called after the
            map was read.
        shown: The selections that the page offers first. It opens with the first of them, or else with the
            class that shows most.
        max_values: Cells × classes above which the page stores only the best classes of each cell.
        max_side: The longest side of the photo in the page, in pixels; None is the photo's own size.
        page_bytes: The target size of the page. The photo is stored at a coarser size to reach it.
    """
    packed = pack(stream, max_values)
    info, origin = stream.info, provenance()
    maps = [(info, packed)]
    for kind in KIND_NAMES:
        if kind in info.others:
            other = info.others[kind]()
            maps.append((other.info, pack(other, max_values, OTHER_KEPT)))
    name = readable(PurePath(info.source.name).name) if info.source else "image"
    values = {
        "name": html.escape(name),
        "width": str(info.grid.image_size[0]),
        "height": str(info.grid.image_size[1]),
        "subtitle": _subtitle(info),
        "answer": _answer(info),
        "agreement": _agreement(stream.finish().agreement, int(packed.exact.sum()), int(packed.inside.sum())),
        "storage": " ".join(_storage(*one, whose=i > 0) for i, one in enumerate(maps)),
        "provenance": terms(origin),
        "kinds": "".join(_choice(kind) for kind in KIND_NAMES if kind in {one.kind for one, _ in maps}),
        "one-kind": "" if len(maps) > 1 else " hidden",
        "maps": "".join(_data(*one) for one in maps),
    }
    facts = _facts(name, info, packed, shown) | {"kinds": [_kind_facts(*one) for one in maps]}
    room = page_bytes - sum(len(value) for value in values.values()) - len(script_json(facts)) - 10_000
    sharp = page_photo(photo, int(room * 0.99), max_side)  # the markup around the tiles is under 1 %
    facts["levels"] = [level.size for level in sharp.levels]
    values |= {
        "photo": f"data:image/jpeg;base64,{sharp.overview}",
        "sharpness": _sharpness(sharp, photo.size),
        "facts": script_json(facts),
    }
    return page("viewer", SCRIPTS, {**values, "tiles": _tiles(sharp)})


def _origins(packed: Packed) -> bytes:
    """Returns one byte per cell: 2 outside the region of interest, 1 if the cell was scored as a crop, else
    0.
    """
    return np.where(packed.inside, packed.exact, 2).astype(np.uint8).tobytes()


def _data(info: MapInfo, packed: Packed) -> str:
    """Returns a map's packed bytes as elements that only the script reads."""
    parts = {
        "data": packed.data,
        "origins": zlib.compress(_origins(packed), 9),
        "best": zlib.compress(packed.best_scale.tobytes(), 9),
    }
    return "".join(
        f'<script type="text/plain" id="{name}-{info.kind}">{base64.b64encode(part).decode()}</script>\n'
        for name, part in parts.items()
    )


def _choice(kind: MapKind) -> str:
    return f'<label><input type="radio" name="kind" value="{kind}"> {KIND_NAMES[kind]}</label>'


def _kind_facts(info: MapInfo, packed: Packed) -> dict[str, object]:
    """Returns the facts about one map that the page's script needs."""
    grid = info.grid
    return {
        "kind": info.kind,
        "rows": grid.rows,
        "cols": grid.cols,
        "scanSize": grid.scan_size,
        "window": grid.window,
        "stride": grid.stride,
        "scales": [(*each.scan_size, each.rows, each.cols) for each in info.scales],
        "kept": packed.kept,
        "indexBytes": packed.index_bytes,
        "unit": info.unit,
        "fades": grid.window > grid.stride * grid.phases,  # windows lie within the image's border
        "subtitle": _subtitle(info),
    }


def _facts(name: str, info: MapInfo, packed: Packed, shown: Sequence[Selection]) -> dict[str, object]:
    """Returns the facts that the page's script needs for any of its maps."""
    labels = info.labels
    opacities = np.round(255 * opacity_map()).astype(np.uint8)[:, None]
    return {
        "name": name,
        "imageSize": info.grid.image_size,
        "categories": labels.categories,
        "wnids": labels.wnids,
        "concepts": [_listed(concept) for concept in labels.concepts],
        "foremost": _foremost(info, packed),
        "shown": [_listed(selection) for selection in shown],
        "mode": info.provenance.mode,
        "anchors": correction_record(info.provenance.correction)["anchors"],
        "colours": np.hstack([colour_map(), opacities]).tobytes().hex(),  # RGBA of probabilities 0 to 1
        "veil": VEIL,
        "keyColours": distinct_colours(KEY_CLASSES).tobytes().hex(),
        "keyShare": KEY_SHARE,
        "tile": TILE,
    }


def _listed(selection: Selection) -> tuple[str, tuple[int, ...], str | None, tuple[str, ...]]:
    return selection.name, selection.classes, selection.wnid, selection.also


def _answer(info: MapInfo) -> str:
    """Returns the classes of the whole image as HTML; empty if they are unknown."""
    if info.answer is None:
        return ""
    listed = [f"{html.escape(p.category)} {p.probability:.2f}" for p in info.answer().predictions[:3]]
    return f"<strong>{listed[0]}</strong>" + "".join(f" · {text}" for text in listed[1:])


def _foremost(info: MapInfo, packed: Packed) -> int:
    """Returns the class that the page opens with: the top class of the whole image, if it is known."""
    first = info.answer().predictions[0].class_idx if info.answer is not None else None
    return packed.foremost if first is None else first


def _subtitle(info: MapInfo) -> str:
    grid = info.grid
    width, height = grid.image_size
    windows = f"{grid.rows:,} × {grid.cols:,} {info.unit}s of {grid.window} px, {grid.stride} px apart"
    sizes = ["{:,} × {:,}".format(*each.scan_size) for each in info.scales or (grid,)]
    at = f", scanned at {', '.join(sizes)} px" if info.scales or grid.scan_size != grid.image_size else ""
    return f"{width:,} × {height:,} px · {windows}{at}"


def _agreement(found: Agreement | None, exact: int, cells: int) -> str:
    """Returns a sentence about the map's agreement with crops, if it is known. exact: the number of crops
    among so many cells.
    """
    if exact == cells:
        return "Every window was scored as a crop."
    how = "Not compared with crops"
    if found is not None:
        how = f"The map {found}"
    return f"{how}; {exact:,} of {cells:,} were scored as crops." if exact else f"{how}."


def _storage(info: MapInfo, packed: Packed, *, whose: bool) -> str:
    """Returns a sentence about which part of a map the page stores, and with which error. whose: name the
    map's kind.
    """
    rows, cols, num_classes = info.shape
    unit = info.unit
    kept = (
        f"the {packed.kept} best of {num_classes:,} classes"
        if packed.kept
        else f"all {num_classes:,} classes"
    )
    rest = f"; a class outside a {unit}’s {packed.kept} best counts as 0 there" if packed.kept else ""
    summed = f", of a concept’s sum {_rounded_up(packed.concept_error)}" if info.labels.concepts else ""
    page = f"{KIND_NAMES[info.kind]}: the page" if whose else "This page"
    scale = "in 8 bits on a square-root scale"
    return (
        f"{page} holds {kept} of each of {rows * cols:,} {unit}s, {scale}{rest}. "
        f"Largest error of a probability here: {_rounded_up(packed.error)}{summed}."
    )


def _sharpness(photo: PagePhoto, size: tuple[int, int]) -> str:
    """Returns a sentence about the size of the photo in the page."""
    if photo.finest == size:
        return "The photo is here at its own size."
    return "The photo is here at up to {:,} × {:,} px; its own size is {:,} × {:,} px.".format(
        *photo.finest, *size
    )


def _rounded_up(error: float) -> str:
    return f"{math.ceil(error * 10_000) / 10_000:.4f}"


def _tiles(photo: PagePhoto) -> Iterator[str]:
    """Yields the tiles as elements that the browser does not draw until the script uses them."""
    for number, level in enumerate(photo.levels):
        for row, tiles in enumerate(level.tiles):
            for col, tile in enumerate(tiles):
                yield f'<script type="text/plain" id="tile-{number}-{row}-{col}">{tile}</script>\n'
