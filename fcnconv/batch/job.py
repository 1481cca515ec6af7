"""The work of a batch on each of its images, in a form that can be opened on another machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fcnconv.api.loading import open_classifier
from fcnconv.batch.folders import REGIONS, MapFolder, RegionFolder
from fcnconv.batch.packed import Pack
from fcnconv.batch.store import open_store
from fcnconv.errors import UsageError
from fcnconv.models import OwnModel, find_model
from fcnconv.options import EVALUATION_SIZE, NetworkOptions, OutputOptions, ReadOptions, ScanOptions
from fcnconv.scan.correction import check_together
from fcnconv.writers import COLLECTIONS, OutputSpec, Writer, check_options, find_writer


@dataclass(frozen=True)
class Job:
    """The description of a batch.

    Attributes:
        model: The network.
        own: The description of a custom model.
        network: How the network is run.
        reading: How images are read.
        scan: How each image is scanned.
        options: What is written of each map.
        out: The destination of the answers.
        format: A suffix. With ``.tar`` appended, maps go into archives. ``parquet`` is a table of images, or
            of cells if `cells_table`. A name of `COLLECTIONS` is one file of the regions in all images.
        shard: (I, N), the part of the images.
    """

    model: str
    own: OwnModel
    network: NetworkOptions
    reading: ReadOptions
    scan: ScanOptions
    options: OutputOptions
    out: str
    format: str
    cells_table: bool
    shard: tuple[int, int]

    def open(self, images: int = 0) -> MapFolder | Pack:
        """Opens the job. Raises UsageError, OutputError, ModelError and ConversionError.

        Args:
            images: The number of images of the batch at least, as far as it is known.
        """
        writer, kind, scan = self.writer(), self.kind, self.scan
        if kind == "images":
            scan = replace(scan, scales=scan.scales or EVALUATION_SIZE)
        elif writer.display:
            scan = scan.for_display()
        spec = find_model(self.model, self.own)
        labels = spec.labels()
        network = replace(self.network, mode=spec.mode_for(self.network.mode))
        check_together(network, scan, labels.activation, raw=self.options.raw)
        output = OutputSpec.of(self.options, labels)
        classifier = open_classifier(spec, network, self.reading, scan, images)
        store = open_store(self.out)
        parts = classifier, store, writer, scan, output, network, self.reading
        if self.collection:
            return RegionFolder(*parts, self.shard, format=self.collection)
        folder = MapFolder(*parts, self.shard)
        return Pack(folder, kind) if kind else folder

    @property
    def kind(self) -> Literal["tar", "cells", "images"] | None:
        """How answers are packed, see `Pack`; None if each is a file."""
        suffix = self.format.lstrip(".").lower()
        if suffix == "parquet":
            return "cells" if self.cells_table else "images"
        return "tar" if suffix.endswith(".tar") else None

    @property
    def collection(self) -> str | None:
        """The name of the format that collects the regions of all images; None if maps are written."""
        return self.format if self.format in COLLECTIONS else None

    def writer(self) -> Writer:
        """Returns the writer of a map. Raises UsageError and OutputError."""
        if self.collection:
            check_options(self.collection, REGIONS.takes, self.options, self.scan.for_display())
            if self.cells_table:
                raise UsageError("--cells-table is for --format parquet; add it, or leave the table out")
            return REGIONS
        if self.cells_table and self.kind != "cells":
            raise UsageError("--cells-table is for --format parquet; add it, or leave the table out")
        inner = self.format.lstrip(".")
        if self.kind == "tar":
            inner = inner[: -len(".tar")]
        writer = find_writer(f"map.{inner}", None, self.options, self.scan)
        if self.kind == "tar" and writer.folder:
            raise UsageError(
                f"a .{writer.suffix} is a directory and cannot be packed in a tar archive; choose npz.tar"
            )
        return writer
