"""OME-Zarr images, as ome-zarr-py writes them."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command

from fcnconv.errors import ImageError, UsageError
from fcnconv.images import mean_side, resize
from fcnconv.images.ome_zarr import ZarrSource
from fcnconv.images.reading import open_image
from fcnconv.options.parsing import parse_rescale
from fcnconv.system.files import refuse_overwriting

zarr = pytest.importorskip("zarr")
pytestmark = pytest.mark.skipif(find_spec("ome_zarr") is None, reason="no ome-zarr: pip install '.[test]'")

RNG = np.random.default_rng(3)


def write(path: Path, pixels: np.ndarray, axes: str, version: str = "0.5", um: float = 0.5) -> None:
    """An image of two levels by ome-zarr-py."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    space = [{"name": a, "type": "space", "unit": "micrometer"} if a in "zyx" else a for a in axes]
    told: list[Any] = [
        {"name": a, "type": {"c": "channel", "t": "time"}[a]} if isinstance(a, str) else a for a in space
    ]
    half = pixels[..., ::2, ::2]
    scales = [
        [{"type": "scale", "scale": [um * step if a in "yx" else 1.0 for a in axes]}] for step in (1, 2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its next version tells scales in another way
        from ome_zarr import format, writer  # here, as importing dask takes seconds

        kind = {"0.4": format.FormatV04, "0.5": format.FormatV05}[version]()
        writer.write_multiscale([pixels, half], group, fmt=kind, axes=told, coordinate_transformations=scales)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "czyx"])
def test_channels_are_bands_and_levels_serve_smaller_scans(axes: str, version: str, tmp_path: Path) -> None:
    bands = RNG.integers(0, 65536, (4, 90, 130), np.uint16)
    pixels = bands
    if "z" in axes or "t" in axes:
        pixels = np.stack([bands, bands // 2], axis=1 if axes == "czyx" else 0)
        pixels = pixels[:, :, None] if axes == "tczyx" else pixels  # the first time and depth are taken
    write(tmp_path / "cells.ome.zarr", pixels, axes, version)
    source = open_image(tmp_path / "cells.ome.zarr", bands=(4, 1, 2), rescale=parse_rescale("0,65535"))
    assert isinstance(source, ZarrSource) and source.size == (130, 90)
    expected = np.floor(bands[[3, 0, 1]].transpose(1, 2, 0) * (255 / 65535) + 0.5)
    assert (source.read((7, 5, 130, 90)) == expected[5:, 7:]).all()
    smaller = resize(source, (65, 45))
    assert (smaller.read((0, 0, 65, 45)) == expected[::2, ::2]).all()
    assert mean_side(source.info.pixel_size) == pytest.approx(0.5e-6)


def test_a_grey_image_needs_no_bands(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (64, 80), np.uint8)
    write(tmp_path / "grey.zarr", pixels, "yx")
    source = open_image(tmp_path / "grey.zarr")
    assert (source.read((0, 0, 80, 64)) == pixels[:, :, None]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has 4 bands, and does not say which are its colours"),
        ({"bands": (1, 2, 5)}, "has no band 5, only 4"),
        ({"channels": 5}, "has 4 bands, but the network takes 5"),
    ],
)
def test_what_must_be_told_is_asked_for(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "cells.zarr", RNG.integers(0, 256, (4, 64, 64), np.uint8), "cyx")
    with pytest.raises(ImageError, match=message):
        open_image(tmp_path / "cells.zarr", **options)


def test_a_zarr_that_is_no_image_is_told(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "table.zarr", mode="w").create_array("x", shape=(3,), dtype="f4")
    with pytest.raises(ImageError, match="a folder of zarr, but not an OME-Zarr image"):
        open_image(tmp_path / "table.zarr")


def test_from_the_command(fcnconv: Command, tmp_path: Path) -> None:
    image, out = tmp_path / "cells.ome.zarr", tmp_path / "map.ome.zarr"
    write(image, RNG.integers(0, 4096, (4, 300, 400), np.uint16), "cyx")
    told = ("--bands", "3,2,1", "--rescale", "percentile:1,99")
    done = fcnconv("heatmap", image, *told, "-c", "cat", "-o", out, "--anchors", "0")
    assert done.returncode == 0, done.stderr
    ome = json.loads((out / "zarr.json").read_text())["attributes"]["ome"]
    scale = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [1.0, 16.0, 16.0]  # 32 px of half a micrometre
    done = fcnconv("heatmap", image, *told, "-c", "cat", "-o", image)
    assert done.returncode == 2 and b"would replace its own input" in done.stderr
    with pytest.raises(UsageError):
        refuse_overwriting(str(image), [image])
