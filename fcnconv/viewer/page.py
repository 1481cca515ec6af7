"""The viewer's page, put together from its template and what it shows."""

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
from fcnconv.pages import page, readable, script_json, terms
from fcnconv.render.colours import colour_map, distinct_colours, opacity_map
from fcnconv.render.draw import KEY_CLASSES, KEY_SHARE
from fcnconv.scores import MapInfo, ScoreStream
from fcnconv.viewer.packing import MAX_VALUES, Packed, pack
from fcnconv.viewer.photo import TILE, PagePhoto, page_photo

PAGE_BYTES = 60_000_000
"""Bytes of a page that the photo's finer levels may fill up to. A map's own share is 5 to 20 MB."""

VEIL = 0.65
"""Opacity of the even veil, which colours every probability alike."""

OTHER_KEPT = 64
"""Classes of each cell that a page keeps of the map's other kinds, so that they add less than the map has."""

KIND_NAMES: Mapping[MapKind, str] = {"focused": "Focused", "windows": "Windows", "activations": "Activations"}

SCRIPTS = ("scores", "view", "photo", "map", "panel", "regions", "search", "main")
"""The parts of the page's script, in their order."""


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
    """The whole page in pieces: HTML, to be written as UTF-8.

    photo: the image that was scanned.
    provenance: gives what the page's foot tells of the map's origin, as named scalars, once the map is read.
    shown: what the page offers first; it opens with the first of them, or else with the foremost class.
    max_values: cells × classes over which only the best classes of each cell are kept.
    max_side: pixels that no side of the photo in the page is longer than; None is the photo's own size.
    page_bytes: that the page may have, as far as its photo can be kept coarser for it.
    """
    packed = pack(stream, max_values)
    about, told = stream.about, provenance()
    maps = [(about, packed)]
    for kind in KIND_NAMES:
        if kind in about.others:
            other = about.others[kind]()
            maps.append((other.about, pack(other, max_values, OTHER_KEPT)))
    name = readable(PurePath(about.source.name).name) if about.source else "image"
    values = {
        "name": html.escape(name),
        "width": str(about.grid.image_size[0]),
        "height": str(about.grid.image_size[1]),
        "subtitle": _subtitle(about),
        "answer": _answer(about),
        "agreement": _agreement(about, int(packed.exact.sum()), int(packed.looked_at.sum())),
        "storage": " ".join(_storage(*one, whose=i > 0) for i, one in enumerate(maps)),
        "provenance": terms(told),
        "kinds": "".join(_choice(kind) for kind in KIND_NAMES if kind in {one.kind for one, _ in maps}),
        "one-kind": "" if len(maps) > 1 else " hidden",
        "maps": "".join(_data(*one) for one in maps),
    }
    facts = _facts(name, about, packed, shown) | {"kinds": [_kind_facts(*one) for one in maps]}
    room = page_bytes - sum(len(value) for value in values.values()) - len(script_json(facts)) - 10_000
    sharp = page_photo(photo, int(room * 0.99), max_side)  # what stands around the tiles is under 1 %
    facts["levels"] = [level.size for level in sharp.levels]
    values |= {
        "photo": f"data:image/jpeg;base64,{sharp.overview}",
        "sharpness": _sharpness(sharp, photo.size),
        "facts": script_json(facts),
    }
    return page("viewer", SCRIPTS, {**values, "tiles": _tiles(sharp)})


def _origins(packed: Packed) -> bytes:
    """A byte a cell: 2 where it was not looked at, 1 where it is a real crop, else 0."""
    return np.where(packed.looked_at, packed.exact, 2).astype(np.uint8).tobytes()


def _data(about: MapInfo, packed: Packed) -> str:
    """A map's packed bytes, as elements that only the script reads."""
    parts = {
        "data": packed.data,
        "origins": zlib.compress(_origins(packed), 9),
        "best": zlib.compress(packed.best_scale.tobytes(), 9),
    }
    return "".join(
        f'<script type="text/plain" id="{name}-{about.kind}">{base64.b64encode(part).decode()}</script>\n'
        for name, part in parts.items()
    )


def _choice(kind: MapKind) -> str:
    return f'<label><input type="radio" name="kind" value="{kind}"> {KIND_NAMES[kind]}</label>'


def _kind_facts(about: MapInfo, packed: Packed) -> dict[str, object]:
    """What the page's script must know of one map."""
    grid = about.grid
    return {
        "kind": about.kind,
        "rows": grid.rows,
        "cols": grid.cols,
        "scanSize": grid.scan_size,
        "window": grid.window,
        "stride": grid.stride,
        "scales": [(*each.scan_size, each.rows, each.cols) for each in about.scales],
        "kept": packed.kept,
        "indexBytes": packed.index_bytes,
        "unit": about.unit,
        "fades": grid.window > grid.stride * grid.phases,  # windows, which lie within the image's border
        "subtitle": _subtitle(about),
    }


def _facts(name: str, about: MapInfo, packed: Packed, shown: Sequence[Selection]) -> dict[str, object]:
    """What the page's script must know, whichever map it shows."""
    labels = about.labels
    opacities = np.round(255 * opacity_map()).astype(np.uint8)[:, None]
    return {
        "name": name,
        "imageSize": about.grid.image_size,
        "categories": labels.categories,
        "wnids": labels.wnids,
        "concepts": [_listed(concept) for concept in labels.concepts],
        "foremost": _foremost(about, packed),
        "shown": [_listed(selection) for selection in shown],
        "mode": about.provenance.mode,
        "anchors": about.provenance.anchors,
        "colours": np.hstack([colour_map(), opacities]).tobytes().hex(),  # RGBA of probabilities 0 to 1
        "veil": VEIL,
        "keyColours": distinct_colours(KEY_CLASSES).tobytes().hex(),
        "keyShare": KEY_SHARE,
        "tile": TILE,
    }


def _listed(selection: Selection) -> tuple[str, tuple[int, ...], str | None, tuple[str, ...]]:
    return selection.name, selection.classes, selection.wnid, selection.also


def _answer(about: MapInfo) -> str:
    """What the image shows as a whole, as HTML; empty where that is not known."""
    if about.answer is None:
        return ""
    listed = [f"{html.escape(p.category)} {p.probability:.2f}" for p in about.answer().predictions[:3]]
    return f"<strong>{listed[0]}</strong>" + "".join(f" · {text}" for text in listed[1:])


def _foremost(about: MapInfo, packed: Packed) -> int:
    """The class that the page opens with: what the image shows as a whole, where that is known."""
    first = about.answer().predictions[0].class_idx if about.answer is not None else None
    return packed.foremost if first is None else first


def _subtitle(about: MapInfo) -> str:
    grid = about.grid
    width, height = grid.image_size
    windows = f"{grid.rows:,} × {grid.cols:,} {about.unit}s of {grid.window} px, {grid.stride} px apart"
    sizes = ["{:,} × {:,}".format(*each.scan_size) for each in about.scales or (grid,)]
    at = f", scanned at {', '.join(sizes)} px" if about.scales or grid.scan_size != grid.image_size else ""
    return f"{width:,} × {height:,} px · {windows}{at}"


def _agreement(about: MapInfo, exact: int, cells: int) -> str:
    """A sentence about how true the map is, as far as that is known. exact: real crops, of so many cells."""
    if exact == cells:
        return "Every window was scored as a crop."
    how = "Not compared with crops"
    if (found := about.provenance.agreement) is not None:
        how = f"The map {found}"
    return f"{how}; {exact:,} of {cells:,} were scored as crops." if exact else f"{how}."


def _storage(about: MapInfo, packed: Packed, *, whose: bool) -> str:
    """A sentence about what the page keeps of a map and how far it is from it. whose: name its kind."""
    rows, cols, num_classes = about.shape
    unit = about.unit
    kept = (
        f"the {packed.kept} best of {num_classes:,} classes"
        if packed.kept
        else f"all {num_classes:,} classes"
    )
    rest = f"; a class outside a {unit}’s {packed.kept} best counts as 0 there" if packed.kept else ""
    summed = f", of a concept’s sum {_rounded_up(packed.concept_error)}" if about.labels.concepts else ""
    page = f"{KIND_NAMES[about.kind]}: the page" if whose else "This page"
    scale = "in 8 bits on a square-root scale"
    return (
        f"{page} holds {kept} of each of {rows * cols:,} {unit}s, {scale}{rest}. "
        f"Largest error of a probability here: {_rounded_up(packed.error)}{summed}."
    )


def _sharpness(photo: PagePhoto, size: tuple[int, int]) -> str:
    """A sentence about how much of the photo the page has."""
    if photo.finest == size:
        return "The photo is here at its own size."
    return "The photo is here at up to {:,} × {:,} px; its own size is {:,} × {:,} px.".format(
        *photo.finest, *size
    )


def _rounded_up(error: float) -> str:
    return f"{math.ceil(error * 10_000) / 10_000:.4f}"


def _tiles(photo: PagePhoto) -> Iterator[str]:
    """The tiles as elements that nothing draws until the script asks for them."""
    for number, level in enumerate(photo.levels):
        for row, tiles in enumerate(level.tiles):
            for col, tile in enumerate(tiles):
                yield f'<script type="text/plain" id="tile-{number}-{row}-{col}">{tile}</script>\n'
