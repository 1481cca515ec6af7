"""Large JPEGs are decoded at a fraction of their size where the scan is smaller, and nothing else changes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnconv.errors import ImageError
from fcnconv.images import MemorySource, ReducedSource, read_within, resize
from fcnconv.images.reading import open_image

SAMPLES = Path(__file__).parents[1] / "sample_images"


def encoded(size: tuple[int, int], format: str = "JPEG", orientation: int = 1) -> bytes:
    photo = Image.open(SAMPLES / "coffee.png").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    photo.save(file, format, quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("short_side, decoded", [(64, 128), (65, 256), (128, 256), (256, 512), (257, 1024)])
def test_as_much_is_decoded_as_the_margin_asks(short_side: int, decoded: int) -> None:
    source = open_image(encoded((1536, 1024)), short_side=short_side)
    pixels = source.pixels  # type: ignore[attr-defined]
    assert min(pixels.shape[:2]) == decoded
    assert source.size == (1536, 1024)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_photo_is_upright_and_resized_like_the_whole_one(orientation: int) -> None:
    data = encoded((1531, 1021), orientation=orientation)
    whole, reduced = open_image(data), open_image(data, short_side=200)
    assert isinstance(whole, MemorySource) and isinstance(reduced, ReducedSource)
    assert reduced.size == whole.size
    size = (200, 300) if whole.size[0] < whole.size[1] else (300, 200)
    small = [resize(source, size).read((0, 0, *size)).astype(float) for source in (whole, reduced)]
    assert np.abs(small[0] - small[1]).mean() < 2
    box = (100, 50, 400, 250)
    assert np.array_equal(reduced.read(box), whole.read(box))


@pytest.mark.parametrize("max_side", [400, 800, 5000])
def test_a_picture_shows_the_photos_own_pixels_however_little_was_scanned(
    tmp_path: Path, max_side: int
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded((1531, 1021), orientation=6))
    whole = read_within(open_image(path), max_side)
    for image in (path, path.read_bytes()):
        reduced = open_image(image, short_side=60)
        assert isinstance(reduced, ReducedSource) and min(reduced.pixels.shape[:2]) == 128
        assert np.array_equal(read_within(reduced, max_side), whole)


def test_what_was_decoded_is_enough_for_a_small_picture() -> None:
    reduced = open_image(encoded((1531, 1021)), short_side=200)
    assert isinstance(reduced, ReducedSource)
    small = replace(reduced, decode=lambda: pytest.fail("decoded again"))
    assert read_within(small, 600).shape == (400, 600, 3)


def test_a_photo_that_has_gone_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded((1536, 1024)))
    reduced = open_image(path, short_side=100)
    path.unlink()
    with pytest.raises(ImageError, match=rf"^{path}: cannot be opened: No such file"):
        read_within(reduced, 1536)


def test_other_formats_and_small_photos_are_decoded_whole() -> None:
    assert isinstance(open_image(encoded((1536, 1024), "PNG"), short_side=64), MemorySource)
    assert isinstance(open_image(encoded((384, 256)), short_side=256), MemorySource)


def test_classify_tells_the_size_of_the_photo_not_of_what_was_decoded(lite0) -> None:
    data = encoded((2048, 1365))
    assert isinstance(lite0.open(data, "fit"), ReducedSource)
    assert isinstance(lite0.open(data, "fit,1"), MemorySource)
    found, oracle = lite0.classify(data), lite0.classify(Image.open(io.BytesIO(data)))
    assert (found.width, found.height, found.scales) == (2048, 1365, oracle.scales)
    assert found.predictions[0].category == oracle.predictions[0].category == "espresso"
    assert found.predictions[0].box == oracle.predictions[0].box
    assert found.predictions[0].probability == pytest.approx(oracle.predictions[0].probability, abs=0.02)
