"""What a notebook does with a score map: it shows itself, and becomes a picture, an array or a table."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import make_map

from fcnconv.api.maps import ScoreMap
from fcnconv.errors import OutputError, UsageError
from fcnconv.grid import Grid
from fcnconv.images import ImageSource, MemorySource
from fcnconv.labels import Labels
from fcnconv.options import OutputOptions
from fcnconv.writers import provenance

GRID = Grid(8, 4, (2400, 1200), (24, 12))
LABELS = Labels(("a", "<b>", "c & d"))


def small_map(source: ImageSource | None = None) -> ScoreMap:
    """2 × 5 windows of three classes, of which one has a name that is no HTML."""
    logits = np.random.default_rng(0).normal(size=(GRID.rows, GRID.cols, 3)).astype(np.float32) * 3
    exact = np.arange(GRID.rows * GRID.cols).reshape(GRID.rows, GRID.cols) % 3 == 0
    return make_map(logits, GRID, LABELS, source=source, temperature=0.5, exact=exact)


def photo() -> MemorySource:
    pixels = np.random.default_rng(1).integers(0, 256, (1200, 2400, 3), dtype=np.uint8)
    return MemorySource(pixels, "photo")


class Page(HTMLParser):
    """The cells of a page's tables, and the addresses of its pictures; every tag must be closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("div", "p", "img", "table", "tr", "td", "details", "summary")
        if tag == "img":
            self.pictures.append(str(dict(attrs)["src"]))
            return
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def test_a_map_shows_its_picture_its_best_windows_and_its_provenance() -> None:
    score_map = small_map(photo())
    page = Page(score_map._repr_html_())
    (address,) = page.pictures
    kind, data = address.split(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg" and max(picture.size) == 800
    best = score_map.best_windows(3)
    assert {p.category for p in best} == {"a", "<b>", "c & d"}
    for prediction in best:
        place = page.cells.index(prediction.category)
        assert page.cells[place + 1] == f"{prediction.probability:.3f}"
        assert page.cells[place + 2] == ", ".join(map(str, prediction.box))
    stream = score_map.stream()
    list(stream.pieces())
    for name, value in provenance(stream).items():
        assert page.cells[page.cells.index(name) + 1] == str(value)
    assert page.cells[page.cells.index("exact_cells") + 1] == "4"


def test_a_map_without_a_photo_shows_the_rest() -> None:
    page = Page(small_map()._repr_html_())
    assert page.pictures == [] and "<b>" in page.cells and "weights_sha256" in page.cells


def test_a_plot_is_the_picture_that_save_writes(tmp_path: Path) -> None:
    score_map = small_map(photo())
    for classes, options in (
        (["<b>", "a"], OutputOptions(max_side=640)),
        ([], OutputOptions(argmax=True)),
        ([], OutputOptions()),
    ):
        score_map.save(tmp_path / "map.png", classes=classes, options=options)
        assert (
            np.asarray(score_map.plot(classes, options=options))
            == np.asarray(Image.open(tmp_path / "map.png"))
        ).all()
    with pytest.raises(UsageError, match="has no photo"):
        small_map().plot(["a"])
    with pytest.raises(UsageError, match=r"--values logits changes nothing in a \.png"):
        score_map.plot(options=OutputOptions(values="logits"))


def test_an_xarray_holds_each_score_at_its_place() -> None:
    pytest.importorskip("xarray")
    score_map = small_map()
    array = score_map.to_xarray()
    assert array.dims == ("row", "col", "class") and array.name == "probabilities"
    assert (array.values == score_map.probabilities()).all()
    assert list(array.coords["class"].values) == list(LABELS.categories)
    assert (array.coords["exact"].values == score_map.exact).all()
    # A window of 8 px every 4 px, in a scan that is a hundredth of the image.
    assert array.coords["x"].values == pytest.approx([400, 800, 1200, 1600, 2000])
    assert array.coords["y"].values == pytest.approx([400, 800])
    assert array.attrs["model"] == "m" and array.attrs["exact_cells"] == 4
    chosen = score_map.to_xarray(["c & d"], values="logits")
    assert (chosen.values[:, :, 0] == score_map.logits[:, :, 2]).all() and chosen.name == "logits"
    with pytest.raises(UsageError, match="unknown values 'odds'; known: probabilities, logits"):
        score_map.to_xarray(values="odds")  # type: ignore[arg-type]


def test_a_dataframe_has_the_best_classes_of_each_cell() -> None:
    pytest.importorskip("pandas")
    score_map = small_map()
    frame = score_map.to_dataframe(k=2)
    assert len(frame) == GRID.rows * GRID.cols * 2
    probabilities = score_map.probabilities()
    for at, line in enumerate(frame.itertuples(index=False)):
        row, col, rank = np.unravel_index(at, (GRID.rows, GRID.cols, 2))
        order = sorted(range(3), key=lambda i: -probabilities[row, col, i])
        assert (line.row, line.col, line.rank, line.class_idx) == (row, col, rank + 1, order[rank])
        assert line.category == LABELS.categories[order[rank]] and line.wnid is None
        assert line.probability == probabilities[row, col, order[rank]]
        assert (line.x0, line.y0, line.x1, line.y1) == score_map.box(int(row), int(col))
        assert line.exact == score_map.exact[row, col]
    assert frame.attrs["model"] == "m" and len(score_map.to_dataframe(k=9)) == GRID.rows * GRID.cols * 3


@pytest.mark.parametrize(("package", "way"), [("xarray", "to_xarray"), ("pandas", "to_dataframe")])
def test_a_missing_package_is_told_with_its_extra(
    package: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = re.escape(f"the package {package} is missing: pip install 'fcnconv[{package}]'")
    with pytest.raises(OutputError, match=said):
        getattr(small_map(), way)()
