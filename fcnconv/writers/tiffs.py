"""TIFF: for ImageJ, for GIS where the image lies on the map, and OME's for microscopy."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from fcnconv.errors import OutputError, first_line
from fcnconv.images.georeference import IN_PIXELS, GeoReference
from fcnconv.scores import FloatArray, ScoreStream
from fcnconv.writers.output_spec import MADE_BY, Choice, optimises, place_of, provenance
from fcnconv.writers.pyramids import TILE, cell_size, levels, planes, pyramid

log = logging.getLogger("fcnconv")

LARGE_TIFF = (1 << 32) - (1 << 24)
"""Bytes of scores from which on a TIFF is a BigTIFF, which ImageJ reads by a plugin only."""


def write_tif(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The scores, a class after the other; a pixel covers the square of its cell.

    Of an image that lies on the map a GeoTIFF there, with a band a class; with rasterio a cloud-optimised
    one. Of other images an ImageJ stack, with a page a class and their names as labels, and for GIS in the
    image's pixels, x to the right and y downwards (negative); over 4 GB a BigTIFF with the same pages, as
    ImageJ's stacks end there.

    In float32, where NaN is what was not looked at; or as `whole_numbers` has them.
    """
    import tifffile

    about, names = stream.about, choice.names(stream.about)
    rows, cols, _ = about.shape
    shape: tuple[int, ...] = (len(names), rows, cols)
    dtype = np.dtype(choice.options.dtype or "float32").newbyteorder("<")
    large = dtype.itemsize * rows * cols * len(names) > LARGE_TIFF
    place, told = place_of(about), _told(stream, choice)
    info = told.ljust(len(told) + _ROOM)
    kind: dict[str, Any] = {"metadata": {"axes": "CYX", "Info": info}}
    if place is not None:  # bands of one page, which share its place
        kind = {"metadata": None, "description": info}
        if len(names) > 1:
            kind["planarconfig"] = "separate"
    elif not large:
        shape = (1, 1, len(names), rows, cols, 1)
        labels = {"mode": "grayscale", "Labels": names, "Info": info}
        kind = {"imagej": True, "metadata": {"axes": "TZCYXS", **labels}}
    x0, y0, x1, y1 = about.grid.square(0, 0)
    start, _ = tifffile.imwrite(
        path,
        shape=shape,
        dtype=dtype,
        byteorder="<",
        bigtiff=large,
        photometric="minisblack",
        software=MADE_BY,
        extratags=[
            *_place_tags((place or IN_PIXELS).of_part(x0, y0, x1 - x0, y1 - y0)),
            (_GDAL_METADATA, "s", 0, _gdal_metadata(names, dtype), True),
            (_GDAL_NODATA, "s", 0, "nan" if dtype.kind == "f" else str(np.iinfo(dtype).max), True),
        ],
        returnoffset=True,
        **kind,
    )
    with path.open("r+b") as file:
        for piece in stream.pieces():
            scores = whole_numbers(choice.scores(piece), dtype).transpose(2, 0, 1)
            for plane, cells in enumerate(np.ascontiguousarray(scores)):
                for row, line in enumerate(cells, start=piece.block.rows.start):
                    at = (plane * rows + row) * cols + piece.block.cols.start
                    file.seek(start + dtype.itemsize * at)
                    file.write(line.data)
        _amend(file, start, info, _told(stream, choice).ljust(len(info)))
    if optimises(about) and place is not None:
        _optimise(path, place, shape[0] * dtype.itemsize)
    elif place is not None:
        log.info("a plain GeoTIFF: with rasterio (pip install 'fcnconv[geo]') it has tiles and overviews too")


def _place_tags(place: GeoReference) -> list[tuple[int, str, int, tuple[float, ...], bool]]:
    """The tags of a TIFF that lies at a place, as tifffile takes them: number, type, count, value, once."""
    a, b, c, d, e, f = place.transform
    if b == d == 0 and a > 0 > e:
        return [
            (_PIXEL_SCALE, "d", 3, (a, -e, 0.0), True),
            (_TIE_POINTS, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0), True),
        ]
    matrix = (a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return [(_TRANSFORMATION, "d", 16, matrix, True)]


_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
"""GeoTIFF's tags for the place of pixels."""

_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
"""GDAL's tags."""


def whole_numbers(scores: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Probabilities as numbers of a type: 0 to one less than its largest, which stands for 1; its largest is
    what was not looked at. Floats stay as they are.
    """
    if dtype.kind == "f":
        return scores.astype(dtype, copy=False)
    most = np.iinfo(dtype).max
    return np.where(np.isnan(scores), most, np.rint(np.nan_to_num(scores) * (most - 1))).astype(dtype)


_BLOCK_BYTES = 1 << 24
"""Of a block of a cloud-optimised GeoTIFF, in which all bands of a square lie together."""


def _optimise(path: Path, place: GeoReference, bytes_of_all_bands: int) -> None:
    """Turns a GeoTIFF into a cloud-optimised one, by rasterio: in tiles, compressed, with overviews."""
    import rasterio.shutil

    block = next((b for b in (512, 256) if b * b * bytes_of_all_bands <= _BLOCK_BYTES), 128)
    creation = {"BLOCKSIZE": block, "COMPRESS": "DEFLATE", "PREDICTOR": "YES", "NUM_THREADS": "ALL_CPUS"}
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder:
        made = Path(folder, "map.tif")
        try:
            with rasterio.open(path, "r+") as file:
                if place.system is not None:
                    file.crs = place.system
            rasterio.shutil.copy(
                path, made, driver="COG", OVERVIEW_RESAMPLING="AVERAGE", BIGTIFF="IF_SAFER", **creation
            )
        except Exception as error:  # GDAL's errors share no class
            raise OutputError(f"GDAL cannot make a cloud-optimised GeoTIFF ({first_line(error)})") from error
        made.replace(path)


def write_ome_tif(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """An OME-TIFF: a channel a class, named; how large a cell is and where it lies, in micrometres if the
    image tells how large its pixels are, else in pixels; smaller copies of a large map; tiles, compressed.
    float32.
    """
    import tifffile

    names, found = choice.names(stream.about), planes(stream, choice)
    wide, high, x, y, known = cell_size(stream.about)
    unit = "µm" if known else "pixel"
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": names},
        "PhysicalSizeX": wide,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": high,
        "PhysicalSizeYUnit": unit,
        "Plane": {
            **{"PositionX": [x] * len(names), "PositionXUnit": [unit] * len(names)},
            **{"PositionY": [y] * len(names), "PositionYUnit": [unit] * len(names)},
        },
        "Description": _told(stream, choice),
    }
    count, large = levels(*found.shape[1:]), found.nbytes > LARGE_TIFF
    kind = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zlib", "predictor": True}
    with tifffile.TiffWriter(path, ome=True, bigtiff=large) as file:
        rest: dict[str, Any] = {"subifds": count - 1, "metadata": metadata, "software": MADE_BY}
        for level in pyramid(found):
            file.write(level, **kind, **rest)
            rest = {"subfiletype": 1}


def _told(stream: ScoreStream, choice: Choice) -> str:
    """The provenance as text."""
    return json.dumps(provenance(stream) | {"values": choice.options.values})


_ROOM = 1000
"""Characters of the provenance that are kept free for what the scan still finds out."""


def _amend(file: IO[bytes], size: int, before: str, after: str) -> None:
    """Replaces a text in the first `size` bytes of a TIFF, in whichever way it was written there."""
    file.seek(0)
    head = file.read(size)
    for encode in (
        lambda text: text.encode("utf-16-le"),  # ImageJ's own tag
        lambda text: json.dumps(text)[1:-1].encode(),  # inside tifffile's description
        lambda text: text.encode(),
    ):
        old, new = encode(before), encode(after)
        if len(old) == len(new) and (place := head.find(old)) >= 0:
            file.seek(place)
            file.write(new)


def _gdal_metadata(names: list[str], dtype: np.dtype[Any]) -> str:
    """The names of the bands, escaped twice as GDAL does, and what their whole numbers are multiplied by to
    be probabilities.
    """
    items = [
        f'<Item name="DESCRIPTION" sample="{band}" role="description">{escape(escape(name))}</Item>'
        for band, name in enumerate(names)
    ]
    if dtype.kind != "f":
        scale = 1 / (np.iinfo(dtype).max - 1)
        items += [
            f'<Item name="SCALE" sample="{band}" role="scale">{scale:.17g}</Item>'
            for band in range(len(names))
        ]
    xml = f"<GDALMetadata>{''.join(items)}</GDALMetadata>"
    return xml.encode("ascii", "xmlcharrefreplace").decode()  # a TIFF's text is ASCII
