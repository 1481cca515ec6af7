"""Formats that hold the regions of one image or of many. One table: name, suffix and function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import OutputError, UsageError
from fcnconv.labels import Labels
from fcnconv.regions import Located
from fcnconv.system.files import STANDARD_OUTPUT
from fcnconv.writers import WRITERS, Choice
from fcnconv.writers.annotations import write_coco, write_fiftyone, write_label_studio, write_yolo
from fcnconv.writers.outlines import write_region_geojson, write_region_gpkg

Write = Callable[[Path, Iterable[Located], Labels, Choice], None]


@dataclass(frozen=True)
class RegionFormat:
    """One format.

    name: what ``--format`` calls it. write: makes the file, or fills the directory, at a path.
    file: its name in the folder of a batch, for those of `COLLECTIONS`; else empty.
    suffix: the end of a file's name that stands for it; empty if ``--format`` must name it.
    folder: whether it is a directory. projects: whether ``--projected`` changes it.
    needs: a package that fcnconv comes without, and the extra that brings it.
    """

    name: str
    write: Write
    file: str
    suffix: str = ""
    folder: bool = False
    projects: bool = False
    needs: tuple[str, str] | None = None


_ROWS = (
    RegionFormat("geojson", write_region_geojson, "", ".geojson", projects=True),
    RegionFormat("gpkg", write_region_gpkg, "", ".gpkg", needs=("pyogrio", "geo")),
    RegionFormat("coco", write_coco, "coco.json", ".coco.json"),
    RegionFormat("label-studio", write_label_studio, "label-studio.json"),
    RegionFormat("fiftyone", write_fiftyone, "fiftyone.json"),
    RegionFormat("yolo", write_yolo, "yolo", folder=True),
)

REGION_FORMATS = {row.name: row for row in _ROWS}
"""Every format of regions by its name."""


def find_region_format(out: str, format: str | None, choice: Choice) -> RegionFormat:
    """The format of this name, else the one that a file's suffix stands for.

    Raises UsageError if there is none or it does not take an option, OutputError if its package is missing.
    """
    found = REGION_FORMATS.get(format or "")
    if format is None:
        found = next((row for row in _ROWS if row.suffix and out.lower().endswith(row.suffix)), None)
    if found is None:
        known = ", ".join(REGION_FORMATS)
        name = (format or Path(out).suffix.lower()).lstrip(".")
        if name in WRITERS:
            raise UsageError(
                f"a .{name} holds a map, which 'fcnconv heatmap' writes; formats of regions: {known}"
            )
        if format is None:
            raise UsageError(f"{out}: its suffix names no format of regions; add --format: {known}")
        raise UsageError(f"unknown format of regions {format!r}; known: {known}")
    if choice.options.projected and not found.projects:
        raise UsageError(f"--projected changes nothing in {found.name}; it applies to .geojson")
    if found.folder and out in STANDARD_OUTPUT:
        raise UsageError(f"{found.name} is a directory and cannot go to standard output; name it with --out")
    if found.needs and find_spec(found.needs[0]) is None:
        package, extra = found.needs
        raise OutputError(f"{found.name} needs the package {package}: pip install 'fcnconv[{extra}]'")
    return found
