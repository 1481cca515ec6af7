"""Compares what fcnconv reads from the rasters below some folders with what rasterio reads.

    python tests/compare_rasters.py FOLDER…
    python tests/compare_rasters.py --installed      # the test data that installed packages ship

Compares the size, the coordinate system, the place, the share of pixels that have data, and the mean of the
first band, of every file that rasterio opens as one raster. Each difference and each file that is refused is
one line; the last line counts. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio

from fcnconv.errors import FcnconvError
from fcnconv.images.gdal import OPTIONS, gdal, gdal_open
from fcnconv.images.reading import open_image
from fcnconv.rescale import Rescale

MOST_PIXELS = 20_000_000
"""Larger files are left out."""


def candidates(folders: list[Path]) -> Iterator[Path]:
    """The files below folders that may be rasters, by their size."""
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(parent, name)
                if path.suffix not in (".py", ".pyc", ".so", ".txt", ".h", ".json", ".md", ".pyi", ".js"):
                    yield path


def compare(path: Path) -> tuple[str, str]:
    """What became of a file, as a word to count, and the details of a difference."""
    with gdal():
        try:
            dataset = gdal_open(path)
        except Exception:  # GDAL's errors share no class
            return "no raster", ""
        size = (dataset.width, dataset.height)
        if dataset.count == 0 or size[0] * size[1] > MOST_PIXELS or np.dtype(dataset.dtypes[0]).kind == "c":
            return "left out", ""
        try:
            band, opacity = dataset.read(1), dataset.read_masks(1)
            mask = opacity > 0
        except Exception:
            return "unreadable by rasterio", ""
        crs, transform = dataset.crs, dataset.transform
        palette = dataset.colorinterp[0].name == "palette"
    known = mask if band.dtype.kind != "f" else mask & np.isfinite(band)
    opaque = known & (opacity == 255)  # what is half clear is shown on white
    values = band[opaque].astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if not low < high:
        high = low + 1
    try:
        asked = {} if palette else {"bands": (1,), "rescale": Rescale(((low, high),))}
        source = open_image(path, **asked)  # type: ignore[arg-type]
        pixels, data = source.read((0, 0, *source.size)), source.valid_mask()
    except FcnconvError as error:
        return "refused", str(error)
    found = getattr(source, "georeference", None)
    problems = []
    if source.size not in (size, size[::-1]):
        problems.append(f"size {source.size}, not {size}")
    if (found is None) != transform.is_identity and not dataset.gcps[0]:
        problems.append(f"place {found}, not {tuple(transform[:6])}")
    elif found is not None and source.size == size and not dataset.gcps[0]:
        if not np.allclose(found.transform, transform[:6], rtol=1e-9):
            problems.append(f"place {found.transform}, not {tuple(transform[:6])}")
        named = rasterio.crs.CRS.from_user_input(found.system) if found.system else None
        if named != crs:
            problems.append(f"system {found.system}, not {crs}")
    share = 1.0 if data is None else float(data.mean())
    if abs(share - known.mean()) > 0.02:
        problems.append(f"data in {share:.3f}, not {known.mean():.3f}")
    if not palette and values.size and source.size == size:
        expected = float(np.floor((values - low) * (255 / (high - low)) + 0.5).clip(0, 255).mean())
        mean = float(pixels[:, :, 0][opaque].mean())
        if abs(mean - expected) > 0.5:
            problems.append(f"mean {mean:.2f}, not {expected:.2f}")
    return ("differs", "; ".join(problems)) if problems else ("equal", "")


def main(arguments: list[str]) -> int:
    """Compares all files and prints what was found."""
    logging.getLogger("fcnconv").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    installed = [Path(sysconfig.get_paths()["purelib"])] if arguments == ["--installed"] else []
    counts: Counter[str] = Counter()
    for path in candidates(installed or [Path(name) for name in arguments]):
        with rasterio.Env(**OPTIONS):
            outcome, details = compare(path)
        counts[outcome] += 1
        if details:
            print(f"{outcome}: {path}: {details}")
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
