"""Pictures: the map lies where the windows are."""

import numpy as np
import pytest

from fcnconv.render import OPACITY, colour_map, overlay
from fcnconv.scores import Grid


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB, as an oracle beside the OKLab that the map was made in."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16


def test_the_colour_map_is_as_even_in_grey_as_in_colour() -> None:
    steps = np.diff(lightness(colour_map() / 255)[::16])
    assert (steps > 0).all()
    assert steps.max() < 1.5 * np.median(steps)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_hot_cell_is_drawn_at_its_windows_centre_and_nothing_beyond_the_cells(scale: int) -> None:
    grid = Grid(window=64, stride=16, image_size=(320, 240), scan_size=(320 // scale, 240 // scale))
    plane = np.zeros((grid.rows, grid.cols), np.float32)
    plane[1, 2] = 1
    photo = np.full((240, 320, 3), 100, np.uint8)
    picture = np.asarray(overlay(photo, plane, grid, "x")).astype(int)
    x0, y0, x1, y1 = grid.box(1, 2)
    change = np.abs(picture - 100).sum(-1)
    hottest = np.unravel_index((picture @ [1, 1, 0])[:160].argmax(), (160, 320))
    assert np.abs(np.array(hottest) - [(y0 + y1) / 2, (x0 + x1) / 2]).max() <= scale
    edge = (64 // 2 - 16 // 2) * scale
    assert not change[:edge].any() and not change[:160, :edge].any()
    assert change[edge, edge] and change[edge, grid.image_size[0] - edge - 1]


def test_the_scale_is_absolute() -> None:
    grid = Grid(8, 8, (80, 80), (80, 80))
    photo = np.zeros((80, 80, 3), np.uint8)
    for probability in (0.0, 0.25, 1.0):
        picture = np.asarray(overlay(photo, np.full((10, 10), probability, np.float32), grid, "x"))
        expected = np.round(OPACITY * colour_map()[round(probability * 255)])
        assert (picture[5, 5] == expected).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (224, 224)])
def test_small_pictures_keep_their_size(size: tuple[int, int]) -> None:
    grid = Grid(224, 32, size, (max(224, size[0]), max(224, size[1])))
    plane = np.zeros((grid.rows, grid.cols), np.float32)
    assert overlay(np.zeros((size[1], size[0], 3), np.uint8), plane, grid, "a long name " * 9).size == size
