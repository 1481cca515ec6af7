"""The report of a folder of pages: what its cards hold, when it is written, and what a browser shows."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import axe
import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_chromium
from patience import wait_until
from PIL import Image
from tiny import make_map

from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.batch import cards as glances
from fcnconv.batch.cards import LEAST, MOST, Card, MapSummary, Peak, draw_card, read_card, write_card
from fcnconv.batch.folders import MapFolder
from fcnconv.batch.index import Failure
from fcnconv.batch.inputs import CARDS, from_paths, from_sources
from fcnconv.batch.report import INDEX, Report
from fcnconv.batch.runs import BatchRun
from fcnconv.batch.store import Disk
from fcnconv.errors import FcnconvError, OutputError
from fcnconv.grid import Grid
from fcnconv.labels import Labels, Selection, imagenet, numbered
from fcnconv.options import NetworkOptions, OutputOptions, ReadOptions, ScanOptions
from fcnconv.writers import OutputSpec, find_writer

PLAIN = ScanOptions(anchors=0)
GROUP = Selection("group", (1, 3, 4))


def random_map(rows: int, cols: int, num_classes: int, sharp: float = 3) -> ScoreMap:
    size = (64 + 16 * (cols - 1), 64 + 16 * (rows - 1))
    logits = np.random.default_rng(rows).normal(0, sharp, (rows, cols, num_classes)).astype(np.float32)
    labels = Labels(tuple(f"class {i}" for i in range(num_classes)), concepts=(GROUP,))
    return make_map(logits, Grid(64, 16, size, size), labels)


def glance_of(score_map: ScoreMap, *chosen: Selection) -> MapSummary:
    glance = MapSummary(score_map.info, chosen)
    seen = ScoreMap.collect(glance.watching(score_map.stream()))
    assert np.array_equal(seen.logits, score_map.logits)
    return glance


# What is kept of a map.


@pytest.mark.parametrize("sharp", [0.5, 3])
@pytest.mark.parametrize("shape", [(1, 1, 6), (5, 7, 6), (9, 4, 50)])
def test_peaks_are_those_of_the_map(shape: tuple[int, int, int], sharp: float) -> None:
    score_map = random_map(*shape, sharp=sharp)
    best = score_map.best_windows(MOST)
    glance = glance_of(score_map)
    foremost, _ = glance.foremost()
    expected = {p.class_idx: p.probability for p in best if p.rank == 1 or p.probability >= LEAST}
    expected.setdefault(foremost.class_idx, float(score_map.class_map(foremost).max()))
    peaks = glance.peaks()
    assert {peak.class_idx: peak.probability for peak in peaks} == pytest.approx(expected, abs=1e-6)
    told = [peak.probability for peak in peaks]
    assert told == sorted(told, reverse=True)


def test_what_was_chosen_is_always_told_and_foremost() -> None:
    score_map = random_map(5, 7, 50)
    last = score_map.best_windows(50)[-1]
    chosen = (GROUP, score_map.labels.category(last.class_idx or 0))
    glance = glance_of(score_map, *chosen)
    told = {(peak.class_idx, peak.category): peak.probability for peak in glance.peaks()}
    assert told[None, "group"] == pytest.approx(score_map.class_map(GROUP).max(), abs=1e-6)
    assert told[last.class_idx, last.category] == pytest.approx(last.probability, abs=1e-6)
    selection, plane = glance.foremost()
    assert selection == GROUP
    assert np.abs(plane - score_map.class_map(GROUP)).max() <= 1 / 255


@pytest.mark.parametrize("most", [210, 72, 60, 1])
def test_the_foremost_plane_is_the_maps_or_the_highest_of_squares_of_cells(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(glances, "PIECE_VALUES", most)
    monkeypatch.setattr("fcnconv.scores.PIECE_VALUES", 3 * 7 * 6)  # strips that end within squares
    score_map = random_map(5, 7, 6)
    selection, plane = glance_of(score_map).foremost()
    assert selection.class_idx == np.square(score_map.probabilities()).sum((0, 1)).argmax()
    own, step = score_map.class_map(selection), {210: 1, 72: 2, 60: 3, 1: 7}[most]
    for row, col in np.ndindex(own.shape):
        top, left = row // step * step, col // step * step
        highest = own[top : top + step, left : left + step].max()
        assert plane[row, col] == pytest.approx(highest, abs=1 / 255)


def test_a_card_reads_as_it_was_written(tmp_path: Path) -> None:
    peaks = (Peak(3, "crane", 0.5), Peak(None, "bird", 0.25))
    card, path = Card("a/caf\udce9 “x”.jpg", 30, 20, peaks, 1, None), tmp_path / "a.jpg"
    write_card(path, card, Image.new("RGB", (8, 6)))
    assert read_card(path) == card
    path.write_bytes(path.read_bytes()[:90])
    assert read_card(path) is None
    Image.new("RGB", (8, 6)).save(path)
    assert read_card(path) is None


def test_a_card_has_the_map_of_each_class_that_it_names() -> None:
    """The thumbnails stand below each other in the order of the peaks."""
    logits = np.full((6, 9, 20), -9, np.float32)
    logits[:, :4, 3], logits[:, 4:, 7] = 9, 8
    score_map = make_map(logits, Grid(64, 32, (320, 224), (320, 224)), numbered(20))
    choices: list[tuple[Selection, ...]] = [(), (score_map.labels.category(3),)]
    for chosen in choices:
        glance = glance_of(score_map, *chosen)
        card, column = draw_card("a.jpg", np.full((224, 320, 3), 90, np.uint8), glance, None)
        assert card.panels == len(card.peaks) >= 2 and column.size == (320, 224 * card.panels)
        pixels = np.asarray(column).astype(int)
        for number, peak in enumerate(card.peaks):
            middle = pixels[224 * number + 112]
            left, right = (np.abs(middle[x] - 90).max() > 40 for x in (80, 240))
            assert (left, right) == {3: (True, False), 7: (False, True)}[peak.class_idx or 0]


# What a run makes.


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the folder of three small photos, one of them broken."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    folder.mkdir()
    for name in ("coffee.png", "chelsea.png"):
        with Image.open(SAMPLES / name) as photo:
            photo.resize((256, 256)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


class Runs:
    """Runs of a batch in this process, on the embedded network."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier

    def folder(
        self, out: str, scan: ScanOptions, shard: tuple[int, int], suffix: str, classes: tuple[str, ...] = ()
    ) -> MapFolder:
        options = OutputOptions(classes=classes)
        choice = OutputSpec.of(options, self.classifier.labels)
        writer = find_writer(f"map.{suffix}", None, options, scan)
        how = scan, choice, NetworkOptions(), ReadOptions()
        return MapFolder(self.classifier, Disk.at(Path(out)), writer, *how, shard)

    def __call__(
        self,
        *paths: str,
        out: str = "maps",
        scan: ScanOptions = PLAIN,
        shard: tuple[int, int] = (1, 1),
        suffix: str = "html",
        overwrite: bool = False,
        classes: tuple[str, ...] = (),
    ) -> dict[str, bool | str]:
        """What became of each image: whether its map is new, or the error."""
        folder = self.folder(out, scan, shard, suffix, classes)
        results = BatchRun(folder, overwrite=overwrite)(from_paths(paths))
        return {name: str(r) if isinstance(r, FcnconvError) else r.new for name, r in results}


@pytest.fixture
def run(lite0: Classifier) -> Runs:
    return Runs(lite0)


def facts(index: Path) -> dict[str, Any]:
    text = index.read_text(encoding="utf-8")
    return dict(json.loads(re.findall(r'id="facts">(.*?)</script>', text, re.DOTALL)[0]))


def listed(out: str = "maps") -> list[str]:
    return [image[0] for image in facts(Path(out, INDEX))["images"]]


def failed(out: str = "maps") -> list[str]:
    found = re.search(r"<details.*?</details>", Path(out, INDEX).read_text(encoding="utf-8"), re.DOTALL)
    return re.findall("<li>(.*?)</li>", found[0]) if found else []


COFFEE, CHELSEA, BROKEN = "photos/coffee.png", "photos/chelsea.png", "photos/broken.jpg"
NO_IMAGE = f"{BROKEN}: not an image that Pillow can decode"


def test_the_report_has_the_peaks_and_the_failures_and_a_later_run_goes_on(photos: Path, run: Runs) -> None:
    assert run(COFFEE, BROKEN) == {COFFEE: True, BROKEN: NO_IMAGE}
    assert (listed(), failed()) == ([COFFEE], [NO_IMAGE])
    card = read_card(Path("maps", CARDS, f"{COFFEE}.jpg"))
    score_map = run.classifier(COFFEE, anchors=0)
    (best,) = score_map.best_windows(1)
    assert card is not None and (card.width, card.height, card.agreement) == (256, 256, None)
    assert card.peaks[0].class_idx == best.class_idx
    strongest = np.square(score_map.probabilities()).sum((0, 1)).argmax()
    assert card.peaks[card.shown].class_idx == strongest
    assert card.peaks[0].probability == pytest.approx(best.probability, abs=1e-5)
    shutil.copy(CHELSEA, BROKEN)
    assert run(COFFEE, BROKEN, CHELSEA) == {COFFEE: False, BROKEN: True, CHELSEA: True}
    assert (listed(), failed()) == ([BROKEN, CHELSEA, COFFEE], [])


def test_a_card_tells_the_agreement_and_what_was_chosen(photos: Path, run: Runs) -> None:
    run(COFFEE, scan=ScanOptions(anchors=1), classes=("dog", "espresso"))
    card = read_card(Path("maps", CARDS, f"{COFFEE}.jpg"))
    assert card is not None and card.agreement == 1
    names = [peak.category for peak in card.peaks]
    assert {"dog", "espresso"} <= set(names) and names[card.shown] == "espresso"
    assert not [name for name, _, _ in facts(Path("maps", INDEX))["concepts"] if name == "dog"]


def test_a_page_or_a_card_that_is_lost_is_made_again(photos: Path, run: Runs) -> None:
    page, card = Path(f"maps/{COFFEE}.html"), Path("maps", CARDS, f"{COFFEE}.jpg")
    run(COFFEE)
    for lost in (page, card):
        lost.unlink()
        run(CHELSEA)
        assert listed() == [CHELSEA]  # no link to what is not there
        assert run(COFFEE, CHELSEA) == {COFFEE: True, CHELSEA: False}
        assert page.exists() and card.exists() and listed() == [CHELSEA, COFFEE]


def test_a_run_that_is_stopped_has_its_report(photos: Path, run: Runs) -> None:
    inputs = from_paths([COFFEE, *(f"photos/{i}.png" for i in range(50))])
    results = BatchRun(run.folder("maps", PLAIN, (1, 1), "html"))(inputs)
    for i in range(50):
        shutil.copy(CHELSEA, f"photos/{i}.png")
    assert next(results)[0] == COFFEE
    assert not Path("maps", INDEX).exists()
    results.close()
    made = sorted(str(path.relative_to("maps"))[:-5] for path in Path("maps/photos").glob("*.html"))
    assert COFFEE in made and len(made) < 20
    assert sorted(listed()) == made  # those that were in work too


def test_each_shard_lists_what_all_made_and_failed(photos: Path, run: Runs) -> None:
    run(COFFEE, BROKEN, shard=(1, 2))
    run(CHELSEA, "missing.png", shard=(2, 2))
    assert listed() == [CHELSEA, COFFEE]
    assert [line.partition(":")[0] for line in failed()] == [BROKEN, "missing.png"]
    run(CHELSEA, shard=(2, 2))
    assert failed() == [NO_IMAGE]  # what is no file cannot fail again
    run(COFFEE, CHELSEA)
    assert (listed(), failed()) == ([CHELSEA, COFFEE], [NO_IMAGE])
    Path(BROKEN).unlink()
    run(CHELSEA, shard=(2, 2))
    assert failed() == []


def test_images_of_other_settings_are_not_listed(photos: Path, run: Runs) -> None:
    run(COFFEE)
    run(CHELSEA, scan=ScanOptions(anchors=2), overwrite=True)
    assert listed() == [CHELSEA]


def test_a_run_that_made_nothing_but_its_report_binds_nobody(photos: Path, run: Runs) -> None:
    run(BROKEN)
    assert (listed(), failed()) == ([], [NO_IMAGE])
    assert run(COFFEE, scan=ScanOptions(anchors=2)) == {COFFEE: True}


def test_what_is_not_the_reports_is_not_replaced(photos: Path, run: Runs) -> None:
    Path("index").write_bytes((photos / "coffee.png").read_bytes())
    Path("maps", CARDS).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(Path("maps", CARDS, "index.jpg"))
    assert "is the report's own name" in str(run("index")["index"])
    Image.new("RGB", (8, 6)).save(Path("maps", CARDS, "a.png.jpg"))
    shutil.copy(COFFEE, "a.png")
    assert "a picture that is not a map would be replaced" in str(run("a.png")["a.png"])
    Path("maps", INDEX).write_text("<title>My own</title>")
    with pytest.raises(OutputError, match=r"index\.html: exists and is not a report"):
        run(COFFEE)
    assert Path("maps", INDEX).read_text() == "<title>My own</title>"


def test_thumbnails_are_no_images_to_map(photos: Path, run: Runs) -> None:
    run(COFFEE, out=".")
    suffixes = frozenset((".png", ".jpg"))
    for source in (".", "**/*"):
        found = {str(Path(item.name)) for item in from_sources([source], suffixes, Path())}
        assert found == {COFFEE, CHELSEA, BROKEN}


def test_other_formats_have_no_report(photos: Path, run: Runs) -> None:
    run(COFFEE, suffix="json")
    assert sorted(path.name for path in Path("maps").rglob("*")) == [
        "coffee.png.json",
        "fcnconv.json",
        "photos",
    ]


def test_the_command_writes_the_report(fcnconv: Command, photos: Path) -> None:
    done = fcnconv("batch", "photos", "-o", "maps", "-f", "html", "--anchors", "0")
    assert done.returncode == 1 and done.stdout.decode().splitlines() == [
        f"maps/{CHELSEA}.html",
        f"maps/{COFFEE}.html",
    ]
    assert (listed(), failed()) == ([CHELSEA, COFFEE], [NO_IMAGE])


# The page.

HOSTILE = "a #1?%&\"'<img src=x onerror=alert(1)>{{facts}}"
NAMES = (f"b/{HOSTILE}.jpg", "b/10.jpg", "b/9.jpg", "c/caf\udce9.jpg", "c/http:x.jpg", "</script>/d.jpg")
PEAKS = tuple(
    [Peak(imagenet().categories.index(name), name, probability) for name, probability in told]
    for told in (
        [("tabby", 0.9), ("tiger cat", 0.3)],
        [("pug", 0.8), ("tabby", 0.4)],
        [("beagle", 0.6)],
        [("tiger cat", 0.7), ("beagle", 0.2), ("pug", 0.1)],
        [("crane", 0.5)],
        [("pug", 0.07)],
    )
)


def make_report(
    folder: Path,
    names: Sequence[str] = NAMES,
    peaks: Sequence[Sequence[Peak]] = PEAKS,
    *,
    failure: str = "",
    labels: Labels = imagenet(),  # noqa: B008 - a value
) -> Path:
    """A folder of pages that tell their number, with cards of these peaks."""
    for number, (name, told) in enumerate(zip(names, peaks, strict=True)):
        page = folder / f"{name.lstrip('/')}.html"
        card = folder / CARDS / f"{name.lstrip('/')}.jpg"
        for path in (page, card):
            path.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"<title>page {number}</title>")
        write_card(card, Card(name, 80, 60, tuple(told), 0, number / 10), Image.new("RGB", (8, 6), "red"))
    failures = [Failure("x.html", failure)] if failure else []
    Report(Disk.at(folder), labels, ()).write(failures, 0, {"model": "tiny", "scales": "1", "anchors": None})
    return folder / INDEX


class _Tags(HTMLParser):
    """Every tag, and whether each is closed in its turn."""

    VOID = ("meta", "input", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "<b>maps"
    hostile = make_report(folder, failure=f"{HOSTILE}: caf\udce9").read_text(encoding="utf-8")
    plain = make_report(tmp_path / "plain", ("a.jpg",), PEAKS[:1], failure="x").read_text(encoding="utf-8")
    assert _Tags(hostile).tags == _Tags(plain).tags
    images = facts(folder / INDEX)["images"]
    assert len(images) == len(NAMES)
    for _, page, thumbnail, *_ in images:
        for address in (page, thumbnail):
            assert re.fullmatch(r"[\w.~/%-]+", address, re.ASCII)  # a relative path, whatever is in it
            assert Path(os.fsdecode(folder), unquote(address, errors="surrogateescape")).is_file()


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [image[0] for image in facts(make_report(tmp_path / "maps"))["images"]]
    assert names.index("b/9.jpg") < names.index("b/10.jpg") < names.index(NAMES[0])


class Page:
    """The report in a browser, in the words of a user."""

    def __init__(self, driver: Any):
        self.driver = driver

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def cards(self) -> list[str]:
        """The file names of the cards, as they stand."""
        return [element.text for element in self.driver.find_elements("css selector", "#grid strong")]

    def text(self, id: str) -> str:
        return str(self.driver.find_element("id", id).text)

    def type(self, id: str, *keys: str) -> None:
        self.driver.find_element("id", id).send_keys(*keys)

    def sort(self, value: str) -> None:
        self.driver.find_element("css selector", f"#sort option[value='{value}']").click()

    def address(self) -> str:
        return str(self.script("return location.hash"))


Open = Callable[[Path, str], Page]
ENTER, RIGHT, END, DELETE = "\ue007", "\ue014", "\ue010", "\ue003"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    from selenium.webdriver.support.ui import WebDriverWait

    def open_(path: Path, fragment: str = "") -> Page:
        browser.get("about:blank")
        browser.get_log("performance")
        browser.get(path.as_uri() + fragment)
        WebDriverWait(browser, 30).until(
            lambda d: d.execute_script("return document.documentElement.dataset.ready")
        )
        return Page(browser)

    yield open_
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "about:"))] == []


A, TEN, NINE, CAFE, COLON, D = (name.split("/", 1)[1] if i < 5 else "d.jpg" for i, name in enumerate(NAMES))
CAFE = CAFE.replace("\udce9", r"\udce9")


@needs_chromium
def test_cards_are_sorted_and_filtered(tmp_path: Path, open_page: Open) -> None:
    page = open_page(make_report(tmp_path / "maps"), "")
    everything = [D, NINE, TEN, A, CAFE, COLON]
    assert page.cards() == everything and page.text("count") == "6 images"
    page.sort("peak")
    assert page.cards() == [A, TEN, CAFE, NINE, COLON, D]
    page.sort("-peak")
    assert page.cards() == [D, COLON, NINE, CAFE, TEN, A]
    page.sort("agreement")
    assert page.cards() == [A, TEN, NINE, CAFE, COLON, D]
    page.type("least", DELETE, "0.65")
    assert page.cards() == [A, TEN, CAFE] and page.text("count") == "3 of 6 images"
    page.sort("name")
    page.type("text", "B/")
    assert page.cards() == [TEN, A]
    assert page.address() == "#text=B%2F&least=0.65"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_to_complain_of(scheme: str, width: int, tmp_path: Path, open_page: Open) -> None:
    page = open_page(make_report(tmp_path / "maps"), "")
    try:
        axe.look(page.driver, scheme, width)
        assert axe.violations(page.driver) == []
        page.type("search", "cat")  # opens the list
        assert axe.violations(page.driver) == []
        page.script("least = $('least'); least.ariaLabel = null; least.parentElement.replaceWith(least)")
        assert [id for id, _ in axe.violations(page.driver)] == ["label"]
    finally:
        axe.look_away(page.driver)


@needs_chromium
def test_a_class_or_a_concept_filters_and_sorts(tmp_path: Path, open_page: Open) -> None:
    page = open_page(make_report(tmp_path / "maps"), "")
    page.type("search", "tiger")
    assert page.text("found").splitlines()[:2] == ["tiger cat", "2 images, up to 0.70"]
    page.type("search", ENTER)
    assert page.cards() == [CAFE, A] and page.address() == "#class=tiger%20cat&sort=peak"
    assert page.driver.find_element("css selector", "#grid .part").text == "tiger cat\n0.70"
    page.type("search", "dog", ENTER)
    dogs = [TEN, NINE, CAFE, D]  # the largest peak of its classes: 0.8 of pug, 0.6, 0.2 of beagle, 0.07
    assert page.cards() == dogs
    assert page.address() == "#class=dog&sort=peak"
    first = page.driver.find_elements("css selector", "#grid .words > .soft + .bar .number")
    assert [number.text for number in first] == ["0.80", "0.60", "0.20", "0.07"]
    page.driver.find_element("id", "clear").click()
    assert len(page.cards()) == 6


@needs_chromium
def test_the_address_keeps_the_state(tmp_path: Path, open_page: Open) -> None:
    path = make_report(tmp_path / "maps")
    page = open_page(path, "#class=tabby&least=0.3&sort=-peak")
    assert page.cards() == [TEN, A]
    assert page.script("return document.getElementById('search').value") == "tabby"
    page.script("location.hash = '#text=caf'")
    assert page.cards() == [CAFE]


@needs_chromium
def test_classes_of_one_name_are_told_apart_by_their_index(tmp_path: Path, open_page: Open) -> None:
    labels = Labels(("spot", "line", "spot"))
    peaks = [[Peak(0, "spot", 0.4), Peak(2, "spot", 0.3)], [Peak(2, "spot", 0.5), Peak(1, "line", 0.1)]]
    page = open_page(make_report(tmp_path, ("a.jpg", "b.jpg"), peaks, labels=labels), "#class=2&sort=peak")
    assert page.cards() == ["b.jpg", "a.jpg"]
    assert page.script("return document.getElementById('search').value") == "spot (class 2)"
    links = [link.get_attribute("href") for link in page.driver.find_elements("css selector", "#grid a")]
    assert all(link.endswith("#class=2") for link in links)
    page.script("location.hash = '#class=0'")
    assert page.cards() == ["a.jpg"]


@needs_chromium
@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_click_opens_the_images_page_with_its_class(number: int, tmp_path: Path, open_page: Open) -> None:
    category = PEAKS[number][0].category
    folder = tmp_path / "ma ps#1%"
    page = open_page(make_report(folder, NAMES[number : number + 1], PEAKS[number : number + 1]), "")
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth === 8)"
    wait_until(lambda: page.script(loaded), "the thumbnails")
    page.type("search", category, ENTER)
    link = page.driver.find_element("css selector", "#grid a")
    assert link.accessible_name.startswith(NAMES[number].replace("\udce9", r"\udce9"))
    link.click()
    wait_until(lambda: page.driver.title == "page 0", "the image's page")
    assert page.address() == "#class=" + category.replace(" ", "%20")


@needs_chromium
def test_of_many_cards_few_are_there_and_keys_reach_all(tmp_path: Path, open_page: Open) -> None:
    names = tuple(f"{i}.jpg" for i in range(500))
    page = open_page(make_report(tmp_path / "maps", names, [PEAKS[5]] * 500), "")
    assert 10 <= len(page.cards()) <= 80 and page.cards()[0] == "0.jpg"
    page.script("document.querySelector('#grid a').focus()")
    active = "return document.activeElement.getAttribute('aria-label').split(':')[0]"

    def press(*keys: str) -> Any:
        page.driver.switch_to.active_element.send_keys(*keys)
        return page.script(active)

    assert press(RIGHT) == "1.jpg"
    assert press(END) == "499.jpg"
    assert page.script("return document.activeElement.parentNode.ariaPosInSet") == "500"
    assert len(page.cards()) <= 80
    page.script("scrollTo(0, 0)")
    page.script("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.script(active) == "499.jpg" and page.cards()[0] == "0.jpg"  # the focus is not lost
    order = page.script("return [...document.querySelectorAll('#grid li')].map((item) => +item.ariaPosInSet)")
    assert order == sorted(order)


@needs_chromium
def test_every_control_has_a_name_and_nothing_runs_off_a_phone(tmp_path: Path, open_page: Open) -> None:
    page = open_page(make_report(tmp_path / "maps", failure="x.jpg: broken"), "")
    page.type("search", "ca")
    controls = page.driver.find_elements("css selector", "button, input, select, a, [role=listbox], summary")
    assert len(controls) > 10
    assert [
        c.get_attribute("outerHTML") for c in controls if c.is_displayed() and not c.accessible_name
    ] == []
    for width in (390, 1200):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wait_until(lambda width=width: page.script("return innerWidth") == width, "the width of the page")
        assert page.script("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.find_element("css selector", "summary").click()
    assert page.driver.find_element("css selector", "details li").text == "x.jpg: broken"
