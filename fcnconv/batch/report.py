"""The report of a folder of pages: ``index.html``, and beside it the folder of what it shows.

A page ``photos/cat.jpg.html`` has its card in ``fcnconv.report/photos/cat.jpg.jpg``. The report is made of
the cards that are there, whoever made them, and of the failures of the last run, of which each shard keeps
its own list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnconv.batch.glance import Glance
from fcnconv.batch.index import Failure, Linked, index_page, is_index
from fcnconv.batch.inputs import CARDS
from fcnconv.batch.thumbnails import SIDE, draw_card, read_card, write_card
from fcnconv.errors import OutputError
from fcnconv.labels import Labels, Selection
from fcnconv.scores import ScoreStream
from fcnconv.sources import read_within
from fcnconv.system.files import written

INDEX = "index.html"


def is_reports(folder: Path, path: Path) -> bool:
    """Whether a file in a folder of maps belongs to its report."""
    return path == folder / INDEX or folder / CARDS in path.parents


@dataclass(frozen=True)
class Report:
    """What a run adds to the report of a folder, and the making of it.

    labels: of the network. chosen: the categories and concepts that were asked for.
    shard: (I, N), the part of the images that this run maps.
    """

    folder: Path
    labels: Labels
    chosen: Sequence[Selection]
    shard: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Raises OutputError if the report would replace a page that is none."""
        path = self.folder / INDEX
        if path.exists() and not is_index(path):
            raise OutputError(f"{path}: exists and is no report of fcnconv; name another folder with --out")

    def card_path(self, page: Path) -> Path:
        """Where the card of an image lies. page: its page. Raises OutputError for the report's own name."""
        if page == self.folder / INDEX:
            raise OutputError(f"{page}: is the report's own name; rename the image, or name it by its folder")
        return self.folder / CARDS / page.relative_to(self.folder).with_suffix(".jpg")

    @contextmanager
    def following(self, stream: ScoreStream, name: str, card: Path) -> Iterator[ScoreStream]:
        """The stream, to be read instead of it; when the block ends well, the image's card is written.

        name: the image. card: where its card goes. Raises ImageError and OutputError.
        """
        glance = Glance(stream.about, self.chosen)
        stream = glance.watching(stream)
        yield stream
        source, agreement = stream.about.source, stream.about.provenance.agreement
        assert source is not None  # a scan has one
        share = None if agreement is None else round(agreement.first_class, 4)
        write_card(card, *draw_card(name, read_within(source, SIDE), glance, share))

    def write(self, failures: Sequence[Failure], since: int, settings: Mapping[str, Any]) -> None:
        """Writes the page, and this shard's list of failures.

        since: cards that are older, in nanoseconds, are of maps that were made in another way.
        settings: how the maps were made, which the foot of the page tells.

        Raises OutputError.
        """
        try:
            self._keep(failures)
            linked = list(self._linked(since))
            done = {str(page.page) for page in linked}
            failed = [failure for failure in self._failures() if failure.page not in done]
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be read: {error.strerror or error}") from error
        if linked or failed:
            page = index_page(self.folder, linked, failed, self.labels, self.chosen, settings)
            with written(str(self.folder / INDEX)) as path:
                path.write_text(page, encoding="utf-8")

    def _linked(self, since: int) -> Iterator[Linked]:
        """The cards that are there, each with its page."""
        cards = self.folder / CARDS
        for path in cards.rglob("*.jpg"):
            page = path.relative_to(cards).with_suffix(".html")
            if path.stat().st_mtime_ns >= since and self.folder.joinpath(page).is_file():
                card = read_card(path)
                if card:
                    yield Linked(card, page, path.relative_to(self.folder))

    def _keep(self, failures: Sequence[Failure]) -> None:
        """Replaces this shard's list of failures. Lists of other numbers of shards are of other runs."""
        own = self._list(*self.shard)
        of_this = {self._list(i, self.shard[1]) for i in range(1, self.shard[1] + 1)}
        for path in own.parent.glob("failures-*.json"):
            if path == own or path not in of_this:
                with suppress(FileNotFoundError):  # another shard was faster
                    path.unlink()
        if failures:
            own.parent.mkdir(parents=True, exist_ok=True)
            with written(str(own)) as temporary:
                temporary.write_text(json.dumps([[f.page, f.message] for f in failures]), encoding="utf-8")

    def _failures(self) -> Iterator[Failure]:
        for number in range(1, self.shard[1] + 1):
            with suppress(FileNotFoundError, ValueError, TypeError):
                for page, message in json.loads(self._list(number, self.shard[1]).read_text("utf-8")):
                    yield Failure(page, message)

    def _list(self, number: int, of: int) -> Path:
        return self.folder / CARDS / f"failures-{number}-of-{of}.json"
