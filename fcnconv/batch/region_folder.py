"""A folder of regions: one file per image, so that a later run can continue, and a file that collects them
all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.batch.inputs import Input
from fcnconv.batch.map_folder import MapFolder, Outcome
from fcnconv.batch.store import Disk
from fcnconv.errors import OutputError
from fcnconv.images import area
from fcnconv.scores import ScoreStream
from fcnconv.system.records import parse_json
from fcnconv.writers import OF_REGIONS, OutputSpec, Writer

if TYPE_CHECKING:
    from fcnconv.scores.regions import Located


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
