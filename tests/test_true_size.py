"""Networks for pixels of one size: what images tell of theirs, and the size at which they are scanned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from ordinary import ordinary
from torch import nn

import fcnconv as package
from fcnconv.errors import ImageError, UsageError
from fcnconv.images import mean_side, resize
from fcnconv.images.reading import open_image
from fcnconv.models.torchvision import make_network
from fcnconv.options import ReadOptions
from fcnconv.scan.sizes import true_size

tifffile = pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
TILES = {"tile": (64, 64), "photometric": "rgb"}


def write(path: Path, **options: Any) -> Path:
    tifffile.imwrite(path, PIXELS, **TILES, **options)
    return path


def write_map(path: Path, crs: str, size: float) -> Path:
    place = {"crs": crs, "transform": rasterio.Affine(size, 0, 12, 0, -size, 50), "photometric": "rgb"}
    shape = {"count": 3, "height": 120, "width": 160, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **shape, **place, blockxsize=64, blockysize=64) as file:
        file.write(PIXELS.transpose(2, 0, 1))
    return path


def on_ground(crs: str, size: float) -> float:
    """Metres across a pixel at the centre of a map of `write_map`, by PROJ's geodesics."""
    pyproj = pytest.importorskip("pyproj")
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    x, y = 12 + 80 * size, 50 - 60 * size
    here, east, south = (to_degrees.transform(*at) for at in ((x, y), (x + size, y), (x, y - size)))
    lengths = [pyproj.Geod(ellps="WGS84").inv(*here, *there)[2] for there in (east, south)]
    return float(np.sqrt(np.prod(lengths)))


def test_web_mercator_is_scanned_by_the_scale_of_its_latitude(tmp_path: Path) -> None:
    pyproj = pytest.importorskip("pyproj")
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10.75, 59.91)
    place = {"crs": "EPSG:3857", "transform": rasterio.Affine(0.5, 0, x, 0, -0.5, y)}
    shape = {"count": 3, "height": 120, "width": 160, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(tmp_path / "oslo.tif", "w", **shape, **place) as file:
        file.write(PIXELS.transpose(2, 0, 1))
    size = mean_side(open_image(tmp_path / "oslo.tif").info.pixel_size)
    assert size == pytest.approx(0.5 * np.cos(np.radians(59.91)), rel=0.004)  # of a sphere, to the flattening


def test_pixels_that_are_not_square_are_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(1, 0, 5e5, 0, -0.25, 5.6e6)}
    shape = {"count": 3, "height": 120, "width": 160, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(tmp_path / "oblong.tif", "w", **shape, **place) as file:
        file.write(PIXELS.transpose(2, 0, 1))
    assert true_size(open_image(tmp_path / "oblong.tif"), 0.5, None, 16) == (320, 60)
    assert "not square (1 m across and 0.25 m down)" in caplog.text


def test_files_tell_how_large_their_pixels_are(tmp_path: Path) -> None:
    ome = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    millimetres = ome | {"PhysicalSizeXUnit": "mm", "PhysicalSizeYUnit": "mm"}
    files = {
        write(tmp_path / "micro.ome.tif", ome=True, metadata=ome): 0.25e-6,
        write(tmp_path / "milli.ome.tif", ome=True, metadata=millimetres): 0.25e-3,
        write(tmp_path / "scanner.tif", resolution=(20_000, 20_000), resolutionunit="CENTIMETER"): 0.5e-6,
        write(tmp_path / "oblong.tif", resolution=(20_000, 5_000), resolutionunit="CENTIMETER"): 1e-6,
        write(tmp_path / "aperio.tif", description="Aperio Image|AppMag = 20|MPP = 0.4990"): 0.499e-6,
        write(tmp_path / "print.tif", resolution=(300, 300), resolutionunit="INCH"): None,
        write(tmp_path / "plain.tif"): None,
        write_map(tmp_path / "metres.tif", "EPSG:32633", 0.3): 0.3,
        write_map(tmp_path / "feet.tif", "EPSG:2263", 1.0): 1200 / 3937,
        write_map(tmp_path / "degrees.tif", "EPSG:4326", 1e-5): on_ground("EPSG:4326", 1e-5),
    }
    for path, expected in files.items():
        assert mean_side(open_image(path).info.pixel_size) == (expected and pytest.approx(expected)), (
            path.name
        )
    assert mean_side(open_image(PIXELS).info.pixel_size) is None


def test_an_image_is_scanned_at_the_networks_pixel_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    model = ordinary(nn.Sequential(*layers), 32)
    image = write_map(tmp_path / "map.tif", "EPSG:32633", 0.3)
    plain, tiled = package.load(model, window=32), package.load(model, window=32, gsd=0.6)
    found = tiled(image, anchors=0)
    smaller = resize(open_image(image), (80, 60)).read((0, 0, 80, 60))
    assert found.grid.scan_size == (80, 60)
    np.testing.assert_array_equal(found.logits, plain(smaller, anchors=0).logits)
    assert tiled(image, anchors=0, scales="auto").grid.scan_size == (80, 60)
    assert tiled(image, anchors=0, scales="0.6").grid.scan_size == (48, 36)
    assert tiled.classify(image).scales == (0.5,)
    told = package.load(model, window=32, mpp=0.5, image_mpp=0.25)
    assert told(PIXELS, anchors=0).grid.scan_size == (80, 60)

    for classifier, picture, message in (
        (tiled, PIXELS, r"does not say how large its pixels are.*0\.6 m; give their size with --image-mpp"),
        (package.load(model, window=32, gsd=0.05), image, "would be enlarged 6.0 times"),
        (package.load(model, window=32, gsd=1.5), image, "it is 32 × 24, smaller than the network's window"),
    ):
        with pytest.raises(ImageError, match=message):
            classifier(picture)
    with pytest.raises(UsageError, match="--scales 512px changes it"):
        tiled(image, scales="512px")
    with pytest.raises(UsageError, match="pixels of any size, so --image-mpp"):
        package.load(model, window=32, image_mpp=0.5)
    with pytest.raises(UsageError, match="both say how large"):
        package.load(model, window=32, mpp=0.5, gsd=0.3)
    with pytest.raises(UsageError, match="both say how large"):
        _ = ReadOptions(image_mpp=0.5, image_gsd=0.3).image_pixel_size


def test_from_the_command(fcnconv: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "tissue.pth"
    torch.save(ordinary(make_network("resnet18", 64, num_classes=2), 64).state_dict(), weights)
    spec = {"arch": "resnet18", "window": 64, "categories": ["tumour", "other"], "mpp": 0.3125}
    weights.with_suffix(".json").write_text(json.dumps(spec))
    ome = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    slide = write(tmp_path / "slide.ome.tif", ome=True, metadata=ome)
    for out in ("map.npz", "map.png"):
        done = fcnconv("heatmap", slide, "-m", weights, "-c", "tumour", "-o", tmp_path / out)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "map.npz") as saved:
        assert (saved["scan_width"], saved["scan_height"]) == (128, 96)
        assert saved["pixel_size"] == pytest.approx(0.25e-6)
    done = fcnconv("heatmap", write(tmp_path / "plain.tif"), "-m", weights, "-o", tmp_path / "x.npz")
    assert done.returncode == 1 and b"does not say how large its pixels are" in done.stderr
    assert not (tmp_path / "x.npz").exists()
