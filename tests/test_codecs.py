"""HEIC, JPEG XL and AVIF: read where their package is there, told with what to install where it is not."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command
from PIL import Image, features

from fcnconv.errors import ImageError
from fcnconv.images import codecs
from fcnconv.images.reading import image_suffixes, open_image, read_image

RGB = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB").resize((48, 32)))
PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}

HEADS = {
    "HEIC": [
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heicmiaf",
        b"\x00\x00\x00\x18ftypmsf1\x00\x00\x00\x00msf1hevc",
    ],
    "JPEG XL": [
        b"\xff\x0a\xfa\x1f\x41\x91\x08\x06",
        b"\x00\x00\x00\x0cJXL \r\n\x87\n\x00\x00\x00\x14ftypjxl ",
    ],
    "AVIF": [
        b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00avifmif1miafMA1B",
        b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf",
    ],
}
"""How files of these formats begin, from ISO 23008-12, ISO 18181-2 and the specification of AVIF."""


def encoded(format: str, pixels: np.ndarray = RGB, **options: object) -> bytes:
    if format in PACKAGES:
        package = pytest.importorskip(PACKAGES[format])
        if format == "HEIF":
            package.register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, heads in HEADS.items() for head in heads])
def test_a_format_is_known_by_its_content(name: str, head: bytes) -> None:
    assert [codec.name for codec in codecs.CODECS if codec.knows(head + b"\x00\x00\x00\x01rest")] == [name]


def test_other_files_are_none_of_these() -> None:
    others = [
        b"",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\x89PNG\r\n\x1a\n",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00mp41",
    ]
    for head in others:
        file = io.BytesIO(b"x" + head)
        file.read(1)
        assert not codecs.prepare(file, "x") and file.tell() == 1


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [("HEIC", "pillow_heif", "fcnconv[heif]"), ("JPEG XL", "pillow_jxl", "fcnconv[jxl]")],
)
def test_a_missing_package_is_told_with_its_extra(
    name: str, package: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "photo.jpg"  # whatever its suffix
    path.write_bytes(HEADS[name][0] + bytes(100))
    with pytest.raises(ImageError) as error:
        open_image(path)
    assert str(error.value) == f"{path}: to read {name}, pip install '{install}'"


def test_a_pillow_without_avif_is_told_which_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match=r"^a: to read AVIF, pip install 'pillow>=11\.3'$"):
        open_image(HEADS["AVIF"][0] + bytes(100), name="a")


@pytest.mark.parametrize("format", ["HEIF", "JXL", "AVIF"])
def test_a_photo_reads_as_it_was_written(format: str) -> None:
    pixels = read_image(encoded(format))
    assert pixels.shape == RGB.shape and np.abs(pixels.astype(int) - RGB).mean() < 6


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_a_turned_photo_is_upright_once(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = read_image(encoded(format, exif=exif.tobytes()))
    expected = np.rot90(RGB, -1)
    assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).mean() < 6


def test_a_turned_jpeg_inside_a_jxl_is_upright_once(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=98, exif=exif)
    with Image.open(tmp_path / "a.jpg") as photo:
        photo.save(tmp_path / "a.jxl", lossless_jpeg=True)
    assert (read_image(tmp_path / "a.jxl") == read_image(tmp_path / "a.jpg")).all()
    # A JPEG XL of its own has its orientation in its header, here none, and that stands over EXIF.
    assert read_image(encoded("JXL", exif=exif.tobytes())).shape == RGB.shape


def test_the_commands_read_heic_and_jxl(fcnconv: Command, tmp_path: Path) -> None:
    with Image.open(SAMPLES / "coffee.png") as photo:
        pixels = np.asarray(photo.convert("RGB"))
    (tmp_path / "photos").mkdir()
    for format, name in (("HEIF", "a.heic"), ("JXL", "b.jxl")):
        (tmp_path / "photos" / name).write_bytes(encoded(format, pixels))
    folder = tmp_path / "photos"
    done = fcnconv("classify", "-k", "1", "--json", *sorted(folder.iterdir()))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["predictions"][0]["category"] for line in done.stdout.splitlines()] == [
        "espresso"
    ] * 2
    done = fcnconv("batch", folder, "-o", tmp_path / "maps", "-f", "npy", "--anchors", "0")
    assert done.returncode == 0 and done.stdout.count(b"\n") == 2, done.stderr


def test_their_files_count_as_images_in_a_folder() -> None:
    assert {".heic", ".heif", ".jxl", ".avif"} <= image_suffixes()
