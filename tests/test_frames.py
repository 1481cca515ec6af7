"""Animations and files of several pages: the first is taken, which is said; others are asked for."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_rasterio
from PIL import Image

from fcnconv.batch.inputs import Input, framed
from fcnconv.errors import ImageError, UsageError
from fcnconv.images import ImageSource
from fcnconv.images.raster import RasterSource
from fcnconv.images.reading import count_frames, open_image
from fcnconv.options.parsing import parse_frame

COLOURS = ("red", "lime", "blue")


def pixels_of(source: ImageSource) -> np.ndarray:
    return source.read((0, 0, *source.size))


def frames() -> list[Image.Image]:
    """Three pictures whose halves differ: of the second and third only the right half is new."""
    made = [Image.new("RGB", (32, 16), COLOURS[0])]
    for colour in COLOURS[1:]:
        made.append(made[-1].copy())
        made[-1].paste(colour, (16, 0, 32, 16))
    return made


def animated(path: Path, format: str) -> Path:
    first, *rest = frames()
    options = {"lossless": True} if format == "WEBP" else {}
    first.save(path, format, save_all=True, append_images=rest, **options)
    return path


ANIMATED = {"a.gif": "GIF", "a.png": "PNG", "a.webp": "WEBP", "a.tif": "TIFF"}


@pytest.mark.parametrize("name", ANIMATED)
def test_each_frame_is_the_whole_picture_of_its_time(name: str, tmp_path: Path) -> None:
    path = animated(tmp_path / name, ANIMATED[name])
    assert count_frames(str(path)) == count_frames(path.read_bytes()) == 3
    for number, frame in enumerate(frames(), 1):
        for image in (path, path.read_bytes()):
            assert (pixels_of(open_image(image, frame=number)) == np.asarray(frame)).all()
    with pytest.raises(ImageError, match=rf"{name}: has no frame 4, only 3$"):
        open_image(path, frame=4)


@pytest.mark.parametrize("name", ANIMATED)
def test_that_it_is_the_first_of_some_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    path = animated(tmp_path / name, ANIMATED[name])
    assert (pixels_of(open_image(path)) == np.asarray(frames()[0])).all()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{path}: using the first of 3 frames; choose with --frame N, or use --frame all"]
    caplog.clear()
    open_image(path, frame=1)
    open_image(SAMPLES / "coffee.png")
    assert not caplog.records


@needs_rasterio
def test_pages_of_a_tiff_are_counted_without_its_smaller_copies(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pages = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for name, tile in (("tiled.tif", (32, 32)), ("whole.tif", None)):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for page in pages:
                file.write(page, tile=tile, photometric="rgb", metadata=None)
                file.write(page[::2, ::2], tile=tile, photometric="rgb", subfiletype=1, metadata=None)
        assert count_frames(str(tmp_path / name)) == 2 == count_frames((tmp_path / name).read_bytes())
        for number, page in enumerate(pages, 1):
            source = open_image(tmp_path / name, frame=number)
            assert isinstance(source, RasterSource)
            assert (pixels_of(source) == page).all()


def test_a_pyramid_is_one_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tifffile = pytest.importorskip("tifffile")
    caplog.set_level(logging.INFO, "fcnconv")
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(pixels, tile=(64, 64), photometric="rgb", subifds=0, metadata=None)
        for level in (2, 4):
            file.write(
                pixels[::level, ::level], tile=(64, 64), photometric="rgb", subfiletype=1, metadata=None
            )
    assert count_frames(str(tmp_path / "p.tif")) == 1
    open_image(tmp_path / "p.tif")
    assert not caplog.records


def test_a_preview_in_a_photo_is_no_frame() -> None:
    file = io.BytesIO()
    first, *rest = frames()
    first.save(file, "MPO", save_all=True, append_images=rest)
    with Image.open(file) as photo:
        assert getattr(photo, "n_frames", 1) == 3
    assert count_frames(file.getvalue()) == 1


def test_inputs_become_their_frames(tmp_path: Path) -> None:
    gif = str(animated(tmp_path / "a.gif", "GIF"))
    still = str(SAMPLES / "coffee.png")
    inputs = [Input(gif, gif), Input(still, still)]
    assert list(framed(inputs, None)) == inputs
    assert [(i.name, i.frame) for i in framed(inputs, "all")] == [
        *((f"{gif}#{n}", n) for n in (1, 2, 3)),
        (still, 1),
    ]
    assert [(i.name, i.frame) for i in framed(inputs, 2)] == [(f"{gif}#2", 2), (still, 2)]
    broken = Input("broken", b"GIF89a")
    assert [i.frame for i in framed([broken], "all")] == [1]


def test_a_frame_is_a_number_or_all() -> None:
    assert parse_frame("3") == 3 and parse_frame("all") == "all"
    for wrong in ("0", "-1", "1.5", "", "each"):
        with pytest.raises(UsageError, match="unknown frame"):
            parse_frame(wrong)


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    """An animation of a cat and then a cup of coffee."""
    photos = [
        Image.open(SAMPLES / name).convert("RGB").resize((300, 240)) for name in ("chelsea.png", "coffee.png")
    ]
    photos[0].save(tmp_path / "cat.gif", save_all=True, append_images=photos[1:])
    return tmp_path / "cat.gif"


def test_classify_takes_a_frame_or_each(fcnconv: Command, gif: Path) -> None:
    done = fcnconv("classify", gif, "-k", "1", "--json")
    assert json.loads(done.stdout)["path"] == str(gif)
    (message,) = done.stderr.decode().splitlines()
    assert all(word in message for word in (str(gif), "2 frames", "--frame N", "--frame all"))
    done = fcnconv("classify", gif, SAMPLES / "coffee.png", "-k", "1", "--json", "--frame", "all")
    assert done.returncode == 0 and done.stderr == b""
    found = {r["path"]: r["predictions"][0]["category"] for r in map(json.loads, done.stdout.splitlines())}
    assert list(found) == [f"{gif}#1", f"{gif}#2", str(SAMPLES / "coffee.png")]
    assert "cat" in found[f"{gif}#1"] and found[f"{gif}#2"] == "espresso"
    done = fcnconv("classify", "-", "-k", "1", "--frame", "2", stdin=gif.read_bytes())
    assert b"espresso" in done.stdout
    done = fcnconv("classify", gif, "--frame", "3")
    assert done.returncode == 1 and b"cat.gif#3: has no frame 3, only 2" in done.stderr


def test_heatmap_writes_a_file_for_each_frame(fcnconv: Command, gif: Path, tmp_path: Path) -> None:
    plain = ("--anchors", "0")
    assert fcnconv("heatmap", gif, *plain, "--frame", "all", "-o", tmp_path / "map.npy").returncode == 0
    assert fcnconv("heatmap", gif, *plain, "--frame", "2", "-o", tmp_path / "two.npy").returncode == 0
    assert fcnconv("heatmap", gif, *plain, "-o", tmp_path / "one.npy").returncode == 0
    maps = {path.name: np.load(path) for path in tmp_path.glob("*.npy")}
    assert set(maps) == {"map.0001.npy", "map.0002.npy", "one.npy", "two.npy"}
    assert (maps["map.0001.npy"] == maps["one.npy"]).all() and (maps["map.0002.npy"] == maps["two.npy"]).all()
    assert (maps["one.npy"] != maps["two.npy"]).any()
    done = fcnconv("heatmap", gif, "--frame", "all", "-f", "npy", "-o", "-")
    assert done.returncode == 2 and b"--frame all writes one file per frame" in done.stderr


def test_batch_maps_each_frame(fcnconv: Command, gif: Path, tmp_path: Path) -> None:
    done = fcnconv("batch", gif, "-o", tmp_path / "maps", "-f", "npy", "--anchors", "0", "--frame", "all")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "maps").rglob("*.npy")) == [
        "cat.gif#1.npy",
        "cat.gif#2.npy",
    ]
