"""Prints how long each format takes to write a map that is there, and how large its file is.

    python benchmarks/formats.py
    python benchmarks/formats.py tif geojson.gz --cells 400 --classes cat

The map has all classes of ImageNet in `--cells` × `--cells` windows, made up, over a GeoTIFF.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from fcnconv.api.maps import ScoreMap
from fcnconv.grid import Grid
from fcnconv.images import ImageSource
from fcnconv.images.reading import open_image
from fcnconv.labels import imagenet
from fcnconv.provenance import Identity, Provenance
from fcnconv.scores import Block, MapInfo
from fcnconv.writers import WRITERS

PHOTO = Path(__file__).parents[1] / "sample_images" / "collage.jpg"


def made_up(cells: int, image: ImageSource) -> ScoreMap:
    """A map of so many windows a side, which vary smoothly, each class over its own part."""
    rng, labels = np.random.default_rng(0), imagenet()
    coarse = rng.normal(scale=3, size=(len(labels), 8, 8)).astype(np.float32)
    logits = np.empty((cells, cells, len(labels)), np.float32)
    for number, plane in enumerate(coarse):
        logits[:, :, number] = Image.fromarray(plane).resize((cells, cells), Image.Resampling.BICUBIC)
    side = 224 + 32 * (cells - 1)
    grid = Grid(224, 32, image.size, (side, side))
    provenance = Provenance(Identity("made up", "", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    everywhere = slice(0, cells)
    return ScoreMap(
        MapInfo(grid, labels, provenance, source=image), Block(grid, everywhere, everywhere, logits)
    )


def placed(path: Path) -> None:
    """The collage as a GeoTIFF."""
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 3, "dtype": "uint8", "tiled": True}
    place = rasterio.Affine(0.25, 0, 500_000, 0, -0.25, 5_400_000)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:25832", transform=place, **size) as file:
        file.write(pixels.transpose(2, 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=[])
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--classes", nargs="*", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        placed(Path(folder, "ortho.tif"))
        score_map = made_up(given.cells, open_image(Path(folder, "ortho.tif")))
        print("| format | seconds | MB |\n|---|---|---|")
        for suffix in given.formats or WRITERS:
            out = Path(folder, f"map.{suffix}")
            begin = time.perf_counter()
            score_map.save(out, classes=given.classes)
            seconds = time.perf_counter() - begin
            files = out.rglob("*") if out.is_dir() else [out]
            size = sum(file.stat().st_size for file in files if file.is_file())
            print(f"| `.{suffix}` | {seconds:.1f} | {size / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
