"""The ways in: for each the sound files that altered ones are made of, and what reads them as the program
does. No network is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import seeds

from fcnconv.backends.plans import Plan
from fcnconv.images import mean_side
from fcnconv.images.reading import count_frames, open_image
from fcnconv.labels import numbered
from fcnconv.rescale import Rescale

MOST_PIXELS = 4_000_000
"""Of an image that is decoded whole, as ``--max-pixels`` has it."""


@dataclass(frozen=True)
class Target:
    """A way in. about: what comes in by it. seeds: writes sound files into a folder, and gives those that
    are altered. read: reads one of them, whose neighbours are sound. needs: packages without which it is
    not there.
    """

    name: str
    about: str
    seeds: Callable[[Path], Iterator[Path]]
    read: Callable[[Path], object]
    needs: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether it can be tried here."""
        return all(map(find_spec, self.needs))


def _image(path: Path, **options: Any) -> None:
    """Opens an image, asks all that a scan asks of it, and reads its corners."""
    count_frames(str(path))
    source = open_image(path, max_pixels=MOST_PIXELS, **options)
    width, height = source.size
    source.valid_mask()
    mean_side(source.info.pixel_size)
    getattr(source, "georeference", None)
    for level in getattr(source, "levels", (source,))[:3]:
        width, height = level.size
        level.read((0, 0, min(width, 64), min(height, 64)))
        level.read((max(width - 64, 0), max(height - 64, 0), width, height))


def _pillow(path: Path) -> None:
    _image(path, short_side=20)
    open_image(path.read_bytes(), max_pixels=MOST_PIXELS, frame=2 if path.stem == "moving" else None)


def _samples(path: Path) -> None:
    """A file of samples, as plain colours or with what ``--bands`` and ``--rescale`` say."""
    told = {
        "float.tif": {"rescale": Rescale(percentiles=(2, 98))},
        "bands.tif": {"bands": (4, 2, 1), "rescale": Rescale(((0, 255),))},
        "cells.ome.tif": {"bands": (1, 2, 3)},
    }
    _image(path, **told.get(path.name, {}))


def _beside_map(path: Path) -> None:
    _image(path.with_name("map.png"))


def _raster(path: Path) -> None:
    """A file of GDAL's, or one beside it, with the range that its values need."""
    read = path.with_name("deep.png") if path.suffix == ".xml" else path
    _image(read, rescale=Rescale(((0, 255),)) if path.stem == "lerc" else None)


def _stack(path: Path) -> None:
    _image(path, bands=(1, 2, 1), rescale=Rescale(percentiles=(2, 98)))


def _zarr(path: Path) -> None:
    store = next(parent for parent in path.parents if parent.suffix == ".zarr")
    _image(store, rescale=Rescale(percentiles=(2, 98)) if store.name == "v3.zarr" else None, bands=(1, 2, 3))


def _checkpoint(path: Path) -> None:
    from fcnconv.models.checkpoint import read_tensors

    read_tensors(path)


def _spec(path: Path) -> None:
    from fcnconv.models import find_model

    find_model(str(path.with_name("named.pth" if path.stem == "classes" else f"{path.stem}.pth")))


def _model_folder(path: Path) -> None:
    from fcnconv.models import find_model

    find_model(f"local-dir:{path.parent}")


def _tar(path: Path) -> None:
    from fcnconv.batch.inputs import from_tar

    for _ in from_tar(str(path)):
        pass


def _list(path: Path) -> None:
    from fcnconv.batch.folders import answer_name
    from fcnconv.batch.inputs import from_list

    folder = path.parent / "maps"
    for item in from_list(str(path), b"\0" if path.suffix == ".0" else b"\n"):
        if folder not in Path(os.path.normpath(folder / answer_name(item.name, "npz"))).parents:
            raise AssertionError(f"a map outside of the folder, for {item.name!r}")


def _text(path: Path) -> None:
    from fcnconv import labels, options
    from fcnconv.models.own import OwnModel
    from fcnconv.options import parsing

    option, text = path.suffix[1:], os.fsdecode(path.read_bytes())
    if option == "class":
        labels.imagenet().find(text)
        return
    if option == "stride":
        parsing.parse_number("--stride", int, 2, None, text)
        return
    tables = (
        options.NetworkOptions,
        options.ReadOptions,
        options.ScanOptions,
        options.OutputOptions,
        OwnModel,
    )
    told: dict[str, Any] = {
        name: one[1] for table in tables for name, one in options.option_info(table).items()
    }
    special = {"shard": parsing.parse_shard, "frame": parsing.parse_frame}
    value = (special.get(option) or told[option].read)(text)
    if option == "max_memory":
        int(value)  # as a scan does


def _plan(path: Path) -> None:
    """Plans are made again where they are damaged, so that a PlanError is an answer."""
    from fcnconv.backends.onnx import onnx_run, stage_run
    from fcnconv.backends.plans import read_plan, read_stages

    if path.name in ("tiny.onnx", "tiny.json"):
        read_plan(path.with_suffix(".onnx"), onnx_run)
    elif path.name in ("tiny.0.optimised", "tiny.0.json"):
        read_plan(path.with_suffix(".optimised"), partial(onnx_run, optimised=True))
    elif path.suffix == ".parts":
        read_stages(path, stage_run)
    elif path.name == "facts.json":
        _fact(path)
    elif find_spec("openvino"):
        _measured(path)


def _fact(path: Path) -> None:
    """What was found out about a model, from where the cache has it."""
    from fcnconv.system import records

    key = ("classes", "tiny")
    kept = records._path(key)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())
    found = records.remembered(key, lambda: {"num_classes": 3}, lambda told: int(told["num_classes"]))
    numbered(found)


def _measured(path: Path) -> None:
    """What was measured of a plan in OpenVINO. Where it is damaged it is measured again."""
    from fcnconv.backends import openvino

    plan = Plan(path.with_name("tiny.onnx"), None, lambda x: x, None)  # type: ignore[arg-type]
    started = openvino._Started(plan.run, 1.0)
    spec = SimpleNamespace(mean=(0.5,) * 3, window=8, stride=8)
    found = openvino.measured(plan, started, "bfloat16", spec)  # type: ignore[arg-type]
    if not (found.error <= 1 and found.faster > 0):
        raise AssertionError(f"not what was measured: {found}")


def _settings(path: Path) -> None:
    from fcnconv.batch.record import MANIFEST, FolderRecord
    from fcnconv.batch.store import Disk

    path.replace(path.with_name(MANIFEST))
    FolderRecord(Disk.at(path.parent), (1, 1)).since("npz")


def _region(path: Path) -> None:
    from fcnconv.grid import Grid
    from fcnconv.images import MemorySource
    from fcnconv.options import ScanOptions
    from fcnconv.scan.roi.region import region_of_interest

    source = MemorySource(np.zeros((48, 64, 3), np.uint8))
    where = region_of_interest(source, ScanOptions(mask=str(path)))
    grid = Grid(window=8, stride=4, scan_size=(64, 48), image_size=(64, 48))
    where.cells(grid)


def _placed_mask(path: Path) -> None:
    from fcnconv.options import ScanOptions
    from fcnconv.scan.roi.region import region_of_interest

    region_of_interest(open_image(path.with_name("image.tif")), ScanOptions(mask=str(path)))


TARGETS = {
    target.name: target
    for target in (
        Target("pillow", "images by Pillow", seeds.images, _pillow),
        Target("modern", "HEIC, AVIF, JPEG XL", seeds.modern_images, _pillow),
        Target("tiff", "TIFF by tifffile", seeds.tiffs, _samples, ("tifffile", "imagecodecs")),
        Target("raster", "rasters by GDAL", seeds.rasters, _raster, ("rasterio", "tifffile")),
        Target("ome", "OME and ImageJ by tifffile", seeds.microscopy, _stack, ("tifffile", "imagecodecs")),
        Target(
            "place",
            "masks on the map",
            seeds.placed_masks,
            _placed_mask,
            ("rasterio", "pyogrio", "shapely"),
        ),
        Target("slides", "slides by OpenSlide", seeds.slides, _image, ("openslide", "tifffile")),
        Target("zarr", "OME-Zarr folders", seeds.zarrs, _zarr, ("zarr",)),
        Target("world", "world files", seeds.world_files, _beside_map),
        Target("checkpoint", "checkpoints of torch", seeds.checkpoints, _checkpoint),
        Target("safetensors", "safetensors", seeds.safetensors, _checkpoint, ("safetensors",)),
        Target("spec", "descriptions of own models", seeds.specs, _spec),
        Target("folder", "folders of models", seeds.model_folders, _model_folder, ("timm", "transformers")),
        Target("tar", "tar archives", seeds.tars, _tar),
        Target("list", "lists of paths", seeds.lists, _list),
        Target("text", "text of options", seeds.texts, _text),
        Target("plan", "plans, parts, records", seeds.plans, _plan),
        Target("settings", "settings of a folder of maps", seeds.settings, _settings),
        Target("region", "masks and regions", seeds.regions, _region),
    )
}
