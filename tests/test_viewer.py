"""The viewer: what its page holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import axe
import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_chromium
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tiny import make_map

from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.grid import Grid
from fcnconv.images import MemorySource
from fcnconv.images.source import ImageInfo, ImageSource
from fcnconv.labels import Labels, Selection
from fcnconv.options import MapKind
from fcnconv.provenance import DENSE, Agreement, Anchored, Correction, Mode
from fcnconv.render.colours import colour_map, distinct_colours, opacity_map
from fcnconv.scores import FloatArray
from fcnconv.viewer import MAX_SIDE, MIN_KEPT, Packed, pack, viewer_page
from fcnconv.viewer.photo import TILE, page_photo

HOSTILE = "</script><script>document.title='broken out'</script><img src=x onerror=alert(1)>{{data}}"
NAME = HOSTILE.rpartition("/")[2]
"""The same as the name of a file, which has no slash."""


def small_map(
    logits: FloatArray, categories: tuple[str, ...] = (), concepts: tuple[Selection, ...] = ()
) -> ScoreMap:
    rows, cols, num_classes = logits.shape
    size = (64 + 16 * (cols - 1), 64 + 16 * (rows - 1))
    labels = Labels(categories or tuple(f"class {i}" for i in range(num_classes)), (), concepts)
    return make_map(logits, Grid(64, 16, size, size), labels)


def random_map(rows: int, cols: int, num_classes: int) -> ScoreMap:
    return small_map(np.random.default_rng(0).normal(0, 4, (rows, cols, num_classes)).astype(np.float32))


def photo_of(score_map: ScoreMap) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width, height = score_map.grid.image_size
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def page_of(
    score_map: ScoreMap, photo: Any = None, told: dict[str, Any] | None = None, **options: Any
) -> str:
    """The page of a map, over its own photo of noise or another one."""
    source = MemorySource(photo_of(score_map) if photo is None else photo)
    return "".join(viewer_page(score_map.stream(), source, lambda: told or {}, **options))


def unpacked(packed: Packed, shape: tuple[int, int, int]) -> FloatArray:
    """The probabilities (rows, cols, num_classes) that a reader of the page sees."""
    rows, cols, num_classes = shape
    data = zlib.decompress(packed.data)
    split = packed.kept * packed.index_bytes * rows * cols
    bytes_ = np.frombuffer(data[split:], np.uint8).reshape(-1, rows, cols)
    values = (bytes_ / np.float32(255)) ** 2
    if packed.kept:
        index = np.frombuffer(data[:split], f"<u{packed.index_bytes}").reshape(values.shape)
        full = np.zeros((num_classes, rows, cols), np.float32)
        np.put_along_axis(full, index.astype(np.int64), values, axis=0)
        values = full
    return values.transpose(1, 2, 0)


logits_of_any_map = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 30)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-40, 40, width=32))
)


@given(logits_of_any_map, st.booleans())
def test_packed_values_are_the_probabilities_to_within_the_error_that_is_told(
    logits: FloatArray, few: bool
) -> None:
    half = Selection("half", tuple(range(0, logits.shape[2], 2)))
    score_map = small_map(logits, concepts=(half,))
    packed = pack(score_map.stream(), max_values=0 if few else 10_000)
    assert packed.kept == (min(MIN_KEPT, score_map.shape[2]) if few else 0)
    difference = unpacked(packed, score_map.shape) - score_map.probabilities()
    assert np.abs(difference).max() == pytest.approx(packed.error, abs=1e-6)
    assert np.abs(difference[..., ::2].sum(-1)).max() == pytest.approx(packed.concept_error, abs=1e-5)
    if not few:
        assert packed.error <= 1 / 255  # half a step of the root, doubled by the square


def test_a_map_of_too_many_values_keeps_the_best_of_each_cell() -> None:
    score_map = random_map(3, 4, 100)
    packed = pack(score_map.stream(), max_values=3 * 4 * 100 - 1)
    assert packed.kept == 24
    assert pack(score_map.stream(), max_values=100).kept == MIN_KEPT
    seen = unpacked(packed, score_map.shape)
    best, probability = score_map.top_k(24)
    np.testing.assert_allclose(np.take_along_axis(seen, best, -1), probability, atol=1 / 255)
    assert pack(score_map.stream(), max_values=3 * 4 * 100).kept == 0


def test_the_page_says_what_it_keeps_and_how_well() -> None:
    score_map = random_map(3, 4, 100)
    whole = page_of(score_map)
    assert "holds all 100 classes of each of 12 windows" in whole
    grouped = small_map(score_map.logits, concepts=(Selection("two", (0, 1)),))
    part = page_of(grouped, max_values=100)
    assert f"holds the {MIN_KEPT} best of 100 classes of each of 12 windows" in part
    assert "counts as 0" in part and "of a concept’s sum" in part
    error = float(re.findall(r"error of a probability here: ([\d.]+)", whole)[0].rstrip("."))
    assert 0 < error <= 0.004


def test_a_page_has_the_probabilities_of_the_map_with_its_temperature() -> None:
    score_map = random_map(3, 4, 5)
    score_map = replace(score_map, info=replace(score_map.info, temperature=0.5))
    packed = pack(score_map.stream())
    kept = np.frombuffer(zlib.decompress(packed.data), np.uint8).reshape(5, 3, 4)
    shown = np.square(kept / np.float32(255)).transpose(1, 2, 0)
    assert np.abs(shown - score_map.probabilities()).max() == pytest.approx(packed.error, abs=1e-6)
    assert packed.error < 0.004


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action", "data")]


def tags_of(page: str) -> _Tags:
    parser = _Tags()
    parser.feed(page)
    return parser


def hostile_page() -> str:
    concept = Selection(f"concept {HOSTILE}", (1, 2), "n1", (HOSTILE,))
    score_map = small_map(random_map(2, 2, 3).logits, (HOSTILE, "a & b", "<!-- c"), (concept,))
    shown = [score_map.labels.category(0)]
    photo = photo_of(score_map)
    score_map = replace(score_map, info=replace(score_map.info, source=MemorySource(photo, f"a/{NAME}")))
    return page_of(score_map, photo, {"model": HOSTILE}, shown=shown)


def test_names_cannot_break_out_of_the_page() -> None:
    score_map = random_map(2, 2, 3)
    harmless = page_of(score_map, told={"model": "m"})
    page = hostile_page()
    assert tags_of(page).tags == tags_of(harmless).tags
    facts = json.loads(re.findall(r'id="facts">(.*?)</script>', page, re.DOTALL)[0])
    assert (facts["name"], facts["categories"][0]) == (NAME, HOSTILE)
    assert facts["concepts"] == [[f"concept {HOSTILE}", [1, 2], "n1", [HOSTILE]]]


def test_the_page_refers_to_nothing_outside() -> None:
    addresses = tags_of(hostile_page()).addresses
    assert len(addresses) == 1 and addresses[0].startswith("data:image/jpeg;base64,")


def test_a_name_that_is_not_unicode_can_be_written() -> None:
    score_map = random_map(1, 1, 3)
    source = MemorySource(photo_of(score_map), "caf\udce9.jpg")
    score_map = replace(score_map, info=replace(score_map.info, source=source))
    page = page_of(score_map)
    assert r"<h1>caf\udce9.jpg</h1>" in page
    page.encode()


def decoded(webp: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(webp)))


def tiles_of(page: str) -> dict[tuple[int, int, int], Image.Image]:
    """The tiles of a page's photo by level, row and column."""
    found = re.findall(r'id="tile-(\d+)-(\d+)-(\d+)">([^<]+)<', page)
    return {(int(level), int(row), int(col)): decoded(tile) for level, row, col, tile in found}


def facts_of(page: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(re.findall(r'id="facts">(.*?)</script>', page, re.DOTALL)[0])
    return facts


def smooth(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A photo whose every place can be told: red grows to the right, green downwards."""
    red, green = np.linspace(0, 255, width), np.linspace(0, 255, height)
    planes = np.broadcast_arrays(red[None], green[:, None], 128)
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def test_a_large_photo_is_whole_in_an_overview_and_sharp_in_tiles() -> None:
    score_map, photo = random_map(1, 1, 3), smooth(2 * MAX_SIDE + 100, 700)
    page = page_of(score_map, photo)
    overview = decoded(re.findall(r"data:image/jpeg;base64,([^\"]+)", page)[0])
    assert overview.size == (MAX_SIDE, round(MAX_SIDE * 700 / (2 * MAX_SIDE + 100)))
    assert '"imageSize":[64,64]' in page  # the map's own
    levels = facts_of(page)["levels"]
    assert levels == [[MAX_SIDE + 50, 350], [2 * MAX_SIDE + 100, 700]]
    assert "The photo is here at its own size." in page
    tiles = tiles_of(page)
    for level, (width, height) in enumerate(levels):
        rows, cols = -(-height // TILE), -(-width // TILE)
        assert {key[1:] for key in tiles if key[0] == level} == {
            (row, col) for row in range(rows) for col in range(cols)
        }
        joined = Image.new("RGB", (width, height))
        for (number, row, col), tile in tiles.items():
            if number == level:
                joined.paste(tile, (col * TILE, row * TILE))
        expected = np.asarray(Image.fromarray(photo).resize((width, height)), np.int16)
        assert np.abs(np.asarray(joined) - expected).max() < 12


@pytest.mark.parametrize("room", [1_000_000, 500_000, 250_000, 100_000])
def test_levels_that_the_page_has_no_room_for_are_left_out(room: int) -> None:
    score_map = random_map(1, 1, 3)
    noise = np.random.default_rng(0).integers(0, 256, (300, 5400, 3), np.uint8)
    page = page_of(score_map, noise, page_bytes=room)
    levels = facts_of(page)["levels"]
    sizes = [[2700, 150], [5400, 300]]
    assert levels == sizes[: len(levels)]
    assert {key[0] for key in tiles_of(page)} == set(range(len(levels)))
    fullest = page_of(score_map, noise)
    assert facts_of(fullest)["levels"] == sizes
    if len(levels) == 2:
        assert len(page) <= room
    else:
        finest = levels[-1] if levels else [MAX_SIDE, 142]
        assert "up to {:,} × {:,} px; its own size is 5,400 × 300 px".format(*finest) in page
    assert room > 400_000 or len(levels) < 2, "the test has no room that is too small"


def test_a_level_that_is_larger_than_its_sample_told_is_left_out() -> None:
    photo = np.zeros((64, 50 * TILE, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, photo.shape, np.uint8)
    every_second = np.arange(50 * TILE) // TILE % 2 == 1  # of 50 tiles in a row the others are the sample
    photo[:, every_second] = noise[:, every_second]
    whole = page_photo(MemorySource(photo), 10**8)
    rest = len(whole.overview) + sum(level.length for level in whole.levels[:-1])
    assert page_photo(MemorySource(photo), rest + whole.levels[-1].length) == whole
    assert page_photo(MemorySource(photo), rest + whole.levels[-1].length // 2).levels == whole.levels[:-1]


def test_max_side_bounds_the_photo_of_a_page() -> None:
    score_map, photo = random_map(1, 1, 3), smooth(5000, 100)
    assert facts_of(page_of(score_map, photo, max_side=3000))["levels"] == [[3000, 60]]
    small = page_of(score_map, photo, max_side=1000)
    assert facts_of(small)["levels"] == []
    assert decoded(re.findall(r"data:image/jpeg;base64,([^\"]+)", small)[0]).size == (1000, 20)


class _Strips(ImageSource):
    """A source that tells the largest region that was read of it."""

    name, info, largest = "strips", ImageInfo((3000, 9000)), 0

    def read(self, box: tuple[int, int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        x0, y0, x1, y1 = box
        self.largest = max(self.largest, (x1 - x0) * (y1 - y0))
        return np.full((y1 - y0, x1 - x0, 3), 90, np.uint8)


def test_a_huge_photo_is_read_in_strips() -> None:
    source = _Strips()
    page = "".join(viewer_page(random_map(1, 1, 3).stream(), source, dict))
    assert facts_of(page)["levels"][-1] == [3000, 9000]
    assert 0 < source.largest < 3000 * 9000 / 2


def test_the_page_tells_how_true_its_map_is() -> None:
    score_map = random_map(3, 4, 5)
    assert "Not compared with crops." in page_of(score_map)
    found = Agreement(12, 5, 4, 3, 0.8349, 0.412, 0.968, 0.1, 0.0, 0.3, sure=4, sure_same=3)
    made = replace(score_map.info.provenance, agreement=found)
    exact = np.zeros((3, 4), np.bool_)
    exact[0, 1:] = exact[2, :2] = True
    told = replace(
        score_map,
        info=replace(score_map.info, provenance=made),
        block=replace(score_map.block, exact=exact),
    )
    page = page_of(told)
    assert "in 75 % of the windows" in page and "5 of 12 were scored as crops." in page
    origins = zlib.decompress(base64.b64decode(re.findall(r'id="origins-windows">([^<]+)<', page)[0]))
    np.testing.assert_array_equal(np.frombuffer(origins, np.uint8).reshape(3, 4), exact)
    whole = replace(score_map, block=replace(score_map.block, exact=np.ones((3, 4), np.bool_)))
    assert "Every window was scored as a crop." in page_of(whole)


def test_the_colours_are_those_of_pictures() -> None:
    facts = facts_of(page_of(random_map(1, 1, 3)))
    rgba = np.frombuffer(bytes.fromhex(facts["colours"]), np.uint8).reshape(256, 4)
    np.testing.assert_array_equal(rgba[:, :3], colour_map())
    np.testing.assert_allclose(rgba[:, 3], 255 * opacity_map(), atol=0.5)


# What a browser makes of it.

Open = Callable[[Path], "Page"]


class Page:
    """The page in a browser, in the words of a user."""

    def __init__(self, driver: Any):
        self.driver = driver

    def text(self, id: str) -> str:
        return str(self.driver.find_element("id", id).text)

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def cell(self) -> tuple[int, int]:
        data = self.script("return document.getElementById('stage').dataset")
        return int(data["row"]), int(data["col"])

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def hover(self, x: float, y: float) -> None:
        """Moves the pointer over a place of the photo, in shares of its width and height."""
        from selenium.webdriver import ActionChains

        stage = self.driver.find_element("id", "stage")
        across, down = stage.size["width"] * (x - 0.5), stage.size["height"] * (y - 0.5)
        ActionChains(self.driver).move_to_element_with_offset(stage, round(across), round(down)).perform()

    def top(self) -> tuple[str, float]:
        first = self.driver.find_element("css selector", "#bars button")
        name, number = first.text.splitlines()[:2]
        return name, float(number)

    def brightest_cell(self) -> tuple[int, int]:
        """The cell whose square has the colour of the highest probability (drawn as cells)."""
        drawn = self.pixels("map")
        colours, which = np.unique(drawn.reshape(-1, 4), axis=0, return_inverse=True)
        apart = np.abs(colours[:, None, :3].astype(int) - colour_map()[None]).sum(-1)
        level = np.where(colours[:, 3] > 0, apart.argmin(-1), 0)
        light = level[which.reshape(-1)].reshape(drawn.shape[:2])
        row, col = self.script(
            "const [y, x] = arguments; return cellAt({ clientX: stage.getBoundingClientRect().left + x *"
            "stage.clientWidth, clientY: stage.getBoundingClientRect().top + y * stage.clientHeight })",
            *((np.argwhere(light == light.max()).mean(0) / light.shape).tolist()),
        )
        return row, col

    def pixels(self, id: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 (h, w, 4): what a canvas holds, RGBA, once the next frame is drawn."""
        address = self.driver.execute_async_script(
            "const [id, done] = arguments;"
            "requestAnimationFrame(() => requestAnimationFrame(() => done($(id).toDataURL())))",
            id,
        )
        return np.asarray(decoded(address.partition(",")[2]).convert("RGBA"))

    def visible(self) -> tuple[float, float, float, float]:
        """(x, y, width, height) of the part of the image that the stage shows."""
        seen = self.script("return visible()")
        return seen["x"], seen["y"], seen["w"], seen["h"]

    def wheel(self, x: float, y: float, turn: int) -> None:
        """Turns the wheel over a place of the photo, in shares of its size; up is negative."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        stage = self.driver.find_element("id", "stage")
        across, down = stage.size["width"] * (x - 0.5), stage.size["height"] * (y - 0.5)
        origin = ScrollOrigin.from_element(stage, round(across), round(down))
        ActionChains(self.driver).scroll_from_origin(origin, 0, turn).pause(0.3).perform()

    def wait(self, code: str) -> None:
        """Until a script's value is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 10, 0.05).until(lambda d: d.execute_script(f"return {code}"))

    def requests(self) -> list[str]:
        """The addresses that the page asked for since the last call, but for itself."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "file:", "about:"))]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    from selenium.webdriver.support.ui import WebDriverWait

    def open_(path: Path) -> Page:
        browser.get("about:blank")
        browser.get_log("performance")  # what the browser did before is not the page's
        browser.get(path.as_uri())
        WebDriverWait(browser, 30).until(
            lambda d: d.execute_script(
                "return document.documentElement.dataset.ready || !document.getElementById('trouble').hidden"
            )
        )
        page = Page(browser)
        assert page.text("trouble") == ""
        return page

    yield open_
    left = Page(browser)
    assert left.complaints() == []
    assert left.requests() == []


@pytest.fixture(scope="module")
def collage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of collage.jpg, made by the real command's own path in this process."""
    from typer.testing import CliRunner

    from fcnconv.cli.app import make_app

    out = tmp_path_factory.mktemp("page") / "map.html"
    image, plain = str(SAMPLES / "collage.jpg"), ["--map", "windows"]
    arguments = ["heatmap", image, "--class", "tiger cat", *plain, "-o", str(out), "-q"]
    assert CliRunner().invoke(make_app(), arguments).exit_code == 0
    return out


def test_the_command_writes_the_page(fcnconv: Command, tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    done = fcnconv("heatmap", SAMPLES / "coffee.png", "-o", out)
    assert done.returncode == 0 and done.stdout == b""
    assert "<h1>coffee.png</h1>" in out.read_text(encoding="utf-8")


@needs_chromium
def test_the_page_opens_with_the_chosen_class_at_its_highest_window(
    collage: Path, open_page: Open, lite0: Classifier
) -> None:
    page = open_page(collage)
    assert page.text("shown") == "tiger cat"
    assert page.cell() == (5, 7)
    expected = lite0(SAMPLES / "collage.jpg", anchors=0).probabilities()[5, 7, 282]
    assert page.text("highest") == page.text("here") == f"{expected:.2f}"
    assert "row 5, column 7" in page.text("where") and "x 224–448, y 160–384" in page.text("where")
    outline = page.script(
        "const r = document.getElementById('over').getBBox(); return [r.x, r.y, r.width, r.height]"
    )
    assert outline == [224, 160, 224, 224]
    footer = page.driver.find_element("css selector", "footer").get_attribute("textContent")
    assert "efficientnet_lite0" in footer and "579344248a93e230" in footer and "all 1,000 classes" in footer


@needs_chromium
def test_the_cat_under_the_pointer_is_a_cat(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.hover(528 / 1600, 432 / 1200)  # the centre of the window in row 10, column 13
    assert page.cell() == (10, 13)
    name, probability = page.top()
    assert "cat" in name or name == "tabby"
    assert probability > 0.3
    assert len(page.driver.find_elements("css selector", "#bars button")) == 5
    page.hover(1232 / 1600, 272 / 1200)
    assert page.top()[0] == "espresso"
    page.driver.find_element("id", "stage").click()  # in its middle; the click holds the window there
    held = page.cell()
    page.hover(528 / 1600, 432 / 1200)
    assert page.cell() == held != (10, 13)


@needs_chromium
def test_searching_for_espresso_shows_the_cup(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.press("/", "espr", "\ue007")  # Enter
    assert page.text("shown") == "espresso"
    page.press("c")  # cells
    row, col = page.brightest_cell()
    assert (row, col) == page.cell()
    x, y = col * 32 + 112, row * 32 + 112
    assert 980 <= x < 1520 and 120 <= y < 480  # where make_collage.py puts the cup's photo


@needs_chromium
def test_cells_lie_where_the_windows_are(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.press("c")
    page.script("$('veil').click()")  # so that every cell is coloured
    opaque = page.pixels("map")[:, :, 3] > 0
    rows, cols = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    scale = opaque.shape[1] / 1600
    placed = [
        cols[0] / scale,
        rows[0] / scale,
        (cols[-1] + 1 - cols[0]) / scale,
        (rows[-1] + 1 - rows[0]) / scale,
    ]
    assert placed == pytest.approx([112 - 16, 112 - 16, 44 * 32, 31 * 32], abs=4)
    assert opaque[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()


def places(count: int, length: float) -> FloatArray:
    """The middle of each of `count` pixels along a length."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.float32)


def faded(at: FloatArray, first: float, size: float, last: float) -> FloatArray:
    """What is left of the opacity at places along an axis of `size`, whose outermost centres these are."""
    t = np.clip(np.minimum(at / first, (size - at) / (size - last)), 0, 1)
    result: FloatArray = 1 - (1 - t) ** 2
    return result


@needs_chromium
@pytest.mark.parametrize("veil", [False, True], ids=["findings", "veil"])
def test_the_smooth_map_covers_the_photo_and_fades_to_nothing_at_its_border(
    veil: bool, tmp_path: Path, open_page: Open
) -> None:
    score_map = small_map(np.random.default_rng(3).normal(0, 2, (5, 7, 4)).astype(np.float32))
    (path := tmp_path / "map.html").write_text(
        page_of(score_map, shown=[score_map.labels.category(2)]), encoding="utf-8"
    )
    page = open_page(path)
    if veil:
        page.script("$('veil').click()")
    drawn = page.pixels("map").astype(np.float32)
    height, width = drawn.shape[:2]
    x, y = places(width, 160), places(height, 128)  # 7 windows of 64 px, 16 px apart, and 5
    plane = unpacked(pack(score_map.stream()), score_map.shape)[:, :, 2]
    rows = np.array([np.interp(x, 32 + 16 * np.arange(7), row) for row in plane])
    expected = np.array([np.interp(y, 32 + 16 * np.arange(5), column) for column in rows.T]).T
    fade = faded(y, 32, 128, 96)[:, None] * faded(x, 32, 160, 128)
    step = np.round(255 * expected).astype(int)
    opacity = fade if veil else opacity_map()[step] * fade
    assert np.abs(drawn[:, :, 3] - 255 * opacity).max() < 4
    sure = drawn[:, :, 3] > 100
    assert np.abs(drawn[:, :, :3] - colour_map()[step])[sure].max() < 9
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert edge[:, 3].max() < 8


@needs_chromium
def test_the_map_stays_on_its_place_when_zoomed(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    whole = page.pixels("map")
    page.press("+", "+", "+")
    x, y, w, h = page.visible()
    assert (w, h) == pytest.approx((1600 / 1.5**3, 1200 / 1.5**3))
    scale = whole.shape[1] / 1600
    left, top, right, bottom = (round(edge * scale) for edge in (x, y, x + w, y + h))
    part = Image.fromarray(whole).crop((left, top, right, bottom))
    near = np.asarray(page.pixels("map"), np.int16)
    far = np.asarray(part.resize((near.shape[1], near.shape[0]), Image.Resampling.BILINEAR), np.int16)
    shown = near[:, :, 3] > 60
    assert shown.mean() > 0.2
    assert np.abs(near - far)[shown][:, :3].mean() < 6
    box = page.script(
        "const [o, s] = ['over', 'stage'].map((id) => $(id).getBoundingClientRect());"
        "return [(o.left - s.left) / s.width, (o.top - s.top) / s.height, o.width / s.width]"
    )
    assert box == pytest.approx([(224 - x) / w, (160 - y) / h, 224 / w], abs=0.01)


@needs_chromium
def test_the_wheel_zooms_about_the_pointer_and_a_drag_moves_the_view(collage: Path, open_page: Open) -> None:
    from selenium.webdriver import ActionChains

    page = open_page(collage)
    page.wheel(0.75, 0.25, -300)
    x, y, w, h = page.visible()
    assert w < 1000
    assert ((1200 - x) / w, (300 - y) / h) == pytest.approx((0.75, 0.25), abs=0.01)
    stage = page.driver.find_element("id", "stage")
    held = page.text("held")
    ActionChains(page.driver).move_to_element(stage).click_and_hold().move_by_offset(
        80, -40
    ).release().perform()
    after = page.visible()
    scale = w / stage.size["width"]
    assert after == pytest.approx((x - 80 * scale, y + 40 * scale, w, h), abs=1)
    assert page.text("held") == held == "click to pin", "a drag is no click"
    page.press("0")
    assert page.visible() == (0, 0, 1600, 1200)


@needs_chromium
def test_the_wheel_scrolls_the_page_where_it_cannot_zoom(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.driver.set_window_size(1200, 500)
    try:
        page.wheel(0.5, 0.5, 120)
        assert page.visible()[2] == 1600
        page.wait("window.scrollY > 0")
        page.wheel(0.5, 0.5, -60)  # back up to the photo
        assert page.visible()[2] == 1600
    finally:
        page.driver.set_window_size(1200, 900)


@needs_chromium
def test_two_fingers_zoom_about_the_place_between_them(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    box = page.script(
        "const b = $('stage').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )

    def touch(kind: str, *shares: tuple[float, float]) -> None:
        points = [
            {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "id": number}
            for number, (x, y) in enumerate(shares)
        ]
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.4, 0.5), (0.6, 0.5))
    for wider in (0.02, 0.05, 0.1, 0.15, 0.2):
        touch("touchMove", (0.4 - wider, 0.5), (0.6 + wider, 0.5))
    touch("touchEnd")
    x, y, w, h = page.visible()
    assert 1600 / w == pytest.approx(3, rel=0.1)
    assert (x + w / 2, y + h / 2) == pytest.approx((800, 600), abs=40)


@needs_chromium
def test_the_arrows_take_the_view_along(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.press(*"++++")
    assert page.text("told") == "Enlarged 5.1 times"
    page.press(*["\ue014"] * 30)
    x, y, w, h = page.visible()
    row, col = page.cell()
    assert col == 37
    assert x <= col * 32 and col * 32 + 224 <= x + w and y <= row * 32 and row * 32 + 224 <= y + h


@needs_chromium
@pytest.mark.parametrize("max_values", [10**6, 0], ids=["all classes", "the best of each cell"])
def test_winners_have_the_colours_of_their_key(max_values: int, tmp_path: Path, open_page: Open) -> None:
    logits = np.random.default_rng(5).normal(0, 3, (5, 7, 6)).astype(np.float32)
    logits[0, :3] = 0  # one sixth each: the first class by its index
    score_map = small_map(logits)
    (path := tmp_path / "map.html").write_text(page_of(score_map, max_values=max_values), encoding="utf-8")
    page = open_page(path)
    page.press("w", "c")
    assert page.text("least") == "0.10"
    seen = unpacked(pack(score_map.stream()), score_map.shape)
    for floor in (0.1, 0.5):
        page.script(f"$('floor').value = {floor}; $('floor').dispatchEvent(new Event('input'))")
        winner, sure = seen.argmax(-1), seen.max(-1)
        classes, counts = np.unique(winner[sure >= floor], return_counts=True)
        ranked = classes[np.argsort(-counts, kind="stable")]
        names = [item.text.splitlines()[0] for item in page.driver.find_elements("css selector", "#key li")]
        assert names == [f"class {k}" for k in ranked]
        drawn = page.pixels("map").astype(np.float32)
        colours = distinct_colours(12)
        for row in range(5):
            for col in range(7):
                y = (32 + 16 * row) / 128 * drawn.shape[0]
                x = (32 + 16 * col) / 160 * drawn.shape[1]
                pixel = drawn[int(y), int(x)]
                if sure[row, col] < floor:
                    assert pixel[3] == 0
                    continue
                assert pixel[3] == pytest.approx(
                    255 * 0.75 * np.sqrt((sure[row, col] - floor) / (1 - floor)), abs=1.5
                )
                colour = colours[ranked.tolist().index(winner[row, col])]
                assert np.abs(pixel[:3] - colour).max() <= 2 + 300 / pixel[3]
    page.driver.find_element("css selector", "#key li:nth-child(2) button").click()
    assert page.text("shown") == f"class {ranked[1]}"


@needs_chromium
@pytest.mark.parametrize(
    ("counts", "named"),
    [([60, 40, 20, 2, 2] + [1] * 20, 5), ([14] + [10] * 13, 12), ([100, 44], 2)],
    ids=["under 1 %", "over 12", "none"],
)
def test_rare_winners_share_one_grey(counts: list[int], named: int, tmp_path: Path, open_page: Open) -> None:
    logits = np.zeros((12, 12, len(counts)), np.float32)
    wins = np.repeat(np.arange(len(counts)), counts)
    np.put_along_axis(logits.reshape(144, -1), wins[:, None], 9, axis=1)
    (path := tmp_path / "map.html").write_text(page_of(small_map(logits)), encoding="utf-8")
    page = open_page(path)
    page.press("w")
    lines = [item.text.splitlines() for item in page.driver.find_elements("css selector", "#key li")]
    expected = [[f"class {k}", f"{round(100 * n / 144)} %"] for k, n in enumerate(counts[:named])]
    if rest := counts[named:]:
        expected.append([f"{len(rest)} other{'s' * (len(rest) > 1)}", f"{round(100 * sum(rest) / 144)} %"])
    assert lines == expected


@needs_chromium
def test_a_faint_map_is_told_and_can_be_scaled_to_its_maximum(tmp_path: Path, open_page: Open) -> None:
    logits = np.zeros((3, 4, 20), np.float32)
    logits[..., 5] = 8
    logits[1, 2, 7] = 3
    score_map = small_map(logits)
    (path := tmp_path / "map.html").write_text(
        page_of(score_map, shown=[score_map.labels.category(7)]), encoding="utf-8"
    )
    page = open_page(path)
    assert page.text("faint") == "Near zero everywhere: class 7 was not found."
    assert page.text("ticks").split() == ["0", "0.25", "0.5", "0.75", "1"]
    assert page.pixels("map")[:, :, 3].max() < 60
    page.script("$('stretch').click()")
    highest = float(unpacked(pack(score_map.stream()), score_map.shape)[1, 2, 7])
    assert float(page.text("ticks").split()[-1]) == pytest.approx(highest, rel=0.05)
    assert page.pixels("map")[:, :, 3].max() == pytest.approx(255 * float(opacity_map()[-1]), abs=2)
    assert page.script("return $('mark').style.left") == "100%"
    page.press("/", "class 5", "\ue007")
    assert page.text("faint") == ""


@needs_chromium
def test_nothing_found_at_all_is_told(tmp_path: Path, open_page: Open) -> None:
    (path := tmp_path / "map.html").write_text(
        page_of(small_map(np.zeros((3, 4, 20), np.float32))), encoding="utf-8"
    )
    page = open_page(path)
    assert page.text("faint") == "No class is more probable than 0.05 anywhere in this image."
    page.press("w")
    assert page.text("nobody") == "No window reaches this probability."


@needs_chromium
def test_the_colour_bar_is_as_clear_as_the_map(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    np.testing.assert_allclose(page.pixels("scale")[0, :, 3], 255 * opacity_map(), atol=1)
    page.script("$('veil').click()")
    assert page.text("percent") == "65 %"
    bar = page.pixels("scale")[0].astype(np.int16)
    assert (np.abs(bar[:, 3] - 0.65 * 255) < 1).all() and np.abs(bar[:, :3] - colour_map()).max() <= 2


@needs_chromium
def test_a_window_tells_where_its_scores_are_from(tmp_path: Path, open_page: Open) -> None:
    score_map = random_map(3, 4, 5)
    exact = np.zeros((3, 4), np.bool_)
    exact[1, 2] = True
    logits = score_map.logits.copy()
    logits[0] = np.nan
    mixed = replace(score_map, block=replace(score_map.block, exact=exact, logits=logits))
    cases: list[tuple[Correction, Mode, str]] = [
        (Anchored(4), "fcn", "corrected by crops nearby"),
        (Anchored(4), "windows", "interpolated from crops nearby"),
        (DENSE, "fcn", "dense map"),
    ]
    for correction, mode, elsewhere in cases:
        made = replace(score_map.info.provenance, correction=correction, mode=mode)
        told = replace(mixed, info=replace(score_map.info, provenance=made))
        (path := tmp_path / "map.html").write_text(page_of(told), encoding="utf-8")
        page = open_page(path)
        for row, col in np.ndindex(3, 4):
            page.script(f"moveTo({row}, {col})")
            expected = "scored as a crop" if exact[row, col] else elsewhere
            assert page.text("how") == (expected if row else "outside the region of interest")
            assert (page.text("here") == "–") == (not row)
            assert len(page.script("return [...$('bars').children]")) == (5 if row else 0)
    assert not page.pixels("dots").any()
    page.script("$('dotted').click()")
    dots = page.pixels("dots")[:, :, 3] > 0
    y, x = np.argwhere(dots).mean(0)
    assert (x / dots.shape[1], y / dots.shape[0]) == pytest.approx((64 / 112, 48 / 96), abs=0.01)
    assert 0 < dots.mean() < 0.01


@needs_chromium
def test_the_address_keeps_what_is_shown(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.wait("location.hash")
    page.press("/", "espr", "\ue007", "+", "+", "\ue012", "\ue015")
    page.wait("location.hash.includes('espresso') && location.hash.includes('view')")
    address, cell, seen = page.driver.current_url, page.cell(), page.visible()
    page.press("/", "tripod", "\ue007", "0")
    page.wait("location.hash.includes('tripod')")
    page.driver.back()
    page.wait("$('shown').textContent === 'espresso'")
    assert page.cell() == cell and page.visible() == pytest.approx(seen, abs=2)
    page.driver.get("about:blank")
    page.driver.get(address)
    page.wait("document.documentElement.dataset.ready")
    assert page.text("shown") == "espresso" and page.cell() == cell
    assert page.visible() == pytest.approx(seen, abs=5)
    page.script("location.hash = 'class=nothing&window=x&view=2,,z'")  # says nothing of this map
    assert page.text("shown") == "espresso" and page.cell() == cell
    page.press("w")
    page.wait("location.hash.includes('show=winners')")
    page.script("location.hash = 'class=tabby'")
    page.wait("$('shown').textContent === 'tabby'")


@needs_chromium
def test_a_zoomed_photo_is_sharp(tmp_path: Path, open_page: Open) -> None:
    width, height = 3 * MAX_SIDE, 1536
    checks = np.zeros((height, width, 3), np.uint8)
    checks[(np.arange(height)[:, None] // 4 + np.arange(width) // 4) % 2 == 1] = 255  # grey in the overview
    logits = np.zeros((3, 3, 2), np.float32)
    grid = Grid(64, 16, (width, height), (96, 96))
    score_map = make_map(logits, grid, Labels(("a", "b"), (), ()))
    (path := tmp_path / "map.html").write_text(page_of(score_map, checks), encoding="utf-8")
    page = open_page(path)
    assert page.pixels("ground")[:, :, :3].std() < 30
    page.script("lookAt(100, 3000, 700)")
    page.wait("tiles.size > 0 && decoding.size === 0")
    drawn = page.pixels("ground").astype(np.int16)
    x, y, w, h = page.visible()
    columns, lines = (
        start + (np.arange(count) + 0.5) / count * length
        for start, count, length in ((x, drawn.shape[1], w), (y, drawn.shape[0], h))
    )
    expected = 255 * ((lines[:, None].astype(int) // 4 + columns.astype(int) // 4) % 2)
    inside = (np.abs(lines % 4 - 2) < 1)[:, None] & (np.abs(columns % 4 - 2) < 1)
    assert np.abs(drawn[:, :, 0] - expected)[inside].max() < 60


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_to_complain_of(scheme: str, width: int, collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    try:
        axe.look(page.driver, scheme, width)
        assert axe.violations(page.driver) == []
        page.press("w")
        assert axe.violations(page.driver) == []
        page.press("/")  # opens the list
        assert axe.violations(page.driver) == []
        page.script("$('in').removeAttribute('aria-label'); $('in').title = ''; $('in').textContent = ''")
        assert [id for id, _ in axe.violations(page.driver)] == ["button-name"]
    finally:
        axe.look_away(page.driver)


@needs_chromium
def test_everything_can_be_reached_by_keyboard(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    tab = "\ue004"
    seen: list[str] = []
    page.script("document.activeElement.blur()")
    for _ in range(60):
        page.press(tab)
        at = page.script("const e = document.activeElement; return e.id || e.name || e.textContent")
        if seen and at == seen[0]:
            break
        seen.append(at)
    assert {
        "stage",
        "in",
        "out",
        "fit",
        "search",
        "view",
        "go",
        "stretch",
        "compare",
        "export",
        "threshold",
        "opacity",
        "drawn",
        "veil",
    } <= set(seen)
    assert "tabby" in " ".join(seen)
    page.script("$('veil').focus()")
    page.press(" ")
    assert page.script("return $('veil').checked")
    page.script("document.querySelector('[name=drawn]:checked').focus()")
    page.press("\ue014")  # the arrow chooses, and leaves the window where it is
    assert page.script("return drawsCells()") and page.cell() == (5, 7)


@needs_chromium
def test_keys_move_the_window_and_set_the_opacity(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    left, right, down = "\ue012", "\ue014", "\ue015"
    page.press(right, right, down, left)
    assert page.cell() == (6, 8)
    page.press(*[left] * 20)
    assert page.cell() == (6, 0)
    page.press("m")
    assert page.cell() == (5, 7)
    assert page.text("percent") == "100 %"
    page.press("]", "[", "[")
    assert page.text("percent") == "90 %"
    assert page.script("return document.getElementById('map').style.opacity") == "0.9"


@needs_chromium
def test_a_tap_moves_the_window(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    box = page.script(
        "const b = document.getElementById('stage').getBoundingClientRect(); return [b.left, b.top, b.width]"
    )
    point = {"x": box[0] + 1232 * box[2] / 1600, "y": box[1] + 272 * box[2] / 1600}
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.cell() == (5, 35)


@needs_chromium
def test_the_picture_is_not_blank_in_light_and_dark_and_on_a_phone(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    grounds = []
    for scheme, width in (("light", 1200), ("dark", 1200), ("dark", 390)):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        box = page.script(
            "const b = document.getElementById('stage').getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom]"
        )

        shot = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
        photo = np.asarray(shot.crop(tuple(round(edge) for edge in box)))
        assert photo.std() > 25 and len(np.unique(photo.reshape(-1, 3), axis=0)) > 1000
        grounds.append(np.asarray(shot)[2, 2].mean())
        assert (
            page.script("return document.documentElement.scrollWidth") <= width
        )  # nothing runs off the side
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds[0] > 200 and grounds[1] < 60


@needs_chromium
def test_every_control_has_a_name(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    page.press("/")  # opens the list
    controls = page.script(
        "return [...document.querySelectorAll('button, input, [tabindex], [role=img], [role=listbox], img')]"
        ".filter((element) => element.checkVisibility())"
    )
    assert len(controls) > 10
    assert [c.get_attribute("outerHTML") for c in controls if not c.accessible_name] == []


@needs_chromium
def test_hostile_names_are_shown_as_they_are(tmp_path: Path, open_page: Open) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(hostile_page(), encoding="utf-8")
    page = open_page(path)
    assert page.text("shown") == HOSTILE
    assert page.driver.title == f"{NAME} · fcnconv"
    assert len(page.driver.find_elements("css selector", "img")) == 1


@needs_chromium
@pytest.mark.parametrize("max_values", [10**6, 0], ids=["all classes", "the best of each cell"])
def test_a_concept_is_the_sum_of_its_classes(max_values: int, tmp_path: Path, open_page: Open) -> None:
    bunch = Selection("bunch", (3, 7, 11, 19), also=("assortment",))
    score_map = small_map(random_map(5, 6, 40).logits, concepts=(bunch,))
    path = tmp_path / "concept.html"
    path.write_text(page_of(score_map, max_values=max_values), encoding="utf-8")
    page = open_page(path)
    page.press("/", "assortment")
    assert page.text("found").startswith("bunch (4 classes): assortment")
    page.press("\ue007")
    assert page.text("shown") == "bunch (4 classes)"
    expected = unpacked(pack(score_map.stream(), max_values), score_map.shape)[:, :, list(bunch.classes)].sum(
        -1
    )
    assert page.cell() == np.unravel_index(expected.argmax(), expected.shape)
    assert float(page.text("here")) == pytest.approx(expected.max(), abs=0.006)


@needs_chromium
def test_the_window_is_that_of_the_scale_where_its_best_class_is_found(
    tmp_path: Path, open_page: Open
) -> None:
    size = (160, 128)
    fine, coarse = (Grid(64, 16, size, (side * 160, side * 128)) for side in (2, 1))
    probabilities = np.full((fine.rows, fine.cols, 3), 0.01, np.float32)
    probabilities[..., 1] = 0.9
    best = np.ones((fine.rows, fine.cols), np.uint8)
    best[0, 0] = 0  # there the finest has it
    score_map = make_map(
        np.log(probabilities), fine, Labels(("a", "b", "c")), scales=(fine, coarse), best_scale=best
    )
    (path := tmp_path / "map.html").write_text(page_of(score_map), encoding="utf-8")
    page = open_page(path)
    assert "scanned at 320 × 256, 160 × 128 px" in page.driver.page_source
    for row, col in ((0, 0), (3, 5), (fine.rows - 1, fine.cols - 1)):
        page.script("moveTo(...arguments)", row, col)
        x0, y0, x1, y1 = score_map.box(row, col)
        assert page.text("where").splitlines()[1] == f"x {x0}–{x1}, y {y0}–{y1}"


@needs_chromium
def test_regions_are_outlined_and_listed_by_their_threshold(tmp_path: Path, open_page: Open) -> None:
    logits = np.zeros((8, 12, 2), np.float32)
    logits[:, :, 0] = -6
    logits[1:3, 1:4, 0], logits[5:7, 8:11, 0] = 6, 1  # probabilities 0.998 and 0.73
    score_map = small_map(logits)
    (path := tmp_path / "map.html").write_text(
        page_of(score_map, shown=[score_map.labels.category(0)]), encoding="utf-8"
    )
    page = open_page(path)

    def listed() -> list[str]:
        return [item.text for item in page.driver.find_elements("css selector", "#regions li")]

    def at_least(value: float) -> None:
        page.script(f"$('threshold').value = {value}; $('threshold').dispatchEvent(new Event('input'))")

    assert [line[:4] for line in listed()] == ["1.00", "0.73"] and "6 % of the map" in listed()[0]
    at_least(0.9)
    assert [line[:4] for line in listed()] == ["1.00"]
    numbers = [float(n) for n in re.findall(r"[0-9.]+", page.script("return $('outline').getAttribute('d')"))]
    x, y = np.array(numbers).reshape(-1, 2).T
    for edges, first, last in ((x, 1, 3), (y, 1, 2)):  # the centres of the outermost cells over the threshold
        inner = np.array([32 + 16 * first, 32 + 16 * last])
        assert (np.abs([edges.min(), edges.max()] - inner) < 8).all()
    page.driver.find_element("css selector", "#regions button").click()
    assert page.cell()[0] in (1, 2) and page.cell()[1] in (1, 2, 3)
    page.press("w")
    assert not page.script("return $('outline').getAttribute('d')")


@needs_chromium
def test_two_classes_stand_side_by_side_and_can_be_saved(tmp_path: Path, open_page: Open) -> None:
    logits = np.zeros((8, 12, 3), np.float32)
    logits[:, :6, 0], logits[:, 6:, 1] = 9, 9
    score_map = small_map(logits)
    (path := tmp_path / "map.html").write_text(
        page_of(score_map, shown=[score_map.labels.category(0)]), encoding="utf-8"
    )
    page = open_page(path)
    alone = page.pixels("ground").shape
    page.script(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download) };"
    )
    page.script("$('compare').click()")
    page.wait("!$('beside').hidden && $('second').width > 300")
    assert page.text("shown") == "class 1"
    assert "class 0" in page.driver.find_element("css selector", "#beside figcaption").text
    left, right = page.pixels("map"), page.pixels("second").astype(int)
    assert left[:, left.shape[1] * 3 // 4, 3].max() > 150 > 50 > left[:, left.shape[1] // 4, 3].max()
    middle = right[right.shape[0] // 2]
    assert np.abs(middle[right.shape[1] // 4, :3] - middle[right.shape[1] * 3 // 4, :3]).sum() > 60
    page.script("$('export').click()")
    page.wait("saved.length == 1")
    assert page.script("return saved") == ["image-class-1.png"]
    page.script("$('compare').click()")
    page.wait("$('beside').hidden")
    assert page.pixels("ground").shape == alone


@needs_chromium
def test_the_origin_of_the_map_is_folded_away(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    assert not page.driver.find_element("css selector", "footer dl").is_displayed()
    page.driver.find_element("css selector", "footer summary").click()
    assert page.driver.find_element("css selector", "footer dl").is_displayed()


KINDS: tuple[MapKind, ...] = ("focused", "windows", "activations")


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default page of coffee.png, made by the real command's own path in this process."""
    from typer.testing import CliRunner

    from fcnconv.cli.app import make_app

    out = tmp_path_factory.mktemp("page") / "map.html"
    arguments = ["heatmap", str(SAMPLES / "coffee.png"), "-o", str(out), "-q"]
    assert CliRunner().invoke(make_app(), arguments).exit_code == 0
    return out


def switch(page: Page, kind: str) -> None:
    page.driver.find_element("css selector", f"[name=kind][value={kind}]").click()
    page.wait(f"kind.kind === '{kind}'")


@needs_chromium
def test_every_kind_of_map_is_a_click_away(cup: Path, open_page: Open, lite0: Classifier) -> None:
    page = open_page(cup)
    offered = page.driver.find_elements("css selector", "[name=kind]")
    assert [radio.get_attribute("value") for radio in offered] == list(KINDS)
    assert page.text("shown") == "espresso"
    focused = lite0(SAMPLES / "coffee.png", scales="auto", map="focused")
    others = {kind: ScoreMap.collect(make()) for kind, make in focused.info.others.items()}
    for kind in (*KINDS, "focused"):
        switch(page, kind)
        score_map = others.get(kind, focused)
        plane = score_map.class_map("espresso")
        assert float(page.text("highest")) == pytest.approx(plane.max(), abs=0.01)
        assert plane[page.cell()] == pytest.approx(plane.max(), abs=0.01)
        drawn = np.array(page.script("return [...plane]")).reshape(plane.shape)
        assert np.abs(drawn - plane).max() < 0.02  # of which a cell keeps 8 bits, and its best classes
        for row, col in (page.cell(), (plane.shape[0] - 1, plane.shape[1] - 1)):
            page.script("moveTo(...arguments)", row, col)
            x0, y0, x1, y1 = score_map.box(row, col)
            assert page.text("where").splitlines()[1] == f"x {x0}–{x1}, y {y0}–{y1}"
        unit = "window" if kind == "windows" else "cell"
        assert page.text("window-title") == unit.capitalize() and page.text("go") == f"go to that {unit}"
        assert f"{unit}s of {score_map.grid.window} px" in page.text("subtitle")
        assert page.text("meaning")
        page.wait(f"location.hash.includes('map={kind}') === {str(kind != 'focused').lower()}")


@needs_chromium
def test_a_switch_keeps_the_class_the_place_and_the_view(cup: Path, open_page: Open) -> None:
    page = open_page(cup)
    page.press("/", "plate", "\ue007")
    page.script("held = true; moveTo(4, 6)")
    x, y = page.script("const m = middleOfWindow(); return [m.x, m.y]")
    switch(page, "windows")
    assert page.text("shown") == "plate"
    x1, y1 = page.script("const m = middleOfWindow(); return [m.x, m.y]")
    assert abs(x1 - x) <= 60 and abs(y1 - y) <= 60  # windows of one scale lie 29 px apart, of the other 46
    page.press("w")
    coloured = page.pixels("map")[..., 3].max()
    page.press("k")  # activations
    page.wait("kind.kind === 'activations'")
    assert page.script("return showsWinners()") and coloured > 0 and page.pixels("map")[..., 3].max() > 0
    page.wait("location.hash.includes('map=activations')")
    address = page.driver.current_url
    page.driver.get("about:blank")
    page.driver.get(address)
    page.wait("document.documentElement.dataset.ready")
    assert page.script("return [kind.kind, entry.label, showsWinners()]") == ["activations", "plate", True]


def test_other_kinds_do_not_double_a_page(lite0: Classifier) -> None:
    for name in ("coffee.png", "collage.jpg"):
        score_map = lite0(SAMPLES / name, scales="auto", map="focused")
        alone = replace(score_map, info=replace(score_map.info, others={}))
        photo = score_map.info.source
        pages = ["".join(viewer_page(each.stream(), photo, dict)) for each in (alone, score_map)]  # type: ignore[arg-type]
        assert len(pages[0]) < len(pages[1]) < 2 * len(pages[0])
        found = [[one["kind"] for one in facts_of(page)["kinds"]] for page in pages]
        assert found == [["focused"], list(KINDS)]


@needs_chromium
def test_a_map_of_one_kind_offers_no_other(collage: Path, open_page: Open) -> None:
    page = open_page(collage)
    assert not page.driver.find_element("css selector", ".kinds").is_displayed()
    page.press("k")
    assert page.script("return kind.kind") == "windows"


def test_a_map_keeps_the_best_classes_where_that_takes_less_room() -> None:
    score_map = random_map(3, 4, 100)
    assert [pack(score_map.stream(), most_kept=k).kept for k in (8, 33, 34)] == [8, 33, 0]
    assert pack(score_map.stream(), max_values=100, most_kept=8).kept == 8
