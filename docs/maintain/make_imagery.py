"""Makes the synthetic images and the networks of the tutorials on orthophotos and slides, always the same.

    python docs/maintain/make_imagery.py FOLDER

``ortho.tif`` is an orthophoto of three crops in four bands, with a corner without data. ``slide.ome.tif`` is
a slide of two tissues on glass, with a pyramid. ``crops.pth`` and ``tissue.pth`` are small networks that are
trained here on tiles of the same textures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

WINDOW = 64
"""Pixels of the tiles that the networks learn from."""

Texture = tuple[Sequence[float], float, int]
"""A mean of each channel, 0 to 1, how much it varies, and how coarsely, in pixels of a tile."""

TISSUES: dict[str, Texture] = {
    "stroma": ((0.91, 0.65, 0.78), 0.12, 16),
    "tumour": ((0.55, 0.36, 0.66), 0.35, 4),
}
CROPS: dict[str, Texture] = {
    "wheat": ((0.16, 0.24, 0.22, 0.62), 0.2, 3),
    "maize": ((0.10, 0.20, 0.12, 0.80), 0.3, 9),
    "water": ((0.12, 0.10, 0.06, 0.03), 0.1, 20),
}
GLASS = 0.96


def texture(
    rng: np.random.Generator, kind: Texture, width: int, height: int, zoom: int = 1
) -> npt.NDArray[np.float32]:
    """float32 (height, width, channels), 0 to 1. zoom: pixels for each of a tile's."""
    colour, amount, grain = kind
    cells = max(height // (grain * zoom), 2), max(width // (grain * zoom), 2)
    noise = Image.fromarray(rng.normal(size=cells).astype(np.float32))
    smooth = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    fine = rng.normal(scale=0.02, size=(height, width, len(colour)))
    return np.clip(np.array(colour) * (1 + amount * smooth[:, :, None]) + fine, 0, 1).astype(np.float32)


def mixed(
    rng: np.random.Generator, kinds: dict[str, Texture], places: npt.NDArray[np.uint8], zoom: int = 1
) -> npt.NDArray[np.float32]:
    """Texture number n where `places` is n, counted from 0; glass where it is 255."""
    height, width = places.shape
    image = np.full((height, width, len(next(iter(kinds.values()))[0])), GLASS, np.float32)
    for number, kind in enumerate(kinds.values()):
        image = np.where((places == number)[:, :, None], texture(rng, kind, width, height, zoom), image)
    return image


def train(
    rng: np.random.Generator, kinds: dict[str, Texture], file: Path, steps: int = 60, **more: object
) -> None:
    """Trains a small ShuffleNet to distinguish the textures, and saves it with its JSON file."""
    torch.manual_seed(0)
    channels = len(next(iter(kinds.values()))[0])
    network = shufflenet_v2_x0_5(num_classes=len(kinds))
    network.conv1[0] = nn.Conv2d(channels, 24, 3, 2, 1, bias=False)
    mean, std = [0.5] * channels, [0.25] * channels
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    network.train()
    for _ in range(steps):
        which = rng.integers(len(kinds), size=16)
        tiles = np.stack([texture(rng, list(kinds.values())[i], WINDOW, WINDOW) for i in which])
        x = (torch.from_numpy(tiles).permute(0, 3, 1, 2) - mean[0]) / std[0]
        optimiser.zero_grad()
        F.cross_entropy(network(x), torch.from_numpy(which)).backward()
        optimiser.step()
    torch.save(network.state_dict(), file)
    spec = {
        "arch": "shufflenet_v2_x0_5",
        "categories": list(kinds),
        "window": WINDOW,
        "mean": mean,
        "std": std,
        **more,
    }
    file.with_suffix(".json").write_text(json.dumps(spec))


def make_slide(path: Path, rng: np.random.Generator) -> None:
    """Tissue with a tumour in it on glass, at a quarter of a micrometre, with two smaller levels."""
    places = Image.new("L", (4096, 3072), 255)
    draw = ImageDraw.Draw(places)
    draw.ellipse((500, 400, 3500, 2700), fill=0)
    draw.ellipse((1500, 1000, 2600, 1900), fill=1)
    image = mixed(rng, TISSUES, np.asarray(places), zoom=2)
    pixels = np.round(image * 255).astype(np.uint8)
    sizes: dict[str, object] = {f"PhysicalSize{axis}": 0.25 for axis in "XY"}
    sizes |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    kind = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=2, metadata={"axes": "YXS", **sizes}, **kind)
        for step in (2, 4):
            smaller = Image.fromarray(pixels).reduce(step)
            file.write(np.asarray(smaller), subfiletype=1, **kind)


def make_ortho(path: Path, rng: np.random.Generator) -> None:
    """Makes an orthophoto of three crops in four bands, with 0.5 m per pixel, at 9° east.

    The values are reflectance times 4000, in 16 bits. The upper right corner has no data.
    """
    width, height = 1024, 768
    places = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(places)
    draw.rectangle((512, 0, 1024, 384), fill=1)
    draw.polygon(((256, 384), (1024, 384), (1024, 768), (512, 768)), fill=2)
    bands = np.round(mixed(rng, CROPS, np.asarray(places)) * 4000).astype(np.uint16).transpose(2, 0, 1)
    y, x = np.mgrid[:height, :width]
    bands[:, x - y > width - height // 3] = 0
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
    size = {"width": width, "height": height, "count": 4, "dtype": "uint16", "nodata": 0}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:25832", transform=transform, **size, **tiles
    ) as file:
        file.write(bands)
        file.descriptions = ("blue", "green", "red", "near infrared")


def main(folder: Path) -> None:
    """Makes all images and networks in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    make_slide(folder / "slide.ome.tif", rng)
    make_ortho(folder / "ortho.tif", rng)
    train(rng, TISSUES, folder / "tissue.pth", mpp=0.5)
    train(rng, CROPS, folder / "crops.pth", gsd=0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
