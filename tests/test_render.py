"""Pictures: the map lies where the windows are, and what is improbable is not seen."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fcnconv.grid import Grid
from fcnconv.options import ColourMap
from fcnconv.render.colours import COLOUR_MAPS, colour_map, distinct_colours, opacity_map, smooth_colours
from fcnconv.render.draw import Style, Winners, draw_plane
from fcnconv.render.legend import key_band, legible, scale_band, width_of, wrapped
from fcnconv.render.sheet import LEGIBLE, Frame, class_sheet, sheet_shape, winners_sheet
from fcnconv.scores import top_k


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB, as an oracle beside the OKLab that the map was made in."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16


@pytest.mark.parametrize("name", [name for name in COLOUR_MAPS if name != "turbo"])
def test_lightness_rises_in_the_colour_maps_that_promise_it(name: ColourMap) -> None:
    assert (np.diff(lightness(colour_map(name) / 255)[::16])[1:] > 0).all()


def test_the_default_colours_differ_from_step_to_step() -> None:
    steps = np.abs(np.diff(colour_map().astype(int)[::16], axis=0)).sum(-1)
    assert steps.min() > 20


def test_zero_is_clear_and_opacity_follows_probability() -> None:
    assert opacity_map()[0] == 0 and (np.diff(opacity_map()) > 0).all()
    grid = Grid(8, 8, (80, 80), (80, 80))
    photo = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    assert np.array_equal(np.asarray(draw_plane(photo, np.zeros((10, 10), np.float32), grid)), photo)
    black = np.zeros_like(photo)
    for level in (64, 255):
        picture = np.asarray(draw_plane(black, np.full((10, 10), level / 255, np.float32), grid))
        expected = opacity_map()[level] * colour_map()[level]
        assert np.abs(picture[40, 40] - expected).max() <= 1.5


def test_a_slow_rise_has_no_bands() -> None:
    """Neighbouring steps differ by one level of 8 bits at most, where the rise is slow enough for that."""
    plane = np.linspace(0, 1, 100, dtype=np.float32)[None].repeat(3, axis=0)
    grid = Grid(32, 32, (3200, 96), (3200, 96))
    picture = np.asarray(draw_plane(np.full((96, 3200, 3), 128, np.uint8), plane, grid)).astype(int)
    assert np.abs(np.diff(picture[48, 16:-16], axis=0)).max() <= 2
    coarse = smooth_colours("turbo", 64)[np.rint(np.linspace(0, 1, 3200) * 63).astype(int)]
    assert np.abs(np.diff(coarse, axis=0)).max() > 2  # as few steps as that would show


@pytest.mark.parametrize("scale", [1, 2])
def test_a_hot_cell_is_drawn_at_its_windows_centre(scale: int) -> None:
    grid = Grid(window=64, stride=16, image_size=(320, 240), scan_size=(320 // scale, 240 // scale))
    plane = np.zeros((grid.rows, grid.cols), np.float32)
    plane[1, 2] = 1
    photo = np.full((240, 320, 3), 100, np.uint8)
    picture = np.asarray(draw_plane(photo, plane, grid, Style(colormap="viridis"))).astype(int)
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


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (75, 56), (224, 224), (500, 3)])
@pytest.mark.parametrize("side", [64, 300, 8192])
def test_small_pictures_are_drawn_legibly_and_no_larger_than_asked(size: tuple[int, int], side: int) -> None:
    grid = Grid(224, 32, size, (max(224, size[0]), max(224, size[1])))
    plane = np.full((grid.rows, grid.cols, 1), 0.5, np.float32)
    photo = np.zeros((size[1], size[0], 3), np.uint8)
    titles = ["a long name " * 9, "b" * 99]
    winners = Winners.of(np.zeros(plane.shape, int), plane, grid, titles)
    plain = class_sheet(photo, plane, grid, titles[:1], frame=Frame(legend=False, side=side))
    assert max(plain.size) <= side and (max(size) > side or plain.size == size)
    frame = Frame(note="x" * 99, side=side)
    for picture in (
        class_sheet(photo, plane, grid, titles[:1], frame=frame),
        class_sheet(photo, plane.repeat(2, -1), grid, titles, frame=frame),
        winners_sheet(photo, winners.draw, winners.key, frame=frame),
    ):
        assert max(picture.size) <= side
        assert side < 8192 or max(picture.size) >= LEGIBLE


def test_text_is_wrapped_and_never_cut() -> None:
    for text in ("one two three four five six", "w" * 80, "a " + "b" * 40 + " c", ""):
        for width in (5, 60, 200, 4000):
            lines = wrapped(text, 12, width)
            assert "".join(lines).replace(" ", "") == text.replace(" ", "")
            assert all(width_of(line, 12) <= width or len(line) == 1 for line in lines)


def inked(band: Image.Image) -> Image.Image:
    return band.convert("L").point(lambda level: 255 * (level > 60))


@pytest.mark.parametrize("width", [90, 150, 320, 900])
def test_no_word_of_a_legend_leaves_its_band(width: int) -> None:
    title = "American Staffordshire terrier, up to 0.98; colours end at 0.98"
    bands = [
        scale_band(width, 14, title, "turbo", 0.98),
        key_band(width, 14, [(title, (255, 0, 0)), ("cat", (0, 255, 0))] * 4),
    ]
    for band in bands:
        left, top, right, bottom = inked(band).getbbox() or (0, 0, 0, 0)
        assert left >= 4 and top >= 1 and right <= width - 2 and bottom <= band.height


@pytest.mark.parametrize("character", "×–µ≥éüßžЯΩא→²½")
def test_signs_and_letters_have_a_glyph(character: str) -> None:
    text, font = legible(character, 20)
    assert text == character
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((5, 5), text, fill=255, font=font)
    square = Image.new("L", (40, 40))
    ImageDraw.Draw(square).text((5, 5), "\U0010fffe", fill=255, font=font)
    assert image.getbbox() and image.tobytes() != square.tobytes()


def test_a_character_that_no_font_has_is_told_by_its_code_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.render.legend.SYSTEM_FONTS", ())
    assert legible("猫 cat\n\x1b[1m", 12)[0] == "U+732B cat  [1m"


def test_stretched_colours_end_at_the_highest_value() -> None:
    plane = np.full((GRID.rows, GRID.cols, 1), 0.2, np.float32)
    plane[2, 3] = 0.4
    args = (PHOTO, plane, GRID, ["a"])
    bare = Frame(legend=False)
    faint, strong = (class_sheet(*args, frame=bare, stretch=stretch) for stretch in (False, True))
    certain = class_sheet(PHOTO, plane / plane.max(), GRID, ["a"], frame=bare)
    assert np.array_equal(np.asarray(strong), np.asarray(certain))
    assert not np.array_equal(np.asarray(faint), np.asarray(strong))
    nothing = class_sheet(PHOTO, 0 * plane, GRID, ["a"], frame=bare, stretch=True)
    assert np.array_equal(np.asarray(nothing), PHOTO)


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
    picture = class_sheet(PHOTO, planes, GRID, ["a", "b", "c"], frame=Frame(legend=False))
    gap = (picture.width - 3 * 320) // 2
    assert picture.height == 256 and gap > 0
    bright = np.asarray(picture).astype(int)
    first, second, third = (number * (320 + gap) for number in range(3))
    assert (bright[50, [first + 50, third + 50]] == 100).all() and bright[50, second + 50, 0] > 120
    assert (bright[:, 320 : 320 + gap] < 30).all()
    assert sheet_shape(6, (320, 256)) == (2, 3)


def test_winners_have_their_colours_and_are_paler_where_unsure() -> None:
    probabilities = np.zeros((GRID.rows, GRID.cols, 3), np.float32)
    probabilities[:, :5, 2], probabilities[:, 5:, 0] = 0.9, 0.9
    probabilities[0, 0, 2] = 0.4
    probabilities[3, 8] = 0.05
    best = top_k(probabilities, 3)
    sure = np.take_along_axis(probabilities, best, -1)
    winners = Winners.of(best, sure, GRID, ["a", "never", "c"])
    picture = np.asarray(winners.draw(PHOTO, CELLS)).astype(int)
    ours, theirs = distinct_colours(2).astype(int)
    share = 0.75 * ((0.9 - 0.1) / 0.9) ** 0.5
    assert np.abs(picture[100, 100] - (share * ours + (1 - share) * 100)).max() <= 1
    assert np.abs(picture[100, 250] - (share * theirs + (1 - share) * 100)).max() <= 1
    assert 0 < np.abs(picture[20, 20] - 100).sum() < np.abs(picture[100, 100] - 100).sum()
    assert (picture[16 + 3 * 32 + 5, 16 + 8 * 32 + 5] == 100).all()  # under the floor nothing is coloured
    assert [name for name, _ in winners.key] == ["c", "a"]
    assert not Winners.of(best, sure, GRID, ["a", "never", "c"], at_least=0.95).key
    faint = Winners.of(best, sure * 0.12, GRID, ["a", "never", "c"])
    legible = 0.6 * np.stack([ours, theirs]) + 0.4 * 118  # over a middle grey, however pale the map is
    np.testing.assert_allclose([colour for _, colour in faint.key], legible, atol=1)


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
