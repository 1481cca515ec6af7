"""Images read region by region: the pixels are those of the whole, however they are asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcnconv.errors import ImageError
from fcnconv.images import MemorySource, open_image, resize
from fcnconv.sources import ResizedSource, TiffSource

tifffile = pytest.importorskip("tifffile")

PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((300, 210))
)


@pytest.fixture(params=["tiles", "strips", "bigtiff", "grey", "deflate"])
def tiff(request: pytest.FixtureRequest, tmp_path):
    path = tmp_path / "image.tif"
    options = {
        "tiles": {"tile": (64, 32)},
        "strips": {"rowsperstrip": 17},
        "bigtiff": {"tile": (32, 32), "bigtiff": True},
        "grey": {"tile": (64, 64)},
        "deflate": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    }[request.param]
    pixels = PIXELS[:, :, 0] if request.param == "grey" else PIXELS
    photometric = "minisblack" if request.param == "grey" else "rgb"
    options.setdefault("bigtiff", False)
    tifffile.imwrite(path, pixels, photometric=photometric, **options)
    return path, np.broadcast_to(pixels[:, :, None], PIXELS.shape) if pixels.ndim == 2 else pixels


def test_regions_of_a_tiff_are_its_pixels(tiff) -> None:
    path, pixels = tiff
    source = open_image(path)
    assert isinstance(source, TiffSource) and source.size == (300, 210)
    for x0, y0, x1, y1 in [(0, 0, 300, 210), (31, 63, 33, 65), (299, 209, 300, 210), (5, 100, 250, 101)]:
        assert np.array_equal(source.read((x0, y0, x1, y1)), pixels[y0:y1, x0:x1])


def test_a_tiff_that_cannot_be_read_in_regions_is_decoded_whole(tmp_path) -> None:
    path = tmp_path / "sixteen.tif"
    tifffile.imwrite(path, PIXELS[:, :, 0].astype(np.uint16) * 257, tile=(64, 64))
    source = open_image(path)
    assert isinstance(source, MemorySource)
    assert np.array_equal(source.pixels[:, :, 1], PIXELS[:, :, 0])


def test_the_place_on_the_map_is_kept(tmp_path) -> None:
    path = tmp_path / "map.tif"
    scale, tie = (0.5, 0.25, 0.0), (10.0, 20.0, 0.0, 3000.0, 8000.0, 0.0)
    tags = [(33550, "d", 3, scale, True), (33922, "d", 6, tie, True), (34735, "H", 4, (1, 1, 0, 0), True)]
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), extratags=tags)
    source = open_image(path)
    assert isinstance(source, TiffSource) and source.georeference is not None
    a, b, c, d, e, f = source.georeference.transform
    assert (a * 10 + b * 20 + c, d * 10 + e * 20 + f) == (3000, 8000)
    assert (a, e) == (0.5, -0.25)
    assert 34735 in source.georeference.keys


def test_a_segment_cut_short_is_told(tmp_path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), compression="zlib")
    path.write_bytes(path.read_bytes()[:-3000])
    source = open_image(path)
    with pytest.raises(ImageError, match=r"cut\.tif: damaged or cut short"):
        source.read((0, 0, 300, 210))


@settings(deadline=None, max_examples=25)
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
