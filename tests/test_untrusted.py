"""Strangers' files: what they claim decides nothing before it is checked, what they pickle is not run, and
what they are called reaches neither a terminal nor a spreadsheet as anything but text.

Most of the files here are what ``tests/fuzz`` found, made as small as they can be.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command
from PIL import Image
from tiny import choose, make_map

from fcnconv.api.maps import save_map as save
from fcnconv.errors import FcnconvError, ImageError, ModelError, UsageError, printable
from fcnconv.grid import Grid
from fcnconv.images import MemorySource, mean_side
from fcnconv.images.reading import open_image
from fcnconv.labels import Labels, imagenet
from fcnconv.labels.class_names import read_names
from fcnconv.models import find_model
from fcnconv.models.checkpoint import read_tensors
from fcnconv.models.own import read_spec
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_device, parse_memory, parse_rescale, parse_scales, parse_shard
from fcnconv.scan.roi.region import region_of_interest
from fcnconv.system.records import parse_json, remembered, sealed, unsealed
from fcnconv.writers import WRITERS

RNG = np.random.default_rng(11)
PIXELS = RNG.integers(0, 255, (64, 96, 3), np.uint8)


# TIFF


def tiff(path: Path, pixels: np.ndarray = PIXELS, **options: Any) -> bytearray:
    """A file of tiles, to be altered."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, pixels, **{"tile": (32, 32), "photometric": "rgb", "metadata": None, **options})
    return bytearray(path.read_bytes())


def entry(content: bytearray, tag: int) -> int:
    """Where a tag's entry lies in the first directory of a little-endian file: tag, type, count, value."""
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    places = range(first + 2, first + 2 + 12 * count, 12)
    return next(place for place in places if struct.unpack_from("<H", content, place)[0] == tag)


def tile_of_28_gigapixels(content: bytearray) -> None:
    struct.pack_into("<I", content, entry(content, 322) + 8, 117_440_512)


def tag_of_4_gigabytes(content: bytearray) -> None:
    struct.pack_into("<I", content, entry(content, 324) + 4, 1 << 30)


def tags_across_each_other(content: bytearray) -> None:
    """Each of 500 tags is most of the file: Pillow before 13 reads them all when it opens the file."""
    start, (first,) = len(content), struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    entries = content[first + 2 : first + 2 + 12 * count]
    more = (struct.pack("<HHII", 40_000 + number, 1, start, 0) for number in range(500))
    struct.pack_into("<I", content, 4, start)
    content += struct.pack("<H", count + 500) + entries + b"".join(more) + bytes(4)


def segment_of_2_gigabytes(content: bytearray) -> None:
    struct.pack_into("<HII", content, entry(content, 325) + 2, 4, 1, 2_000_000_000)


def segment_beyond_the_end(content: bytearray) -> None:
    (places,) = struct.unpack_from("<I", content, entry(content, 324) + 8)
    struct.pack_into("<I", content, places, 3_672_688_688)  # Pillow asks for memory up to the next


def image_of_16_million_rows(content: bytearray) -> None:
    struct.pack_into("<HII", content, entry(content, 257) + 2, 4, 1, 16_000_000)


def circle_of_pages(content: bytearray) -> None:
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * count, len(content))
    content += struct.pack("<HI", 0, len(content))  # a page without tags, which follows itself


def pages_across_each_other(content: bytearray) -> None:
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    start, pages = len(content), 4000
    struct.pack_into("<I", content, first + 2 + 12 * count, start)
    content += bytes(10 * pages + 18)
    for place in range(start, start + 10 * pages, 10):  # of one tag, 18 bytes, each: the next begins inside
        struct.pack_into("<H", content, place, 1)
        struct.pack_into("<I", content, place + 14, place + 10)


@pytest.mark.parametrize(
    ("alter", "claim"),
    [
        (tile_of_28_gigapixels, r"tiles of 117440512 × 32 px"),
        (tag_of_4_gigabytes, r"[\d,]+ bytes of tag 324 in"),
        (tags_across_each_other, r"[\d,]+ bytes of tags in"),
        (segment_of_2_gigabytes, r"a segment of 2,000,000,000 bytes in"),
        (segment_beyond_the_end, r"a segment at byte 3,672,688,688 of"),
        (image_of_16_million_rows, r"\d+ × 16000000 px, but [\d,]+ segments are missing"),
        (circle_of_pages, r"pages that follow each other in a circle"),
        (pages_across_each_other, r"pages that lie across each other"),
    ],
)
@pytest.mark.parametrize("name", ["photo.tif", "slide.svs"])
def test_a_tiff_that_claims_more_than_it_holds(
    alter: Callable[[bytearray], None], claim: str, name: str, tmp_path: Path
) -> None:
    content = tiff(tmp_path / name)
    open_image(tmp_path / name)  # the file that is altered is sound
    alter(content)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=rf"{name}: damaged or cut short: it claims {claim}"):
        open_image(tmp_path / name)


def test_a_tiff_of_more_tiles_than_it_has_places_for(tmp_path: Path) -> None:
    """Its tiles are counted to know how dark it is: a list of 10¹⁵ of them took all memory."""
    content = tiff(tmp_path / "deep.tif", PIXELS.astype(np.uint16))
    for tag in (256, 257):
        struct.pack_into("<HIi", content, entry(content, tag) + 2, 4, 1, 1_000_000_000)
    (tmp_path / "deep.tif").write_bytes(content)
    with pytest.raises(ImageError, match=r"deep\.tif: .*1000000000 × 1000000000"):
        open_image(tmp_path / "deep.tif")


@pytest.mark.parametrize("tag", [284, 296, 277])
def test_a_tiff_whose_tags_are_what_they_cannot_be(tag: int, tmp_path: Path) -> None:
    content = tiff(tmp_path / "odd.tif")
    struct.pack_into("<HI", content, entry(content, tag) + 2, 3, 2)  # two values for one
    (tmp_path / "odd.tif").write_bytes(content)
    try:
        source = open_image(tmp_path / "odd.tif")
    except ImageError:
        return
    source.valid_mask()
    assert mean_side(source.info.pixel_size) is None and source.read((0, 0, 96, 64)).shape == (64, 96, 3)


# OME-Zarr


def store(
    path: Path, shape: tuple[int, ...] = (64, 96), chunks: tuple[int, ...] = (64, 96), **array: Any
) -> Path:
    """A folder of zarr's second version, written by hand: (y, x), or (c, y, x)."""
    pytest.importorskip("zarr")
    axes = list("cyx")[3 - len(shape) :]
    told = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]}
    (path / "0").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps(told))
    said = {"dtype": "|u1", "fill_value": 0, "order": "C", "filters": None, "compressor": None}
    said |= {"zarr_format": 2, "shape": shape, "chunks": chunks, **array}
    (path / "0" / ".zarray").write_text(json.dumps(said))
    return path


class _Payload:
    """What its pickle does when it is loaded makes a folder."""

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
        {"dtype": "|u1", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
        {"dtype": "|u1", "compressor": {"id": "pickle"}},
        {"dtype": "|O", "fill_value": 0, "filters": [{"id": "pickle"}]},
    ],
)
def test_a_zarr_that_pickles_is_refused_and_not_run(
    array: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickles = pytest.importorskip("numcodecs.pickles")
    # Its last versions do not unpickle unless they are told to; those before do.
    monkeypatch.setattr(pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path, made = store(tmp_path / "cells.zarr", **array), tmp_path / "made"
    (path / "0" / "0.0").write_bytes(pickle.dumps(_Payload(made)))
    with pytest.raises(ImageError, match=r"cells\.zarr: a folder of zarr, but not an OME-Zarr image"):
        open_image(path, rescale=parse_rescale("0,255")).read((0, 0, 8, 8))
    assert not made.exists()
    pickles.Pickle().decode((path / "0" / "0.0").read_bytes())  # the payload works
    assert made.exists()


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((10**6, 10**6), (10**6, 10**6)),
        ((10**6, 10**6), (1, 10**6)),  # of which a thousand would be read at once
        ((10**9, 64, 96), (1, 64, 96)),  # all channels are
        ((0, 96), (64, 96)),
        ((64, 96), (0, 96)),
    ],
)
def test_a_zarr_of_no_size_or_any(shape: tuple[int, ...], chunks: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not an OME-Zarr image"):
        open_image(store(tmp_path / "huge.zarr", shape, chunks), bands=(1,)).read((0, 0, 1, 1))


@pytest.mark.parametrize(
    ("place", "number", "claim"),
    [(12, 1_000_000_000, r"1,000,000,000 bytes in [\d,]+"), (4, 4_000_000_000, "4,000,000,000 bytes")],
)
def test_a_chunk_of_blosc_that_claims_more_than_it_holds(
    place: int, number: int, claim: str, tmp_path: Path
) -> None:
    """Blosc reads what the head claims, wherever that is."""
    path = store(
        tmp_path / "cells.zarr", compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
    )
    chunk = bytearray(pytest.importorskip("numcodecs").Blosc("lz4").encode(bytes(range(256)) * 24))
    (path / "0" / "0.0").write_bytes(chunk)
    source = open_image(path, rescale=parse_rescale("0,255"))
    assert source.read((0, 0, 96, 1)).max() == 95
    struct.pack_into("<I", chunk, place, number)
    (path / "0" / "0.0").write_bytes(chunk)
    with pytest.raises(ImageError, match=rf"cells\.zarr: damaged or cut short: 0/0\.0 claims {claim}"):
        open_image(path, rescale=parse_rescale("0,255")).read((0, 0, 64, 8))


def test_a_zarr_whose_levels_differ_in_their_channels(tmp_path: Path) -> None:
    path = store(tmp_path / "cells.zarr", (3, 64, 96), (3, 64, 96))
    told = json.loads((path / ".zattrs").read_text())
    told["multiscales"][0]["datasets"].append({"path": "1"})
    (path / ".zattrs").write_text(json.dumps(told))
    said = json.loads((path / "0" / ".zarray").read_text())
    (path / "1").mkdir()
    (path / "1" / ".zarray").write_text(json.dumps(said | {"shape": [1, 32, 48], "chunks": [1, 32, 48]}))
    with pytest.raises(ImageError, match="its levels differ in their channels"):
        open_image(path)


def test_percentiles_of_a_large_zarr_are_of_a_part_of_it(tmp_path: Path) -> None:
    path = store(tmp_path / "sparse.zarr", (10**6, 10**6), (512, 512))
    (path / "0" / "0.0").write_bytes(bytes(range(256)) * 1024)
    source = open_image(path, rescale=parse_rescale("percentile:0,100"))  # not of a terabyte
    assert source.size == (10**6, 10**6)


@pytest.mark.parametrize("name", [".zattrs", "0/.zarray"])
def test_a_zarr_that_is_nested_without_end(name: str, tmp_path: Path) -> None:
    path = store(tmp_path / "deep.zarr")
    (path / name).write_text("[" * 100_000)
    with pytest.raises(ImageError, match=r"deep\.zarr: a folder of zarr, but not an OME-Zarr image"):
        open_image(path)


# Other images


def test_a_large_image_in_a_file_of_nothing(tmp_path: Path) -> None:
    """It would be unpacked to the disk before anybody saw that it is cut short."""
    Image.new("RGB", (64, 48)).save(tmp_path / "bomb.bmp")
    content = bytearray((tmp_path / "bomb.bmp").read_bytes())
    struct.pack_into("<ii", content, 18, 60_000, 60_000)
    (tmp_path / "bomb.bmp").write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.bmp: .*it claims 60000 × 60000 pixels in [\d,]+ bytes"):
        open_image(tmp_path / "bomb.bmp", max_pixels=10**12)


def test_a_chunk_of_a_png_that_claims_2_gigabytes(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "chunk.png")
    content = bytearray((tmp_path / "chunk.png").read_bytes())
    struct.pack_into(">I", content, content.index(b"IDAT") - 4, 0x7FFFFFFF)
    (tmp_path / "chunk.png").write_bytes(content)
    tracemalloc.start()
    with suppress(ImageError):  # its pixels are there
        open_image(tmp_path / "chunk.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50e6


def test_a_box_of_a_jpeg_2000_that_claims_all_memory(tmp_path: Path) -> None:
    head = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n") + struct.pack(
        ">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 "
    )
    (tmp_path / "long.jp2").write_bytes(head + struct.pack(">I4sQ", 1, b"jp2h", 1 << 62))
    with pytest.raises(ImageError, match=r"long\.jp2: damaged or cut short"):
        open_image(tmp_path / "long.jp2")


# Weights


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),  # which loads another pickle, without limits
        ("torch._utils", "_import_dotted_name"),
        ("torch.jit", "load"),
        ("numpy", "load"),
        ("functools", "partial"),
    ],
)
def test_no_function_of_a_checkpoint_is_called(module: str, function: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pth")
    called = f"c{module}\n{function}\n(Vecho\ntR.".encode()  # GLOBAL, MARK, UNICODE, TUPLE, REDUCE, STOP
    rewrite(tmp_path / "plain.pth", tmp_path / "evil.pth", {"data.pkl": called})
    with pytest.raises(ModelError, match=r"evil\.pth: refused: .*would run code from it"):
        read_tensors(tmp_path / "evil.pth")


def rewrite(old: Path, new: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """An archive of torch's with other contents of some members."""
    with zipfile.ZipFile(old) as archive, zipfile.ZipFile(new, "w", compression) as out:
        for info in archive.infolist():
            out.writestr(info.filename, members.get(info.filename.split("/", 1)[1], archive.read(info)))


def test_a_checkpoint_inside_a_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save(_Payload(made), tmp_path / "inner.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pth")
    rewrite(
        tmp_path / "plain.pth", tmp_path / "outer.pth", {"data.pkl": (tmp_path / "inner.pth").read_bytes()}
    )
    with pytest.raises(ModelError, match=r"outer\.pth"):
        read_tensors(tmp_path / "outer.pth")
    assert not made.exists()


def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    rewrite(tmp_path / "plain.pth", tmp_path / "bomb.pth", {}, zipfile.ZIP_DEFLATED)
    assert (
        torch.load(tmp_path / "bomb.pth", weights_only=True)["weight"].numel() == 1_000_000
    )  # torch unpacks it
    with pytest.raises(ModelError, match=r"bomb\.pth: refused: [\d,]+ bytes claim to contain 4,0\d\d,\d{3};"):
        read_tensors(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(1).half().expand(10**12), torch.empty(10**12, device="meta")],
    ids=["repeated", "without values"],
)
def test_a_tensor_that_claims_more_than_the_file_holds(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"head.weight": tensor}, tmp_path / "wide.pth")
    with pytest.raises(
        ModelError, match=r"wide\.pth: head\.weight claims .* values, which the file does not hold"
    ):
        read_tensors(tmp_path / "wide.pth")


@pytest.mark.parametrize(
    "code", [b"", b"0.", b"(.", b"u.", b"\x88\x00\x00", b"\x8e" + b"\xff" * 8, b"}\x94h\x07."]
)
def test_damaged_checkpoints(code: bytes, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pth")
    rewrite(tmp_path / "plain.pth", tmp_path / "damaged.pth", {"data.pkl": b"\x80\x02" + code})
    with pytest.raises(ModelError, match=r"damaged\.pth: "):
        read_tensors(tmp_path / "damaged.pth")


def test_a_damaged_archive_of_weights(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pth")
    content = bytearray((tmp_path / "plain.pth").read_bytes())
    place = content.rindex(b"PK\1\2")
    content[place : place + 4] = b"PK\0\0"
    (tmp_path / "plain.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"plain\.pth: not a file of weights that torch can read"):
        read_tensors(tmp_path / "plain.pth")


# JSON


DEEP, LONG = "[" * 100_000, "9" * 5000


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, LONG, f"[{10**30}]", f"[-{10**30}]", "{", ""])
def test_json_fails_in_one_way(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json(f"[{2**63}, -{2**63}, 1e300]") == [2**63, -(2**63), 1e300]


@pytest.mark.parametrize(
    "text", [DEEP, f'{{"window": {LONG}}}', f'{{"mpp": {10**400}}}', f'{{"mean": [{10**400}]}}']
)
def test_a_description_that_python_cannot_hold(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UsageError, match=r"own\.json: the model's description cannot be read"):
        read_spec(tmp_path / "own.json")


def test_categories_in_a_file_that_cannot_be(tmp_path: Path) -> None:
    for name in ("a\0b", "\ud800\udfff"):
        with pytest.raises(UsageError, match="the categories cannot be read"):
            read_names(tmp_path / name)


TIMM = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224]}}
WSINFER = {"architecture": "resnet18", "class_names": ["a"], "patch_size_pixels": 8, "spacing_um_px": 0.5}


@pytest.mark.parametrize(
    "config",
    [
        TIMM | {"pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 1e-320}},
        WSINFER | {"patch_size_pixels": 0},
        WSINFER | {"spacing_um_px": 1e308, "patch_size_pixels": 10**18},
    ],
)
def test_a_folder_whose_numbers_cannot_be_computed_with(config: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("timm")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FcnconvError, match=r"config\.json|over 0|pixels"):
        find_model(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    "text", [DEEP, f'{{"type": "Polygon", "coordinates": [[[{10**400}, 0], [1, 1], [2, 0]]]}}']
)
def test_regions_that_python_cannot_hold(text: str, tmp_path: Path) -> None:
    (tmp_path / "where.geojson").write_text(text)
    with pytest.raises(ImageError, match=r"where\.geojson: cannot be read as GeoJSON polygons"):
        region_of_interest(MemorySource(PIXELS), ScanOptions(mask=str(tmp_path / "where.geojson")))


def test_a_record_that_was_altered_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = []

    def find() -> dict[str, Any]:
        found.append(1)
        return {"num_classes": 5}

    def ask() -> int:
        return remembered(("classes", "m"), find, lambda facts: int(facts["num_classes"]))

    assert (ask(), ask(), len(found)) == (5, 5, 1)
    (path,) = tmp_path.rglob("classes-*.json")
    for text in (
        path.read_text().replace("5", "9", 1),
        DEEP,
        '{"num_classes": 1e999}',
        "[]",
        "7",
        '{"record": 1}',
    ):
        path.write_text(text)
        assert ask() == 5
    assert len(found) == 7
    assert unsealed(sealed({"a": [0.1, None, "é"]})) == {"a": [0.1, None, "é"]}


# Text


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_scales, f"{LONG}px"),
        (parse_shard, f"1/{LONG}"),
        (parse_memory, f"{LONG}GB"),
        (parse_device, f"cuda:{LONG}"),
        (imagenet().find, LONG),
    ],
)
def test_numbers_of_five_thousand_digits(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_no_terminal_obeys_a_message(fcnconv: Command, tmp_path: Path) -> None:
    assert printable("é\x1b[2J\r\n\x9b\u2028\x7f") == r"é\x1b[2J\r\n\x9b\u2028\x7f"
    run = fcnconv("classify", tmp_path / "\x1b]0;owned\x07\n.png")
    assert run.returncode == 1 and run.stderr.count(b"\n") == 1 and rb"\x1b]0;owned\x07\n.png" in run.stderr
    assert not set(run.stderr[:-1]) & set(range(32))


NAMES = ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\tx", "\rx", "plain")


def test_no_spreadsheet_computes_a_name(tmp_path: Path) -> None:
    logits = np.eye(7, dtype=np.float32)[None] * 9
    grid = Grid(8, 8, (56, 8), (56, 8))
    score_map = make_map(logits, grid, Labels(NAMES))
    save(score_map.stream(), str(tmp_path / "map.csv"), WRITERS["csv"], choose(top_k=1))
    with (tmp_path / "map.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["category_1"] for row in rows] == [
        *(f"'{name}" for name in NAMES[:4]),
        r"\tx",
        r"\rx",
        "plain",
    ]


def test_the_sample_images_are_not_refused() -> None:
    for path in SAMPLES.glob("*.*g"):
        assert min(open_image(path).size) > 0
        assert min(open_image(io.BytesIO(path.read_bytes()).getvalue()).size) > 0
