"""Everything that GDAL reads, through rasterio: GeoTIFF, JPEG 2000, VRT, ERDAS, pictures with sidecar files.

GDAL decides by a file's content and knows its sidecars: world files, ``.aux.xml``, ``.msk``, ``.ovr``. What
the file declares is honoured here: place, control points, masks, nodata, opacity, palettes and bit depths.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.parsing import Rescale
from fcnconv.sources.blocks import Blocks
from fcnconv.sources.georeference import GeoReference, ground_size
from fcnconv.sources.pillow import silence
from fcnconv.sources.pixel_size import of_resolution
from fcnconv.sources.resized import REGION_PIXELS
from fcnconv.sources.samples import WHITE, Declared, Samples, choose_samples, exact_nodata, tell_if_dark
from fcnconv.sources.source import ENOUGH_SAMPLES, ENOUGH_SIDE, Pixels, area

log = logging.getLogger("fcnconv")

_NETWORK = frozenset("HTTP WMS WMTS WCS DAAS EEDA EEDAI PLMOSAIC STACIT STACTA ESRIC".split())
"""Drivers that fetch what a small file names from elsewhere."""

_NO_PICTURES = frozenset("DERIVED GNMDatabase GNMFile GTI MEM Memory PDF".split())
"""Drivers of other things than image files."""

OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": 128,  # MB; blocks are kept here, and a scan goes along rows
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".nothing",  # no file leads to an address
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_PAM_ENABLED": "YES",  # reads .aux.xml
    "GDAL_HTTP_MAX_RETRY": "0",
}
"""GDAL's configuration while it reads."""

SIDE = 512
"""Pixels of a side of the tiles that are read from GDAL at once. Smaller ones cost more calls; larger ones
are read twice, as a scan's tiles begin anywhere in them."""

MOST_BLOCK = 1 << 26
"""Pixels that GDAL decodes at once, at most, in an image that may be larger than memory: 8192 × 8192."""

CLOSE = 1.0
"""Pixels that control points may be off the affine transform that fits them best, for it to be used."""

KNOWN_SIDE = 4096
"""Pixels of the longest side of the overview that shows where an image has data."""


def is_there() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


@contextmanager
def gdal() -> Iterator[None]:
    """GDAL as files of strangers are read with it: without network, and without a word of its own."""
    os.environ.setdefault("GDAL_SKIP", " ".join(sorted(_NETWORK)))  # counts when GDAL starts
    import rasterio

    logging.getLogger("rasterio").addHandler(_SILENT)
    with silence, rasterio.Env(**OPTIONS):
        yield


_SILENT = logging.NullHandler()
"""For rasterio. One for all files, as handlers add up."""


def _drivers() -> list[str]:
    from rasterio.env import Env

    with Env() as env:
        return sorted(set(env.drivers()) - _NETWORK - _NO_PICTURES)


def gdal_open(content: Path | bytes, frame: int = 1, **options: Any) -> Any:
    """A dataset of rasterio, to be used inside of `gdal`. Raises rasterio's errors.

    content: a path, or an encoded file. frame: the page of a TIFF, from 1.
    """
    from rasterio.io import DatasetReader, MemoryFile

    if isinstance(content, Path) and _is_utf8(content):
        name: Any = content.absolute()
    else:
        memory = MemoryFile(content if isinstance(content, bytes) else content.read_bytes())
        name = memory.name
    dataset = DatasetReader(str(name), driver=_drivers(), **options)
    if not isinstance(name, Path):
        dataset._kept = memory  # its memory lasts as long as the dataset
    if frame > 1:
        if dataset.driver != "GTiff" or frame > len(dataset.subdatasets):
            raise FrameMissing(max(len(dataset.subdatasets), 1))
        page = DatasetReader(dataset.subdatasets[frame - 1], driver=["GTiff"], **options)
        page._kept = dataset
        return page
    return dataset


class FrameMissing(ValueError):
    """A page that a file does not have. count: how many it has."""

    def __init__(self, count: int):
        super().__init__(f"{count} pages")
        self.count = count


def failure(content: Path | bytes) -> str:
    """Why GDAL cannot open a file, in its own words."""
    with gdal():
        try:
            gdal_open(content)
        except Exception as error:  # rasterio's and GDAL's errors share no class
            return first_line(_root(error))
    return "it is no image"


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class RasterSource:
    """A raster of GDAL's, or a level of its overviews.

    dataset: of rasterio. samples: which bands are used, and how. frames: how many pages the file has.
    open_level: opens an overview by its number.
    """

    def __init__(self, dataset: Any, name: str, samples: Samples, frames: int = 1, place: bool = True):
        self.dataset, self.name, self.samples, self.frames = dataset, name, samples, frames
        self.georeference = georeference_of(dataset, name) if place else None
        """Where it lies on the map; of overviews, which are placed as the whole, None."""
        self.nodata = [
            exact_nodata(dataset.nodatavals[band - 1], samples.declared.dtype) for band in samples.bands
        ]
        self.blocks = Blocks(self.size, _block(dataset), self._block)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.dataset.width, self.dataset.height

    @property
    def channels(self) -> int:
        """Of its pixels."""
        return self.samples.channels

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Metres across and down a pixel, if the file says it: on the ground, or by its resolution."""
        if self.georeference is not None:
            with gdal():
                return ground_size(self.georeference, self.size)
        return _resolution(self.dataset.tags())

    @cached_property
    def levels(self) -> tuple[RasterSource, ...]:
        """This raster and its overviews, the largest first."""
        return (self,)

    @classmethod
    def open(
        cls,
        content: Path | bytes,
        name: str,
        frame: int = 1,
        bands: tuple[int, ...] | None = None,
        rescale: Rescale | None = None,
        channels: int = 3,
        premultiplied: bool = False,
        max_pixels: int = MOST_BLOCK,
    ) -> RasterSource | None:
        """The raster in a file; None if GDAL does not know the file.

        content: a path, or an encoded file. frame, bands, rescale, channels: as for `open_image`.
        premultiplied: whether its colours were multiplied by the opacity, which GDAL does not say.
        max_pixels: of blocks that are decoded at once. Raises ImageError.
        """
        from rasterio.errors import RasterioError

        with gdal():
            try:
                dataset = gdal_open(content, frame)
            except FrameMissing as error:
                raise ImageError(f"{name}: has no frame {frame}, only {error.count}") from error
            except (RasterioError, OSError, ValueError):
                return None
            if dataset.count == 0:
                raise ImageError(_container(name, dataset))
            _require_sound(dataset, content, name, max_pixels)
            declared = declared_by(dataset, premultiplied, name)
            samples = choose_samples(name, declared, bands, rescale, channels)
            pages = len(dataset.subdatasets) if dataset.driver == "GTiff" else 1
            if getattr(dataset, "_kept", None) is not None and hasattr(dataset._kept, "subdatasets"):
                pages = len(dataset._kept.subdatasets)
            source = cls(dataset, name, samples, max(pages, 1))
            source.levels = (source, *source._overviews(content, frame))
            source._look(rescale)
            source._tell_if_clear()
        return source

    def _overviews(self, content: Path | bytes, frame: int) -> Iterator[RasterSource]:
        from rasterio.errors import RasterioError

        for level in range(len(self.dataset.overviews(1))):
            try:
                dataset = gdal_open(content, frame, overview_level=level)
            except (RasterioError, OSError, ValueError):
                return
            if dataset.count == self.dataset.count:
                yield RasterSource(dataset, self.name, self.samples, place=False)

    def _look(self, rescale: Rescale | None) -> None:
        """Fits percentiles, and warns where an image would be black or clear."""
        fits = rescale is not None and rescale.percentiles
        declared = self.samples.declared
        if not (fits or declared.dtype == np.uint16):
            return
        parts = self._some()
        if fits:
            self.samples = self.samples.fitted(parts, fits, self.name)
            for level in self.levels:
                level.samples = self.samples
        elif declared.white == WHITE["uint16"]:
            tell_if_dark(self.name, self.samples, parts)

    def _tell_if_clear(self) -> None:
        """Warns of a picture that is all transparent, which is known at once of one that is small."""
        if self.samples.declared.alpha is not None and area(self.size) <= REGION_PIXELS:
            known = self.known()
            if known is not None and not known.any():
                log.warning("%s: every pixel is transparent, so that nothing but white is seen", self.name)

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _block(self, row: int, col: int) -> Pixels:
        wide, high = self.blocks.block
        return self.samples.pixels(*self._values(self._box(col * wide, row * high)))

    def _box(self, x: int, y: int) -> Box:
        wide, high = self.blocks.block
        return x, y, min(x + wide, self.size[0]), min(y + high, self.size[1])

    def _values(self, box: Box) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Values (H, W, len(samples.needed)), and bool (H, W): where there are data; None is everywhere."""
        x0, y0, x1, y1 = box
        window = ((y0, y1), (x0, x1))
        with gdal():
            try:
                values = self.dataset.read(list(self.samples.needed), window=window)
                known = self._known(values, window)
            except Exception as error:  # rasterio's and GDAL's errors share no class
                raise ImageError(
                    f"{self.name}: GDAL cannot read its pixels: {first_line(_root(error))}"
                ) from error
        return values.transpose(1, 2, 0), known

    def _known(self, values: npt.NDArray[Any], window: Any) -> npt.NDArray[np.bool_] | None:
        """bool (H, W): where any of the bands has data, by GDAL's masks; None where no part lacks any."""
        from rasterio.enums import MaskFlags

        bands = list(self.samples.bands)
        flags = {flag for band in bands for flag in self.dataset.mask_flag_enums[band - 1]}
        if MaskFlags.nodata in flags:
            if self.samples.declared.dtype.kind in "ui":
                known = np.zeros(values.shape[1:], np.bool_)
                for band, nodata in zip(values, self.nodata, strict=False):
                    if nodata is None:
                        return None
                    known |= band != nodata
                return known
            return np.asarray(self.dataset.read_masks(bands, window=window).any(0))
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            return np.asarray(self.dataset.read_masks(bands[0], window=window) > 0)
        return None

    @property
    def _lacks(self) -> bool:
        """Whether the file says that it may have no data in places."""
        from rasterio.enums import MaskFlags

        declared = self.samples.declared
        flags = {flag for band in self.samples.bands for flag in self.dataset.mask_flag_enums[band - 1]}
        clear = (
            declared.palette is not None and not self.samples.chosen and (declared.palette[:, 3] == 0).any()
        )
        return bool(flags - {MaskFlags.all_valid} or declared.alpha or clear or declared.dtype.kind == "f")

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where the image has data, as `known_of` tells; None where no part lacks any."""
        return self._data

    @cached_property
    def _data(self) -> npt.NDArray[np.bool_] | None:
        """The same, read once. Masks are read at full size, as overviews may be without them."""
        from rasterio.enums import MaskFlags

        if not self._lacks:
            return None
        flags = {flag for band in self.samples.bands for flag in self.dataset.mask_flag_enums[band - 1]}
        own = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        enough = [level for level in self.levels if min(level.size) >= ENOUGH_SIDE]
        level = self if own or not enough else enough[-1]
        return level._overview()

    def _overview(self) -> npt.NDArray[np.bool_]:
        """bool (h, w): of squares of pixels, whether any of them has data."""
        (width, height), (wide, high) = self.size, self.blocks.block
        factor = -(-max(self.size) // KNOWN_SIDE)
        found = np.zeros((-(-height // factor), -(-width // factor)), np.bool_)
        for y0 in range(0, height, high):
            for x0 in range(0, width, wide):
                y, x = np.nonzero(self._seen(self._box(x0, y0)))
                found[(y + y0) // factor, (x + x0) // factor] = True
        return found

    def _seen(self, box: Box) -> npt.NDArray[np.bool_]:
        """bool (H, W): the pixels of a box that have data and are not clear."""
        values, known = self._values(box)
        declared, count = self.samples.declared, len(self.samples.bands)
        seen = np.ones(values.shape[:2], np.bool_) if known is None else known.copy()
        if declared.dtype.kind == "f":
            seen &= np.isfinite(values[:, :, :count]).all(-1)
        if declared.alpha is not None:
            seen &= values[:, :, count] > 0
        if declared.palette is not None and not self.samples.chosen:
            seen &= declared.palette[np.minimum(values[:, :, 0], len(declared.palette) - 1), 3] > 0
        return seen

    def _some(self) -> list[npt.NDArray[Any]]:
        """Values (n, bands) of known pixels from all over the image, of a small level or of some blocks."""
        enough = [level for level in self.levels if min(level.size) >= ENOUGH_SIDE]
        level = enough[-1] if enough else self
        (width, height), (wide, high) = level.size, level.blocks.block
        across, down = -(-width // wide), -(-height // high)
        parts = []
        for number in range(0, across * down, max(across * down * wide * high // ENOUGH_SAMPLES, 1)):
            box = level._box(number % across * wide, number // across * high)
            values, known = level._values(box)
            values = values[:, :, : len(self.samples.bands)]
            parts.append(values.reshape(-1, values.shape[2]) if known is None else values[known])
        return parts


def declared_by(dataset: Any, premultiplied: bool = False, name: str = "") -> Declared:
    """What a dataset of rasterio declares about its bands."""
    kinds = [kind.name for kind in dataset.colorinterp]
    dtype = np.dtype(dataset.dtypes[0])
    if len(set(dataset.dtypes)) > 1:
        dtype = np.result_type(*dataset.dtypes)
    alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
    others = [band for band in range(1, dataset.count + 1) if band != alpha]
    palette, cmyk = None, False
    colours: tuple[int, ...] | None = None
    if kinds[0] == "palette":
        palette, colours = _palette(dataset), (1,)
    elif {"red", "green", "blue"} <= set(kinds):
        colours = tuple(kinds.index(colour) + 1 for colour in ("red", "green", "blue"))
    elif {"cyan", "magenta", "yellow", "black"} <= set(kinds):
        colours = tuple(kinds.index(ink) + 1 for ink in ("cyan", "magenta", "yellow", "black"))
        cmyk = True
    elif len(others) == 1:
        colours = (others[0],)
    elif len(others) == 3 and dtype == np.uint8 and len(dataset.dtypes) == 3:
        colours = (1, 2, 3)
        log.info("%s: bands 1, 2 and 3 are taken for red, green and blue; --bands names others", name)
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    white = WHITE.get(str(dtype))
    if white is not None and bits.isdigit() and int(bits) < 8 * dtype.itemsize:
        white = (0.0, float((1 << int(bits)) - 1))
    if (
        white is not None
        and dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        and palette is None
    ):
        white = white[::-1]
    return Declared(dataset.count, dtype, colours, white, alpha, premultiplied, palette, cmyk)


def _palette(dataset: Any) -> Pixels:
    """uint8 (n, 4): the colours of a dataset's first band."""
    colours = dataset.colormap(1)
    table = np.zeros((max(colours, default=0) + 1, 4), np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return table


def georeference_of(dataset: Any, name: str) -> GeoReference | None:
    """Where a dataset lies; None if it does not say. A place that cannot be used is warned of."""
    from rasterio.transform import from_gcps

    transform, system = dataset.transform, system_of(dataset.crs) or _beside(dataset.name)
    points, points_crs = dataset.gcps
    if transform.is_identity and points:
        found = from_gcps(points)
        off = math.inf
        if found.determinant:
            fitted = GeoReference(tuple(map(float, found[:6])))  # type: ignore[arg-type]
            back = fitted.pixels_of(np.array([(p.x, p.y) for p in points]))
            off = float(np.hypot(*(back - [(p.col, p.row) for p in points]).T).max())
        if off > CLOSE:
            log.warning(
                "%s: its %d control points are up to %.3g px off an affine transform, not used: the map is "
                "in pixels; gdalwarp makes an image that lies straight",
                *(name, len(points), off),
            )
            return None
        transform, system = found, system_of(points_crs)
    elif transform.is_identity:
        if dataset.rpcs is not None:
            log.warning(
                "%s: is placed by rational polynomials (RPC), which are not used: the map is in pixels; "
                "gdalwarp -rpc makes an image that lies straight",
                name,
            )
        elif system is not None:
            log.warning("%s: names a coordinate system, and no place in it: the map lies in pixels", name)
        elif world := world_file(Path(dataset.name)):
            log.warning(
                "%s: GDAL does not read its world file %s, which has six numbers: the map lies in pixels",
                *(name, world),
            )
        return None
    values = tuple(map(float, transform[:6]))
    if not all(map(math.isfinite, values)) or not transform.determinant:
        log.warning(
            "%s: its place on the map cannot be meant (pixels of no size); the map lies in pixels", name
        )
        return None
    return GeoReference(values, system)  # type: ignore[arg-type]


def world_file(path: Path) -> Path | None:
    """The world file beside an image, as ``.tfw``, ``.jgw`` or ``.wld``; None if there is none."""
    suffix = path.suffix
    ends = [f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"] if suffix else [".wld"]
    names = [path.with_suffix(case(end)) for end in ends for case in (str.lower, str.upper)]
    try:
        return next((name for name in names if name.is_file()), None)
    except (OSError, ValueError):  # names that are too long with it
        return None


def _beside(name: str) -> str | None:
    """The coordinate system that a ``.prj`` beside an image names, which GDAL reads for some formats only."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    path = Path(name).with_suffix(".prj") if Path(name).suffix else Path(f"{name}.prj")
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
        return system_of(CRS.from_user_input(text)) if text else None
    except (OSError, ValueError, CRSError):
        return None


def system_of(crs: Any) -> str | None:
    """A coordinate system of rasterio's as a text for PROJ: its number in EPSG's list if that is the same."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not crs:
        return None
    try:
        number = crs.to_epsg()
        if number is not None and CRS.from_epsg(number) == crs:
            return f"EPSG:{number}"
    except CRSError:
        pass
    return str(crs.to_wkt())


def _resolution(tags: dict[str, str]) -> tuple[float, float] | None:
    """Metres across and down a pixel by a TIFF's resolution, unless that is one for print."""
    try:
        x, y = (float(tags[f"TIFFTAG_{axis}RESOLUTION"]) for axis in "XY")
        return of_resolution(x, y, int(tags.get("TIFFTAG_RESOLUTIONUNIT", "")[:1]))
    except (KeyError, ValueError):
        return None


def _block(dataset: Any) -> tuple[int, int]:
    """(width, height) of the blocks to read: whole ones of the file's, of about `SIDE` pixels a side."""
    high, wide = dataset.block_shapes[0]
    wide, high = min(wide, dataset.width), min(high, dataset.height)
    if wide == dataset.width:
        return wide, min(high * max(4 * SIDE * SIDE // (wide * high), 1), dataset.height)
    return wide * max(SIDE // wide, 1), high * max(SIDE // high, 1)


PIXELS_A_BYTE = 10_000
"""Of a large image, at most. One of a single colour in 1 bit has 8,000 as a PNG, a drawing 3,000 as a fax."""


def _require_sound(dataset: Any, content: Path | bytes, name: str, max_pixels: int) -> None:
    """Raises ImageError for a file far too small for its pixels, and for blocks too large to decode."""
    pixels = area((dataset.width, dataset.height))
    length = len(content) if isinstance(content, bytes) else content.stat().st_size
    if pixels > MOST_BLOCK and dataset.driver not in _REFERRING and pixels > length * PIXELS_A_BYTE:
        raise ImageError(
            f"{name}: damaged or cut short: it claims {dataset.width} × {dataset.height} pixels in "
            f"{length:,} bytes"
        )
    block = max(high * wide for high, wide in dataset.block_shapes)
    limit = max(MOST_BLOCK, max_pixels)
    if block > limit:
        raise ImageError(
            f"{name}: its pixels lie in blocks of {block:,}, over the limit of {limit:,}, and are decoded at "
            f"once; --max-pixels {block} lets it in"
        )


_REFERRING = frozenset(
    "VRT TIL ECRGTOC RPFTOC ENVI EHdr DIMAP SAFE SENTINEL2 MRF ERS RRASTER PDS PDS4 ISIS3".split()
)
"""Drivers whose files lead to the pixels in others."""


def _container(name: str, dataset: Any) -> str:
    found = [text.rsplit(":", 1)[-1] for text in dataset.subdatasets]
    return (
        f"{name}: holds {len(found)} rasters ({', '.join(found[:3])}…), and not one image; "
        "gdal_translate makes a TIFF of one"
    )


def _root(error: BaseException) -> BaseException:
    """What GDAL said, where rasterio only says to see it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
