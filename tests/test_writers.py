"""The formats of a score map: what is written is read back, by the readers that users have."""

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tiny import choose, make_map

from fcnconv.api.maps import ScoreMap
from fcnconv.api.maps import save_map as save
from fcnconv.errors import OutputError, UsageError
from fcnconv.grid import Grid
from fcnconv.images import MemorySource
from fcnconv.images.source import ImageInfo
from fcnconv.labels import Labels, Selection, imagenet
from fcnconv.options import PLAIN_SCAN, NetworkOptions, OutputOptions
from fcnconv.provenance import Agreement
from fcnconv.scan.correction import check_together
from fcnconv.scan.rectangles import spans
from fcnconv.scores import Block, FloatArray, ScoreStream
from fcnconv.scores.activations import softmax
from fcnconv.writers import WRITERS, OutputSpec, find_writer, provenance, suffix_of

Read = Callable[[Path, ScoreMap], tuple[FloatArray, list[str]]]
ROUNDING = 5.1e-7
"""Error of a number that is written with six digits."""


def read_npy(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    return np.load(path, allow_pickle=False), []


def read_npz(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    with np.load(path, allow_pickle=False) as file:
        for name, value in provenance(score_map.stream()).items():
            assert file[name] == value
        return file["scores"], file["categories"].tolist()


def read_tif(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(path) as file:
        scores = np.stack([page.asarray() for page in file.pages], axis=-1)
        info = file.imagej_metadata
        assert json.loads(info["Info"]).items() >= provenance(score_map.stream()).items()
        scale = file.pages[0].tags["ModelPixelScaleTag"].value
        corner = file.pages[0].tags["ModelTiepointTag"].value
    x0, y0, x1, y1 = score_map.grid.square(0, 0)
    assert scale == (x1 - x0, y1 - y0, 0) and corner == (0, 0, 0, x0, -y0, 0)
    labels = info["Labels"]
    return scores, [labels] if isinstance(labels, str) else labels


def read_zarr(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="r")
    assert group.attrs.asdict().items() >= provenance(score_map.stream()).items()
    return group["scores"][:], group.attrs["categories"]


def read_json(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document.items() >= provenance(score_map.stream()).items()
    cells = document["cells"]
    for cell in cells:
        assert tuple(cell["box"]) == score_map.grid.box(cell["row"], cell["col"])
    scores = [[p["probability"] for p in cell["predictions"]] for cell in cells]
    names = [p["category"] for p in cells[0]["predictions"]]
    return np.array(scores).reshape(document["rows"], document["cols"], -1), names


def read_csv(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    grid = score_map.grid
    corners = [(int(row["minx"]), int(row["miny"])) for row in rows]
    assert corners == [grid.box(i, j)[:2] for i in range(grid.rows) for j in range(grid.cols)]
    names = [column.removeprefix("prob_") for column in rows[0] if column.startswith("prob_")]
    assert list(rows[0]) == ["minx", "miny", "width", "height", *(f"prob_{name}" for name in names)]
    scores = [[float(row[f"prob_{name}"]) for name in names] for row in rows]
    return np.array(scores).reshape(grid.rows, grid.cols, -1), names


def read_geojson(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    return features_of(json.loads(path.read_text(encoding="utf-8")), score_map)


def read_packed_geojson(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    return features_of(json.loads(gzip.decompress(path.read_bytes())), score_map)


def features_of(document: Any, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    assert document["provenance"] == provenance(score_map.stream())
    names = list(document["features"][0]["properties"]["measurements"])
    scores = np.full((score_map.grid.rows, score_map.grid.cols, len(names)), np.nan)
    for feature in document["features"]:
        info, (ring,) = feature["properties"], feature["geometry"]["coordinates"]
        place = info["row"], info["col"]
        x0, y0, x1, y1 = score_map.grid.square(*place)
        assert ring[0] == ring[-1] and np.allclose(ring[0] + ring[2], (x0, y0, x1, y1), atol=1e-3)
        measured = info["measurements"]
        assert list(measured) == names and info["objectType"] == "tile"
        best = max(measured, key=measured.__getitem__)
        assert info["classification"] == {"name": best} and info["category"] == best
        assert info["probability"] == measured[best]
        scores[place] = list(measured.values())
    return scores, names


def read_gpkg(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    geopandas = pytest.importorskip("geopandas")
    cells = geopandas.read_file(path, layer="cells")
    names = [column.removeprefix("prob_") for column in cells.columns if column.startswith("prob_")]
    scores = np.full((score_map.grid.rows, score_map.grid.cols, len(names)), np.nan)
    for _, cell in cells.iterrows():
        x0, y0, x1, y1 = score_map.grid.square(cell.row, cell.col)
        assert np.allclose(cell.geometry.bounds, (x0, -y1, x1, -y0)) and cell.geometry.is_valid
        scores[cell.row, cell.col] = [cell[f"prob_{name}"] for name in names]
        assert cell.category == names[int(np.argmax(scores[cell.row, cell.col]))]
    return scores, names


CHANNEL = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}Channel"


def read_ome_tif(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and file.series[0].axes == ("CYX" if file.series[0].ndim == 3 else "YX")
        scores = file.asarray().reshape(-1, score_map.grid.rows, score_map.grid.cols).transpose(1, 2, 0)
        names = [
            channel.get("Name", "") for channel in ElementTree.fromstring(file.ome_metadata).iter(CHANNEL)
        ]
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    pixels = image["Pixels"]
    assert json.loads(image["Description"]).items() >= provenance(score_map.stream()).items()
    x0, y0, x1, y1 = score_map.grid.square(0, 0)
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (pytest.approx(x1 - x0), "pixel")
    assert pixels["PhysicalSizeY"] == pytest.approx(y1 - y0)
    return scores, names


def read_ome_zarr(path: Path, score_map: ScoreMap) -> tuple[FloatArray, list[str]]:
    reader = pytest.importorskip("ome_zarr.reader")
    io = pytest.importorskip("ome_zarr.io")
    (node,) = reader.Reader(io.parse_url(path))()
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "y", "x"]
    scale, translation = node.metadata["coordinateTransformations"][0]
    x0, y0, x1, y1 = score_map.grid.square(0, 0)
    assert scale["scale"] == pytest.approx([1, y1 - y0, x1 - x0])
    assert translation["translation"] == pytest.approx([0, (y0 + y1) / 2, (x0 + x1) / 2])
    zarr = pytest.importorskip("zarr")
    info = zarr.open_group(path, mode="r").attrs["fcnconv"]
    assert info.items() >= provenance(score_map.stream()).items()
    return np.asarray(node.data[0]).transpose(1, 2, 0), node.metadata["channel_names"]


def read_parquet(path: Path, score_map: ScoreMap) -> tuple[np.ndarray, list[str]]:
    table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
    rows, cols, _ = score_map.shape
    scores = np.zeros((rows, cols, max(table["rank"])), np.float32)
    scores[table["row"], table["col"], np.array(table["rank"]) - 1] = table["probability"]
    boxes = zip(*(table[side] for side in ("x0", "y0", "x1", "y1")), strict=True)
    cells = zip(table["row"], table["col"], strict=True)
    assert all(score_map.box(*cell) == box for cell, box in zip(cells, boxes, strict=True))
    return scores, table["category"][: scores.shape[2]]


READERS: dict[str, Read] = {
    "parquet": read_parquet,
    "npy": read_npy,
    "npz": read_npz,
    "tif": read_tif,
    "ome.tif": read_ome_tif,
    "ome.zarr": read_ome_zarr,
    "zarr": read_zarr,
    "json": read_json,
    "csv": read_csv,
    "geojson": read_geojson,
    "geojson.gz": read_packed_geojson,
    "gpkg": read_gpkg,
}

NAMES = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=12).filter(
    lambda name: name == name.strip()
)


@st.composite
def score_maps(draw: st.DrawFn) -> ScoreMap:
    rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    elements = st.floats(-20, 20, width=32)
    logits = draw(hnp.arrays(np.float32, (rows, cols, len(names)), elements=elements))
    size = 8 + 4 * (cols - 1), 8 + 4 * (rows - 1)
    image = draw(st.sampled_from([size, (3 * size[0], 3 * size[1]), (50, 70)]))
    return make_map(logits, Grid(8, 4, image, size), Labels(tuple(names)))


@st.composite
def selections(draw: st.DrawFn, labels: Labels) -> tuple[Selection, ...]:
    """Some categories and a concept above two or more of them."""
    chosen = draw(st.lists(st.integers(0, len(labels) - 1), max_size=3, unique=True))
    concept = Selection("a concept, of ours", tuple(range(draw(st.integers(2, len(labels))))))
    return (*map(labels.category, chosen), concept)


def as_it_comes(score_map: ScoreMap, high: int, wide: int) -> ScoreStream:
    """The map in blocks of so many cells, the last ones first."""
    rows, cols, _ = score_map.shape
    blocks = [
        Block(score_map.grid, down, across, score_map.logits[down, across])
        for down in spans(rows, high)
        for across in spans(cols, wide)
    ]
    return ScoreStream(score_map.info, reversed(blocks))


def naive(score_map: ScoreMap, chosen: tuple[Selection, ...], values: str) -> FloatArray:
    """What the chosen planes must be, cell by cell in double precision."""
    rows, cols, _ = score_map.shape
    planes = np.zeros((rows, cols, len(chosen)))
    for row, col in np.ndindex(rows, cols):
        exp = [float(np.exp(np.float64(x))) for x in score_map.logits[row, col]]
        for k, selection in enumerate(chosen):
            summed = sum(exp[i] for i in selection.classes)
            planes[row, col, k] = summed / sum(exp) if values == "probabilities" else np.log(summed)
    return planes


def written(
    name: str, score_map: ScoreMap, choice: OutputSpec, block: tuple[int, int] | None = None
) -> tuple[FloatArray, list[str]]:
    """What is read of a file that was written from the map, or from blocks of it."""
    if WRITERS[name].needs:
        pytest.importorskip(WRITERS[name].needs[0])
    with TemporaryDirectory() as folder:
        path = Path(folder, f"map.{name}")
        stream = as_it_comes(score_map, *block) if block else score_map.stream()
        save(stream, str(path), WRITERS[name], choice)
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
        return READERS[name](path, score_map)


LOOKED_AT = [writer for writer in WRITERS.values() if writer.needs_class or writer.suffix == "html"]


def test_every_format_that_is_no_picture_has_a_reader_here() -> None:
    assert set(READERS) == {name for name, writer in WRITERS.items() if writer not in LOOKED_AT}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=25)
def test_chosen_planes_are_read_back(name: str, data: st.DataObject) -> None:
    score_map = data.draw(score_maps())
    chosen = data.draw(selections(score_map.labels))
    values = (
        data.draw(st.sampled_from(["probabilities", "logits"]))
        if "values" in WRITERS[name].takes
        else "probabilities"
    )
    block = data.draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    scores, names = written(name, score_map, choose(*chosen, values=values, at_least=0.0), block)
    assert names == [selection.name for selection in chosen] or name == "npy"
    assert np.abs(scores - naive(score_map, chosen, values)).max() < 1e-5
    if "values" in WRITERS[name].takes:
        assert scores.dtype == np.float32
        assert (scores == score_map.class_maps(chosen, values)).all()
        if values == "logits" and len(chosen) > 1:
            assert (scores[:, :, 0] == score_map.logits[:, :, chosen[0].classes[0]]).all()


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if "values" in writer.takes])
@given(score_map=score_maps(), block=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=15)
def test_whole_maps_are_read_back_to_the_last_bit(
    name: str, score_map: ScoreMap, block: tuple[int, int] | None
) -> None:
    scores, names = written(name, score_map, choose(values="logits"), block)
    assert (scores == score_map.logits).all()
    assert tuple(names) == score_map.labels.categories or name == "npy"


@given(score_map=score_maps(), k=st.integers(1, 8))
@settings(max_examples=15)
def test_csv_lists_the_best_of_each_cell(score_map: ScoreMap, k: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "map.csv")
        save(score_map.stream(), str(path), WRITERS["csv"], choose(top_k=k))
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    ranked, probabilities = score_map.top_k(k)
    for row in rows:
        cell = int(row["row"]), int(row["col"])
        x0, y0, x1, y1 = score_map.grid.box(*cell)
        assert [int(row[c]) for c in ("minx", "miny", "width", "height")] == [x0, y0, x1 - x0, y1 - y0]
        for rank, class_idx in enumerate(ranked[cell], start=1):
            name = score_map.labels.categories[class_idx]
            is_formula = name.startswith(("=", "+", "-", "@"))  # which a spreadsheet would compute
            assert row[f"category_{rank}"] == ("'" if is_formula else "") + name
            assert abs(float(row[f"probability_{rank}"]) - probabilities[cell][rank - 1]) < ROUNDING


def two_cells() -> ScoreMap:
    """Two windows side by side: a beagle and a basset with 0.45 each, then a teapot with 0.9."""
    probabilities = np.full((1, 2, 1000), 0.1 / 998, np.float32)
    probabilities[0, 0, [161, 162]] = 0.45
    probabilities[0, 1, 849] = 0.9
    return make_map(np.log(probabilities), Grid(8, 4, (12, 8), (12, 8)), imagenet())


def test_geojson_has_the_cells_over_the_threshold_only(tmp_path: Path) -> None:
    path = tmp_path / "map.geojson"

    def found(choice: OutputSpec) -> list[tuple[str, int]]:
        save(two_cells().stream(), str(path), WRITERS["geojson"], choice)
        features = json.loads(path.read_text())["features"]
        return [(f["properties"]["classification"]["name"], f["properties"]["col"]) for f in features]

    assert found(choose()) == [("basset", 0), ("teapot", 1)]
    assert found(choose(at_least=0.5)) == [("teapot", 1)]
    assert found(choose(imagenet().find("dog"), at_least=0.5)) == [("dog", 0)]
    assert found(choose(imagenet().find("dog"), at_least=0.95)) == []


def test_of_many_classes_polygons_tell_the_best(tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    geopandas = pytest.importorskip("geopandas")
    save(two_cells().stream(), str(tmp_path / "map.geojson"), WRITERS["geojson"], choose(top_k=2))
    first, second = json.loads((tmp_path / "map.geojson").read_text())["features"]
    assert first["properties"]["measurements"] == {"basset": 0.45, "beagle": 0.45}
    assert next(iter(second["properties"]["measurements"])) == "teapot"
    save(two_cells().stream(), str(tmp_path / "map.gpkg"), WRITERS["gpkg"], choose(top_k=2))
    cells = geopandas.read_file(tmp_path / "map.gpkg")
    assert cells[["category", "category_2"]].loc[0].tolist() == ["basset", "beagle"]
    assert cells.probability_2.loc[0] == pytest.approx(0.45)
    save(two_cells().stream(), str(tmp_path / "map.gpkg"), WRITERS["gpkg"], choose(at_least=0.99))
    assert len(geopandas.read_file(tmp_path / "map.gpkg")) == 0


def test_classes_of_one_name_stay_apart_in_polygons(tmp_path: Path) -> None:
    labels, path = Labels(("crane", "Crane", "egret")), tmp_path / "map.geojson"
    score_map = make_map(np.zeros((1, 1, 3), np.float32), Grid(8, 4, (8, 8), (8, 8)), labels)
    save(score_map.stream(), str(path), WRITERS["geojson"], choose())
    (feature,) = json.loads(path.read_text())["features"]
    assert list(feature["properties"]["measurements"]) == ["crane 0", "Crane 1", "egret"]


@pytest.mark.parametrize(
    ("name", "suffix", "format"),
    [
        ("map.geojson.gz", ".geojson.gz", "geojson.gz"),
        ("a.b/map.v2.TIFF", ".TIFF", "tif"),
        ("map.json.png", ".png", "png"),
    ],
)
def test_the_longest_suffix_names_the_format(name: str, suffix: str, format: str) -> None:
    assert (suffix_of(name), find_writer(name).suffix) == (suffix, format)


def test_a_concept_sums_its_classes() -> None:
    dog = imagenet().find("dog")
    plane = two_cells().class_map(dog)
    assert plane[0, 0] == pytest.approx(0.9 + 116 * 0.1 / 998, abs=1e-3)
    assert plane[0, 1] == pytest.approx(118 * 0.1 / 998, abs=1e-3)
    assert (two_cells().class_map(imagenet().find("entity")) <= 1).all()
    far = make_map(two_cells().logits - [[[200]]] * 1, two_cells().grid, imagenet())
    assert np.isfinite(far.class_maps([dog], "logits")).all()


def test_an_unknown_suffix_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown format 'xyz'.*" + ", ".join(WRITERS)):
        find_writer("map.xyz", None)


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if "values" not in writer.takes])
def test_logits_are_refused_where_only_probabilities_fit(name: str) -> None:
    with pytest.raises(
        UsageError,
        match=rf"--values logits changes nothing in a .{name}; it applies to .npy, .npz, .zarr, .tif, "
        ".ome.tif, .ome.zarr$",
    ):
        find_writer(f"map.{name}", None, OutputOptions(values="logits"))


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.needs])
def test_a_missing_package_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WRITERS[name].needs
    package, extra = WRITERS[name].needs
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OutputError, match=rf"needs the package {package}: pip install 'fcnconv\[{extra}\]'"):
        find_writer(f"map.{name}", None)


def wide_map() -> ScoreMap:
    """A map of 3 × 600 cells and two classes, the left half of which was not looked at."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 600, 2)).astype(np.float32)
    logits[:, :300] = np.nan
    size = 8 + 4 * 599, 16
    return make_map(logits, Grid(8, 4, size, size), Labels(("cat", "dog")), source=Sized(0.5e-6))


class Sized(MemorySource):
    """An image that tells how large its pixels are."""

    def __init__(self, size: float) -> None:
        super().__init__(np.zeros((1, 1, 3), np.uint8))
        object.__setattr__(self, "side", size)

    @property
    def info(self) -> ImageInfo:
        return ImageInfo((1, 1), pixel_size=(self.side, self.side))  # type: ignore[attr-defined]


def quarter(plane: np.ndarray) -> np.ndarray:
    """The naive half of a plane: means of the squares of four that were looked at."""
    rows, cols = plane.shape
    half = np.full((-(-rows // 2), -(-cols // 2)), np.nan)
    for row, col in np.ndindex(half.shape):
        seen = plane[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
        if not np.isnan(seen).all():
            half[row, col] = np.nanmean(seen)
    return half


def test_microscopy_has_micrometres_and_smaller_sizes(tmp_path: Path) -> None:
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    score_map = wide_map()
    whole = score_map.probabilities().transpose(2, 0, 1)
    expected = [whole]
    for _ in range(2):
        expected.append(np.stack([quarter(plane) for plane in expected[-1]]))
    save(score_map.stream(), str(tmp_path / "map.ome.tif"), WRITERS["ome.tif"], choose())
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as file:
        found = [level.asarray() for level in file.series[0].levels]
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (2.0, "µm")
    save(score_map.stream(), str(tmp_path / "map.ome.zarr"), WRITERS["ome.zarr"], choose())
    group = zarr.open_group(tmp_path / "map.ome.zarr", mode="r")
    (info,) = group.attrs["ome"]["multiscales"]
    stored = [group[dataset["path"]][:] for dataset in info["datasets"]]
    for levels in (found, stored):
        assert len(levels) == len(expected) == 3
        for level, plane in zip(levels, expected, strict=True):
            assert np.allclose(level, plane, atol=1e-6, equal_nan=True)
    assert info["axes"][2] == {"name": "x", "type": "space", "unit": "micrometer"}
    places = [dataset["coordinateTransformations"] for dataset in info["datasets"]]
    assert [scale["scale"] for scale, _ in places] == [[1, 2, 2], [1, 4, 4], [1, 8, 8]]
    # the centres of the first windows: 4 px; then of two, and of four of them: 6 and 10
    assert [there["translation"][2] for _, there in places] == [2, 3, 5]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_whole_numbers_are_read_back_as_probabilities(dtype: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    score_map, path = wide_map(), tmp_path / "map.tif"
    save(score_map.stream(), str(path), WRITERS["tif"], choose(dtype=dtype))
    found, most = tifffile.imread(path), np.iinfo(dtype).max
    expected = score_map.probabilities().transpose(2, 0, 1)
    assert found.dtype == dtype and ((found == most) == np.isnan(expected)).all()
    assert np.nanmax(np.abs(found / (most - 1) - expected)) < 0.51 / (most - 1)
    with pytest.raises(UsageError, match="holds probabilities"):
        find_writer("map.tif", None, OutputOptions(dtype=dtype, values="logits"))


def test_outputs_that_are_no_probabilities_do_not_become_whole_numbers(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    labels, grid, path = Labels(("a", "b")).under("none"), Grid(8, 4, (8, 8), (8, 8)), tmp_path / "map.tif"

    def write(*outputs: float) -> None:
        score_map = make_map(np.array([[outputs]], np.float32), grid, labels)
        save(score_map.stream(), str(path), WRITERS["tif"], choose(dtype="uint8"))

    write(0.25, 1)
    assert tifffile.imread(path).ravel().tolist() == [64, 254]
    path.unlink()
    with pytest.raises(UsageError, match="no probabilities"):
        write(-3, 7)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["mask.png", f"{'a' * 90}/" * 40])
def test_a_tiff_tells_what_the_scan_found_out_however_much_it_tells(path: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    logits = np.zeros((1, 1, 2), np.float32)
    score_map = make_map(logits, Grid(8, 4, (8, 8), (8, 8)), Labels(("a", "b")))
    info = replace(score_map.info, roi={"mask": path})
    found = Agreement(1, 1, 1, 1, 1.0, 0.5, 1.0, 0.0, 0.0, 0.0)
    stream = ScoreStream(info, [score_map.block], lambda: found)
    save(stream, str(tmp_path / "map.tif"), WRITERS["tif"], choose())
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        told = json.loads(file.imagej_metadata["Info"])
    assert (told["mask"], told["agreement"], told["agreement_low"]) == (path, 1.0, 0.5)


@pytest.mark.parametrize("dtype", [None, "uint8", "uint16"])
@pytest.mark.parametrize("cells", [False, True])
def test_a_plain_picture_is_the_probability_alone(dtype: str | None, cells: bool, tmp_path: Path) -> None:
    probabilities = np.array([[[0.25, 0.75], [0.5, 0.5]], [[1, 0], [np.nan, np.nan]]], np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    labels = Labels(("cat", "dog"))
    score_map = make_map(logits, Grid(8, 4, (24, 24), (12, 12)), labels)
    options = {"plain": True, "dtype": dtype, "cells": cells}
    path = tmp_path / "map.png"
    save(score_map.stream(), str(path), WRITERS["png"], choose(labels.find("cat"), **options))
    with Image.open(path) as picture:
        grey = np.asarray(picture)
        assert json.loads(picture.text["fcnconv"])["window"] == 8
    most = 65535 if dtype == "uint16" else 255
    assert grey.shape == (24, 24) and grey.dtype == (dtype or "uint8")
    assert grey[7, 7] == round(0.25 * most)  # the centres of the windows lie at 8 and 16
    if cells:
        assert (grey[:4] == 0).all() and (grey[4:12, 12:20] == round(0.5 * most)).all()
        assert (grey[12:20, 4:12] == most).all() and (grey[12:20, 12:20] == 0).all()
    else:
        assert (grey[:8, :8] == round(0.25 * most)).all() and grey[23, 0] == most and grey[23, 23] == 0
        assert (np.diff(grey[:, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"plain": True, "argmax": True},
            "--plain shows the probability of a class in grey and nothing else",
        ),
        ({"plain": True, "stretch": True}, "leave out --stretch"),
        ({"argmax": True, "colormap": "viridis"}, "--colormap is about the colours of probabilities"),
        ({"no_legend": True, "footer": True}, "--footer adds a line"),
        ({"plain": True, "raw": True}, "leave out --raw"),
        ({"top": 2, "argmax": True}, "use one of them"),
        ({"top": 2, "classes": ("cat",)}, "--class names them"),
        ({"cells": True, "raw": True}, "--cells draws no smooth map"),
        ({"plain": True, "outline": True}, "leave out --outline"),
        ({"argmax": True, "outline": True}, "use one of them"),
        ({"threshold": 0.5}, "--threshold is about regions, and a picture shows them with --outline"),
        ({"max_regions": 1, "argmax": True}, "--outline"),
        ({"at_least": 0.2}, "add one of them"),
        ({"plain": True, "classes": ("cat", "dog")}, "--plain shows one class"),
        ({"plain": True, "dtype": "float32"}, "a .png cannot hold --dtype float32"),
        ({"dtype": "uint16"}, "add --plain"),
    ],
)
def test_what_a_plain_picture_is_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        find_writer("map.png", None, OutputOptions(**options))


def test_the_raw_map_of_a_finer_stride_stands_beside_the_smooth_one(tmp_path: Path) -> None:
    size, labels = (256, 256), Labels(("cat", "dog"))
    grid = Grid(64, 4, size, size, phases=4)
    logits = np.zeros((grid.rows, grid.cols, 2), np.float32)
    logits[::4, :, 0] = 6  # a stripe for each of the network's own windows
    source = MemorySource(np.full((256, 256, 3), 100, np.uint8))
    score_map = make_map(logits, grid, labels, source=source)
    written = {}
    for raw in (False, True):
        path = tmp_path / f"{raw}.png"
        score_map.save(path, classes=["cat"], options=OutputOptions(raw=raw, no_legend=True))
        written[raw] = np.asarray(Image.open(path)).astype(int)
    width = written[True].shape[1]
    left, right = written[True][:, :256], written[True][:, width - 256 :]
    assert 512 < width < 540 and np.array_equal(left, written[False])
    middle = slice(64, 192)
    assert np.ptp(left[middle, 128], axis=0).max() <= 2 < 60 < np.ptp(right[middle, 128], axis=0).max()
    coarse = make_map(logits, Grid(64, 4, size, size), labels, source=source)
    with pytest.raises(UsageError, match="--raw shows the map of a finer stride"):
        coarse.plot(["cat"], options=OutputOptions(raw=True))
    with pytest.raises(UsageError, match="add --stride"):
        check_together(NetworkOptions(), PLAIN_SCAN, "softmax", raw=True)
    check_together(NetworkOptions(stride=8), PLAIN_SCAN, "softmax", raw=True)


def test_a_zarr_store_replaces_a_zarr_store_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    score_map, zarr = two_cells(), WRITERS["zarr"]
    out = tmp_path / "map.zarr"
    save(score_map.stream(), str(out), zarr, choose())
    save(score_map.stream(), str(out), zarr, choose(imagenet().find("dog")))
    assert read_zarr(out, score_map)[1] == ["dog"]

    photos = tmp_path / "photos.zarr"
    photos.mkdir()
    (photos / "cat.jpg").touch()
    with pytest.raises(OutputError, match="is not a zarr store"):
        save(score_map.stream(), str(photos), zarr, choose())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.zarr", "photos.zarr"]
    with pytest.raises(UsageError, match="cannot go to standard output"):
        find_writer("-", "zarr")


def test_a_failed_zarr_store_leaves_the_old_one(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    out = tmp_path / "map.zarr"
    save(two_cells().stream(), str(out), WRITERS["zarr"], choose())
    nowhere = Selection("nowhere", (4000,))
    with pytest.raises(IndexError):
        save(two_cells().stream(), str(out), WRITERS["zarr"], choose(nowhere))
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.zarr"]
    assert (read_zarr(out, two_cells())[0] == softmax(two_cells().logits)).all()
