"""DICOM slides, as OpenSlide reads them, from a file that the test writes by itself."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from fcnconv.images import mean_side
from fcnconv.images.reading import open_image

pytest.importorskip("openslide", reason="no OpenSlide: pip install 'fcnconv[slides]'")

SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""DICOM's number for VL Whole Slide Microscopy Image Storage."""

LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def element(group: int, number: int, kind: str, value: str | bytes | int) -> bytes:
    """A data element with an explicit type: DICOM PS3.5, section 7.1.2."""
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    value = value.encode() if isinstance(value, str) else value
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "SQ") else struct.pack("<H", len(value))
    return struct.pack("<HH2s", group, number, kind.encode()) + length + value


def item(content: bytes) -> bytes:
    """The only item of a sequence."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def slide(pixels: np.ndarray, tile: int, spacing_mm: float) -> bytes:
    """A slide of one level in uncompressed tiles. pixels: uint8 (H, W, 3), whole tiles."""
    height, width = pixels.shape[:2]
    places = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    spacing = item(element(0x28, 0x30, "DS", f"{spacing_mm}\\{spacing_mm}"))
    meta = element(2, 2, "UI", SLIDE) + element(2, 3, "UI", "1.2.3") + element(2, 0x10, "UI", LITTLE_ENDIAN)
    content = [
        element(0x08, 0x08, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        element(0x08, 0x16, "UI", SLIDE),
        element(0x08, 0x18, "UI", "1.2.3"),
        element(0x20, 0x0E, "UI", "1.2.4"),
        element(0x20, 0x9311, "CS", "TILED_FULL"),
        element(0x28, 0x02, "US", 3),
        element(0x28, 0x04, "CS", "RGB"),
        element(0x28, 0x06, "US", 0),
        element(0x28, 0x08, "IS", str(len(places))),
        element(0x28, 0x10, "US", tile),
        element(0x28, 0x11, "US", tile),
        element(0x28, 0x0100, "US", 8),
        element(0x28, 0x0101, "US", 8),
        element(0x28, 0x0102, "US", 7),
        element(0x28, 0x0103, "US", 0),
        element(0x48, 0x06, "UL", width),
        element(0x48, 0x07, "UL", height),
        element(0x5200, 0x9229, "SQ", item(element(0x28, 0x9110, "SQ", spacing))),
        element(
            0x7FE0, 0x10, "OB", b"".join(pixels[y : y + tile, x : x + tile].tobytes() for y, x in places)
        ),
    ]
    return bytes(128) + b"DICM" + element(2, 0, "UL", len(meta)) + meta + b"".join(content)


@pytest.mark.parametrize("name", ["slide.dcm", "1.2.3"])
def test_a_dicom_slide_is_read_by_its_content(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    (tmp_path / name).write_bytes(slide(pixels, 32, 0.0005))
    source = open_image(tmp_path / name)
    assert source.size == (128, 96) and mean_side(source.info.pixel_size) == pytest.approx(5e-7)
    np.testing.assert_array_equal(source.read((0, 0, 128, 96)), pixels)
