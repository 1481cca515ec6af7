"""Pictures: the map lies where the windows are, and what is improbable is not seen."""

import numpy as np
import pytest
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.render.colours import colour_map, distinct_colours, opacity_map
from fcnconv.render.draw import Style, draw_plane, draw_winners
from fcnconv.render.sheet import class_sheet, sheet_shape, winners_sheet
from fcnconv.scores import top_k


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB, as an oracle beside the OKLab that the map was made in."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16


def test_the_colour_map_is_as_even_in_grey_as_in_colour() -> None:
    steps = np.diff(lightness(colour_map() / 255)[::16])
    assert (steps > 0).all()
    assert steps.max() < 1.5 * np.median(steps)


def test_zero_is_clear_and_opacity_follows_probability() -> None:
    assert opacity_map()[0] == 0 and (np.diff(opacity_map()) > 0).all()
    grid = Grid(8, 8, (80, 80), (80, 80))
    photo = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    assert np.array_equal(np.asarray(draw_plane(photo, np.zeros((10, 10), np.float32), grid)), photo)
    black = np.zeros_like(photo)
    for level in (64, 255):
        picture = np.asarray(draw_plane(black, np.full((10, 10), level / 255, np.float32), grid))
        expected = np.round(opacity_map()[level] * colour_map()[level])
        assert (picture[5, 5] == expected).all()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_hot_cell_is_drawn_at_its_windows_centre(scale: int) -> None:
    grid = Grid(window=64, stride=16, image_size=(320, 240), scan_size=(320 // scale, 240 // scale))
    plane = np.zeros((grid.rows, grid.cols), np.float32)
    plane[1, 2] = 1
    photo = np.full((240, 320, 3), 100, np.uint8)
    picture = np.asarray(draw_plane(photo, plane, grid)).astype(int)
    x0, y0, x1, y1 = grid.box(1, 2)
    hottest = np.unravel_index((picture @ [1, 1, 0]).argmax(), (240, 320))
    assert np.abs(np.array(hottest) - [(y0 + y1) / 2, (x0 + x1) / 2]).max() <= scale
    beyond = np.ones((240, 320), bool)
    around = 16 * scale + 2
    beyond[hottest[0] - around : hottest[0] + around, hottest[1] - around : hottest[1] + around] = False
    assert not np.abs(picture - 100).sum(-1)[beyond].any()


def test_the_map_is_carried_outward_and_fades_to_nothing_at_the_border() -> None:
    grid = Grid(window=64, stride=16, image_size=(320, 240), scan_size=(320, 240))
    photo = np.zeros((240, 320, 3), np.uint8)
    picture = np.asarray(draw_plane(photo, np.ones((grid.rows, grid.cols), np.float32), grid)).astype(int)
    change = picture.sum(-1)
    last = 32 + (grid.rows - 1) * 16
    assert (change[32:last, 32 : 32 + (grid.cols - 1) * 16] == change[100, 100]).all()
    outward = change[:33, 160][::-1]
    assert (np.diff(outward) <= 0).all() and 0 < outward[-1] < 0.05 * outward[0]
    assert np.abs(np.diff(change, axis=0)).max() < 0.1 * change.max()  # no edge anywhere
    assert np.abs(np.diff(change, axis=1)).max() < 0.1 * change.max()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (224, 224)])
def test_small_pictures_are_drawn(size: tuple[int, int]) -> None:
    grid = Grid(224, 32, size, (max(224, size[0]), max(224, size[1])))
    plane = np.full((grid.rows, grid.cols, 1), 0.5, np.float32)
    photo = np.zeros((size[1], size[0], 3), np.uint8)
    names = ["a long name " * 9, "b" * 99]
    drawn, key = draw_winners(photo, np.zeros(plane.shape, int), plane, grid, names)
    assert class_sheet(photo, plane, grid, names[:1], legend=False).size == drawn.size == size
    for picture in (class_sheet(photo, plane, grid, names[:1], note="x" * 99), winners_sheet(drawn, key)):
        assert picture.width == size[0]
        assert picture.height > size[1] if size[0] > 200 else picture.size == size
        assert np.array_equal(np.asarray(picture)[: size[1]], np.asarray(picture.crop((0, 0, *size))))


GRID = Grid(window=64, stride=32, image_size=(320, 256), scan_size=(320, 256))
PHOTO = np.full((256, 320, 3), 100, np.uint8)
CELLS = Style(cells=True)


def test_cells_are_filled_without_interpolation_and_nothing_beyond() -> None:
    planes = np.random.default_rng(0).random((GRID.rows, GRID.cols), np.float32)
    picture = np.asarray(draw_plane(PHOTO, planes, GRID, CELLS))
    for row in range(GRID.rows):
        for col in range(GRID.cols):
            top, left = 16 + 32 * row, 16 + 32 * col
            square = picture[top : top + 32, left : left + 32].reshape(-1, 3)
            assert (square == square[0]).all()
    assert (picture[:16] == 100).all() and (picture[:, 16 + 32 * GRID.cols :] == 100).all()


def test_several_classes_have_a_panel_each_that_stand_apart() -> None:
    planes = np.zeros((GRID.rows, GRID.cols, 3), np.float32)
    planes[:, :, 1] = 1
    picture = class_sheet(PHOTO, planes, GRID, ["a", "b", "c"], legend=False)
    gap = (picture.width - 3 * 320) // 2
    assert picture.height == 256 and gap > 0
    bright = np.asarray(picture.convert("L"))
    first, second, third = (number * (320 + gap) for number in range(3))
    assert bright[50, second + 50] > bright[50, first + 50] == bright[50, third + 50]
    assert (bright[:, 320 : 320 + gap] < 30).all()
    assert sheet_shape(6, (320, 256)) == (2, 3)


def test_winners_have_their_colours_and_are_paler_where_unsure() -> None:
    probabilities = np.zeros((GRID.rows, GRID.cols, 3), np.float32)
    probabilities[:, :5, 2], probabilities[:, 5:, 0] = 0.9, 0.9
    probabilities[0, 0, 2] = 0.4
    probabilities[3, 8] = 0.05
    best = top_k(probabilities, 3)
    sure = np.take_along_axis(probabilities, best, -1)
    drawn, key = draw_winners(PHOTO, best, sure, GRID, ["a", "never", "c"], style=CELLS)
    picture = np.asarray(drawn).astype(int)
    ours, theirs = distinct_colours(2).astype(int)
    share = opacity_map()[round(255 * (0.9 - 0.1) / 0.9)]
    assert np.abs(picture[100, 100] - (share * ours + (1 - share) * 100)).max() <= 1
    assert np.abs(picture[100, 250] - (share * theirs + (1 - share) * 100)).max() <= 1
    assert 0 < np.abs(picture[20, 20] - 100).sum() < np.abs(picture[100, 100] - 100).sum()
    assert (picture[16 + 3 * 32 + 5, 16 + 8 * 32 + 5] == 100).all()  # under the floor nothing is coloured
    assert [name for name, _ in key] == ["c", "a"]
    _, none = draw_winners(PHOTO, best, sure, GRID, ["a", "never", "c"], at_least=0.95)
    assert not none


def test_distinct_colours_are_distinct() -> None:
    colours = distinct_colours(12).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert apart[~np.eye(12, dtype=bool)].min() > 30


def test_a_reduced_photo_has_the_map_in_the_same_places() -> None:
    plane = np.zeros((GRID.rows, GRID.cols), np.float32)
    plane[2, 3] = 1
    whole = draw_plane(PHOTO, plane, GRID, CELLS).resize((160, 128), Image.Resampling.BOX)
    small = draw_plane(np.ascontiguousarray(PHOTO[::2, ::2]), plane, GRID, CELLS)
    assert np.array_equal(np.asarray(whole), np.asarray(small))
