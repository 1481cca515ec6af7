"""The three stories of docs/stories.md: their commands as they stand, and what other programs read of the
files.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import Command

rasterio = pytest.importorskip("rasterio")
geopandas = pytest.importorskip("geopandas")
pytest.importorskip("tifffile")
pytest.importorskip("zarr")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/stories.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the imagery."""
    place = importlib.util.spec_from_file_location("make_imagery", ROOT / "docs/maintain/make_imagery.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    folder: Path = tmp_path_factory.mktemp("stories")
    module.main(folder)
    return folder


def run(title: str, folder: Path, fcnconv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a part of the page."""
    (part,) = (part for part in PAGE.split("\n## ") if part.startswith(title))
    monkeypatch.chdir(folder)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL) for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        done = fcnconv(*arguments)
        assert program == "fcnconv" and done.returncode == 0, (line, done.stderr)


def test_an_orthophoto(stories: Path, fcnconv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run("An orthophoto", stories, fcnconv, monkeypatch)
    with rasterio.open("found.tif") as file, rasterio.open("ortho.tif") as ortho:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.crs == ortho.crs
        assert file.descriptions == ("cat, true cat", "espresso") or file.descriptions == ("cat", "espresso")
        assert file.nodata == 255
        cats = file.read(1, masked=True) * file.scales[0]
        assert cats.mask.any() and cats.max() > 0.8
        assert file.bounds.left > ortho.bounds.left and file.bounds.top < ortho.bounds.top
    found = geopandas.read_file("found.geojson")
    assert found.crs.to_epsg() == 4326 and (found.probability >= 0.5).all()
    with rasterio.open("ortho.tif") as ortho:
        inside = found.to_crs(ortho.crs).total_bounds
        assert inside[0] > ortho.bounds.left and inside[3] < ortho.bounds.top
    best = geopandas.read_file("best.gpkg")
    assert best.crs.to_epsg() == 25832 and 0 < len(best) <= len(found) + 4
    assert set(best.columns) >= {"category", "probability", "category_5"}


def test_a_slide(stories: Path, fcnconv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run("A slide", stories, fcnconv, monkeypatch)
    features = json.loads(gzip.decompress(Path("slide.geojson.gz").read_bytes()))["features"]
    right = []
    for feature in features:
        (x0, y0), (x1, y1) = (
            feature["geometry"]["coordinates"][0][0],
            feature["geometry"]["coordinates"][0][2],
        )
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        assert (x1 - x0, y1 - y0) == (64, 64)  # 32 px of 0.5 µm are 64 of 0.25
        assert set(feature["properties"]["measurements"]) == {"stroma", "tumour"}
        tumour = ((x - 2050) / 550) ** 2 + ((y - 1450) / 450) ** 2
        if not 0.6 < tumour < 1.5:  # not across the border
            name = feature["properties"]["classification"]["name"]
            right.append((name == "tumour") == (tumour < 1))
    assert len(right) > 500 and np.mean(right) > 0.98
    ome = json.loads(Path("slide.ome.zarr/zarr.json").read_text())["attributes"]["ome"]
    (first, *_) = ome["multiscales"][0]["datasets"]
    assert first["coordinateTransformations"][0]["scale"] == [1.0, 16.0, 16.0]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["stroma", "tumour"]


def test_four_bands(stories: Path, fcnconv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run("Four bands", stories, fcnconv, monkeypatch)
    with rasterio.open("fields.tif.tif") as file, rasterio.open("fields.tif") as fields:
        assert file.descriptions == ("wheat", "maize", "water") and file.crs == fields.crs
        best = file.read().argmax(0)
        assert file.res == (320, 320)
    # The network was trained a moment ago, and may be wrong in a window or two.
    for crop, field in enumerate((best[:10, :14], best[:10, 20:], best[15:, 20:])):
        assert (field == crop).mean() > 0.95
    with rasterio.open("water.tif") as finer:
        assert finer.res == (160, 160) and finer.count == 1
