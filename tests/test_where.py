"""Where to look: what is left out changes nothing else, is not computed, and is in no answer."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from ordinary import ordinary
from PIL import Image
from tiny import make_map

import fcnconv as package
from fcnconv.api.classifier import Classifier
from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource, Pixels
from fcnconv.images.source import ImageInfo, ImageSource
from fcnconv.labels import Labels
from fcnconv.options import ReadOptions, ScanOptions
from fcnconv.options.parsing import parse_region, parse_rescale
from fcnconv.scan.execute import LocalExecutor
from fcnconv.scan.roi.areas import cells_inside, polygons, raster, rectangle
from fcnconv.scan.roi.mask import find_tissue, otsu

torch = pytest.importorskip("torch")
nn = torch.nn
CLASSES = 5


@pytest.fixture(scope="module")
def small() -> Classifier:
    """A network of 32 px and stride 4 that sees 60 px, in torch."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1),
    )
    head = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    return package.load(ordinary(head, 32), window=32, backend="torch")


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (230, 310, 3), np.uint8)


class Watched(ImageSource):
    """A source that remembers what was read of it."""

    name = "watched"

    def __init__(self, pixels: Pixels):
        self.pixels = pixels
        self.seen = np.zeros(pixels.shape[:2], bool)

    @property
    def info(self) -> ImageInfo:
        return ImageInfo((self.pixels.shape[1], self.pixels.shape[0]))

    def read(self, box: tuple[int, int, int, int]) -> Pixels:
        x0, y0, x1, y1 = box
        self.seen[y0:y1, x0:x1] = True
        return self.pixels[y0:y1, x0:x1]


def saved(mask: np.ndarray, folder: Path) -> str:
    path = folder / "mask.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return str(path)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), memory=st.sampled_from([2e9, 3e6]), cells=st.integers(1, 6))
def test_what_is_looked_at_scores_as_in_the_whole_map(
    small: Classifier,
    picture: Pixels,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    memory: float,
    cells: int,
) -> None:
    mask = np.random.default_rng(seed).random((cells, cells)) < 0.4
    mask[0, 0] = True
    mask = np.kron(mask, np.ones((23, 31), bool))
    path = saved(mask, tmp_path_factory.mktemp("mask"))
    tight = replace(small, memory=memory)
    whole, part = small(picture, anchors=0), tight(picture, anchors=0, mask=path)
    inside = cells_inside([raster(mask, (310, 230))], whole.grid)
    assert np.allclose(part.logits[inside], whole.logits[inside], atol=1e-6)
    assert np.isnan(part.logits[~inside]).all()
    whole, part = small(picture, anchors=4), tight(picture, anchors=4, mask=path)
    assert np.isnan(part.logits[~inside]).all() and not part.exact[~inside].any()
    told = part.provenance.agreement
    assert told is not None and told.cells == inside.sum() and told.exact == part.exact.sum()
    same = inside & ~(part.exact ^ whole.exact)  # the samples differ
    assert np.allclose(part.logits[same], whole.logits[same], atol=1e-5)


@pytest.mark.parametrize("options", [{"refine": 0.2}, {"anchors": 4, "refine": 0.2}, {"agreement": 0.9}])
def test_crops_are_scored_where_to_look_and_nowhere_else(
    small: Classifier, picture: Pixels, options: dict[str, float]
) -> None:
    watching = _Watching(small)
    part = replace(small, executor=watching)(picture, region=(0, 0, 150, 230), **options)
    inside = ~np.isnan(part.logits[:, :, 0])
    assert part.exact[inside].sum() >= 0.1 * inside.sum() and not part.exact[~inside].any()
    grid = part.grid
    columns = np.concatenate(watching.scored) % grid.cols
    # anchors stand up to four windows beyond, for what is between them
    assert columns.max() <= np.nonzero(inside)[1].max() + 4


class _Watching(LocalExecutor):
    """An executor that remembers which windows were scored as crops."""

    def __init__(self, classifier: Classifier):
        super().__init__(classifier.network, classifier.open_crops)
        object.__setattr__(self, "scored", [])

    def crops(self, source, grid, cells):  # type: ignore[no-untyped-def]
        self.scored.append(cells)  # type: ignore[attr-defined]
        return super().crops(source, grid, cells)


@pytest.mark.parametrize("mode", ["fcn", "windows"])
def test_windows_mode_scores_single_windows(small: Classifier, picture: Pixels, mode: str) -> None:
    torch.manual_seed(0)
    classifier = small if mode == "fcn" else replace(small, network=replace(small.network, mode="windows"))
    options = {"anchors": 1}
    whole, part = small(picture, **options), classifier(picture, region=(40, 50, 90, 70), **options)
    inside = ~np.isnan(part.logits[:, :, 0])
    assert inside.sum() == 13 * 5 and np.array_equal(part.exact, inside)
    assert np.allclose(part.logits[inside], whole.logits[inside], atol=1e-5)


@pytest.mark.parametrize("memory", [2e9, 2e6])
def test_nothing_is_read_far_from_where_to_look(small: Classifier, memory: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (800, 900, 3), np.uint8)
    source = Watched(pixels)
    replace(small, memory=memory)(source, region=(600, 500, 640, 540), anchors=0)
    y, x = np.nonzero(source.seen)
    reach = small.geometry.window + 2 * small.geometry.halo + (0 if memory == 2e9 else 16 * 4)
    assert 600 - reach <= x.min() and x.max() < 640 + reach
    assert 500 - reach <= y.min() and y.max() < 540 + reach


def test_a_sparse_mask_is_cut_into_small_blocks(lite0: Classifier, tmp_path: Path) -> None:
    """Two corners of a large image: a rectangle around both would be all of it."""
    mask = np.zeros((100, 100), bool)
    mask[:4, :4] = mask[-4:, -4:] = True
    source = MemorySource(np.zeros((6000, 6000, 3), np.uint8))
    options = ScanOptions(mask=saved(mask, tmp_path), anchors=0)
    (part,), (whole,) = (
        lite0.plan(source, each).estimate(lite0.open_crops) for each in (options, ScanOptions(anchors=0))
    )
    assert part.multiply_adds < 0.1 * whole.multiply_adds
    assert part.tiling.memory <= whole.tiling.memory


@pytest.mark.parametrize("join", ["max", "mean", "finest"])
def test_scales_are_joined_where_to_look(small: Classifier, picture: Pixels, join: str) -> None:
    options = {"scales": "1,0.7,0.4", "join": join, "anchors": 0}
    whole, part = small(picture, **options), small(picture, region=(100, 60, 250, 200), **options)
    x, y = np.meshgrid(*(np.arange(n) * 4 + 16 for n in (part.grid.cols, part.grid.rows)))
    inside = (x >= 100) & (x < 250) & (y >= 60) & (y < 200)
    assert np.array_equal(np.isnan(part.logits).any(-1), ~inside)
    if join != "finest":  # which leaves out what finer windows of the whole map find
        assert np.allclose(part.logits[inside], whole.logits[inside], atol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 999))
def test_polygons_are_filled_as_rasterio_fills_them(seed: int) -> None:
    features = pytest.importorskip("rasterio.features")
    generator = np.random.default_rng(seed)
    shapes = []
    for _ in range(generator.integers(1, 4)):
        centre, angles = generator.uniform(20, 80, 2), np.sort(generator.uniform(0, 2 * np.pi, 9))
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() > np.pi:
            continue  # the centre lies outside
        outer = centre + generator.uniform(10, 40, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        shapes.append([outer, centre + 0.3 * (outer - centre)])
    if not shapes:
        return
    geometries = [
        {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in rings]}
        for rings in shapes
    ]
    expected = features.rasterize(geometries, (100, 90)) > 0
    points = np.arange(100) + 0.5
    found = polygons(shapes)(points[:90], points)
    assert (found != expected).sum() <= 2, "a centre on an edge may go either way"


def test_an_area_is_asked_at_the_centres_of_windows() -> None:
    grid = Grid(32, 4, (200, 100), (100, 50))  # scanned at half its size
    found = cells_inside([rectangle((32, 32, 41, 60))], grid)
    assert np.argwhere(found).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [3, 0], [3, 1]]


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=30).filter(lambda counts: sum(map(bool, counts)) > 1)
)
def test_otsus_threshold_parts_as_well_as_any(counts: list[int]) -> None:
    values = np.repeat(np.arange(len(counts)), counts)

    def between(threshold: int) -> float:
        low, high = values[values < threshold], values[values >= threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(map(between, range(1, len(counts))))
    assert between(otsu(np.array(counts))) == pytest.approx(best)


def test_tissue_is_what_is_coloured(small: Classifier) -> None:
    generator = np.random.default_rng(0)
    slide = generator.normal(235, 3, (600, 800, 1)) + generator.normal(0, 1, (600, 800, 3))
    slide[100:300, 200:500] -= (30, 110, 50)  # stained
    slide[400:402, 600:602] = (0, 255, 0)  # dust
    slide[500:, :100] = 60  # a shadow, and no tissue
    source = MemorySource(np.clip(slide, 0, 255).astype(np.uint8))
    tissue, _ = find_tissue(source)
    expected = np.zeros((600, 800), bool)
    expected[100:300, 200:500] = True
    assert (tissue != expected).mean() < 0.01
    found = ~np.isnan(small(source, tissue=True, anchors=0).logits[:, :, 0])
    assert 0.9 < found.sum() / (50 * 75) < 1.1


@needs_rasterio
def test_no_data_is_not_looked_at(small: Classifier, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(1, 256, (256, 320, 3), np.uint8)
    pixels[:, :160] = 0
    path = tmp_path / "ortho.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(64, 64), extratags=[(42113, "s", 2, "0", True)], metadata=None
    )
    found = small(path, anchors=0)
    columns = np.arange(found.grid.cols) * 4 + 16
    assert np.array_equal(np.isnan(found.logits[0, :, 0]), columns < 160)
    opacity = np.dstack([pixels, np.where(pixels[:, :, 0], 255, 0).astype(np.uint8)])
    tifffile.imwrite(path, opacity, photometric="rgb", tile=(64, 64), extrasamples=["unassalpha"])
    assert np.array_equal(np.isnan(small(path, anchors=0).logits), np.isnan(found.logits))
    floats = np.where(pixels[:, :, :1] == 0, np.nan, pixels[:, :, :1]).astype(np.float32)
    tifffile.imwrite(path, floats[:, :, 0], photometric="minisblack", tile=(64, 64))
    scaled = replace(small, reading=ReadOptions(rescale=parse_rescale("0,255")))(path, anchors=0)
    assert np.array_equal(np.isnan(scaled.logits), np.isnan(found.logits))


def test_gdals_own_mask_is_heeded(small: Classifier, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path, mask = tmp_path / "masked.tif", np.zeros((256, 320), np.uint8)
    mask[64:200, 100:260] = 255
    shape = {"width": 320, "height": 256, "count": 3, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="GTiff", tiled=True, blockxsize=64, blockysize=64, **shape) as file,
    ):
        file.write(np.full((3, 256, 320), 90, np.uint8))
        file.write_mask(mask)
    found = small(path, anchors=0)
    expected = cells_inside([raster(mask > 0, (320, 256))], found.grid)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(~np.isnan(found.logits[:, :, 0]), expected)


def test_regions_of_other_programs(small: Classifier, picture: Pixels, tmp_path: Path) -> None:
    ring = [[40, 30], [200, 30], [200, 180], [40, 180], [40, 30]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {"classification": {"name": "Tumor"}}, "geometry": polygon}
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": ring}, "properties": {}}
    expected = small(picture, region=(40, 30, 200, 180), anchors=0).logits
    for record in (
        polygon,
        {"type": "MultiPolygon", "coordinates": [[ring]]},
        feature,
        [feature],
        {"type": "FeatureCollection", "features": [line, feature]},
    ):
        path = tmp_path / "regions.geojson"
        path.write_text(json.dumps(record))
        assert np.array_equal(small(picture, mask=path, anchors=0).logits, expected, equal_nan=True)
        packed = tmp_path / "regions.geojson.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert np.array_equal(small(picture, mask=packed, anchors=0).logits, expected, equal_nan=True)


def test_packed_regions_that_are_none(
    small: Classifier, picture: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "regions.geojson.gz", gzip.compress(b" " * 99_999)
    for content in (b"{}", whole[:-20], whole[:20] + b"\0" + whole[21:]):
        path.write_bytes(content)
        with pytest.raises(ImageError, match="cannot be read as GeoJSON polygons"):
            small(picture, mask=path)
    path.write_bytes(whole)
    monkeypatch.setattr("fcnconv.scan.roi.vector.MOST_BYTES", 99_998)
    with pytest.raises(ImageError, match="of GeoJSON; simplify the polygons"):
        small(picture, mask=path)


def test_regions_on_the_map(small: Classifier, tmp_path: Path) -> None:
    """An orthophoto in UTM, and the same rectangle in longitude and latitude and in its own system."""
    rasterio, warp = pytest.importorskip("rasterio"), pytest.importorskip("rasterio.warp")
    path, transform = tmp_path / "ortho.tif", rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000)
    shape = {"width": 320, "height": 256, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, tiled=True, **shape) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 256, 320), np.uint8))
    points = (61, 42), (251, 42), (251, 191), (61, 191)
    corners = [(500_000 + x / 2, 5_600_000 - y / 2) for x, y in points]
    expected = small(path, region=(61, 42, 251, 191), anchors=0).logits
    longitudes = list(
        zip(*warp.transform("EPSG:32632", "EPSG:4326", *zip(*corners, strict=True)), strict=True)
    )
    own = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    for ring, more in ((longitudes, {}), (corners, {"crs": own})):
        mask = tmp_path / "regions.geojson"
        mask.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]], **more}))
        assert np.array_equal(small(path, mask=mask, anchors=0).logits, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as GeoJSON polygons"),
        (
            '{"type": "Point", "coordinates": [1, 2]}',
            "has no polygon; points and lines do not enclose a region",
        ),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "a ring of fewer than three points"),
        ('{"type": "Polygon", "coordinates": [[[999, 0], [1e9, 1], [1e9, 9]]]}', "outside of image"),
        ("[" * 10_000, "cannot be read as GeoJSON polygons"),
    ],
)
def test_regions_that_are_none(
    small: Classifier, picture: Pixels, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "regions.geojson"
    path.write_text(content)
    with pytest.raises(ImageError, match=message):
        small(picture, mask=path)


def test_masks_that_are_none(small: Classifier, picture: Pixels, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a mask of 100 × 100 px does not fit an image of 310 × 230 px"):
        small(picture, mask=saved(np.ones((100, 100), bool), tmp_path))
    with pytest.raises(ImageError, match=r"nowhere\.png: cannot be read as a mask"):
        small(picture, mask=tmp_path / "nowhere.png")
    with pytest.raises(UsageError, match=r"no window \(32 px\) has its centre inside"):
        small(picture, mask=saved(np.zeros((230, 310), bool), tmp_path))
    with pytest.raises(ImageError, match="has 310 × 230 px, but --region begins at 400,0"):
        small(picture, region=(400, 0, 500, 100))
    half = np.zeros((115, 155), bool)
    half[:, 60:] = True
    found = small(picture, mask=saved(half, tmp_path), anchors=0)
    expected = small(picture, region=(120, 0, 310, 230), anchors=0)
    assert np.array_equal(found.logits, expected.logits, equal_nan=True)


@pytest.mark.parametrize("text", ["1,2,3", "5,0,1,9", "a,b,c,d", "0,0,0,0", "-1,0,5,5", ""])
def test_regions_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match="unknown region"):
        parse_region(text)


def test_a_network_that_looks_at_the_whole_image_is_given_all_of_it(
    small: Classifier, picture: Pixels
) -> None:
    """As what it sees elsewhere changes its scores, these are those of the whole map."""
    scored = replace(small, network=replace(small.network, geometry=replace(small.geometry, local=False)))
    source = Watched(picture)
    part = scored(source, region=(40, 50, 90, 70), anchors=0)
    assert source.seen[:228, :308].all()
    inside = ~np.isnan(part.logits[:, :, 0])
    assert np.array_equal(part.logits[inside], small(picture, anchors=0).logits[inside])


REGION = "200,0,600,400"


def test_every_format_leaves_out_what_was_not_looked_at(fcnconv: Command, tmp_path: Path) -> None:
    image = SAMPLES / "coffee.png"

    def made(name: str, *more: str) -> Path:
        out = tmp_path / name
        done = fcnconv("heatmap", image, "-o", out, "--region", REGION, "--scales", "1", *more)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert b"nan" not in done.stderr
        return out

    with np.load(made("map.npz")) as arrays:
        inside = ~np.isnan(arrays["scores"]).any(-1)
        assert str(arrays["region"]) == REGION and inside.sum() == 6 * 9
        assert np.isnan(arrays["scores"][~inside]).all() and not arrays["exact"][~inside].any()
    with np.load(made("top.npz", "--store", "top-k")) as arrays:
        assert np.array_equal(~np.isnan(arrays["probability"]).any(-1), inside)
    record = json.loads(made("map.json", "-k", "2").read_text())
    assert record["region"] == REGION
    cells = [(cell["row"], cell["col"]) for cell in record["cells"]]
    assert cells == [tuple(cell) for cell in np.argwhere(inside).tolist()]
    with made("map.csv").open(encoding="utf-8") as file:
        assert [(int(row["row"]), int(row["col"])) for row in csv.DictReader(file)] == cells
    features = json.loads(made("map.geojson", "--at-least", "0").read_text())["features"]
    assert [(f["properties"]["row"], f["properties"]["col"]) for f in features] == cells
    photo = np.asarray(Image.open(image).convert("RGB")).astype(int)
    for name, more in (
        ("map.png", ("--map", "windows")),
        ("winners.png", ("--argmax", "--at-least", "0.01", "--map", "windows")),
    ):
        picture = np.asarray(Image.open(made(name, "--no-legend", *more)).convert("RGB")).astype(int)
        changed = np.abs(picture - photo).max(-1) > 2
        assert not changed[:, : 200 - 32].any() and changed[:, 250:550].mean() > 0.5
    made("map.html")
    made("faint.png", "-c", "tench")  # which is told to be found nowhere


def test_the_legend_of_a_picture_counts_what_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.zeros((2, 2, 2), np.float32)
    logits[0, 0] = np.nan
    titles: list[str] = []

    def band(width: int, size: int, title: str, *rest: object) -> Image.Image:
        titles.append(title)
        return Image.new("RGB", (width, size))

    monkeypatch.setattr("fcnconv.render.sheet.scale_band", band)
    photo, grid = MemorySource(np.zeros((600, 600, 3), np.uint8)), Grid(8, 4, (600, 600), (12, 12))
    make_map(logits, grid, Labels(("cat", "dog")), source=photo).plot(["cat"])
    assert set(titles) == {"cat, up to 0.50"}


def test_a_mask_is_no_output(fcnconv: Command, tmp_path: Path) -> None:
    mask = saved(np.ones((400, 600), bool), tmp_path)
    done = fcnconv("heatmap", SAMPLES / "coffee.png", "--mask", mask, "-o", mask)
    assert done.returncode == 2 and b"mask.png" in done.stderr
    assert np.asarray(Image.open(mask)).all()


def test_nothing_to_look_at_is_wrong_usage(fcnconv: Command, tmp_path: Path) -> None:
    done = fcnconv("heatmap", SAMPLES / "coffee.png", "--region", "0,0,9,9", "-o", tmp_path / "map.npy")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"no window (224 px) has its centre inside region 0,0,9,9" in done.stderr
    assert not list(tmp_path.iterdir())
