"""Files of regions, read back by the libraries of their fields, or as their formats define them."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from conftest import needs_rasterio
from shapely import Polygon
from tiny import choose

from fcnconv.errors import OutputError, UsageError
from fcnconv.images.georeference import GeoReference
from fcnconv.labels import Labels, Selection
from fcnconv.options import OutputOptions
from fcnconv.scores.regions import Located, Region
from fcnconv.writers.output_spec import OutputSpec
from fcnconv.writers.region_formats import REGION_FORMATS, find_region_format

LABELS = Labels(("dog", "cat", "crane", "crane"))


def region(class_idx: int | None, outline: Polygon, probability: float = 0.5, name: str = "") -> Region:
    x0, y0, x1, y1 = outline.bounds
    box = (int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1)))
    name = name or LABELS.categories[class_idx or 0]
    return Region(class_idx, None, name, probability, probability / 2, outline.area, box, (x0, y0), outline)


TRIANGLE = Polygon([(10, 20), (110, 20), (10, 70)])
FRAME = Polygon(
    [(150, 100), (250, 100), (250, 180), (150, 180)], [[(170, 120), (190, 120), (190, 140), (170, 140)]]
)
PHOTO = Located("photos/a.jpg", 400, 200, "net", (region(1, TRIANGLE, 0.9), region(3, FRAME)))
EMPTY = Located("photos/b.jpg", 30, 40, "net", ())


def write(name: str, path: Path, *found: Located, choice: OutputSpec | None = None) -> Path:
    form = REGION_FORMATS[name]
    if form.folder:
        path.mkdir()
    form.write(path, iter(found), LABELS, choice or choose())
    return path


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_cocos_own_reader_finds_the_regions(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    with redirect_stdout(io.StringIO()):
        read = coco.COCO(write("coco", tmp_path / "a.coco.json", PHOTO, EMPTY))
    assert [image["file_name"] for image in read.imgs.values()] == ["photos/a.jpg", "photos/b.jpg"]
    assert read.getAnnIds(imgIds=[2]) == []
    one, other = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert one["bbox"] == [10, 20, 100, 50] and one["area"] == 2500 and one["score"] == 0.9
    assert read.annToMask(one).sum() == pytest.approx(2500, rel=0.03)
    assert read.annToMask(one).shape == (200, 400)
    assert [read.cats[each["category_id"]]["class_idx"] for each in (one, other)] == [1, 3]
    assert [read.cats[each["category_id"]]["name"] for each in (one, other)] == ["cat", "crane"]
    assert other["area"] == 8000 - 400  # its hole counts for the area
    assert 0 not in read.cats


def test_only_the_chosen_classes_are_categories(tmp_path: Path) -> None:
    pets = Selection("pet", (0, 1))
    found = Located("a.jpg", 400, 200, "net", (region(None, TRIANGLE, name="pet"),))
    text = write("coco", tmp_path / "a.json", found, choice=choose(LABELS.category(3), pets)).read_text()
    record = json.loads(text)
    assert [(each["id"], each["name"]) for each in record["categories"]] == [(1, "crane"), (2, "pet")]
    assert record["annotations"][0]["category_id"] == 2
    folder = write("yolo", tmp_path / "y", found, choice=choose(LABELS.category(3), pets))
    assert (folder / "labels/a.txt").read_text().startswith("1 ")


def test_yolo_has_shares_of_the_image(tmp_path: Path) -> None:
    folder = write("yolo", tmp_path / "out", PHOTO, EMPTY)
    lines = (folder / "labels/photos/a.txt").read_text().splitlines()
    numbers = np.array([line.split() for line in lines], float)
    assert numbers[:, 0].tolist() == [1, 3] and numbers[:, 5].tolist() == [0.9, 0.5]
    assert numbers[0, 1:5] == pytest.approx([60 / 400, 45 / 200, 100 / 400, 50 / 200])
    assert numbers[1, 1:5] == pytest.approx([200 / 400, 140 / 200, 100 / 400, 80 / 200])
    assert (folder / "labels/photos/b.txt").read_text() == ""
    assert '  1: "cat"\n' in (folder / "data.yaml").read_text()


@pytest.mark.parametrize("other", ["photos/a.png", "./photos/a.jpeg"])
def test_two_images_never_share_a_file_of_labels(tmp_path: Path, other: str) -> None:
    with pytest.raises(OutputError, match="rename one"):
        write("yolo", tmp_path / "out", PHOTO, Located(other, 1, 1, "net", ()))


@pytest.mark.parametrize("name", ["../photos/a.jpg", "/photos/a.jpg", "s3://bucket/a.jpg", "a/../../b.jpg"])
def test_labels_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = write("yolo", tmp_path / "out", Located(name, 1, 1, "net", ()))
    assert len(list((folder / "labels").rglob("*.txt"))) == 1 and list(tmp_path.iterdir()) == [folder]


def test_label_studio_has_percents(tmp_path: Path) -> None:
    task, empty = json.loads(write("label-studio", tmp_path / "a.json", PHOTO, EMPTY).read_text())
    assert task["data"] == {"image": "photos/a.jpg"} and empty["predictions"][0]["result"] == []
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.9 and prediction["model_version"] == "net"
    box, outline, *_ = prediction["result"]
    assert box["type"] == "rectanglelabels" and box["value"]["rectanglelabels"] == ["cat"]
    assert [box["value"][side] for side in ("x", "y", "width", "height")] == [2.5, 10, 25, 25]
    assert outline["type"] == "polygonlabels" and outline["value"]["polygonlabels"] == ["cat"]
    points = np.array(outline["value"]["points"]) * [4, 2]
    assert Polygon(points).equals(TRIANGLE) and len(points) == 3
    for each in (box, outline):
        assert (each["original_width"], each["original_height"], each["score"]) == (400, 200, 0.9)


def test_fiftyone_has_absolute_paths(tmp_path: Path) -> None:
    record = json.loads(write("fiftyone", tmp_path / "labels.json", PHOTO, EMPTY).read_text())
    (path, detections), (_, none) = record["labels"].items()
    assert path == str(Path("photos/a.jpg").absolute()) and none == []
    assert detections[0]["label"] == "cat" and detections[0]["confidence"] == 0.9
    assert detections[0]["bounding_box"] == pytest.approx([10 / 400, 20 / 200, 100 / 400, 50 / 200])


# On the map.

UTM, LONLAT = (
    GeoReference((0.5, 0.0, 600_000.0, 0.0, -0.5, 5_600_000.0), "EPSG:32632"),
    GeoReference((1e-5, 0.0, 10.0, 0.0, -1e-5, 50.0), "EPSG:4326"),
)


def placed(place: GeoReference | None, name: str = "a.tif") -> Located:
    return Located(name, 400, 200, "net", PHOTO.regions, place)


def on_map(place: GeoReference, outline: Polygon) -> Polygon:
    a, _, c, _, e, f = place.transform
    return shapely.transform(outline, lambda points: points * [a, e] + [c, f])


@pytest.mark.parametrize("place", [UTM, LONLAT])
@pytest.mark.parametrize("projected", [False, True])
def test_geojson_lies_where_the_image_does(tmp_path: Path, place: GeoReference, projected: bool) -> None:
    geopandas = pytest.importorskip("geopandas")
    choice = choose(projected=projected)
    path = write("geojson", tmp_path / "a.geojson", placed(place), choice=choice)
    frame = geopandas.read_file(path)
    assert frame.crs.to_epsg() == (32632 if projected and place is UTM else 4326)
    assert list(frame.category) == ["cat", "crane"] and list(frame.probability) == [0.9, 0.5]
    back = frame.to_crs(place.system)
    for found, expected in zip(back.geometry, (TRIANGLE, FRAME), strict=True):
        difference = found.symmetric_difference(on_map(place, expected))
        assert difference.area < 1e-3 * found.area
    record = json.loads(path.read_text())
    for feature in record["features"]:
        outer, *holes = (shapely.LinearRing(ring) for ring in feature["geometry"]["coordinates"])
        assert outer.is_ccw and not any(hole.is_ccw for hole in holes)
    assert ("crs" in record) == (projected)


@needs_rasterio
def test_geojson_in_pixels_is_for_one_image(tmp_path: Path) -> None:
    record = json.loads(write("geojson", tmp_path / "a.geojson", PHOTO).read_text())
    first = record["features"][0]
    assert Polygon(first["geometry"]["coordinates"][0]).equals(TRIANGLE)
    assert first["properties"]["classification"] == {"name": "cat"}
    assert first["properties"]["measurements"]["probability"] == 0.9
    assert first["properties"]["image"] == "photos/a.jpg"
    with pytest.raises(UsageError, match="no common coordinates"):
        write("geojson", tmp_path / "b.geojson", PHOTO, EMPTY)
    with pytest.raises(UsageError, match="no common coordinates"):
        write("geojson", tmp_path / "b.geojson", placed(UTM), PHOTO)
    with pytest.raises(UsageError, match="leave it out"):
        write("geojson", tmp_path / "b.geojson", PHOTO, choice=choose(projected=True))


def test_images_of_several_systems_meet_in_longitudes_only(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    both = placed(UTM, "a.tif"), placed(LONLAT, "b.tif")
    features = json.loads(write("geojson", tmp_path / "a.geojson", *both).read_text())["features"]
    assert {feature["properties"]["image"] for feature in features} == {"a.tif", "b.tif"}
    with pytest.raises(UsageError, match="no common coordinates"):
        write("geojson", tmp_path / "b.geojson", *both, choice=choose(projected=True))
    with pytest.raises(UsageError, match="no common coordinate system"):
        write("gpkg", tmp_path / "b.gpkg", *both)


@pytest.mark.parametrize("place", [UTM, None])
def test_a_geopackage_has_the_images_own_system(tmp_path: Path, place: GeoReference | None) -> None:
    geopandas = pytest.importorskip("geopandas")
    path = write("gpkg", tmp_path / "a.gpkg", placed(place))
    frame = geopandas.read_file(path, layer="regions")
    assert (frame.crs and frame.crs.to_epsg()) == (32632 if place else None)
    downwards = GeoReference((1, 0, 0, 0, -1, 0))
    for found, expected in zip(frame.geometry, (TRIANGLE, FRAME), strict=True):
        assert found.symmetric_difference(on_map(place or downwards, expected)).area < 1e-6
    assert list(frame.image) == ["a.tif", "a.tif"] and list(frame.area_px) == [2500, 7600]


def test_a_geopackage_without_regions(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    assert len(geopandas.read_file(write("gpkg", tmp_path / "a.gpkg", EMPTY))) == 0


# Which format.


@needs_rasterio
def test_suffixes_name_formats() -> None:
    for out, name in (("a.geojson", "geojson"), ("A.GPKG", "gpkg"), ("x.coco.json", "coco")):
        assert find_region_format(out, None, choose()).name == name
    assert find_region_format("-", "coco", choose()).name == "coco"


@pytest.mark.parametrize(
    ("out", "format", "options", "said"),
    [
        ("a.json", None, {}, "formats of regions: geojson"),
        ("a", None, {}, "add --format"),
        ("a.json", "voc", {}, "known: geojson"),
        ("a.png", None, {}, "fcnconv heatmap"),
        ("a.json", "npz", {}, "fcnconv heatmap"),
        ("-", "yolo", {}, "--out"),
        ("a.coco.json", None, {"projected": True}, "applies to .geojson"),
    ],
)
def test_what_no_format_can_do_is_refused(out: str, format: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_region_format(out, format, OutputSpec((), OutputOptions(**options)))
