"""A folder with one file per image, which a later run can continue: of maps, or of regions with a file that
collects them all. And the outcome of an image of a batch.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import write_map
from fcnconv.batch.index import Failure
from fcnconv.batch.inputs import Input
from fcnconv.batch.locks import Claim
from fcnconv.batch.report import Report
from fcnconv.batch.store import AnswerStore, Disk
from fcnconv.batch.workers import IN_FLIGHT
from fcnconv.errors import ImageError, OutputError, UsageError
from fcnconv.images import ImageSource, area
from fcnconv.images.remote import is_address
from fcnconv.options import NetworkOptions, ReadOptions, ScanOptions
from fcnconv.provenance import Agreement
from fcnconv.scores import ScoreStream
from fcnconv.system.leftovers import remove_leftovers
from fcnconv.system.records import parse_json
from fcnconv.version import __version__
from fcnconv.writers import OF_REGIONS, OutputSpec, Writer, is_map

if TYPE_CHECKING:
    from fcnconv.scores.regions import Located


@dataclass(frozen=True)
class Outcome:
    """The outcome of an image.

    Attributes:
        path: The file that contains the answer.
        new: Whether the answer was computed in this run; otherwise it existed already.
        agreement: The agreement of a new map with crops.
        megapixels: The size of the image, if the answer is new.
        content: The answer, if many answers share the file and it is not written yet.
    """

    path: str
    new: bool
    agreement: Agreement | None = None
    megapixels: float = 0.0
    content: Any = None


@dataclass(frozen=True)
class Later:
    """An image that another process works on, or that a process died with. It is processed last."""

    item: Input


DEADLY = 3
"""Number of processes that may die while working on an image alone, until the image counts as failed."""


@dataclass(frozen=True)
class MapFolder:
    """The destination of the maps of many images, and how they are made.

    Attributes:
        scan: How the images are scanned.
        network, reading: How the classifier's network is run, and how it reads images.
        shard: (I, N), the part of the images that is mapped.
    """

    classifier: Classifier
    store: AnswerStore
    writer: Writer
    scan: ScanOptions
    output: OutputSpec
    network: NetworkOptions
    reading: ReadOptions
    shard: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Checks the destination.

        Raises:
            UsageError: The destination cannot hold the format.
            OutputError: A file in the destination would be lost.
        """
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
        """Writes an image's map under the image's own path.

        Files appear complete, so an existing map is kept and a stopped run continues where it was. Maps older
        than `since` were made with other settings and are replaced. An image that another process works on is
        returned as `Later`.

        Args:
            item: The image.
            since: The earliest time of change, in nanoseconds, of a map that is kept.
            alone: Whether this process works on no other image.

        Raises:
            ImageError: The image cannot be read, or too many processes died with it.
            OutputError: The map cannot be written.
            UsageError: An option does not apply to the image.
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
            if all(self.store.has(file, since) for file in files):  # another process wrote it a moment ago
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
        if isinstance(self.store, Disk):
            for file in filter(None, (name, card)):
                there = self.store.root / file
                if there.exists() and not is_map(there):
                    raise OutputError(
                        f"{there}: a picture that is not a map would be replaced by the map of {item.name}; "
                        "name another folder with --out"
                    )
        source = self.open(item)
        stream = self.share.stream(source, self.scan)
        watched: AbstractContextManager[ScoreStream] = nullcontext(stream)
        if self.report and card:
            watched = self.report.following(stream, item.name, card, since)
        with watched as stream, self.store.writing(name, since, folder=self.writer.folder) as temporary:
            write_map(stream, temporary, self.writer, self.output)
        return Outcome(self.store.place(name), True, stream.finish().agreement, area(source.size) / 1e6)

    def open(self, item: Input) -> ImageSource:
        """Opens an image for scanning. Raises ImageError."""
        return self.share.open(item.content(), self.scan.sizes, name=item.name, frame=item.frame)

    @cached_property
    def share(self) -> Classifier:
        """Returns the classifier with the memory limit that applies to each of the images that are processed
        at a time.
        """
        return self.classifier.share(IN_FLIGHT)

    def finish(self, failures: dict[str, str], since: int) -> None:
        """Writes the report on the maps, if their format has one. failures: images and the reasons."""
        if self.report:
            suffix = self.writer.suffix
            failed = [Failure(answer_name(name, suffix), reason) for name, reason in failures.items()]
            self.report.write(failed, since, self.settings())

    @cached_property
    def report(self) -> Report | None:
        """Returns the report on the maps, if their format has one."""
        if not (self.writer.reported and isinstance(self.store, Disk)):
            return None
        return Report(self.store, self.classifier.labels, self.output.selections)

    def settings(self) -> dict[str, Any]:
        """Returns everything except the image that a map depends on, by name."""
        classifier, made = self.classifier, self.classifier.provenance
        network = asdict(self.network) | asdict(self.reading) | {"temperature": classifier.temperature}
        network["precision"] = made.arithmetic.number
        del network["max_pixels"]
        if classifier.geometry.local:  # tiles equal the whole image, whatever the memory limit
            del network["max_memory"]
        options = asdict(self.scan) | asdict(self.output.options)
        options["scales"] = ",".join(map(str, self.scan.sizes))
        options["classes"] = [selection.name for selection in self.output.selections]
        return {
            "version": __version__,
            **asdict(made.identity),
            "activation": classifier.labels.activation,
            "pixel_size": classifier.sizing.pixel_size,
            "window": classifier.geometry.window,
            **network,
            "stride": classifier.geometry.stride,
            "format": self.writer.suffix,
            **options,
        }


def answer_name(name: str, suffix: str) -> str:
    """Returns the path of an image's answer in a folder, with slashes: the image's own path and name with the
    suffix appended, so that no two images share one.
    """
    if is_address(name):
        name = name.replace("://", "/", 1)
    path = PurePath(name.replace("\0", "\ufffd"))  # a null byte cannot occur in a file name
    if ".." in path.parts:
        path = Path(path).resolve()
    *parents, last = path.relative_to(path.anchor).parts or ("image",)
    return "/".join([*parents, f"{last}.{suffix}"])


def write_regions(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the regions in a map as JSON, see `Located.record`."""
    from fcnconv.api.locating import regions_in  # only regions need shapely

    path.write_text(json.dumps(regions_in(stream, output).record()) + "\n", encoding="utf-8")


REGIONS = Writer(
    "regions.json",
    write_regions,
    "the regions in an image",
    takes=OF_REGIONS,
    display=True,
)
"""The writer for the regions of one image."""


@dataclass(frozen=True)
class RegionFolder(MapFolder):
    """The destination of the regions of many images. format: of the file that collects them, one of
    `COLLECTIONS`.
    """

    format: str = field(kw_only=True)

    def _make(self, item: Input, name: str, card: str | None, since: int) -> Outcome:
        from fcnconv.api.locating import locate  # only regions need shapely

        source = self.open(item)
        located = replace(locate(self.share, source, self.scan, self.output), name=item.name)
        with self.store.writing(name, since) as temporary:
            temporary.write_text(json.dumps(located.record()) + "\n", encoding="utf-8")
        return Outcome(self.store.place(name), True, None, area(source.size) / 1e6)

    def finish(self, failures: dict[str, str], since: int) -> None:
        """Collects the regions of all images in the folder in one file, whichever process located them."""
        from fcnconv.writers.region_formats import REGION_FORMATS

        form = REGION_FORMATS[self.format]
        labels = self.classifier.labels
        if not form.folder:
            with self.store.writing(form.file, 0) as temporary:
                form.write(temporary, self._located(since), labels, self.output)
            return
        with tempfile.TemporaryDirectory(prefix="fcnconv-") as place:
            form.write(Path(place), self._located(since), labels, self.output)
            for file in sorted(Path(place).rglob("*")):
                if file.is_file():
                    name = f"{form.file}/{file.relative_to(place).as_posix()}"
                    with self.store.writing(name, 0) as temporary:
                        shutil.copyfile(file, temporary)

    def _located(self, since: int) -> Iterator[Located]:
        """Yields the regions of each image that has a file of regions, sorted by name."""
        from fcnconv.scores.regions import Located

        for name in sorted(self.store.files()):
            if not name.endswith(f".{REGIONS.suffix}") or (
                isinstance(self.store, Disk) and not self.store.has(name, since)
            ):
                continue
            try:
                yield Located.of_record(parse_json(self.store.read(name) or ""))
            except (ValueError, TypeError, LookupError) as error:
                raise OutputError(f"{self.store.place(name)}: damaged ({error}); remove it") from error
