"""The report of a folder of pages: ``index.html`` and the folder of its files.

A page ``photos/cat.jpg.html`` has its card in ``fcnconv.report/photos/cat.jpg.jpg``. The report is made from
all cards in the folder, whichever process made them, and from the failures in the folder's record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fcnconv.batch.cards import SIDE, MapSummary, draw_card, read_card, write_card
from fcnconv.batch.index import Failure, Linked, index_page, is_index
from fcnconv.batch.inputs import CARDS
from fcnconv.batch.store import Disk
from fcnconv.errors import OutputError
from fcnconv.images import read_within
from fcnconv.labels import Labels, Selection
from fcnconv.scores import ScoreStream
from fcnconv.system.files import written

INDEX = "index.html"


def is_reports(name: str) -> bool:
    """Returns whether a file in a folder of maps belongs to its report. name: its path, with slashes."""
    return name == INDEX or name.startswith(f"{CARDS}/")


@dataclass(frozen=True)
class Report:
    """Writes the cards of a run and the report of a folder.

    Attributes:
        labels: The labels of the network.
        chosen: The categories and concepts that were requested.
    """

    store: Disk
    labels: Labels
    chosen: Sequence[Selection]

    @property
    def folder(self) -> Path:
        """The folder of the report."""
        return self.store.root

    def check(self) -> None:
        """Raises OutputError if the report would replace a page that is not a report."""
        path = self.folder / INDEX
        if path.exists() and not is_index(path):
            raise OutputError(
                f"{path}: exists and is not a report of fcnconv; name another folder with --out"
            )

    def card_name(self, page: str) -> str:
        """Returns the name of an image's card. page: its page. Raises OutputError for the report's name."""
        if page == INDEX:
            raise OutputError(
                f"{self.store.place(page)}: is the report's own name; rename the image, or name it by its "
                "folder"
            )
        return f"{CARDS}/{PurePath(page).with_suffix('.jpg').as_posix()}"

    @contextmanager
    def following(self, stream: ScoreStream, name: str, card: str, since: int) -> Iterator[ScoreStream]:
        """Yields a stream to read instead of `stream`. When the block ends without an error, the image's card
        is written.

        Args:
            stream: The map.
            name: The name of the image.
            card: The name of its card.
            since: See `Disk.writing`.

        Raises:
            ImageError: The image cannot be read.
            OutputError: The card cannot be written.
        """
        glance = MapSummary(stream.info, self.chosen)
        stream = glance.watching(stream)
        yield stream
        source, agreement = stream.info.source, stream.finish().agreement
        assert source is not None  # a scan has an image
        share = None if agreement is None else round(agreement.first_class, 4)
        drawn = draw_card(name, read_within(source, SIDE), glance, share)
        with self.store.writing(card, since) as temporary:
            write_card(temporary, *drawn)

    def write(self, failures: Sequence[Failure], since: int, settings: Mapping[str, Any]) -> None:
        """Writes the page.

        Args:
            failures: The images without a map.
            since: The earliest time of change, in nanoseconds. Older cards belong to maps with other
                settings.
            settings: The settings of the maps, shown at the foot of the page.

        Raises:
            OutputError: The cards cannot be read, or the page cannot be written.
        """
        try:
            linked = list(self._linked(since))
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be read: {error.strerror or error}") from error
        done = {page.page.as_posix() for page in linked}
        failed = [failure for failure in failures if failure.page not in done]
        if linked or failed:
            page = index_page(self.folder, linked, failed, self.labels, self.chosen, settings)
            with written(str(self.folder / INDEX)) as path:
                path.write_text(page, encoding="utf-8")

    def _linked(self, since: int) -> Iterator[Linked]:
        """Yields the existing cards, each with its page."""
        cards = self.folder / CARDS
        for path in cards.rglob("*.jpg"):
            page = path.relative_to(cards).with_suffix(".html")
            if path.stat().st_mtime_ns >= since and self.folder.joinpath(page).is_file():
                card = read_card(path)
                if card:
                    yield Linked(card, page, path.relative_to(self.folder))
