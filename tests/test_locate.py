"""``fcnconv locate``, and batches of regions: the real command on the sample images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image, ImageDraw, ImageFilter

from fcnconv.api.classifier import Classifier
from fcnconv.api.locating import overlap, without_overlaps
from fcnconv.labels import Selection
from fcnconv.options import LocateOptions, OutputOptions, ScanOptions, option_info
from fcnconv.scores.regions import Placement, Region, find_regions

Command = Callable[..., Any]

FAST = ("--scales", "fit")
COLLAGE = SAMPLES / "collage.jpg"
with Image.open(COLLAGE) as _photo:
    SIZE = _photo.size
QUARTERS = {"cat": (0, 0), "espresso": (1, 0), "tripod": (0, 1)}
"""In which column and row of the collage a thing is."""


def lines(done: Any) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def boxed(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def inside_quarter(box: tuple[int, ...], size: tuple[int, int], quarter: tuple[int, int]) -> bool:
    """Whether the centre of a box lies in a quarter of an image."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (int(x * 2 // size[0]), int(y * 2 // size[1])) == quarter


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(SAMPLES / name, folder)
    return folder


def test_things_are_found_where_they_are(fcnconv: Command) -> None:
    found = lines(fcnconv("locate", COLLAGE, *(word for name in QUARTERS for word in ("-c", name))))
    assert {path for path, *_ in found} == {str(COLLAGE)}
    best = {category: boxed(box) for _, category, _, box in reversed(found)}
    for category, quarter in QUARTERS.items():
        assert inside_quarter(best[category], SIZE, quarter), category


def test_the_first_class_is_what_classify_answers(fcnconv: Command, photos: Path) -> None:
    for photo in sorted(photos.iterdir()):
        answer = lines(fcnconv("classify", photo, "-k", "1"))[0][2]
        assert lines(fcnconv("locate", photo))[0][1] == answer


def test_json_has_outlines_that_fit_their_boxes(fcnconv: Command) -> None:
    done = fcnconv("locate", COLLAGE, "-c", "espresso", "-c", "cat", "--json", "--at-least", "0.3")
    record = json.loads(done.stdout)
    assert (record["width"], record["height"]) == SIZE
    assert record["regions"][0]["category"] == "espresso"
    for region in record["regions"]:
        ring = np.array(region["polygon"][0])
        x0, y0, x1, y1 = region["box"]
        assert (np.floor(ring.min(0)) >= [x0, y0]).all() and (np.ceil(ring.max(0)) <= [x1, y1]).all()
        assert region["probability"] >= 0.3 and region["probability"] >= region["mean"] > 0
        assert 0 < region["area"] <= (x1 - x0) * (y1 - y0)
        assert x0 <= region["peak"][0] <= x1 and y0 <= region["peak"][1] <= y1
    concept = next(region for region in record["regions"] if region["category"] != "espresso")
    assert concept["class_idx"] is None and concept["category"] == "cat"


def test_the_python_call_gives_the_same(fcnconv: Command, lite0: Classifier) -> None:
    record = json.loads(fcnconv("locate", COLLAGE, "-c", "espresso", "--json").stdout)
    regions = lite0(str(COLLAGE)).regions("espresso")
    assert [region.box for region in regions] == [tuple(region["box"]) for region in record["regions"]]


def along(rings: list[np.ndarray], shape: tuple[int, int], distance: int) -> np.ndarray:
    """bool (H, W): the pixels that lie within a distance of closed lines."""
    image = Image.new("L", shape[::-1])
    for ring in rings:
        ImageDraw.Draw(image).line([tuple(point) for point in ring.tolist()], 255)
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * distance + 1)) if distance else image) > 0


def test_a_picture_outlines_the_regions_that_are_located(fcnconv: Command, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.png" for name in ("bare", "outlined")}
    asked = (COLLAGE, "-c", "espresso", "-c", "cat", "--scales", "1")
    bare = ("--no-legend", "--max-side", "1200")
    regions = ("--threshold", "0.4", "--max-regions", "3")
    for name, more in (("bare", ()), ("outlined", ("--outline", *regions))):
        done = fcnconv("heatmap", *asked, *bare, *more, "-o", files[name])
        assert done.returncode == 0, done.stderr
    pictures = [np.asarray(Image.open(file)).astype(int) for file in files.values()]
    (record,) = map(json.loads, fcnconv("locate", *asked, *regions, "--json").stdout.splitlines())
    changed = np.abs(pictures[1] - pictures[0]).sum(-1) > 30
    height, width = changed.shape
    share = height / SIZE[1]
    for panel, name in enumerate(("espresso", "cat")):
        left = panel * (width - round(SIZE[0] * share))
        part = changed[:, left : left + round(SIZE[0] * share)]
        polygons = [each["polygon"] for each in record["regions"] if each["category"] == name]
        rings = [np.array(ring) * share for polygon in polygons for ring in polygon]
        assert rings and part[along(rings, part.shape, 0)].mean() > 0.9
        assert not part[~along(rings, part.shape, 8)].any()


def test_python_gives_the_outlined_picture_of_the_command(
    fcnconv: Command, lite0: Classifier, tmp_path: Path
) -> None:
    file, own = tmp_path / "command.png", tmp_path / "python.png"
    assert fcnconv("heatmap", SAMPLES / "coffee.png", "--outline", "-o", file).returncode == 0
    score_map = lite0(str(SAMPLES / "coffee.png"))
    score_map.save(own, outline=True)
    expected = np.asarray(Image.open(file))
    assert np.array_equal(np.asarray(Image.open(own)), expected)
    assert np.array_equal(np.asarray(score_map.plot(outline=True)), expected)
    assert not np.array_equal(np.asarray(score_map.plot()), expected)


def test_only_a_part_is_looked_at(fcnconv: Command) -> None:
    width, height = SIZE
    right = f"{width // 2},0,{width},{height // 2}"
    found = lines(fcnconv("locate", COLLAGE, "--region", right))
    assert found[0][1] == "espresso" and "Egyptian cat" not in {category for _, category, _, _ in found}
    for _, _, _, box in found:
        x0, _, _, y1 = boxed(box)
        assert x0 >= width // 2 - 32 and y1 <= height // 2 + 32  # up to a stride: whole cells count


def test_a_turned_photo_has_upright_boxes(fcnconv: Command, tmp_path: Path) -> None:
    with Image.open(SAMPLES / "coffee.png") as photo:
        upright = photo.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when it is shown
    upright.save(tmp_path / "plain.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    plain, turned = (
        json.loads(fcnconv("locate", tmp_path / name, "-c", "espresso", "--json", *FAST).stdout)
        for name in ("plain.png", "turned.png")
    )
    assert plain["regions"] and plain | {"path": ""} == turned | {"path": ""}


def test_a_photo_that_shows_no_such_thing_has_no_line(fcnconv: Command) -> None:
    coffee = SAMPLES / "coffee.png"
    assert lines(fcnconv("locate", coffee, "-c", "airliner", *FAST)) == []
    assert json.loads(fcnconv("locate", coffee, "-c", "airliner", "--json", *FAST).stdout)["regions"] == []


def test_the_rest_is_done_when_an_image_fails(fcnconv: Command, photos: Path) -> None:
    (photos / "a.jpg").write_text("no image")
    names = "".join(f"{path}\n" for path in sorted(photos.iterdir()))
    done = fcnconv("locate", "--files-from", "-", *FAST, stdin=names.encode())
    assert done.returncode == 1 and b"a.jpg" in done.stderr
    assert {line.split("\t")[0] for line in done.stdout.decode().splitlines()} == {
        str(photos / "chelsea.png"),
        str(photos / "coffee.png"),
    }
    done = fcnconv("locate", *sorted(photos.iterdir()), "-o", "found.coco.json", *FAST)
    assert done.returncode == 1 and done.stdout == b""
    assert len(json.loads(Path("found.coco.json").read_text())["images"]) == 2
    done = fcnconv("locate", photos / "a.jpg", "-o", "none.coco.json", *FAST)
    assert done.returncode == 1 and not Path("none.coco.json").exists()


def test_standard_input_is_an_image_and_standard_output_a_file(fcnconv: Command) -> None:
    photo = (SAMPLES / "coffee.png").read_bytes()
    done = fcnconv("locate", "-c", "espresso", "-f", "geojson", "-o", "-", *FAST, stdin=photo)
    (feature, *_) = json.loads(done.stdout)["features"]
    assert feature["properties"]["category"] == "espresso"


def test_yolo_fills_a_new_directory_only(fcnconv: Command, photos: Path) -> None:
    args = ("locate", *sorted(photos.iterdir()), "-f", "yolo", "-o", "out", *FAST)
    assert fcnconv(*args).returncode == 0
    assert len(list(Path("out/labels").rglob("*.txt"))) == 2 and Path("out/data.yaml").is_file()
    again = fcnconv(*args)
    assert again.returncode == 2 and b"not an empty directory" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "coco"], "--out"),
        (["--json", "-o", "a.geojson"], "--json"),
        (["--projected"], "--out"),
        (["-o", "a.png"], "heatmap"),
        (["-c", "no such thing"], "unknown class"),
        (["--at-least", "0"], "above 0"),
        (["--threshold", "2"], "up to 1"),
        (["--min-area", "big"], "square pixels"),
        (["-o", "coffee.png", "-f", "coco"], "own input"),
    ],
)
def test_what_does_not_go_together_is_refused(
    fcnconv: Command, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "coffee.png", tmp_path)
    done = fcnconv("locate", "coffee.png", *arguments)
    assert done.returncode == 2 and said in done.stderr.decode(), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["coffee.png"]


def test_options_are_those_of_a_map() -> None:
    assert set(option_info(LocateOptions)) <= {*option_info(ScanOptions), *option_info(OutputOptions)}


# Which of several classes is told where they overlap.


def box_region(box: tuple[int, int, int, int], category: str, probability: float) -> Region:
    plane = np.full((1, 1), probability, np.float32)
    place = Placement(box[0], box[1], box[2] - box[0], box[3] - box[1], (1000, 1000))
    (found,) = find_regions(plane, place, Selection(category, (0,)), OutputOptions(at_least=0.01))
    return found


def test_overlaps() -> None:
    cat = box_region((300, 300, 400, 400), "cat", 0.5)
    tiger = box_region((320, 300, 420, 400), "tiger", 0.9)
    assert overlap(cat, tiger) == pytest.approx(80 / 120) and overlap(cat, cat) == 1
    assert overlap(cat, box_region((600, 600, 700, 700), "cat", 0.5)) == 0
    assert without_overlaps([cat, tiger]) == [cat] and without_overlaps([tiger, cat]) == [tiger]
    small = box_region((300, 300, 340, 340), "whisker", 0.9)
    assert without_overlaps([cat, small]) == [cat, small]


# Batches.


@pytest.mark.parametrize("format", ["coco", "label-studio", "fiftyone", "yolo"])
def test_a_batch_collects_the_regions_that_locate_finds(fcnconv: Command, photos: Path, format: str) -> None:
    (photos / "text.jpg").write_text("no image")
    done = fcnconv("batch", "photos", "-o", "found", "-f", format, *FAST)
    assert done.returncode == 1 and b"text.jpg" in done.stderr
    out = "one" if format == "yolo" else "one.json"
    one = fcnconv("locate", "photos/chelsea.png", "photos/coffee.png", "-f", format, "-o", out, *FAST)
    assert one.returncode == 0, one.stderr
    if format == "yolo":
        files = {path.relative_to(out): path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
        folder = Path("found/yolo")
        assert files == {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    else:
        collected, alone = (json.loads(Path(p).read_text()) for p in (f"found/{format}.json", out))
        assert_alike(collected, alone)


def assert_alike(one: Any, other: Any) -> None:
    """Two records are the same, but for outlines, which are kept to a tenth of a pixel."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=0.1 if one > 2 else 1e-6)
    else:
        assert one == other


def test_a_batch_goes_on_and_changes_its_format(fcnconv: Command, photos: Path) -> None:
    first, *_ = sorted(photos.iterdir())
    assert fcnconv("batch", str(first), "-o", "found", "-f", "coco", *FAST).returncode == 0
    done = fcnconv("batch", *map(str, sorted(photos.iterdir())), "-o", "found", "-f", "label-studio", *FAST)
    assert done.returncode == 0 and b"2 images: 1 written, 1 kept from an earlier run" in done.stderr
    assert len(json.loads(Path("found/label-studio.json").read_text())) == 2


def test_a_batch_refuses_what_changes_no_region(fcnconv: Command, photos: Path) -> None:
    for option in (["--top-k", "3"], ["--argmax"], ["--cells-table"]):
        done = fcnconv("batch", "photos", "-o", "found", "-f", "coco", *option)
        assert done.returncode == 2 and not Path("found").exists(), done.stderr


def test_options_of_regions_change_no_map(fcnconv: Command, photos: Path) -> None:
    for option in (["--threshold", "0.3"], ["--min-area", "9"], ["--max-regions", "2"]):
        done = fcnconv("heatmap", "photos/coffee.png", "-o", "map.npz", *option)
        assert done.returncode == 2 and b"coco" in done.stderr and not Path("map.npz").exists()
