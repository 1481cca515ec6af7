"""A folder of maps, one of each image, that a later run goes on with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from fcnconv.batch.index import Failure
from fcnconv.batch.inputs import Input
from fcnconv.batch.locks import Claim
from fcnconv.batch.outcome import Later, Outcome
from fcnconv.batch.report import Report
from fcnconv.batch.store import AnswerStore, Disk
from fcnconv.batch.workers import IN_FLIGHT
from fcnconv.classifier import Classifier
from fcnconv.errors import ImageError, OutputError, UsageError
from fcnconv.images import ImageSource, area
from fcnconv.images.remote import is_address
from fcnconv.maps import write_map
from fcnconv.options import NetworkOptions
from fcnconv.scores import ScoreStream
from fcnconv.system.leftovers import remove_leftovers
from fcnconv.version import __version__
from fcnconv.writers import Choice, Writer, is_map

DEADLY = 3
"""Processes that may end while they work on an image alone, until it counts as one that cannot be mapped."""


@dataclass(frozen=True)
class MapFolder:
    """Where the maps of many images go, and how they are made.

    network: how the classifier's network is run. shard: (I, N), the part of the images that is mapped.
    """

    classifier: Classifier
    store: AnswerStore
    writer: Writer
    choice: Choice
    network: NetworkOptions
    shard: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Raises UsageError for what such a place cannot hold, OutputError for what would be lost in it."""
        if isinstance(self.store, Disk):
            if self.report:
                self.report.check()
        elif self.writer.folder or self.writer.reported:
            kind = "directory" if self.writer.folder else "page with a report"
            raise UsageError(
                f"a .{self.writer.suffix} is a {kind}, which cannot go to {self.store.place('')}; choose "
                "another --format, or a folder on a disk"
            )

    def make(self, item: Input, since: int, *, alone: bool = False) -> Outcome | Later:
        """Writes an image's map, under the image's own path.

        A map that is there already is kept, as files appear whole: a run that was stopped goes on where it
        was. So are none that are older than `since`, which were made in the way of others.
        An image that another process works on is left for later. alone: no other image is worked on here.

        Raises ImageError, OutputError and UsageError.
        """
        name = answer_name(item.name, self.writer.suffix)
        card = self.report.card_name(name) if self.report else None
        files = (name, card) if card else (name,)
        path = self.store.place(name)
        try:
            if all(self.store.has(file, since) for file in files):
                return Outcome(path, new=False)
            claim = self.store.claims.take(name, alone=alone) if self.store.claims else Claim.none(name)
            if claim is None:
                return Later(item)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        if claim.deaths and isinstance(self.store, Disk):
            remove_leftovers(self.store.root.joinpath(name).parent, again=True)
        try:
            if all(self.store.has(file, since) for file in files):  # by another, a moment ago
                return Outcome(path, new=False)
            if claim.deaths >= DEADLY:
                raise ImageError(
                    f"{item.name}: {claim.deaths} processes ended while they worked on it alone, as happens "
                    "when memory is short; leave it out, or choose a smaller --max-memory or --scales"
                )
            return self._make(item, name, card, since)
        finally:
            if self.store.claims:
                self.store.claims.release(name)

    def _make(self, item: Input, name: str, card: str | None, since: int) -> Outcome:
        options = self.choice.options
        if isinstance(self.store, Disk):
            for file in filter(None, (name, card)):
                there = self.store.root / file
                if there.exists() and not is_map(there):
                    raise OutputError(
                        f"{there}: a picture that is no map would be replaced by the map of {item.name}; "
                        "name another folder with --out"
                    )
        source = self.open(item)
        stream = self.share.stream(source, options)
        told: AbstractContextManager[ScoreStream] = nullcontext(stream)
        if self.report and card:
            told = self.report.following(stream, item.name, card, since)
        with told as stream, self.store.writing(name, since, folder=self.writer.folder) as temporary:
            write_map(stream, temporary, self.writer, self.choice)
        return Outcome(
            self.store.place(name), True, stream.about.provenance.agreement, area(source.size) / 1e6
        )

    def open(self, item: Input) -> ImageSource:
        """An image as it will be scanned. Raises ImageError."""
        sizes = self.choice.options.sizes
        return self.share.open(item.content(), sizes, name=item.name, frame=item.frame)

    @cached_property
    def share(self) -> Classifier:
        """The classifier, with the memory that each of the images has that are worked on at a time."""
        return self.classifier.share(IN_FLIGHT)

    def finish(self, failures: dict[str, str], since: int) -> None:
        """Writes the report on the maps, where their format has one. failures: images, and why."""
        if self.report:
            suffix = self.writer.suffix
            failed = [Failure(answer_name(name, suffix), reason) for name, reason in failures.items()]
            self.report.write(failed, since, self.settings())

    @cached_property
    def report(self) -> Report | None:
        """The report on the maps, where their format has one."""
        if not (self.writer.reported and isinstance(self.store, Disk)):
            return None
        return Report(self.store, self.classifier.labels, self.choice.selections)

    def settings(self) -> dict[str, Any]:
        """All that a map depends on beside its image, by name."""
        classifier, made = self.classifier, self.classifier.provenance
        network = asdict(self.network) | {"temperature": classifier.temperature}
        network["precision"] = made.arithmetic.number
        del network["max_pixels"]
        if classifier.geometry.local:  # tiles equal the whole, however much memory cut them
            del network["max_memory"]
        options = asdict(self.choice.options)
        options["scales"] = ",".join(map(str, self.choice.options.sizes))
        options["classes"] = [selection.name for selection in self.choice.selections]
        return {
            "version": __version__,
            **asdict(made.identity),
            "activation": classifier.labels.activation,
            "pixel_size": classifier.pixel_size,
            "window": classifier.geometry.window,
            **network,
            "stride": classifier.geometry.stride,
            "format": self.writer.suffix,
            **options,
        }


def answer_name(name: str, suffix: str) -> str:
    """Where an image's answer lies in a folder of them: its own path and name, with the suffix behind it, so
    that no two images share one. With slashes.
    """
    if is_address(name):
        name = name.replace("://", "/", 1)
    path = PurePath(name.replace("\0", "\ufffd"))  # a null byte, which no file can be called by
    if ".." in path.parts:
        path = Path(path).resolve()
    *parents, last = path.relative_to(path.anchor).parts or ("image",)
    return "/".join([*parents, f"{last}.{suffix}"])
