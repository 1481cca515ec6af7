"""TIFF: for ImageJ, GeoTIFF for georeferenced images, and OME-TIFF for microscopy."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from fcnconv.errors import OutputError, first_line
from fcnconv.images.georeference import IN_PIXELS, GeoReference
from fcnconv.scores import FloatArray, ScoreStream
from fcnconv.system.scratch import let_go
from fcnconv.writers.output_spec import MADE_BY, OutputSpec, optimises, place_of, provenance
from fcnconv.writers.pyramids import TILE, cell_size, levels, planes, pyramid

log = logging.getLogger("fcnconv")

LARGE_TIFF = (1 << 32) - (1 << 24)
"""Bytes of scores from which a TIFF is a BigTIFF, which ImageJ reads only with a plugin."""


def write_tif(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the scores, one class after another. A pixel covers the square of its cell.

    - A georeferenced image becomes a GeoTIFF with one band per class, cloud-optimised if rasterio is
      installed.
    - Other images become an ImageJ stack with one page per class and the class names as labels. For GIS it is
      placed in pixels of the image, x to the right and y downwards (negative).
    - Above 4 GB, where ImageJ's stacks end, it is a BigTIFF with the same pages.

    The scores are float32, with NaN outside the region of interest, or the integers of `whole_numbers`.
    """
    import tifffile

    info, names = stream.info, output.names(stream.info)
    found = planes(stream, output)
    rows, cols = found.shape[1:]
    shape: tuple[int, ...] = found.shape
    dtype = np.dtype(output.options.dtype or "float32").newbyteorder("<")
    large = dtype.itemsize * found.size > LARGE_TIFF
    place, text = place_of(info), _provenance_text(stream, output)
    kind: dict[str, Any] = {"metadata": {"axes": "CYX", "Info": text}}
    if place is not None:  # bands of one page share its georeference
        kind = {"metadata": None, "description": text}
        if len(names) > 1:
            kind["planarconfig"] = "separate"
    elif not large:
        shape = (1, 1, len(names), rows, cols, 1)
        labels = {"mode": "grayscale", "Labels": names, "Info": text}
        kind = {"imagej": True, "metadata": {"axes": "TZCYXS", **labels}}
    x0, y0, x1, y1 = info.grid.square(0, 0)
    tifffile.imwrite(
        path,
        data=_pages(found, dtype),
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
        **kind,
    )
    if optimises(info) and place is not None:
        _optimise(path, place, len(names) * dtype.itemsize)
    elif place is not None:
        log.info(
            "writing a GeoTIFF without tiles and overviews; "
            "to add them, install rasterio: pip install 'fcnconv[geo]'"
        )


def _pages(found: FloatArray, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yields the planes in a number type, each released from memory when it has been written."""
    for plane in found:
        yield whole_numbers(plane, dtype)
        let_go(found)


def _place_tags(place: GeoReference) -> list[tuple[int, str, int, tuple[float, ...], bool]]:
    """Returns the tags of a georeferenced TIFF in tifffile's form: number, type, count, value, once."""
    a, b, c, d, e, f = place.transform
    if b == d == 0 and a > 0 > e:
        return [
            (_PIXEL_SCALE, "d", 3, (a, -e, 0.0), True),
            (_TIE_POINTS, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0), True),
        ]
    matrix = (a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return [(_TRANSFORMATION, "d", 16, matrix, True)]


_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
"""GeoTIFF's tags for the georeference."""

_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
"""GDAL's tags."""


def whole_numbers(scores: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns probabilities as integers of a type. 0 to the largest value minus 1 represent 0 to 1; the
    largest value marks cells outside the region of interest. Floats are returned unchanged.
    """
    if dtype.kind == "f":
        return scores.astype(dtype, copy=False)
    most = np.iinfo(dtype).max
    return np.where(np.isnan(scores), most, np.rint(np.nan_to_num(scores) * (most - 1))).astype(dtype)


_BLOCK_BYTES = 1 << 24
"""Bytes of a block of a cloud-optimised GeoTIFF. A block holds all bands of a square."""


def _optimise(path: Path, place: GeoReference, bytes_of_all_bands: int) -> None:
    """Converts a GeoTIFF to a cloud-optimised one with rasterio: tiled, compressed, with overviews."""
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
        except Exception as error:  # GDAL's errors have no common class
            raise OutputError(f"GDAL cannot make a cloud-optimised GeoTIFF ({first_line(error)})") from error
        made.replace(path)


def write_ome_tif(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes an OME-TIFF: float32, one named channel per class, tiled and compressed, with smaller copies of
    a large map.

    The size and place of a cell are in micrometres if the image records its pixel size, else in pixels.
    """
    import tifffile

    names, found = output.names(stream.info), planes(stream, output)
    wide, high, x, y, known = cell_size(stream.info)
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
        "Description": _provenance_text(stream, output),
    }
    count, large = levels(*found.shape[1:]), found.nbytes > LARGE_TIFF
    kind = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zlib", "predictor": True}
    with tifffile.TiffWriter(path, ome=True, bigtiff=large) as file:
        rest: dict[str, Any] = {"subifds": count - 1, "metadata": metadata, "software": MADE_BY}
        for level in pyramid(found):
            file.write(level, **kind, **rest)
            rest = {"subfiletype": 1}


def _provenance_text(stream: ScoreStream, output: OutputSpec) -> str:
    """Returns the provenance as text."""
    return json.dumps(provenance(stream) | {"values": output.options.values})


def _gdal_metadata(names: list[str], dtype: np.dtype[Any]) -> str:
    """Returns the names of the bands, escaped twice as GDAL does, and the factor that converts their integers
    to probabilities.
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
    return xml.encode("ascii", "xmlcharrefreplace").decode()  # TIFF text is ASCII
