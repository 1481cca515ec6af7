"""Images read region by region: the pixels are those of the whole, however they are asked for."""

import gc
import json
import logging
import math
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_geo, needs_rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import choose, make_map

from fcnconv.api.maps import ScoreMap
from fcnconv.api.maps import save_map as save
from fcnconv.errors import ImageError, OutputError, UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource, ResizedSource, resize
from fcnconv.images.georeference import transformed
from fcnconv.images.raster import RasterSource
from fcnconv.images.reading import open_image
from fcnconv.images.resized import AveragedSource
from fcnconv.images.slides import SlideSource
from fcnconv.images.source import ImageInfo, ImageSource
from fcnconv.images.tiff import TiffSource
from fcnconv.labels import Labels, Selection
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_rescale
from fcnconv.rescale import Rescale
from fcnconv.scan.roi.region import region_of_interest
from fcnconv.writers import find_writer

tifffile = pytest.importorskip("tifffile")
try:
    import geopandas
    import rasterio
    from pyogrio.errors import DataSourceError
except ImportError:  # the tests that need them are skipped
    DataSourceError = OSError

PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((300, 210))
)


KINDS = {
    "tiles": {"tile": (64, 32)},
    "strips": {"rowsperstrip": 17},
    "bigtiff": {"tile": (32, 32), "bigtiff": True},
    "deflate": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "planes": {"tile": (64, 64), "planarconfig": "separate"},
    "grey": {"tile": (64, 64)},
    "see-through": {"tile": (64, 64), "extrasamples": ["unassalpha"]},
    "grey, see-through": {"tile": (64, 64), "extrasamples": ["unassalpha"]},
    "premultiplied": {"tile": (64, 64), "extrasamples": ["assocalpha"]},
    "infrared": {"tile": (64, 64), "extrasamples": ["unspecified"]},
    "sixteen bits": {"tile": (64, 64)},
    "sixteen bits, one strip": {"rowsperstrip": 210},
}
ALPHA = np.linspace(0, 255, 300).astype(np.uint8)[None, :, None].repeat(210, 0)


def written(kind: str) -> np.ndarray:
    """What a file of a kind is made from."""
    if kind == "premultiplied":
        return np.concatenate([np.minimum(PIXELS, ALPHA), ALPHA], 2)
    if kind in ("see-through", "infrared"):
        return np.concatenate([PIXELS, ALPHA], 2)
    if kind == "grey, see-through":
        return np.concatenate([PIXELS[:, :, :1], ALPHA], 2)
    if kind.startswith("sixteen"):
        return PIXELS.astype(np.uint16) * 257
    return {"grey": PIXELS[:, :, 0], "planes": PIXELS.transpose(2, 0, 1)}.get(kind, PIXELS)


def seen(kind: str) -> np.ndarray:
    """float (210, 300, 3): the picture on white paper, by the definition of opacity."""
    grey = kind.startswith("grey")
    rgb = np.repeat(PIXELS[:, :, :1], 3, 2).astype(float) if grey else PIXELS.astype(float)
    opacity = ALPHA / 255.0
    if kind == "premultiplied":
        return np.minimum(PIXELS, ALPHA) + 255 * (1 - opacity)
    return rgb * opacity + 255 * (1 - opacity) if "see-through" in kind else rgb


@needs_rasterio
@pytest.mark.parametrize("kind", KINDS)
def test_regions_of_a_tiff_are_its_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    photometric = "minisblack" if kind.startswith("grey") else "rgb"
    tifffile.imwrite(path, written(kind), photometric=photometric, **({"bigtiff": False} | KINDS[kind]))
    source = open_image(path)
    assert isinstance(source, TiffSource | RasterSource) and source.size == (300, 210)
    expected = seen(kind)
    for x0, y0, x1, y1 in [(0, 0, 300, 210), (31, 63, 33, 65), (299, 209, 300, 210), (5, 100, 250, 101)]:
        region = source.read((x0, y0, x1, y1))
        assert region.dtype == np.uint8
        assert np.abs(region - expected[y0:y1, x0:x1]).max() <= (0.51 if "through" in kind else 0.5)


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA", "I;16"])
def test_colours_of_a_tiff_are_those_of_pillow(mode: str, tmp_path: Path) -> None:
    path, image = tmp_path / "image.tif", Image.fromarray(PIXELS)
    deep = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)
    (deep if mode == "I;16" else image.convert(mode)).save(path, compression="tiff_deflate")
    with Image.open(path) as written:
        expected = np.repeat(PIXELS[:, :, :1], 3, 2) if mode == "I;16" else np.asarray(written.convert("RGB"))
    found = open_image(path).read((0, 0, 300, 210)).astype(int)
    assert np.abs(found - expected).max() <= 1


@needs_geo
@pytest.mark.parametrize("turned", [0, 30])
@pytest.mark.parametrize("point", [False, True])
def test_the_place_on_the_map_is_that_of_gdal(point: bool, turned: float, tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    transform = affine(500000, 5.2e6, turned, 0.5, 0.25)
    write_map(path, transform, point)
    source = open_image(path)
    assert isinstance(source, RasterSource) and source.georeference is not None
    with rasterio.open(path) as written:
        assert written.transform.almost_equals(transform)
    assert np.allclose(source.georeference.transform, transform[:6], rtol=1e-12)
    assert source.georeference.epsg == 32633


OWN_SYSTEM = "+proj=tmerc +lat_0=1 +lon_0=7 +k=0.9 +ellps=GRS80"


def affine(x: float, y: float, turned: float, wide: float, high: float):
    """A map's transform: its corner, the degrees that it is turned by, and the size of a pixel."""
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    return rasterio.Affine(cos * wide, sin * high, x, sin * wide, -cos * high, y)


def at(transform, x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def write_map(path: Path, transform, point: bool = False, crs: str = "EPSG:32633") -> None:
    """A GeoTIFF of the pixels by GDAL. point: the transform is told for the centres of pixels."""
    size = {"width": 300, "height": 210, "count": 3, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size, **tiles) as file:
        file.write(PIXELS.transpose(2, 0, 1))
        file.update_tags(AREA_OR_POINT="Point" if point else "Area")


@needs_geo
@pytest.mark.parametrize("turned", [0, 30])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", OWN_SYSTEM])
def test_maps_lie_where_the_image_lies(crs: str, turned: float, tmp_path: Path) -> None:
    image, tif, geojson = (tmp_path / name for name in ("image.tif", "map.tif", "map.geojson"))
    transform = affine(7.5, 48.25, turned, 1e-4, 2e-4)
    write_map(image, transform, crs=crs)
    grid = Grid(64, 32, (300, 210), (150, 105))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(grid.rows, grid.cols, 2)).astype(np.float32)
    score_map = make_map(logits, grid, Labels(("a", "b")), source=open_image(image))
    choice = choose(at_least=0.0)
    save(score_map.stream(), str(tif), find_writer("map.tif", None), choice)
    with rasterio.open(tif) as written, rasterio.open(image) as photo:
        assert written.crs == photo.crs
        for row, col in np.ndindex(grid.rows, grid.cols):
            x0, y0, x1, y1 = grid.square(row, col)
            corners = zip((col, row), (col + 1, row + 1), strict=True)
            for (x, y), (i, j) in zip(((x0, y0), (x1, y1)), zip(*corners, strict=True), strict=True):
                assert np.allclose(at(written.transform, i, j), at(transform, x, y), rtol=0, atol=1e-9)
        assert np.allclose(written.read(), score_map.probabilities().transpose(2, 0, 1))
        assert written.descriptions == ("a", "b")
        assert json.loads(written.tags()["TIFFTAG_IMAGEDESCRIPTION"])["window"] == 64
    alone = Selection("b", (1,))
    save(score_map.stream(), str(tif), find_writer("map.tif", None), choose(alone))
    with rasterio.open(tif) as written:
        assert written.crs == photo.crs and written.descriptions == ("b",)
        assert np.allclose(written.read(1), score_map.probabilities()[:, :, 1])
    save(score_map.stream(), str(geojson), find_writer("map.geojson", None), choice)
    told = json.loads(geojson.read_text())
    assert "crs" not in told  # longitudes and latitudes, as RFC 7946 has them
    theirs = rasterio.crs.CRS.from_string(crs)
    for feature in told["features"]:
        ring, properties = np.array(feature["geometry"]["coordinates"][0]), feature["properties"]
        x0, y0, x1, y1 = grid.square(properties["row"], properties["col"])
        placed = [at(transform, x, y) for x, y in ((x0, y0), (x0, y1), (x1, y1), (x1, y0), (x0, y0))]
        there = np.stack(rasterio.warp.transform(theirs, "EPSG:4326", *np.array(placed).T), -1)
        assert np.allclose(ring, there, rtol=0, atol=2e-8)
        (ax, ay), (bx, by) = ring[1] - ring[0], ring[2] - ring[1]
        assert ax * by - ay * bx > 0  # counterclockwise
    choice = choose(at_least=0.0, projected=True)
    save(score_map.stream(), str(geojson), find_writer("map.geojson", None), choice)
    told = json.loads(geojson.read_text())
    code = rasterio.crs.CRS.from_string(crs).to_epsg()
    name = told["crs"]["properties"]["name"]
    if code is None:  # well-known text
        assert rasterio.crs.CRS.from_string(name) == photo.crs
    else:
        assert name == {4326: "urn:ogc:def:crs:OGC:1.3:CRS84"}.get(code, f"urn:ogc:def:crs:EPSG::{code}")
    save(score_map.stream(), str(tmp_path / "map.gpkg"), find_writer("map.gpkg", None), choose())
    layer = geopandas.read_file(tmp_path / "map.gpkg")
    assert layer.crs == photo.crs and np.allclose(
        layer.geometry[0].exterior.coords[0], at(transform, *grid.square(0, 0)[:2]), rtol=0, atol=1e-9
    )
    feature = told["features"][1]["geometry"]["coordinates"][0]
    assert np.allclose(feature[0], at(transform, *grid.square(0, 1)[:2]), rtol=0, atol=1e-6)


def placed_map(image: Path, cols: int = 700) -> ScoreMap:
    """A map of 3 rows over an image, of which the first cell was not looked at."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, cols, 2)).astype(np.float32)
    logits[0, 0] = np.nan
    source = open_image(image)
    grid = Grid(8, 4, source.size, (8 + 4 * (cols - 1), 16))
    return make_map(logits, grid, Labels(("cat", "a <dog> & more")), source=source)


@needs_geo
def test_on_the_map_a_tif_is_cloud_optimised(tmp_path: Path) -> None:
    image, tif = tmp_path / "image.tif", tmp_path / "map.tif"
    write_map(image, affine(500000, 5.2e6, 0, 0.5, 0.5))
    score_map = placed_map(image)
    expected = score_map.probabilities().transpose(2, 0, 1)
    save(score_map.stream(), str(tif), find_writer("map.tif"), choose())
    with rasterio.open(tif) as written:
        assert written.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert written.overviews(1) == [2] and written.dtypes[0] == "float32"
        assert math.isnan(written.nodata) and (written.read_masks(1) == 0).sum() == 1
        assert written.descriptions == ("cat", "a <dog> & more")
        assert np.array_equal(written.read(), expected, equal_nan=True)
        assert json.loads(written.tags()["TIFFTAG_IMAGEDESCRIPTION"])["window"] == 8
    save(score_map.stream(), str(tif), find_writer("map.tif"), choose(dtype="uint8"))
    with rasterio.open(tif) as written:
        assert (written.dtypes[0], written.nodata) == ("uint8", 255)
        scaled = written.read(masked=True) * written.scales[0]
        assert (scaled.mask == np.isnan(expected)).all()
        assert np.abs(scaled.filled(0) - np.nan_to_num(expected)).max() < 0.51 / 254
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["image.tif", "map.tif"]


@needs_geo
@pytest.mark.parametrize(
    ("suffix", "function", "error"),
    [
        ("tif", "rasterio.shutil.copy", RuntimeError("no room\nat all")),
        ("gpkg", "pyogrio.raw.write", DataSourceError("no room\nat all")),
    ],
)
def test_what_gdal_cannot_write_leaves_nothing(
    suffix: str, function: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = tmp_path / "image.tif", tmp_path / f"map.{suffix}"
    write_map(image, affine(500000, 5.2e6, 0, 0.5, 0.5))

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(function, failing)
    with pytest.raises(OutputError, match=r"GDAL cannot .* \(no room\)"):
        save(placed_map(image).stream(), str(out), find_writer(out.name), choose())
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.tif"]


@needs_geo
def test_without_rasterio_the_place_is_told_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tif, photo = tmp_path / "image.tif", tmp_path / "photo.png"
    write_map(tif, affine(500000, 5.2e6, 0, 0.5, 0.5))
    Image.fromarray(PIXELS).save(photo)
    photo.with_suffix(".pgw").write_text("2.0\n0.0\n0.0\n-2.0\n500001.0\n5199999.0\n")
    monkeypatch.setattr("fcnconv.images.gdal.is_there", lambda: False)
    for path in (tif, photo):
        caplog.clear()
        with caplog.at_level("WARNING", logger="fcnconv"):
            source = open_image(path)
        assert "pip install 'fcnconv[geo]'" in caplog.text and path.name in caplog.text
        assert (source.read((0, 0, 300, 210)) == PIXELS).all() and getattr(
            source, "georeference", None
        ) is None
    with rasterio.open(tif, "r+") as file:
        file.nodata = 0
    caplog.clear()
    region_of_interest(open_image(photo), ScanOptions(mask=str(tif)))
    assert {record.args[0] for record in caplog.records if record.args} == {str(tif), str(photo)}
    open_image(tif)
    assert "image.tif: its nodata value needs rasterio" in caplog.text
    monkeypatch.setitem(sys.modules, "rasterio.warp", None)
    with pytest.raises(ImageError, match=r"EPSG:32633 to EPSG:4326 needs rasterio: pip install"):
        transformed(np.zeros((1, 2)), "EPSG:32633", "EPSG:4326")


@needs_geo
@pytest.mark.parametrize(
    ("suffix", "world"), [(".jpg", ".jgw"), (".png", ".pngw"), (".tif", ".TFW"), (".png", ".wld")]
)
def test_world_files_tell_where_an_image_lies(suffix: str, world: str, tmp_path: Path) -> None:
    image = tmp_path / f"image{suffix}"
    Image.fromarray(PIXELS).save(image)
    # the centre of the first pixel, and 2 m to the next
    image.with_suffix(world).write_text("2.0\n0.0\n0.0\n-2.0\n500001.0\n5199999.0\n")
    place = open_image(image).info.georeference
    assert place.transform == (2, 0, 500000, 0, -2, 5200000) and place.system is None
    with rasterio.open(image) as theirs:
        assert theirs.transform[:6] == place.transform
    wkt = rasterio.crs.CRS.from_epsg(32633).to_wkt(version="WKT1_ESRI")
    image.with_suffix(".prj").write_text(wkt)
    score_map = placed_map(image)
    save(score_map.stream(), str(tmp_path / "map.tif"), find_writer("map.tif"), choose())
    x0, y0, _, _ = score_map.grid.square(0, 0)
    with rasterio.open(tmp_path / "map.tif") as written:
        assert written.crs.to_epsg(confidence_threshold=50) == 32633
        assert written.transform.c == pytest.approx(500000 + 2 * x0)
        assert written.transform.f == pytest.approx(5200000 - 2 * y0)
    save(score_map.stream(), str(tmp_path / "map.geojson"), find_writer("map.geojson"), choose())
    ring = json.loads((tmp_path / "map.geojson").read_text())["features"][0]["geometry"]["coordinates"][0]
    assert np.allclose(ring, [15.0, 46.95], atol=0.02)


@needs_rasterio
def test_a_damaged_world_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(image)
    image.with_suffix(".pgw").write_text("2.0\n0.0\n")
    with caplog.at_level("WARNING", logger="fcnconv"):
        assert (open_image(image).read((0, 0, 300, 210)) == PIXELS).all()
    assert "cannot read its world file" in caplog.text and "image.pgw" in caplog.text


def test_coordinates_that_no_file_tells_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(image)
    with pytest.raises(UsageError, match="--projected writes map coordinates"):
        save(
            placed_map(image).stream(),
            str(tmp_path / "map.geojson"),
            find_writer("map.geojson"),
            choose(projected=True),
        )


@needs_geo
def test_an_overview_is_read_where_it_is_large_enough(tmp_path: Path) -> None:
    path = tmp_path / "cog.tif"
    rng = np.random.default_rng(3)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (90, 130, 3), np.uint8)).resize((1300, 900)))
    size = {"width": 1300, "height": 900, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": affine(9, 9, 0, 2, 2)}
    with rasterio.open(path, "w", driver="COG", overview_resampling="average", **place, **size) as file:
        file.write(pixels.transpose(2, 0, 1))
    source = open_image(path)
    assert isinstance(source, RasterSource)
    assert [level.size for level in source.levels] == [(1300, 900), (650, 450), (325, 225)]
    with rasterio.open(path, overview_level=0) as half:
        expected = half.read().transpose(1, 2, 0)
    assert np.array_equal(resize(source, (650, 450)).read((0, 0, 650, 450)), expected)
    smaller = resize(source, (600, 415))
    assert isinstance(smaller, ResizedSource) and smaller.source.size == (650, 450)
    assert resize(source, (651, 451)).source.size == (1300, 900)  # type: ignore[attr-defined]
    a = smaller.read((0, 0, 600, 415)).astype(int)
    assert np.abs(a - resize(MemorySource(pixels), (600, 415)).read((0, 0, 600, 415))).mean() < 3


def write_slide(path: Path) -> np.ndarray:
    """A slide of two levels, the second at a quarter; returns the first one's pixels."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8))
    pixels = np.asarray(small.resize((2800, 2400), Image.Resampling.BICUBIC))
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    options["description"] = "Aperio Image Library v11.2.1"  # by which OpenSlide knows it
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, **options)
        file.write(pixels[2::4, 2::4], **options)
    return pixels


def test_regions_of_a_slide_are_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    pixels = write_slide(path)
    source = open_image(path)
    assert isinstance(source, SlideSource) and source.size == (2800, 2400)
    assert [level.size for level in source.levels] == [(2800, 2400), (700, 600)]
    for x0, y0, x1, y1 in [(0, 0, 10, 10), (1000, 1000, 1100, 1050), (2790, 2300, 2800, 2400)]:
        assert np.array_equal(source.read((x0, y0, x1, y1)), pixels[y0:y1, x0:x1])
    level = resize(source, (700, 600))
    assert np.array_equal(level.read((100, 50, 300, 90)), pixels[2::4, 2::4][50:90, 100:300])
    smaller = resize(source, (350, 300))
    assert isinstance(smaller, ResizedSource) and smaller.source.size == (700, 600)


def test_a_slide_is_mapped_by_the_command_and_a_broken_one_told(fcnconv: Command, tmp_path: Path) -> None:
    slide, broken = tmp_path / "slide.svs", tmp_path / "broken.svs"
    write_slide(slide)
    broken.write_bytes(slide.read_bytes()[:3000])
    done = fcnconv("heatmap", slide, "--scales", "0.25,0.125", "-o", tmp_path / "map.npz", "-q")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "map.npz") as saved:
        assert saved["scores"].shape == (12, 15, 1000)  # of 700 × 600 pixels
    done = fcnconv("classify", broken)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert b"broken.svs: " in done.stderr


def test_a_slide_without_openslide_is_told_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.ndpi"
    path.write_bytes(b"nothing that Pillow knows")
    monkeypatch.setattr("fcnconv.images.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"pip install 'fcnconv\[slides\]'"):
        open_image(path)


@pytest.mark.parametrize("kind", ["png", "turned.jpg", "see-through.png", "grey.png", "palette.png", "webp"])
def test_libvips_gives_the_pixels_of_pillow(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    path = tmp_path / f"image.{kind}"
    image, options = Image.fromarray(PIXELS), {}
    if kind.startswith("see-through"):
        image.putalpha(Image.fromarray(ALPHA[:, :, 0]))
    if kind.startswith("turned"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif, "quality": 95, "subsampling": 0}
    if kind.startswith(("grey", "palette")):
        image = image.convert("L") if kind.startswith("grey") else image.quantize(64)
    if kind == "webp":
        options = {"lossless": True}
    image.save(path, **options)
    from fcnconv.images.vips import VipsSource

    whole = open_image(path)
    source = VipsSource.open(path, "image")
    assert source.size == whole.size
    for box in [(0, 0, *source.size), (20, 101, 150, 207)]:
        found, expected = source.read(box).astype(int), whole.read(box)
        assert np.abs(found - expected).max() <= (2 if kind.endswith("jpg") else 1)


def test_a_large_image_goes_to_libvips_and_a_damaged_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    from fcnconv.images.vips import VipsSource

    monkeypatch.setattr("fcnconv.images.REGION_PIXELS", 10_000)
    path, cut = tmp_path / "large.png", tmp_path / "cut.png"
    Image.fromarray(PIXELS).save(path)
    source = open_image(path)
    assert isinstance(source, VipsSource)
    assert np.array_equal(source.read((7, 8, 200, 205)), PIXELS[8:205, 7:200])
    cut.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ImageError, match=r"cut\.png: "):
        open_image(cut).read((0, 0, 300, 210))


@needs_geo
def test_a_damaged_tiff_with_bands_is_not_told_to_be_none(tmp_path: Path) -> None:
    path = write_bands(tmp_path / "bands.tif", np.zeros((4, 20, 30), np.uint16))
    path.write_bytes(path.read_bytes()[:8] + b"\0" * 400)
    with pytest.raises(ImageError, match=r"^\S+bands.tif: GDAL cannot read it: "):
        open_image(path, bands=(1, 2, 3), rescale=Rescale(((0, 255),)))


def test_many_images_leave_no_handlers_and_no_open_files(tmp_path: Path) -> None:
    """Of ten million images, whatever one leaves behind adds up."""
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS, tile=(64, 64), photometric="rgb")
    (tmp_path / "damaged.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:500])
    write_slide(tmp_path / "slide.svs")
    names = ["plain.tif", "damaged.tif", "slide.svs"]

    def kept() -> list[int]:
        for _ in range(5):
            for name in names:
                with suppress(ImageError):
                    open_image(tmp_path / name).read((0, 0, 8, 8))
        gc.collect()
        loggers = map(logging.getLogger, logging.Logger.manager.loggerDict)
        return [sum(len(one.handlers) for one in loggers), len(list(Path("/dev/fd").iterdir()))]

    assert kept() == kept()


@needs_rasterio
def test_a_segment_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), compression="zlib")
    content = path.read_bytes()
    path.write_bytes(content[:-3000])  # as a download that broke off: told before a scan begins
    with pytest.raises(ImageError, match=r"cut\.tif: damaged or cut short: it claims a segment at byte"):
        open_image(path)
    path.write_bytes(content[:-3000] + bytes(3000))
    source = open_image(path)
    with pytest.raises(ImageError, match=r"cut\.tif: damaged or cut short: \S"):
        source.read((0, 0, 300, 210))


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(40, 2300), st.integers(40, 1300)),
    cuts=st.tuples(st.integers(1, 2300), st.integers(1, 1300)),
)
def test_a_resized_region_is_that_of_the_whole(size: tuple[int, int], cuts: tuple[int, int]) -> None:
    source = ResizedSource(MemorySource(PIXELS), size)
    x, y = min(cuts[0], size[0] - 1), min(cuts[1], size[1] - 1)
    whole = source.read((0, 0, *size))
    again = ResizedSource(MemorySource(PIXELS), size)
    parts = [[again.read((0, 0, x, y)), again.read((x, 0, size[0], y))]]
    parts.append([again.read((0, y, x, size[1])), again.read((x, y, *size))])
    assert np.array_equal(np.vstack([np.hstack(row) for row in parts]), whole)
    expected = resize(MemorySource(PIXELS), size).read((0, 0, *size))
    assert np.abs(whole.astype(int) - expected).max() <= 2  # Pillow's boxes are 32-bit floats


@pytest.mark.parametrize("size", [(30, 21), (37, 30), (10, 7)])
def test_a_region_made_much_smaller_is_that_of_the_whole(size: tuple[int, int]) -> None:
    """Of a smooth picture, whose averages do not depend on the filter, and of one step in it."""
    y, x = np.mgrid[0:210, 0:300]
    smooth = np.stack([x * 255 // 299, y * 255 // 209, (x + y) * 255 // 508], axis=-1).astype(np.uint8)
    smooth[100:, 150:] = 255 - smooth[100:, 150:]
    source = ResizedSource(MemorySource(smooth), size)
    assert isinstance(source.source, AveragedSource)
    found = source.read((0, 0, *size)).astype(int)
    expected = np.asarray(Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC))
    assert np.abs(found - expected).max() <= 5 and np.abs(found - expected).mean() <= 1


def test_what_is_read_at_once_follows_neither_size() -> None:
    class Endless(ImageSource):
        """An image of 10 gigapixels, that tells the largest region that was read of it."""

        name, info, largest = "endless", ImageInfo((100_000, 100_000)), 0

        def read(self, box: tuple[int, int, int, int]) -> np.ndarray:
            shape = box[3] - box[1], box[2] - box[0], 3
            self.largest = max(self.largest, shape[0] * shape[1])
            return np.broadcast_to(np.uint8(7), shape)

    for size in ((10_000, 10_000), (30_000, 30_000)):
        source = Endless()
        assert (ResizedSource(source, size).read((3, 5, 203, 105)) == 7).all()
        assert 0 < source.largest <= 1.1 * 4096**2


BANDS = np.random.default_rng(2).integers(0, 4096, (5, 210, 300)).astype(np.uint16)


def write_bands(path: Path, bands: np.ndarray, **options: object) -> Path:
    """A GeoTIFF of these bands, (count, height, width)."""
    count, height, width = bands.shape
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)}
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype, "tiled": True} | place
    with rasterio.open(path, "w", **profile | {"blockxsize": 64, "blockysize": 64} | options) as file:
        file.write(bands)
    return path


@needs_geo
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_bands_of_any_type_are_those_of_gdal(dtype: str, interleave: str, tmp_path: Path) -> None:
    bands = (BANDS // 16 if dtype == "uint8" else BANDS).astype(dtype)
    path = write_bands(tmp_path / "bands.tif", bands, interleave=interleave, photometric="minisblack")
    low, high = (10, 200) if dtype == "uint8" else (100, 3000)
    source = open_image(path, bands=(4, 3, 1), rescale=Rescale(((low, high),)))
    with rasterio.open(path) as file:
        read = np.stack([file.read(band) for band in (4, 3, 1)], -1).astype(float)
    expected = np.clip((read - low) / (high - low) * 255, 0, 255)
    assert np.abs(source.read((0, 0, 300, 210)) - expected).max() <= 0.5
    assert (source.read((70, 33, 171, 99)) == source.read((0, 0, 300, 210))[33:99, 70:171]).all()


@needs_geo
def test_each_band_has_its_range_and_one_band_is_grey(tmp_path: Path) -> None:
    path = write_bands(tmp_path / "bands.tif", BANDS)
    ranges = ((0.0, 1000.0), (500.0, 4000.0), (-100.0, 4095.0))
    each = open_image(path, bands=(5, 2, 1), rescale=Rescale(ranges)).read((0, 0, 300, 210))
    for place, (band, reach) in enumerate(zip((5, 2, 1), ranges, strict=True)):
        grey = open_image(path, bands=(band,), rescale=Rescale((reach,))).read((0, 0, 300, 210))
        assert (grey[:, :, 0] == grey[:, :, 2]).all() and (grey[:, :, 0] == each[:, :, place]).all()
    with pytest.raises(ImageError, match="has 2 ranges for 3 bands"):
        open_image(path, bands=(5, 2, 1), rescale=Rescale(ranges[:2]))


@needs_geo
def test_percentiles_are_those_of_the_values_that_are_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bands = BANDS.astype(np.float32)
    bands[:, :100] = -9999
    bands[1, 150:] = np.nan
    path = write_bands(tmp_path / "bands.tif", bands, nodata=-9999)
    with caplog.at_level("INFO", "fcnconv"):
        source = open_image(path, bands=(3, 2, 1), rescale=parse_rescale("percentile:2,98"))
    known = bands[:, 100:150]
    expected = [tuple(np.percentile(known[band], (2, 98))) for band in (2, 1, 0)]
    assert isinstance(source, RasterSource) and source.samples is not None
    np.testing.assert_allclose(source.samples.ranges, expected)
    assert "bands 3,2,1, black to white" in caplog.text
    seen = source.read((0, 0, 300, 210))
    assert (seen[:100] == 255).all() and (seen[150:] == 255).all() and seen[100:150].std() > 50


@needs_geo
def test_samples_that_need_to_be_told_how_they_are_seen_are_refused(tmp_path: Path, fcnconv: Command) -> None:
    floats = write_bands(tmp_path / "height.tif", BANDS[:1].astype(np.float32))
    four = write_bands(tmp_path / "four.tif", BANDS[:4], photometric="minisblack", alpha="no")
    Image.fromarray(PIXELS).save(tmp_path / "photo.jpg")
    cases = {
        (floats,): "--rescale LOW,HIGH",
        (four,): "has 4 bands, and does not say which are its colours; name them: --bands 3,2,1",
        (four, "--bands", "5,2,1"): "has no band 5, only 4",
        (four, "--bands", "2,1"): "--bands names 2 bands",
        (four, "--rescale", "9,3"): "unknown range '9,3'",
        (four, "--rescale", "percentile:2,120"): "unknown range",
        (tmp_path / "photo.jpg", "--bands", "4"): "has no band 4, only 3",
    }
    for arguments, message in cases.items():
        done = fcnconv("classify", *arguments)
        assert done.returncode in (1, 2) and message in done.stderr.decode(), (arguments, done.stderr)
        assert b"Traceback" not in done.stderr


@needs_geo
def test_twelve_bits_are_told_to_be_nearly_black_and_mapped_by_the_command(
    tmp_path: Path, fcnconv: Command
) -> None:
    photo = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB")).transpose(2, 0, 1)
    path = write_bands(tmp_path / "twelve.tif", photo.astype(np.uint16) * 16, photometric="rgb")
    dark = fcnconv("classify", path, "-k", "1")
    assert (
        b"its 16 bits reach only 4080 of 65535, so it is nearly black; lighten it with --rescale 0,4095"
        in dark.stderr
    )
    options = ["--rescale", "0,4080", "--bands", "1,2,3"]
    light, plain = (
        fcnconv("classify", *each, "-k", "1").stdout.split(b"\t")[2:]
        for each in ([path, *options], [SAMPLES / "coffee.png"])
    )
    assert light == plain
    done = fcnconv("heatmap", path, *options, "-o", tmp_path / "map.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "map.npz") as saved:
        assert (saved["bands"], saved["rescale"]) == ("1,2,3", "0,4080")


@pytest.mark.parametrize("options", [{}, {"tile": (32, 64)}, {"subifds": 1}])
def test_channels_of_an_ome_tiff_are_its_bands(options: dict, tmp_path: Path) -> None:
    path, rng = tmp_path / "cells.ome.tif", np.random.default_rng(2)
    bands = rng.integers(0, 65536, (5, 96, 160), np.uint16)
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(bands, photometric="minisblack", metadata={"axes": "CYX"}, **options)
        if "subifds" in options:
            file.write(bands[:, ::2, ::2], photometric="minisblack", subfiletype=1)
    source = open_image(path, bands=(4, 1, 5), rescale=parse_rescale("0,65535"))
    assert isinstance(source, TiffSource) and source.frames == 1
    expected = np.floor(bands[[3, 0, 4]].transpose(1, 2, 0) * (255 / 65535) + 0.5)
    assert (source.read((10, 20, 160, 96)) == expected[20:, 10:]).all()
    if "subifds" in options:
        (_, half) = source.levels
        assert (half.read((0, 0, 80, 48)) == expected[::2, ::2]).all()
    with pytest.raises(ImageError, match="has 5 bands, and does not say which are its colours"):
        open_image(path)
