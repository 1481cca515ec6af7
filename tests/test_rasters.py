"""Rasters of every kind against GDAL itself: place, control points, masks, nodata, bits and names."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import choose, make_map

from fcnconv.api.maps import save_map
from fcnconv.errors import ImageError
from fcnconv.grid import Grid
from fcnconv.images import Asked, MemorySource, mean_side, resize
from fcnconv.images.georeference import GeoReference
from fcnconv.images.pillow import silence
from fcnconv.images.raster import RasterSource
from fcnconv.images.reading import open_image
from fcnconv.labels import Labels
from fcnconv.options import ScanOptions
from fcnconv.rescale import Rescale
from fcnconv.scan.roi.region import region_of_interest
from fcnconv.writers import find_writer

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rasterio.shutil")
pytest.importorskip("rasterio.vrt")
tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(7)
SMALL = RNG.integers(1, 256, (30, 40, 3), np.uint8)
PIXELS = np.asarray(Image.fromarray(SMALL).resize((320, 240), Image.Resampling.BICUBIC))
GREY = PIXELS[:, :, 0]
PLACE = rasterio.Affine(0.25, 0, 5e5, 0, -0.25, 5.6e6)


def write(path: Path, pixels: np.ndarray = PIXELS, driver: str = "GTiff", **options: Any) -> Path:
    """A raster by GDAL at a place in UTM. pixels: (H, W) or (H, W, bands)."""
    bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    profile |= {"crs": "EPSG:25832", "transform": PLACE, **options}
    with rasterio.open(path, "w", driver=driver, **profile) as file:
        file.write(bands)
    return path


def read(source: Any) -> np.ndarray:
    return np.asarray(source.read((0, 0, *source.size)))


def place(source: Any) -> GeoReference:
    found = source.info.georeference
    assert isinstance(found, GeoReference)
    return found


@pytest.mark.parametrize(
    "name", ["ortho", "ortho.img", "ortho.geotiff", "ortho.cog", "o:1.tif.part", "ö.png"]
)
def test_content_decides_and_not_the_name(name: str, tmp_path: Path) -> None:
    write(tmp_path / "made.tif", tiled=True, blockxsize=64, blockysize=64).rename(tmp_path / name)
    for content in (tmp_path / name, (tmp_path / name).read_bytes()):
        source = open_image(content)
        assert isinstance(source, RasterSource) and (read(source) == PIXELS).all()
        assert place(source) == GeoReference(tuple(PLACE[:6]), "EPSG:25832")


@pytest.mark.parametrize(
    ("driver", "suffix"), [("JP2OpenJPEG", "jp2"), ("HFA", "img"), ("PNG", "png"), ("VRT", "vrt")]
)
def test_formats_of_gdal_keep_their_place(driver: str, suffix: str, tmp_path: Path) -> None:
    tif, path = write(tmp_path / "a.tif", photometric="RGB"), tmp_path / f"b.{suffix}"
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if suffix == "jp2" else {}
    rasterio.shutil.copy(tif, path, driver=driver, **options)
    source = open_image(path)
    assert (read(source) == PIXELS).all()
    assert place(source) == GeoReference(tuple(PLACE[:6]), "EPSG:25832")
    assert mean_side(source.info.pixel_size) == pytest.approx(0.25)


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_bit_depths_reach_from_black_to_white(bits: int, tmp_path: Path) -> None:
    stored = GREY >> (8 - bits) if bits < 8 else GREY.astype(np.uint16) << 4 | GREY >> 4
    source = open_image(write(tmp_path / "bits.tif", stored, NBITS=bits))
    assert np.abs(read(source)[:, :, 0] - stored * (255 / (2**bits - 1))).max() <= 0.51


LACKING = {"uint8": 0, "uint16": 65535, "int16": -9999, "float32": -3.4028234663852886e38, "float64": 0.1}


@pytest.mark.parametrize("dtype", LACKING)
def test_nodata_is_compared_in_the_files_own_type(dtype: str, tmp_path: Path) -> None:
    nodata = {"uint8": 0, "uint16": 65535, "int16": -9999, "float32": -3.4028234663852886e38, "float64": 0.1}[
        dtype
    ]
    values = GREY.astype(dtype)
    values[:, :100] = np.array(nodata, dtype)
    path = write(tmp_path / "nodata.tif", values, nodata=nodata)
    source = open_image(path, bands=(1,), rescale=Rescale(((0, 255),)))
    with rasterio.open(path) as file:
        assert np.array_equal(source.valid_mask(), file.dataset_mask() > 0)
    assert (read(source)[:, :100] == 255).all()


def test_a_text_of_nodata_that_32_bits_cannot_hold(tmp_path: Path) -> None:
    values = GREY.astype(np.float32)
    values[:, :160] = np.finfo(np.float32).min
    extra = [(42113, "s", 0, "-3.40282346638529e+38", True)]
    tifffile.imwrite(tmp_path / "n.tif", values, photometric="minisblack", extratags=extra, metadata=None)
    known = open_image(tmp_path / "n.tif", bands=(1,), rescale=Rescale(percentiles=(2, 98))).valid_mask()
    assert known is not None and known.mean() == 0.5


@pytest.mark.parametrize("internal", [True, False])
def test_masks_beside_and_inside(internal: bool, tmp_path: Path) -> None:
    mask = np.zeros(GREY.shape, np.uint8)
    mask[:, 160:] = 255
    shape = {"count": 3, "height": 240, "width": 320, "dtype": "uint8", "tiled": True}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(tmp_path / "m.tif", "w", "GTiff", crs="EPSG:25832", transform=PLACE, **shape) as file,
    ):
        file.write(PIXELS.transpose(2, 0, 1))
        file.write_mask(mask)
    assert (tmp_path / "m.tif.msk").exists() != internal
    source = open_image(tmp_path / "m.tif")
    assert np.array_equal(source.valid_mask(), mask > 0)
    assert (read(source)[:, :160] == 255).all() and (read(source)[:, 160:] == PIXELS[:, 160:]).all()


def test_sparse_tiles_are_what_gdal_reads(tmp_path: Path) -> None:
    shape = {"count": 1, "height": 512, "width": 512, "dtype": "uint16", "tiled": True, "SPARSE_OK": True}
    with rasterio.open(tmp_path / "s.tif", "w", "GTiff", crs="EPSG:25832", transform=PLACE, **shape) as file:
        file.write(np.full((1, 256, 256), 900, np.uint16), window=((0, 256), (0, 256)))
    pixels = read(open_image(tmp_path / "s.tif", bands=(1,), rescale=Rescale(((0, 1000),))))
    assert pixels[300:, 300:].max() == 0 and (pixels[:256, :256] == 230).all()


def test_control_points_place_an_image_or_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from rasterio.control import GroundControlPoint as Point

    corners = [(0, 0), (0, 320), (240, 0), (240, 320)]
    for name, bend in (("straight.tif", 0.0), ("bent.tif", 0.002)):
        points = [Point(r, c, 10 + c / 1e5 + (bend if r and c else 0), 50 - r / 1e5) for r, c in corners]
        shape = {"count": 3, "height": 240, "width": 320, "dtype": "uint8"}
        with rasterio.open(tmp_path / name, "w", "GTiff", **shape, gcps=points, crs="EPSG:4326") as file:
            file.write(PIXELS.transpose(2, 0, 1))
    found = place(open_image(tmp_path / "straight.tif"))
    assert found.system == "EPSG:4326" and found.place(320, 240) == pytest.approx((10.0032, 49.9976))
    with caplog.at_level("WARNING", "fcnconv"):
        assert open_image(tmp_path / "bent.tif").info.georeference is None
    assert "control points" in caplog.text and "gdalwarp" in caplog.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_turns_its_place(orientation: int, tmp_path: Path) -> None:
    geo = [(33550, "d", 3, (0.25, 0.25, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5.6e6, 0.0), True)]
    geo += [(34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 25832), True)]
    extra = [*geo, (274, "H", 1, orientation, True)]
    path = tmp_path / "turned.tif"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), photometric="rgb", metadata=None, extratags=extra)
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's transpositions
    stored = Image.fromarray(PIXELS)
    upright = stored.transpose(Image.Transpose(method[orientation])) if orientation > 1 else stored
    source = open_image(path)
    assert (read(source) == np.asarray(upright)).all()
    assert (source.read((3, 5, 60, 41)) == np.asarray(upright)[5:41, 3:60]).all()
    # a marked pixel keeps its coordinates
    marks = np.arange(240 * 320).reshape(240, 320)
    marks = np.asarray(Image.fromarray(marks.astype(np.int32)).transpose(Image.Transpose(method[orientation]))
                       if orientation > 1 else marks)  # fmt: skip
    (row,), (col,) = np.nonzero(marks == 100 * 320 + 7)
    assert place(source).place(col + 0.5, row + 0.5) == pytest.approx(
        (5e5 + 0.25 * 7.5, 5.6e6 - 0.25 * 100.5)
    )


def test_a_vrt_leads_to_no_address(tmp_path: Path) -> None:
    source = "/vsicurl/http://127.0.0.1:9/secret.tif"
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{source}</SourceFilename>'
    band += "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    path = tmp_path / "far.vrt"
    path.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>')
    with pytest.raises(ImageError, match=r"far\.vrt: "):
        read(open_image(path))


def test_16_bits_of_a_png_are_warned_of_and_rescaled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 16).save(tmp_path / "deep.png")
    with caplog.at_level("WARNING", "fcnconv"):
        open_image(tmp_path / "deep.png")
    assert "lighten it with --rescale 0,4095" in caplog.text
    light = read(open_image(tmp_path / "deep.png", rescale=Rescale(((0, 4080),))))
    assert np.abs(light[:, :, 0].astype(int) - GREY).max() == 0


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparent_is_outside(format: str, tmp_path: Path) -> None:
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[60:, 100:] = 255
    rgba = np.dstack([PIXELS, alpha])
    Image.fromarray(rgba).save(tmp_path / "clear", format, **({"lossless": True} if format == "WEBP" else {}))
    source = open_image(tmp_path / "clear")
    assert np.array_equal(source.valid_mask(), alpha > 0) and (read(source)[:60] == 255).all()


@pytest.mark.parametrize(
    ("format", "unused"), [("BMP", True), ("TGA", True), ("PNG", False), ("TIFF", False)]
)
def test_opacity_of_zero_everywhere(
    format: str, unused: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.dstack([PIXELS, np.zeros_like(GREY)])).save(tmp_path / "a", format)
    if format == "BMP":  # Pillow writes 32 bits without a mask of opacity
        assert (read(open_image(tmp_path / "a")) == PIXELS).all()
        return
    with caplog.at_level("WARNING", "fcnconv"):
        source = open_image(tmp_path / "a")
    assert (read(source) == (PIXELS if unused else 255)).all()
    assert ("every pixel is transparent" in caplog.text) != unused


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "exif", [b"\0\x08\0\x02\x01\x12\0\x03", b"Exif\0\0II*\0\x08\0\0\0\x84\x03", b"\xff" * 40]
)
def test_damaged_exif_costs_no_picture(format: str, exif: bytes, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    with silence, Image.open(file) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (read(open_image(file.getvalue())) == expected).all()


def test_a_damaged_chunk_of_metadata_costs_no_png() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", icc_profile=b"no profile at all" * 9)
    content = bytearray(file.getvalue())
    at = content.index(b"iCCP")
    content[at + 30] ^= 255  # its checksum does not fit any more
    assert (read(open_image(bytes(content))) == PIXELS).all()


# Masks


def cells(image: Path, mask: Path) -> np.ndarray:
    """bool (H, W): which pixels of an image a mask lets in."""
    source = open_image(image)
    (inside,) = region_of_interest(source, ScanOptions(mask=str(mask))).areas
    width, height = source.size
    return inside(np.arange(width) + 0.5, np.arange(height) + 0.5)


QUARTER = np.zeros(GREY.shape, np.bool_)
QUARTER[:120, :160] = True


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path / "ortho.tif")


@pytest.mark.parametrize(
    ("dtype", "outside", "nodata"),
    [
        ("uint8", 0, None),
        ("uint8", 255, 255),
        ("float32", np.nan, None),
        ("int16", -9999, -9999),
        ("float64", 0, None),
    ],
)
def test_outside_of_a_mask_is_black_nan_and_nodata(
    dtype: str, outside: float, nodata: float | None, image: Path, tmp_path: Path
) -> None:
    values = np.where(QUARTER, 1, outside).astype(dtype)
    assert np.array_equal(cells(image, write(tmp_path / "mask.tif", values, nodata=nodata)), QUARTER)


def test_a_mask_lies_where_its_own_place_says(image: Path, tmp_path: Path) -> None:
    larger = np.zeros((200, 300), np.uint8)  # 1 m a pixel, from 20 m further west
    larger[:30, 20:60] = 7
    path = write(tmp_path / "mask.tif", larger, transform=rasterio.Affine(1, 0, 5e5 - 20, 0, -1, 5.6e6))
    assert np.array_equal(cells(image, path), QUARTER)
    away = write(tmp_path / "away.tif", larger, transform=rasterio.Affine(1, 0, 6e5, 0, -1, 5.6e6))
    with pytest.raises(ImageError, match=r"away\.tif: the mask does not overlap"):
        cells(image, away)
    # the same in another zone, made by GDAL's own warp
    zone = tmp_path / "zone.tif"
    with rasterio.open(path) as file, rasterio.vrt.WarpedVRT(file, crs="EPSG:25833") as warped:
        rasterio.shutil.copy(warped, zone, driver="GTiff")
    assert (cells(image, zone) != QUARTER).mean() < 0.03


def test_a_mask_without_a_place_has_the_images_proportions(image: Path, tmp_path: Path) -> None:
    Image.fromarray(QUARTER).save(tmp_path / "mask.png")
    assert np.array_equal(cells(image, tmp_path / "mask.png"), QUARTER)
    clear = np.dstack([np.full_like(PIXELS, 255), np.where(QUARTER, 255, 0).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.array_equal(cells(image, tmp_path / "clear.png"), QUARTER)
    labels = Image.fromarray(QUARTER.astype(np.uint8), "P")
    labels.putpalette([0] * 768)
    labels.save(tmp_path / "labels.png")
    assert np.array_equal(cells(image, tmp_path / "labels.png"), QUARTER)


RING = [[5e5, 5.6e6], [5e5 + 40, 5.6e6], [5e5 + 40, 5.6e6 - 30], [5e5, 5.6e6 - 30], [5e5, 5.6e6]]


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::25832"}},
        {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG:9.8:25832"}},
        {"type": "name", "properties": {"name": "EPSG:25832"}},
        {"type": "name", "properties": {"name": "http://www.opengis.net/def/crs/EPSG/0/25832"}},
        {"type": "EPSG", "properties": {"code": 25832}},
        "EPSG:25832",
        {"type": "name", "properties": {"name": "+proj=utm +zone=32 +ellps=GRS80 +units=m"}},
        {"type": "name", "properties": {"name": rasterio.crs.CRS.from_epsg(25832).to_wkt()}},
    ],
)
def test_every_way_to_name_a_coordinate_system(crs: Any, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [RING], "crs": crs}))
    assert np.array_equal(cells(image, path), QUARTER)


def test_coordinates_that_cannot_be_degrees_ask_for_their_system(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [RING]}))
    with pytest.raises(ImageError, match=r"is not longitude,latitude.*EPSG:25832"):
        cells(image, path)
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [RING], "crs": {"type": "link"}}))
    with pytest.raises(ImageError, match="its crs member is not in a known form"):
        cells(image, path)


def test_empty_geometries_are_skipped_and_ignored_ones_subtracted(image: Path, tmp_path: Path) -> None:
    path, crs = tmp_path / "mask.geojson", {"type": "name", "properties": {"name": "EPSG:25832"}}

    def feature(ring: list[list[float]], name: str) -> dict[str, Any]:
        polygon = {"type": "Polygon", "coordinates": [ring] if ring else []}
        return {"type": "Feature", "geometry": polygon, "properties": {"classification": {"name": name}}}

    left = [[x if x == 5e5 else x - 20, y] for x, y in RING]
    features = [feature(RING, "Tumor"), feature([], "Tumor"), feature(left, "Ignore*")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, "crs": crs}))
    expected = QUARTER.copy()
    expected[:, :80] = False
    assert np.array_equal(cells(image, path), expected)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
def test_masks_of_gis(suffix: str, image: Path, tmp_path: Path) -> None:
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.Polygon(RING)], crs="EPSG:25832")
    frame.to_crs("EPSG:3035").to_file(tmp_path / f"mask.{suffix}")
    assert (cells(image, tmp_path / f"mask.{suffix}") != QUARTER).mean() < 0.02


def test_a_mask_of_many_bands_is_refused(image: Path, tmp_path: Path) -> None:
    write(tmp_path / "mask.tif", np.zeros((4, 4, 101), np.uint8))
    with pytest.raises(ImageError, match="101 bands"):
        cells(image, tmp_path / "mask.tif")


def test_a_geopackage_without_polygons_is_refused_in_one_line(image: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "empty.gpkg") as base:
        base.execute("CREATE TABLE gpkg_contents (table_name TEXT)")
    base.close()
    with pytest.raises(ImageError, match=r"empty\.gpkg: GDAL cannot read polygons from it: [^\n]*$"):
        cells(image, tmp_path / "empty.gpkg")


def test_cells_across_180_degrees_are_cut(tmp_path: Path) -> None:
    """By RFC 7946, 3.1.9: no part of a cell crosses, and together they are the cell."""
    shapely, pyproj = pytest.importorskip("shapely"), pytest.importorskip("pyproj")
    x, y = pyproj.Transformer.from_crs(4326, 32660, always_xy=True).transform(179.9995, -17.0)
    transform = rasterio.Affine(1, 0, x - 100, 0, -1, y + 64)
    path = write(tmp_path / "fiji.tif", crs="EPSG:32660", transform=transform)
    grid = Grid(32, 16, (320, 240), (320, 240))
    logits = np.zeros((grid.rows, grid.cols, 2), np.float32)
    score_map = make_map(logits, grid, Labels(("a", "b")), source=open_image(path))
    save_map(score_map.stream(), str(tmp_path / "m.geojson"), find_writer("m.geojson"), choose(at_least=0.0))
    shapes = [f["geometry"] for f in json.loads((tmp_path / "m.geojson").read_text())["features"]]
    assert {shape["type"] for shape in shapes} == {"Polygon", "MultiPolygon"}
    for shape in map(shapely.geometry.shape, shapes):
        assert shape.is_valid
        for part in shapely.get_parts(shape):
            west, _, east, _ = part.bounds
            assert east - west < 0.01 and part.exterior.is_ccw
    areas = [shapely.geometry.shape(shape).area for shape in shapes]
    assert np.ptp(areas) < 1e-3 * np.mean(areas)


def test_a_local_system_is_named_where_it_has_no_longitudes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    path = write(tmp_path / "site.tif", crs=rasterio.crs.CRS.from_wkt(local))
    grid = Grid(32, 16, (320, 240), (320, 240))
    logits = np.zeros((grid.rows, grid.cols, 2), np.float32)
    score_map = make_map(logits, grid, Labels(("a", "b")), source=open_image(path))
    with caplog.at_level("WARNING", "fcnconv"):
        save_map(
            score_map.stream(), str(tmp_path / "m.geojson"), find_writer("m.geojson"), choose(at_least=0.0)
        )
    told = json.loads((tmp_path / "m.geojson").read_text())
    assert "site" in told["crs"]["properties"]["name"] and "own coordinates" in caplog.text
    assert told["features"][0]["geometry"]["coordinates"][0][0][0] > 4e5


@pytest.mark.parametrize("size", [(3, 6000), (6000, 3), (1, 1)])
def test_a_strip_is_read_and_resized_in_a_moment(size: tuple[int, int]) -> None:
    source = MemorySource(np.broadcast_to(np.uint8(7), (*size, 3)).copy())
    wide, high = source.size
    larger = resize(source, (max(wide, 224), max(high, 224)))
    assert read(larger).shape[:2] == (max(high, 224), max(wide, 224))


@pytest.mark.parametrize(("nodata", "by_tifffile"), [(None, True), (0, False)])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiles_without_compression_are_those_of_gdal(
    nodata: float | None, by_tifffile: bool, bits: int, tmp_path: Path
) -> None:
    pixels = PIXELS.astype(f"u{bits // 8}") << (bits - 8)
    source = open_image(
        write(
            tmp_path / "a.tif",
            pixels,
            photometric="RGB",
            tiled=True,
            blockxsize=64,
            blockysize=48,
            nodata=nodata,
        )
    )
    assert isinstance(source, RasterSource) and bool(source.decoder) == by_tifffile
    assert np.abs(read(source).astype(int) - PIXELS).max() <= (bits == 16) and place(source).epsg == 25832


def test_tiles_of_jpeg_are_nearly_those_of_gdal_and_their_mask_is_exact(tmp_path: Path) -> None:
    path, mask = tmp_path / "a.tif", np.zeros(PIXELS.shape[:2], np.bool_)
    mask[50:150, 60:200] = True
    jpeg = {"compress": "JPEG", "photometric": "YCBCR", "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, **jpeg)
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    with rasterio.open(path) as file:
        theirs = file.read().transpose(1, 2, 0)
    source = open_image(path)
    assert isinstance(source, RasterSource) and source.decoder
    found = read(source).astype(int)
    assert (found[mask] == tifffile.imread(path, key=0)[mask]).all() and (found[~mask] == 255).all()
    assert np.abs(found - theirs)[mask].mean() < 4  # its libjpeg makes other colours of the same file
    assert np.array_equal(source.valid_mask(), mask)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, True),
        ({"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2}, True),
        ({"compress": "lzw", "interleave": "band"}, True),
        ({"compress": "jpeg", "photometric": "ycbcr"}, True),
        ({"nodata": 7}, False),
        ({"transform": PLACE}, False),
        ({"world": True}, False),
        ({"overviews": True}, False),
        ({"mask": True}, False),
        ({"dtype": "int16"}, False),
    ],
    ids=str,
)
def test_a_plain_file_needs_no_gdal(options: dict[str, Any], plain: bool, tmp_path: Path) -> None:
    path, options = tmp_path / "x.tif", dict(options)
    extra = {name: options.pop(name, False) for name in ("world", "overviews", "mask")}
    pixels = PIXELS.astype(options.pop("dtype", "uint8"))
    write(path, pixels, **{"crs": None, "transform": None, "photometric": "rgb", **options})
    if extra["world"]:
        path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        if extra["overviews"]:
            file.build_overviews([2])
        if extra["mask"]:
            file.write_mask(PIXELS[:, :, 0] > 99)
    source = open_image(path, rescale=None if pixels.dtype == np.uint8 else Rescale(ranges=((0, 255),)))
    assert isinstance(source, RasterSource) is not plain
    difference = np.abs(
        read(source).astype(int)
        - read(RasterSource.open(path, "x", Asked(rescale=Rescale(ranges=((0, 255),)))))
    )
    assert difference.mean() < 4 if options.get("compress") == "jpeg" else not difference.any()
