"""The tutorials: their commands in order, as they stand, and what other programs read of the files."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import run_line
from conftest import SAMPLES
from pages import ROOT, blocks, examples, same
from PIL import Image

PREPARED = re.compile(r"^fcnconv: (?:Preparing|prepared) .*\n", re.M)
"""Messages of the first use of a model, which the tutorials leave out."""


def follow(name: str, folder: Path, *, alike: bool = False) -> None:
    """Runs the commands of a tutorial in a folder, and compares what they print with what it shows.

    Args:
        name: the name of the page.
        folder: the folder.
        alike: whether numbers may differ: those of networks that were trained a moment ago.
    """
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for line in (line for block in blocks(text, "sh") for line in block.splitlines()):
        if not line.startswith(("pip ", "python ")):  # what these install and make is there
            assert run_line(line, folder).returncode == 0, line
    commands = examples(text)
    assert commands
    for line, output in commands:
        done = run_line(line, folder)
        printed = done.stdout.decode() + PREPARED.sub("", done.stderr.decode())
        assert done.returncode == (1 if ", 1 failed" in output else 0), (line, printed)
        if alike:
            output, printed = (re.sub(r"\d[\d.]*", "#", each) for each in (output, printed))
        assert same(output, printed), (line, printed)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the sample images, as in a clone of the repository."""
    (tmp_path / "sample_images").symlink_to(SAMPLES)
    return tmp_path


@pytest.mark.usefixtures("lite0")
def test_a_photo(clone: Path) -> None:
    follow("tutorial-photo", clone)
    pictures = {
        name: np.asarray(Image.open(clone / name)).astype(int)
        for name in ("espresso.jpg", "three.jpg", "dog.png", "rocket.jpg", "cat.jpg")
    }
    assert pictures["three.jpg"].shape[1] > 3 * 1200 and pictures["rocket.jpg"].shape[1] > 2 * 600
    coloured = np.abs(pictures["espresso.jpg"] - pictures["dog.png"]).mean(-1) > 30
    assert coloured[100:200, 200:400].mean() > 0.5 > 0.02 > coloured[250:400].mean()  # the cup, and below it
    assert b"espresso" in (clone / "map.html").read_bytes()


@pytest.mark.usefixtures("lite0")
def test_a_folder_of_images(clone: Path) -> None:
    follow("tutorial-folder", clone)
    assert (clone / "pages" / "index.html").is_file()
    assert not (clone / "pages" / "failures.jsonl").read_text()
    coco = json.loads((clone / "found" / "coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["cat", "espresso", "tripod"]
    names = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
    found = {(names[each["image_id"]], each["category_id"]) for each in coco["annotations"]}
    assert {("chelsea.png", 1), ("coffee.png", 2), ("camera.png", 3)} <= found


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the synthetic images and networks."""
    pytest.importorskip("rasterio", reason="no rasterio: pip install '.[test-all]'")
    pytest.importorskip("tifffile")
    made = importlib.util.spec_from_file_location("make_imagery", ROOT / "docs/maintain/make_imagery.py")
    assert made is not None and made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    folder: Path = tmp_path_factory.mktemp("tutorial")
    module.main(folder)
    return folder


def test_the_json_files_are_those_that_the_pages_show(tutorial: Path) -> None:
    for page, weights in (("tutorial-orthophoto", "crops"), ("tutorial-slide", "tissue")):
        (shown,) = blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), "json")
        assert json.loads(shown) == json.loads((tutorial / f"{weights}.json").read_text())


def test_an_orthophoto(tutorial: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    geopandas = pytest.importorskip("geopandas")
    follow("tutorial-orthophoto", tutorial, alike=True)
    with rasterio.open(tutorial / "crops.tif") as file, rasterio.open(tutorial / "ortho.tif") as ortho:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.crs == ortho.crs
        assert file.descriptions == ("wheat", "maize", "water") and file.nodata == 255
        assert file.res == (16, 16)
        scores = file.read(masked=True)
        bounds = ortho.bounds
    assert scores.mask[:, 0, -1].all() and not scores.mask[:, -1, 0].any()  # the corner without data
    best = scores.filled(0).argmax(0)
    # The network was trained a moment ago, and may be wrong in a window or two.
    for crop, field in enumerate((best[:10, :14], best[:10, 18:22], best[15:, 20:])):
        assert (field == crop).mean() > 0.9
    water = geopandas.read_file(tutorial / "water.geojson")
    assert water.crs.to_epsg() == 4326 and (water.probability >= 0.5).all()
    centres = water.to_crs("EPSG:25832").centroid
    inside = (centres.x > bounds.left + 110) & (centres.y < bounds.bottom + 215)
    assert len(water) > 50 and inside.mean() > 0.9  # the lake, right and below
    with rasterio.open(tutorial / "water.tif") as finer:
        assert finer.res == (8, 8) and finer.count == 1
        assert 0 < np.isfinite(finer.read(1)).mean() < 0.6
    every = geopandas.read_file(tutorial / "crops.gpkg")
    assert every.crs.to_epsg() == 25832 and len(every) == (~scores.mask[0]).sum()
    assert set(every.columns) >= {"category", "prob_wheat", "prob_maize", "prob_water"}


def right_cells(path: Path) -> list[bool]:
    """Whether each cell of a map of the slide, not across the border of the tumour, has the right class."""
    right = []
    for feature in json.loads(gzip.decompress(path.read_bytes()))["features"]:
        (x0, y0), _, (x1, y1), *_ = feature["geometry"]["coordinates"][0]
        assert (x1 - x0, y1 - y0) == (64, 64)  # 32 px of 0.5 µm are 64 of 0.25
        assert set(feature["properties"]["measurements"]) == {"stroma", "tumour"}
        tumour = (((x0 + x1) / 2 - 2050) / 550) ** 2 + (((y0 + y1) / 2 - 1450) / 450) ** 2
        if not 0.6 < tumour < 1.5:
            right.append((feature["properties"]["classification"]["name"] == "tumour") == (tumour < 1))
    return right


def test_a_slide(tutorial: Path) -> None:
    pytest.importorskip("zarr")
    follow("tutorial-slide", tutorial, alike=True)
    dense = "fcnconv heatmap slide.ome.tif -m tissue.pth --tissue --anchors 0 -o dense.geojson.gz"
    assert run_line(dense, tutorial).returncode == 0
    right = right_cells(tutorial / "slide.geojson.gz")
    assert len(right) > 500 and np.mean(right) > 0.98
    assert np.mean(right_cells(tutorial / "dense.geojson.gz")) < 0.5
    ome = json.loads((tutorial / "slide.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    (first, *_) = ome["multiscales"][0]["datasets"]
    assert first["coordinateTransformations"][0]["scale"] == [1.0, 16.0, 16.0]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["stroma", "tumour"]
