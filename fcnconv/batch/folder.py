"""A folder of maps, one of each image, that a later run goes on with."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from fcnconv import __version__
from fcnconv.batch.index import Failure
from fcnconv.batch.inputs import Input
from fcnconv.batch.report import Report, is_reports
from fcnconv.batch.workers import IN_FLIGHT, each
from fcnconv.classifier import Classifier
from fcnconv.errors import FcnconvError, OutputError, UsageError
from fcnconv.maps import save_map
from fcnconv.options import NetworkOptions
from fcnconv.provenance import Agreement
from fcnconv.system.files import whole_file
from fcnconv.writers import Choice, Writer, is_map

MANIFEST = "fcnconv.json"
"""The file in a folder of maps that tells how they were made, so that a later run goes on with the same."""


@dataclass(frozen=True)
class MapFile:
    """The file of an image's map.

    new: whether it was made now; else it was there already. agreement: of a new one, with real crops.
    """

    path: Path
    new: bool
    agreement: Agreement | None = None


@dataclass(frozen=True)
class MapFolder:
    """Where the maps of many images go, and how they are made.

    network: how the classifier's network is run. shard: (I, N), the part of the images that is mapped.
    """

    classifier: Classifier
    folder: Path
    writer: Writer
    choice: Choice
    network: NetworkOptions
    shard: tuple[int, int] = (1, 1)

    def map_each(
        self, inputs: Iterable[Input], *, overwrite: bool = False
    ) -> Generator[tuple[str, MapFile | FcnconvError], None, None]:
        """Writes each image's map, under the image's own path, and tells what became of it; in the end, also
        if it is closed early, the report on them, where the format has one.

        A map that is there already is kept, as files appear whole: a run that was stopped goes on where it
        was. So are none that are older than the folder's settings, which were made in the way of others.
        overwrite: begin anew.

        Raises UsageError if the folder holds maps that were made in another way.
        """
        report = self.report()
        if report:
            report.check()
        since = self._agree(overwrite)
        share, options = self.classifier.share(IN_FLIGHT), self.choice.options

        def make(item: Input) -> MapFile:
            path = map_path(self.folder, item.name, self.writer.suffix)
            card = report.card_path(path) if report else path
            files = (path, card) if report else (path,)
            try:
                if all(file.exists() and file.stat().st_mtime_ns >= since for file in files):
                    return MapFile(path, new=False)
                for file in files:
                    file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
            for file in files:
                if file.exists() and not is_map(file):
                    raise OutputError(
                        f"{file}: a picture that is no map would be replaced by the map of {item.name}; "
                        "name another folder with --out"
                    )
            source = share.open(item.image, options.sizes, name=item.name, frame=item.frame)
            stream = share.stream(source, options)
            with report.following(stream, item.name, card) if report else nullcontext(stream) as stream:
                save_map(stream, str(path), self.writer, self.choice)
            return MapFile(path, new=True, agreement=stream.about.provenance.agreement)

        failures = []
        try:
            with closing(each(inputs, make)) as results:
                for name, result in results:
                    if isinstance(result, FcnconvError):
                        page = map_path(self.folder, name, self.writer.suffix).relative_to(self.folder)
                        failures.append(Failure(str(page), str(result)))
                    yield name, result
        finally:
            if report:
                report.write(failures, since, self.settings())

    def report(self) -> Report | None:
        """The report on the maps, where their format has one."""
        if not self.writer.reported:
            return None
        return Report(self.folder, self.classifier.labels, self.choice.selections, self.shard)

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

    def _agree(self, overwrite: bool) -> int:
        """Keeps the settings in the folder, or checks that those in it are the same; gives the time since
        which maps are made so, in nanoseconds. Settings without a map, of a run that failed, count for
        nothing.
        """
        path, folder = self.folder / MANIFEST, self.folder
        settings = json.loads(json.dumps(self.settings()))
        try:
            before = {} if overwrite or not path.exists() else _read_settings(path)
            changed = [
                name for name, value in settings.items() if name not in before or before[name] != value
            ]
            if changed:
                maps = (
                    file
                    for file in folder.rglob("*")
                    if file.is_file() and file != path and not is_reports(folder, file)
                )
                if before and any(maps):
                    name = changed[0]
                    old, new = before.get(name), settings[name]
                    raise UsageError(
                        f"{folder}: holds maps made with {name} {old!r}, not {new!r}; "
                        "name another folder, or make them again with --overwrite"
                    )
                folder.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as temporary:
                    temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            return path.stat().st_mtime_ns
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def map_path(folder: Path, name: str, suffix: str) -> Path:
    """Where an image's map lies: its own path and name below `folder`, with the suffix behind it, so that no
    two images share one.
    """
    path = PurePath(name)
    if ".." in path.parts:
        path = Path(name).resolve()
    *parents, last = path.relative_to(path.anchor).parts or ("image",)
    return folder.joinpath(*parents, f"{last}.{suffix}")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path}: damaged ({error}); remove it, or give --overwrite") from error
