"""Formats that hold the regions of one image or of many. One table lists names, suffixes and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import OutputError, UsageError
from fcnconv.labels import Labels
from fcnconv.scores.regions import Located
from fcnconv.system.files import STANDARD_OUTPUT
from fcnconv.writers import WRITERS, OutputSpec
from fcnconv.writers.annotations import write_coco, write_fiftyone, write_label_studio, write_yolo
from fcnconv.writers.outlines import write_region_geojson, write_region_gpkg

Write = Callable[[Path, Iterable[Located], Labels, OutputSpec], None]


@dataclass(frozen=True)
class RegionFormat:
    """A format for regions.

    Attributes:
        name: Its name for ``--format``.
        write: The function that writes the file, or fills the directory, at a path.
        file: For a format of `COLLECTIONS`, the file's name in the folder of a batch; else empty.
        suffix: The suffix of a file name that selects the format; empty if only ``--format`` selects it.
        folder: Whether the output is a directory.
        projects: Whether ``--projected`` applies.
        needs: A package that fcnconv does not install by default, and the extra that installs it.
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


def find_region_format(out: str, format: str | None, output: OutputSpec) -> RegionFormat:
    """Returns the format of this name, or else the format that a file's suffix selects.

    Raises:
        UsageError: The format is unknown or does not support an option.
        OutputError: The format needs a package that is not installed.
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
    if output.options.projected and not found.projects:
        raise UsageError(f"--projected changes nothing in {found.name}; it applies to .geojson")
    if found.folder and out in STANDARD_OUTPUT:
        raise UsageError(f"{found.name} is a directory and cannot go to standard output; name it with --out")
    if found.needs and find_spec(found.needs[0]) is None:
        package, extra = found.needs
        raise OutputError(f"{found.name} needs the package {package}: pip install 'fcnconv[{extra}]'")
    return found
