"""The sound files that altered ones are made of: small, and written here by the libraries that write such
files, from the photos in ``sample_images/``. Nothing is kept in the repository.
"""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "sample_images"


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """A sample photo, small."""
    with Image.open(SAMPLES / "coffee.png") as image:
        return image.convert("RGB").resize((width, height))


def images(folder: Path) -> Iterator[Path]:
    """A file of each format that Pillow writes, in the modes that are read differently."""
    rgb = photo()
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    alpha = rgb.copy()
    alpha.putalpha(rgb.convert("L"))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    frames = [photo(), photo().rotate(90), photo().rotate(180)]
    made: dict[str, Callable[[Path], None]] = {
        "turned.jpg": lambda path: rgb.save(path, exif=exif),
        "grey.jpg": lambda path: rgb.convert("L").save(path, progressive=True),
        "cmyk.jpg": lambda path: rgb.convert("CMYK").save(path),
        "plain.png": lambda path: rgb.save(path),
        "seethrough.png": lambda path: alpha.save(path),
        "palette.png": lambda path: rgb.quantize(16).save(path, transparency=3),
        "deep.png": deep.save,
        "moving.png": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]),
        "moving.gif": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]),
        "moving.webp": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]),
        "plain.webp": lambda path: alpha.save(path, lossless=True),
        "plain.bmp": rgb.save,
        "packed.bmp": lambda path: rgb.quantize(16).save(path),
        "plain.tga": lambda path: rgb.save(path, compression="tga_rle"),
        "plain.ppm": rgb.save,
        "deep.pgm": deep.save,
        "plain.pcx": rgb.save,
        "plain.sgi": rgb.save,
        "plain.ico": rgb.save,
        "plain.icns": lambda path: photo(32, 32).save(path),
        "plain.dds": rgb.save,
        "plain.im": rgb.save,
        "plain.msp": lambda path: rgb.convert("1").save(path),
        "plain.xbm": lambda path: rgb.convert("1").save(path),
        "plain.jp2": rgb.save,
        "plain.mpo": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]),
        "plain.qoi": rgb.save,
    }
    yield from _each(folder, made)


def modern_images(folder: Path) -> Iterator[Path]:
    """HEIC, AVIF and JPEG XL, as far as the packages for them are here."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401
    names = ("plain.heic", "plain.avif", "plain.jxl")
    yield from _each(folder, dict.fromkeys(names, photo().save))


def tiffs(folder: Path) -> Iterator[Path]:
    """TIFF in tiles and strips, of each kind of samples, compressed, as a pyramid, placed on a map."""
    import tifffile

    rgb = np.asarray(photo(96, 80))
    grey = rgb[:, :, 0]
    place = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 400.0, 500.0, 0.0), True),
    ]
    keys = [(34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True), (42113, "s", 2, "0", True)]
    tiles: dict[str, Any] = {"tile": (32, 32)}
    made: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "tiles.tif": (rgb, {**tiles, "photometric": "rgb"}),
        "strips.tif": (rgb, {"rowsperstrip": 16, "photometric": "rgb"}),
        "deflate.tif": (rgb, {**tiles, "photometric": "rgb", "compression": "zlib", "predictor": True}),
        "lzw.tif": (rgb, {"rowsperstrip": 16, "photometric": "rgb", "compression": "lzw"}),
        "jpeg.tif": (rgb, {**tiles, "photometric": "ycbcr", "compression": "jpeg"}),
        "placed.tif": (grey, {**tiles, "extratags": place + keys}),
        "deep.tif": (rgb.astype(np.uint16) * 4, {**tiles, "photometric": "rgb"}),
        "float.tif": (grey.astype(np.float32), {**tiles, "extratags": place}),
        "bands.tif": (
            np.dstack([rgb, rgb]).astype(np.int16),
            {**tiles, "photometric": "minisblack", "planarconfig": "contig"},
        ),
        "planes.tif": (
            rgb.transpose(2, 0, 1),
            {**tiles, "photometric": "rgb", "planarconfig": "separate"},
        ),
        "big.btf": (rgb, {**tiles, "photometric": "rgb", "compression": "zstd"}),
    }
    for name, (pixels, options) in made.items():
        tifffile.imwrite(folder / name, pixels, bigtiff=name.endswith("btf"), metadata=None, **options)
        yield folder / name
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for level, kind in ((rgb, 0), (rgb[::2, ::2], 1), (rgb[::-1], 0)):
            file.write(level, **tiles, photometric="rgb", subfiletype=kind, metadata=None)
    yield folder / "pages.tif"
    tifffile.imwrite(
        folder / "cells.ome.tif",
        np.stack([grey, grey, grey]).astype(np.uint16),
        metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"},
        **tiles,
    )
    yield folder / "cells.ome.tif"


def rasters(folder: Path) -> Iterator[Path]:
    """What GDAL reads besides plain TIFFs: other formats, files beside them, masks, palettes, few bits."""
    import rasterio
    import rasterio.shutil
    from rasterio.control import GroundControlPoint

    rgb = np.asarray(photo())
    grey = rgb[:, :, 0]
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)}

    def write(name: str, pixels: Any, driver: str = "GTiff", **options: Any) -> Path:
        bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        profile = {"count": len(bands), "height": 48, "width": 64, "dtype": bands.dtype, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rasters without a place
            with rasterio.open(folder / name, "w", driver=driver, **profile) as file:
                file.write(bands)
        return folder / name

    yield write(
        "nodata.tif", rgb, nodata=7, photometric="RGB", tiled=True, blockxsize=32, blockysize=32, **place
    )
    yield write("bits.tif", grey // 128, nbits=1, compress="CCITTFAX4", **place)
    yield write("lerc.tif", grey.astype("f4"), compress="LERC_ZSTD", nodata=-9999, **place)
    points = [GroundControlPoint(y, x, 4e5 + x, 5e6 - y) for x, y in ((0, 0), (64, 0), (64, 48))]
    yield write("points.tif", rgb, gcps=points, crs="EPSG:32633", photometric="RGB")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(write("mask.tif", rgb, photometric="RGB", **place), "r+") as file:
            file.write_mask(grey > 99)
            file.build_overviews([2])
        yield folder / "mask.tif"
    with rasterio.open(write("palette.tif", grey // 64, photometric="PALETTE", **place), "r+") as file:
        file.write_colormap(1, {value: (value * 60, 9, 9, 255) for value in range(4)})
    yield folder / "palette.tif"
    yield write("image.jp2", rgb, "JP2OpenJPEG", **place)
    yield write("deep.jp2", grey.astype(np.uint16) * 99, "JP2OpenJPEG")
    yield write("image.img", rgb, "HFA", **place)
    yield write("deep.png", grey.astype(np.uint16) * 99, "PNG", **place)
    yield folder / "deep.png.aux.xml"
    rasterio.shutil.copy(folder / "nodata.tif", folder / "made.vrt", driver="VRT")
    yield folder / "made.vrt"


def microscopy(folder: Path) -> Iterator[Path]:
    """Files whose pages belong together by what their metadata say."""
    import tifffile

    stack = np.stack([np.asarray(photo().convert("L"))] * 4).astype(np.uint16) * 99
    tiles = {"tile": (32, 32)}
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        folder / "depth.ome.tif", stack.reshape(2, 2, 48, 64), metadata={"axes": "ZCYX", **sizes}, **tiles
    )
    with tifffile.TiffWriter(folder / "levels.ome.tif") as file:
        file.write(stack, subifds=1, metadata={"axes": "CYX", **sizes}, **tiles)
        file.write(stack[:, ::2, ::2], subfiletype=1, **tiles)
        file.write(stack[:1], metadata={"axes": "CYX"}, **tiles)
    tifffile.imwrite(
        folder / "imagej.tif", stack, imagej=True, resolution=(2, 2), metadata={"axes": "CYX", "unit": "um"}
    )
    yield from (folder / name for name in ("depth.ome.tif", "levels.ome.tif", "imagej.tif"))


def placed_masks(folder: Path) -> Iterator[Path]:
    """Masks with a place on the map, over ``image.tif``: rasters, and layers of GIS."""
    import pyogrio.raw
    import rasterio
    import shapely

    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 4e5, 0, -1, 5e6)}
    for name, step in (("image.tif", 1), ("mask.tif", 2)):
        grey = np.asarray(photo().convert("L"))[::step, ::step]
        profile = {
            "count": 1,
            "height": len(grey),
            "width": len(grey[0]),
            "dtype": "uint8",
            "nodata": 3,
            **place,
        }
        with rasterio.open(folder / name, "w", driver="GTiff", **profile) as file:
            file.write(grey[None])
    yield folder / "mask.tif"
    shape = shapely.to_wkb([shapely.box(4e5, 5e6 - 30, 4e5 + 40, 5e6)])
    for name in ("mask.gpkg", "mask.shp", "mask.fgb"):
        pyogrio.raw.write(
            folder / name, np.array(shape), [np.array([1])], ["n"], geometry_type="Polygon", crs="EPSG:32633"
        )
        yield folder / name


def world_files(folder: Path) -> Iterator[Path]:
    """What tells the place of a photo beside it."""
    photo().save(folder / "map.png")
    (folder / "map.pgw").write_text("0.5\n0\n0\n-0.5\n400000.25\n5000000.25\n")
    (folder / "map.prj").write_text('PROJCS["WGS 84 / UTM zone 33N",AUTHORITY["EPSG","32633"]]')
    yield from (folder / "map.pgw", folder / "map.prj")


def slides(folder: Path) -> Iterator[Path]:
    """What OpenSlide knows for slides among what can be written here: Aperio's and Trestle's."""
    import tifffile

    rgb = np.asarray(photo(600, 520))
    aperio = (
        "Aperio Image Library v10.0.0\r\n600x520 [0,0 600x520] (240x240) JPEG/RGB Q=70|MPP = 0.25|AppMag = 40"
    )
    options: dict[str, Any] = {
        "tile": (240, 240),
        "compression": "jpeg",
        "photometric": "rgb",
        "metadata": None,
    }
    with tifffile.TiffWriter(folder / "aperio.svs") as file:
        file.write(rgb, description=aperio, **options)
        file.write(
            rgb[::5, ::5], description="Aperio Image Library\r\n120x104", photometric="rgb", metadata=None
        )
        file.write(rgb[::2, ::2], description=aperio, **options)
    with tifffile.TiffWriter(folder / "trestle.tif") as file:
        for step in (1, 2):
            file.write(
                rgb[::step, ::step],
                software="MedScan",
                description="Background Color=FF;Objective Power=10;OverlapsXY= 0 0 0 0",
                **options,
            )
    yield from (folder / "aperio.svs", folder / "trestle.tif")


def zarrs(folder: Path) -> Iterator[Path]:
    """The files of two OME-Zarr folders, of both versions of the format: what tells of them, and a chunk."""
    import zarr

    pixels = np.asarray(photo(96, 80)).transpose(2, 0, 1)
    axes = [
        {"name": "c", "type": "channel"},
        *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx"),
    ]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    sets = [{"path": str(level), "coordinateTransformations": scale} for level in range(2)]
    told: dict[str, Any] = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": sets}]}
    for version in (2, 3):
        store = folder / f"v{version}.zarr"
        group = zarr.open_group(store, mode="w", zarr_format=version)  # type: ignore[arg-type]
        group.attrs.update(told if version == 2 else {"ome": {**told, "version": "0.5"}})
        for level in range(2):
            step = 1 + level
            array = group.create_array(
                str(level), shape=pixels[:, ::step, ::step].shape, chunks=(3, 40, 48), dtype="uint8"
            )
            array[:] = pixels[:, ::step, ::step]
        yield from sorted(
            path for path in store.rglob("*") if path.is_file() and "/1/c/" not in path.as_posix()
        )


def checkpoints(folder: Path) -> Iterator[Path]:
    """Weights as torch writes them: today's archive, the older file, and a training script's checkpoint."""
    import torch

    state = _state()
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1).state_dict()
    torch.save(state, folder / "plain.pth")
    torch.save(state, folder / "older.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "epoch": 3, "optimizer": optimiser}, folder / "training.ckpt")
    yield from (folder / name for name in ("plain.pth", "older.pt", "training.ckpt"))


def safetensors(folder: Path) -> Iterator[Path]:
    from safetensors.torch import save_file

    save_file(_state(), folder / "plain.safetensors", metadata={"format": "pt"})
    yield folder / "plain.safetensors"


def _state() -> dict[str, Any]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5)).state_dict()


def specs(folder: Path) -> Iterator[Path]:
    """What is said of one's own weights beside them, and the names of their classes."""
    said = {
        "arch": "resnet18",
        "categories": ["cat", "dog", "bird"],
        "window": 64,
        "mean": [0.5, 0.5, 0.5],
        "std": "0.5,0.25,0.5",
        "eval_size": 72,
        "temperature": 0.8,
        "mpp": 0.5,
        "activation": "softmax",
    }
    (folder / "own.json").write_text(json.dumps(said))
    (folder / "named.json").write_text(json.dumps({"arch": "resnet18", "categories": "classes.txt"}))
    (folder / "classes.txt").write_text("cat\ndog\nbird\n")
    for name in ("own.pth", "named.pth"):
        (folder / name).write_bytes(b"")
    yield from (folder / name for name in ("own.json", "named.json", "classes.txt"))


def model_folders(folder: Path) -> Iterator[Path]:
    """Folders of models, of each kind that is known."""
    timm = {
        "architecture": "resnet18",
        "num_classes": 3,
        "label_names": ["a", "b", "c"],
        "label_descriptions": {"a": "A"},
        "model_args": {"drop_rate": 0.1},
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "crop_pct": 0.875,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
    }
    transformers = {"model_type": "resnet", "id2label": {"0": "a", "1": "b"}, "hidden_sizes": [8, 16]}
    prepared = {
        "size": {"shortest_edge": 224},
        "crop_pct": 0.875,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    wsinfer = {
        "spec_version": "1.0",
        "architecture": "resnet18",
        "num_classes": 2,
        "class_names": ["other", "tumour"],
        "patch_size_pixels": 350,
        "spacing_um_px": 0.25,
        "transform": [
            {"name": "Resize", "arguments": {"size": 224}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3}},
        ],
    }
    for kind, files in {
        "timm": {"config.json": timm},
        "transformers": {"config.json": transformers, "preprocessor_config.json": prepared},
        "wsinfer": {"config.json": wsinfer},
    }.items():
        (folder / kind).mkdir()
        for name, content in files.items():
            (folder / kind / name).write_text(json.dumps(content))
            yield folder / kind / name


def tars(folder: Path) -> Iterator[Path]:
    """Archives, plain and compressed, whose members have the names that archives should not have."""
    buffer = io.BytesIO()
    photo(16, 12).save(buffer, "PNG")
    content = buffer.getvalue()
    for name, mode, kind in (
        ("plain.tar", "w", tarfile.PAX_FORMAT),
        ("old.tar", "w", tarfile.GNU_FORMAT),
        ("packed.tar.gz", "w:gz", tarfile.PAX_FORMAT),
        ("packed.tar.xz", "w:xz", tarfile.PAX_FORMAT),
    ):
        with tarfile.open(folder / name, mode, format=kind) as archive:  # type: ignore[call-overload]
            for member in ("a.png", "../../out.png", "/etc/passwd.png", "é" * 90 + ".png"):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            link.type, link.linkname = tarfile.LNKTYPE, "a.png"
            archive.addfile(link)
        yield folder / name


def lists(folder: Path) -> Iterator[Path]:
    """Lists of paths, by lines and by null bytes."""
    names = ["photos/a.png", "../b.png", "/etc/passwd", "-", "é.png", "c d.png"]
    (folder / "names.txt").write_text("\n".join(names))
    (folder / "names.0").write_bytes("\0".join(names).encode())
    yield from (folder / "names.txt", folder / "names.0")


TEXTS = {
    "scales": ("1", "fit", "auto", "0.5,256px", "64", "1.,.5"),
    "class": ("cat", "967", "n07920052", "dogs"),
    "region": ("0,0,4000,3000", "1,2,3,4"),
    "bands": ("4,3,2", "1"),
    "rescale": ("0,3000", "0,3000;0,2500;0,2000", "percentile:2,98", "-1e3,1e3"),
    "max_memory": ("2GB", "500MiB", "1.5g"),
    "shard": ("2/8", "1/1"),
    "frame": ("all", "3"),
    "device": ("cuda:1", "cpu"),
    "temperature": ("auto", "0.75"),
    "mean": ("0.5,0.5,0.5",),
    "stride": ("16",),
}
"""Values of options of the command line, by option."""


def texts(folder: Path) -> Iterator[Path]:
    for option, values in TEXTS.items():
        for number, value in enumerate(values):
            path = folder / f"{number}.{option}"
            path.write_text(value)
            yield path


def plans(folder: Path) -> Iterator[Path]:
    """A plan of a tiny network, its optimised copy, their records, its parts and what was measured of it."""
    from onnx import TensorProto, helper

    from fcnconv.backends import openvino
    from fcnconv.backends.plans import PlanRecord, kept_plan, stages_file
    from fcnconv.errors import UsageError
    from fcnconv.grid import Geometry
    from fcnconv.provenance import CellHead, Identity, Proof
    from fcnconv.scan.stages import Stage
    from fcnconv.system.records import sealed

    def model(channels: int) -> bytes:
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"]) for name in "xy"
        )
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", [x], [y])
        opset = [helper.make_opsetid("", 17)]
        made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
        return made

    identity = Identity("tiny", "c0de" * 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    geometry = Geometry(32, 8, 15, 8, True)
    record = PlanRecord(
        identity, "fcn", "1", 3, geometry, Proof(1e-6, 1.0, 0.5, 1e-7), CellHead(7), 1e-7, 0.5
    )
    part = Stage(lambda x: x, 3, 1, 1, 0, 0, 1.0, 1.0, 100.0, 1e3)
    for name in ("tiny.onnx", "tiny.0.optimised"):
        with kept_plan(folder / name, record, part) as path:
            path.write_bytes(model(3))
    (folder / "tiny.parts").write_bytes(stages_file((part, part), (model(3), model(3))))
    with suppress(UsageError):  # without OpenVINO
        on = openvino._here()
        measured = {"on": on, "error": 0.01, "faster": 2.0, "seconds": 0.1, "start": 1.0}
        (folder / "tiny.bfloat16.json").write_text(sealed(measured))
    (folder / "facts.json").write_text(sealed({"num_classes": 3}))
    yield from sorted(folder.iterdir())


def settings(folder: Path) -> Iterator[Path]:
    """What a folder of maps says of how they were made."""
    said = {
        "version": "1",
        "model": "tiny",
        "window": 32,
        "scales": "1",
        "classes": ["cat"],
        "mean": [0.5] * 3,
    }
    (folder / "fcnconv.json").write_text(json.dumps(said))
    yield folder / "fcnconv.json"


def regions(folder: Path) -> Iterator[Path]:
    """Where to look: polygons as QGIS and QuPath write them, and masks."""
    import gzip

    ring = [[2, 2], [60, 3], [58, 40], [2, 2]]
    hole = [[10, 10], [20, 10], [20, 20], [10, 10]]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring, hole]}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[ring], [hole]]}},
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    whole = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (folder / "qgis.geojson").write_text(whole)
    (folder / "qupath.json").write_text(json.dumps(features))
    (folder / "packed.geojson.gz").write_bytes(gzip.compress(whole.encode()))
    mask = photo().convert("1")
    mask.save(folder / "mask.png")
    mask.convert("L").save(folder / "mask.tif")
    names = ("qgis.geojson", "qupath.json", "packed.geojson.gz", "mask.png", "mask.tif")
    yield from (folder / name for name in names)


def _each(folder: Path, made: dict[str, Callable[[Path], None]]) -> Iterator[Path]:
    """The files that could be written: not every Pillow writes every format."""
    for name, write in made.items():
        with suppress(OSError, ValueError, KeyError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that Pillow will not write for ever
            write(folder / name)
            yield folder / name
