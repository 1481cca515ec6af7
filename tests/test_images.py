"""The opener: orientation, modes, limits, and the errors of everything that is no image."""

import io
import os
import struct
import threading

import numpy as np
import pytest
from PIL import Image

from fcnconv.errors import ImageError, UsageError
from fcnconv.images import ImageSource, MemorySource, resize
from fcnconv.images.reading import normalize, open_image, read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# How each EXIF orientation stores an upright picture, from the EXIF standard's table of row 0 and column 0.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    assert (read_image(encoded(stored, exif=exif)) == RGB).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F", "YCbCr"])
def test_every_mode_reads_as_rgb(mode: str) -> None:
    grey = RGB[:, :, 0]
    if mode in ("L", "1", "I;16", "F"):
        wide = {"I;16": grey.astype(np.uint16) * 257, "F": grey / np.float32(255)}
        image = Image.fromarray(wide[mode]) if mode in wide else Image.fromarray(grey).convert(mode)
        expected = np.asarray(image.convert("L")) if mode == "1" else grey
        expected = np.repeat(expected[:, :, None], 3, axis=2)
    else:
        image = Image.fromarray(RGB).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    assert image.mode == mode
    pixels = read_image(image if mode in ("F", "YCbCr") else encoded(image, "TIFF"))
    assert pixels.dtype == np.uint8 and pixels.shape == RGB.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_file_of_values_without_a_white_is_refused() -> None:
    with pytest.raises(
        ImageError, match=r"nothing defines which of its values are black and white.*--rescale LOW,HIGH"
    ):
        read_image(encoded(Image.fromarray(RGB[:, :, 0].astype(np.int32)), "TIFF"))


def test_transparent_pixels_are_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert read_image(encoded(image)).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data) == [255, 0, 0]).all()


def test_one_pixel_is_an_image() -> None:
    assert open_image(encoded(Image.new("RGB", (1, 1)))).size == (1, 1)


def test_a_path_and_an_array_read_alike(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB)))
    assert (read_image(tmp_path / "a.png") == read_image(RGB)).all()


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encoded(Image.new("1", (300, 200)))
    with pytest.raises(
        ImageError,
        match=r"300 × 200 is 60,000 pixels, over the limit of 59,999; to read it, add --max-pixels 60000",
    ):
        open_image(data, max_pixels=59_999)
    assert open_image(data, max_pixels=60_000).size == (300, 200)


def test_pillows_own_limit_is_lifted_by_max_pixels_alone(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_image(encoded(Image.new("1", (300, 200)))).size == (300, 200)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_what_is_no_image_is_told_by_its_path(tmp_path) -> None:
    png = encoded(Image.fromarray(RGB).resize((200, 200)))
    cases = {
        "empty.jpg": (b"", "empty, 0 bytes"),
        "text.jpg": (b"hello\n", "not an image that Pillow can decode"),
        "cut.png": (png[: len(png) // 2], "damaged or cut short"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=f"^{tmp_path}/{name}: {reason}"):
            open_image(tmp_path / name)
    with pytest.raises(ImageError, match=r"missing\.jpg: cannot be opened: No such file or directory"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="a directory, not an image"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be opened: embedded null"):
        open_image("a\0b")


def test_bytes_are_never_turned_into_text() -> None:
    class Content(bytes):
        def __str__(self) -> str:
            raise AssertionError("a second of work for a member of some megabytes")

    data = Content(encoded(Image.fromarray(RGB)))
    assert open_image(data).name == "image"
    assert open_image(data, name="a.tar/1.png").name == "a.tar/1.png"
    with pytest.raises(ImageError, match=r"^-: is empty"):
        open_image(Content(b""), name="-")


def test_an_image_comes_through_a_fifo(tmp_path) -> None:
    fifo, data = tmp_path / "fifo", encoded(Image.fromarray(RGB).resize((1600, 1200)), "JPEG")
    os.mkfifo(fifo)
    for short_side in (None, 100):
        writer = threading.Thread(target=fifo.write_bytes, args=(data,))
        writer.start()
        source = open_image(fifo, short_side=short_side)
        writer.join()
        box = (0, 0, 1600, 1200)
        assert source.name == str(fifo) and (source.read(box) == read_image(data)).all()


@pytest.mark.parametrize("url", ["https://example.org/photo.jpg", "http://x/a?b=1&c=2", "ftp://x/y"])
def test_a_url_is_told_how_it_comes_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.images.remote.find_spec", lambda _: None)
    shown, scheme = url.partition("?")[0], url.partition(":")[0].lower()  # what is asked may be a secret
    with pytest.raises(UsageError) as error:
        open_image(url)
    assert str(error.value) == (
        f"{shown}: reading {scheme}:// needs the extra remote: pip install 'fcnconv[remote]'; or send the "
        "image to standard input: curl -s … | fcnconv classify"
    )


def test_a_file_below_a_folder_named_like_a_url_is_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "https:/x").mkdir(parents=True)
    (tmp_path / "https:/x/a.png").write_bytes(encoded(Image.fromarray(RGB)))
    assert open_image("https://x/a.png").size == (9, 6)


def test_an_array_that_is_no_rgb_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"must be uint8 \(H, W, 3\), got float32 \(2, 2, 3\)"):
        open_image(np.zeros((2, 2, 3), np.float32))  # type: ignore[arg-type]


def test_resize_is_pillows_bicubic_and_nothing_at_its_own_size() -> None:
    source = MemorySource(RGB)
    assert isinstance(source, ImageSource)
    assert resize(source, (9, 6)) is source
    expected = np.asarray(Image.fromarray(RGB).resize((20, 13), Image.Resampling.BICUBIC))
    assert (resize(source, (20, 13)).read((3, 2, 17, 9)) == expected[2:9, 3:17]).all()


def test_normalize_is_the_formula() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    expected = ((RGB / 255 - mean) / std).transpose(2, 0, 1)[None]
    assert np.abs(normalize(RGB, mean, std) - expected).max() < 1e-6


def test_what_pillow_does_not_support_is_not_called_damaged() -> None:
    header = struct.pack("<2sIIIIiiHHI", b"BM", 118, 0, 54, 40, 8, 8, 1, 3, 0)  # 3 bits a pixel
    with pytest.raises(ImageError, match=r"^image: Pillow cannot decode it: Unsupported BMP pixel depth"):
        open_image(header + bytes(84))
