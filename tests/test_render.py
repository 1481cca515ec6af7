"""Pictures: the map lies where the windows are."""

import numpy as np
import pytest
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.render.colours import colour_map, distinct_colours
from fcnconv.render.draw import OPACITY, Style, draw_classes, draw_winners


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
    picture = np.asarray(draw_classes(photo, plane[:, :, None], grid, ["x"])).astype(int)
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
        picture = np.asarray(draw_classes(photo, np.full((10, 10, 1), probability, np.float32), grid, ["x"]))
        expected = np.round(OPACITY * colour_map()[round(probability * 255)])
        assert (picture[5, 5] == expected).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (224, 224)])
def test_small_pictures_keep_their_size(size: tuple[int, int]) -> None:
    grid = Grid(224, 32, size, (max(224, size[0]), max(224, size[1])))
    plane = np.zeros((grid.rows, grid.cols), np.float32)
    photo = np.zeros((size[1], size[0], 3), np.uint8)
    assert draw_classes(photo, plane[:, :, None], grid, ["a long name " * 9]).size == size
    assert draw_winners(photo, plane.astype(int), plane, grid, ["a", "b" * 99]).size == size


GRID = Grid(window=64, stride=32, image_size=(320, 256), scan_size=(320, 256))
PHOTO = np.full((256, 320, 3), 100, np.uint8)


def test_cells_are_filled_without_interpolation() -> None:
    planes = np.random.default_rng(0).random((GRID.rows, GRID.cols, 1), np.float32)
    picture = np.asarray(draw_classes(PHOTO, planes, GRID, ["x"], Style(cells=True)))
    for row in range(3):
        for col in range(GRID.cols):
            top, left = 16 + 32 * row, 16 + 32 * col
            square = picture[top : top + 32, left : left + 32].reshape(-1, 3)
            assert (square == square[0]).all()


def test_several_classes_have_a_panel_each_of_the_photos_size() -> None:
    planes = np.zeros((GRID.rows, GRID.cols, 3), np.float32)
    planes[:, :, 1] = 1
    picture = draw_classes(PHOTO, planes, GRID, ["a", "b", "c"])
    assert picture.size == (3 * 320, 256)
    bright = np.asarray(picture.convert("L"))
    assert bright[50, 320 + 50] > bright[50, 50] == bright[50, 640 + 50]


def test_winners_have_their_colours_and_fade_where_unsure() -> None:
    probabilities = np.zeros((GRID.rows, GRID.cols, 3), np.float32)
    probabilities[:, :5, 2], probabilities[:, 5:, 0] = 0.9, 0.9
    probabilities[0, 0, 2] = 0.4
    picture = np.asarray(
        draw_winners(PHOTO, probabilities.argmax(-1), probabilities.max(-1), GRID, ["a", "never", "c"])
    ).astype(int)
    ours, theirs = distinct_colours(2).astype(int)
    grey, sure = 100, 0.15 + 0.75 * 0.9
    assert np.abs(picture[100, 100] - (sure * ours + (1 - sure) * grey)).max() <= 1
    assert np.abs(picture[100, 250] - (sure * theirs + (1 - sure) * grey)).max() <= 1
    assert np.abs(picture[20, 20] - grey).sum() < np.abs(picture[100, 100] - grey).sum()


def test_distinct_colours_are_distinct() -> None:
    colours = distinct_colours(12).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert apart[~np.eye(12, dtype=bool)].min() > 30


def test_a_reduced_photo_has_the_map_in_the_same_places() -> None:
    planes = np.zeros((GRID.rows, GRID.cols, 1), np.float32)
    planes[2, 3] = 1
    whole = draw_classes(PHOTO, planes, GRID, ["x"], Style(cells=True)).resize(
        (160, 128), Image.Resampling.BOX
    )
    small = draw_classes(np.ascontiguousarray(PHOTO[::2, ::2]), planes, GRID, ["x"], Style(cells=True))
    above_the_legend = np.s_[:80]
    assert np.array_equal(np.asarray(whole)[above_the_legend], np.asarray(small)[above_the_legend])
