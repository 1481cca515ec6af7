"""The score map in memory: the result of a classifier for an image, with methods to use, draw and save it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.errors import FcnconvError, UsageError
from fcnconv.grid import Box, Grid
from fcnconv.labels import Labels, Selection
from fcnconv.options import PLAIN_OUTPUT, OutputOptions, Values
from fcnconv.options.parsing import checked, parse_extent, parse_share
from fcnconv.provenance import Provenance
from fcnconv.render.draw import FLOOR
from fcnconv.scores import Block, FloatArray, MapBlock, Prediction, ScoreStream, shown, strength, top_k
from fcnconv.scores.predictions import Peaks
from fcnconv.system.files import written
from fcnconv.system.progress import written as rows_written
from fcnconv.system.scratch import let_go, scratch_array
from fcnconv.writers import OutputSpec, Writer, find_writer, provenance
from fcnconv.writers.notebook import MAX_SIDE, best_classes_frame, labelled_array, map_html
from fcnconv.writers.pictures import picture_of

if TYPE_CHECKING:
    import pandas
    import xarray
    from typing_extensions import Self

    from fcnconv.scores.regions import Region


log = logging.getLogger("fcnconv")

Names = str | Selection | Iterable[str | Selection]
"""One or several names of categories and concepts."""


@dataclass(frozen=True, repr=False)
class ScoreMap(MapBlock):
    """The scores of every window of an image.

    ``logits[y, x, k]`` is the score of class k in the window ``box(y, x)``. ``score_map["cat"]`` is the
    probability of one class in every window. `probabilities` returns all classes and `top_k` the best ones.
    `save` writes a file, `plot` makes a picture, and `regions` lists where a class is.
    """

    @classmethod
    def collect(cls, stream: ScoreStream) -> Self:
        """Collect the whole map of a stream: in memory, or on disk if it is very large."""
        info = stream.info
        rows, cols, _ = info.shape
        logits, exact = scratch_array(info.shape), np.zeros((rows, cols), np.bool_)
        best = np.zeros((rows, cols), np.uint8) if info.has_best_scale else None
        for piece in stream.pieces():
            logits[piece.slices], exact[piece.slices] = piece.logits, piece.exact
            let_go(logits)
            if best is not None and piece.block.best_scale is not None:
                best[piece.slices] = piece.block.best_scale
        info = replace(info, provenance=stream.finish())
        return cls(info, Block(info.grid, slice(0, rows), slice(0, cols), logits, exact, best))

    @property
    def grid(self) -> Grid:
        """The windows and their positions."""
        return self.info.grid

    @property
    def labels(self) -> Labels:
        """The names of the classes."""
        return self.info.labels

    @property
    def provenance(self) -> Provenance:
        """The model, the options and the estimate of agreement behind the scores."""
        return self.info.provenance

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes)."""
        return self.info.shape

    @property
    def temperature(self) -> float:
        """The number that divides the logits, so that probabilities are as confident as the crops are."""
        return self.info.temperature

    @property
    def scales(self) -> tuple[Grid, ...]:
        """The grids of the scales that were joined into this map; empty for one scale."""
        return self.info.scales

    @property
    def best_scale(self) -> npt.NDArray[np.uint8] | None:
        """uint8 (rows, cols): for each cell, the index in `scales` from which its top class comes."""
        return self.block.best_scale

    def __repr__(self) -> str:
        rows, cols, num_classes = self.shape
        width, height = self.grid.image_size
        best = ", ".join(f"{p.category} {p.probability:.2f}" for p in self.best_windows(1))
        model = self.provenance.identity.model
        scores = f"{rows} × {cols} windows × {num_classes} classes"
        return f"<ScoreMap {scores} of {width} × {height} px by {model}; {best}>"

    def box(self, row: int, col: int) -> Box:
        """(x0, y0, x1, y1) of the window from which a cell's top class comes, in pixels of the original."""
        best = self.best_scale
        return self.info.box(row, col, None if best is None else int(best[row, col]))

    def __getitem__(self, name: Selection | str) -> FloatArray:
        """The map of one class: ``score_map["cat"]`` equals ``score_map.class_map("cat")``."""
        return self.class_map(name)

    def class_map(self, name: Selection | str) -> FloatArray:
        """The probability of a category or concept in each cell.

        Args:
            name: a category, a concept such as ``cat``, a class index or a WordNet id, or a `Selection`.

        Returns:
            float32 (rows, cols), 0 to 1. The probability of a concept is the sum over its categories.

        Raises:
            UsageError: no class has this name, or several fit it.
        """
        selection = self.labels.find(name) if isinstance(name, str) else name
        return self.class_maps([selection])[:, :, 0]

    def regions(
        self,
        selection: Selection | str,
        *,
        at_least: float | None = None,
        threshold: float | None = None,
        min_area: float | str | None = None,
        max_regions: int | None = None,
    ) -> list[Region]:
        """List where a class is: the connected areas of its map, the most probable one first.

        They are areas of the map that `display` returns, which scans the image when it is first needed.

        Args:
            selection: a category, a concept such as ``cat``, a class index or a WordNet id, or a `Selection`.
            at_least: lowest probability of a region, above 0. By default 0.05, and half of the highest
                probability of the class in the image.
            threshold: where a region ends, as a share of its highest value. By default 0.25.
            min_area: smallest area, in square pixels, or as a share of the image such as ``"1%"``.
            max_regions: how many regions to return. By default all.

        Returns:
            The regions, each with its class, probability, box, area and outline, in pixels of the image.

        Raises:
            UsageError: no class has this name, or a number is out of range.
        """
        options = OutputOptions(
            at_least=None if at_least is None else parse_share(str(at_least)),
            threshold=None if threshold is None else parse_share(str(threshold)),
            min_area=None if min_area is None else parse_extent(str(min_area)),
            max_regions=max_regions,
        )
        chosen = self.labels.find(selection) if isinstance(selection, str) else selection
        return self.regions_as(chosen, options)

    def regions_as(self, selection: Selection, options: OutputOptions) -> list[Region]:
        """The regions of a class, chosen by the options of a map. See `regions.find_regions`."""
        from fcnconv.scores.regions import find_regions, placement_of_windows  # imports shapely

        display = self.display()
        class_map, placement = (
            display.class_maps([selection])[:, :, 0],
            placement_of_windows(display.info.grid),
        )
        return find_regions(class_map, placement, selection, options)

    def best_windows(self, k: int) -> tuple[Prediction, ...]:
        """The k classes with the highest probability in any window, best first, each with that window."""
        peaks = Peaks(len(self.labels))
        for piece in self.stream().pieces():
            peaks.update(piece.block, piece.probabilities())
        return tuple(
            Prediction(
                rank,
                i,
                self.labels.wnid(i),
                self.labels.categories[i],
                float(peaks.probability[i]),
                self.box(*peaks.cell[i].tolist()),
            )
            for rank, i in enumerate(top_k(peaks.probability, k).tolist(), start=1)
        )

    def stream(self) -> ScoreStream:
        """The map as a stream, for writers."""
        return _streamed(self)

    def display(self) -> MapBlock:
        """The map that display formats and regions show.

        For a map with the default kind and scales, it is the focused map at all scales. The image is scanned
        for it when it is first needed. For any other map, it is the map itself.
        """
        return self if self.info.display is None else self.info.display()

    def save(
        self,
        path: str | PathLike[str],
        *,
        classes: Names = (),
        format: str | None = None,
        outline: bool = False,
        options: OutputOptions = PLAIN_OUTPUT,
    ) -> None:
        """Write the map to a file, in the format that its suffix names.

        The file appears complete or not at all. Display formats (pictures and pages) show the map that
        `display` returns.

        Args:
            path: the file, such as ``map.png`` or ``map.npz``.
            classes: names of categories and concepts, or one name. By default all classes; in a picture, the
                top class of the image.
            format: the format, if the suffix of the path does not name it.
            outline: whether to draw the outlines of each class's regions in a picture.
            options: the options of ``fcnconv heatmap``.

        Raises:
            UsageError: a name fits no class, or an option does not apply to the format.
            OutputError: the file cannot be written, or its format needs a package that is missing.
        """
        options = replace(options, outline=True) if outline else options
        writer = find_writer(fspath(path), format, options)
        score_map = self.display() if writer.display else self
        save_map(_streamed(score_map), fspath(path), writer, self._choice(classes, options))

    def plot(
        self,
        classes: Names = (),
        *,
        outline: bool = False,
        options: OutputOptions = PLAIN_OUTPUT,
    ) -> Image.Image:
        """Draw the photo with the map of a class over it, in one panel per class.

        `save` and ``fcnconv heatmap`` write the same picture.

        Args:
            classes: names of categories and concepts, or one name. By default the top class of the image.
            outline: whether to draw the outlines of each class's regions.
            options: the options of ``fcnconv heatmap``.

        Raises:
            UsageError: a name fits no class, or an option does not apply to pictures.
            ImageError: the photo can no longer be read.
        """
        options = replace(options, outline=True) if outline else options
        find_writer("map.png", options=options)
        return picture_of(*showing(_streamed(self.display()), self._choice(classes, options)))

    def to_xarray(self, classes: Names = (), *, values: Values = "probabilities") -> xarray.DataArray:
        """The scores as a labelled array with class names and positions, see `writers.frames.labelled_array`.

        Args:
            classes: names of categories and concepts, or one name. By default all classes.
            values: ``"probabilities"`` or ``"logits"``.

        Raises:
            UsageError: a name fits no class, or `values` is not valid.
            OutputError: xarray is not installed: ``pip install 'fcnconv[xarray]'``.
        """
        options = OutputOptions(values=checked("values", values, Values))
        return labelled_array(self.stream(), self._choice(classes, options))

    def to_dataframe(self, k: int = 5) -> pandas.DataFrame:
        """A table with one row for each of the k best classes of each cell.

        Args:
            k: number of classes per cell. `writers.frames.best_classes_frame` describes the columns.

        Raises:
            OutputError: pandas is not installed: ``pip install 'fcnconv[pandas]'``.
        """
        return best_classes_frame(self.stream(), k)

    def _repr_html_(self) -> str:
        """The map in a notebook: the picture of the top class, the best windows and the provenance."""
        try:
            picture = self.plot(options=OutputOptions(max_side=MAX_SIDE))
        except FcnconvError:  # a map without a photo, or whose photo was moved
            picture = None
        return map_html(repr(self)[1:-1], picture, self.best_windows(5), provenance(self.stream()))

    def _choice(self, classes: Names, options: OutputOptions) -> OutputSpec:
        names = (classes,) if isinstance(classes, (str, Selection)) else classes
        chosen = (self.labels.find(name) if isinstance(name, str) else name for name in names)
        return OutputSpec(tuple(chosen), options)


def _streamed(whole: MapBlock) -> ScoreStream:
    """A whole map as a stream, for writers."""
    final = replace(whole.info.provenance, exact_cells=int(whole.exact.sum()))
    return ScoreStream(whole.info, [whole.block], final=final)


def save_map(stream: ScoreStream, out: str, writer: Writer, output: OutputSpec) -> None:
    """Write a map to the file `out`, or to standard output if that is ``-``.

    A regular file or a folder appears complete or not at all. A device or a pipe is written directly.

    Args:
        stream: the map.
        out: the path, or ``-``.
        writer: the writer of the format.
        output: the chosen classes and options.

    Raises:
        UsageError: an option does not apply.
        ImageError: the image cannot be read.
        OutputError: the file cannot be written.
    """
    with written(out, folder=writer.folder) as path:
        write_map(stream, path, writer, output)


def write_map(stream: ScoreStream, path: Path, writer: Writer, output: OutputSpec) -> None:
    """Write a map to a path that does not exist yet.

    Raises UsageError, ImageError, OutputError and OSError.
    """
    rows_written(0, of=stream.info.shape[0])
    if writer.needs_class:
        stream, output = showing(stream, output)
    writer.write(path, stream, output)


def showing(stream: ScoreStream, output: OutputSpec) -> tuple[ScoreStream, OutputSpec]:
    """The map, and the choice with the classes that a picture shows.

    If no class was chosen, these are the top class of the image, which is logged, or the ``options.top``
    classes of `foremost`. The whole map is collected to find them.

    Raises:
        UsageError: both ``options.top`` and classes were given.
    """
    if output.selections and output.options.top is not None:
        raise UsageError(
            "--top and --class both choose the classes that a picture shows; leave out one of them"
        )
    if output.selections or output.options.argmax:
        return stream, output
    whole = ScoreMap.collect(stream)
    chosen = foremost(whole, log_foremost(whole), output.options.top or 1)
    return whole.stream(), replace(output, selections=chosen)


SAME_PLACE = 0.5
"""If the cosine of the maps of two classes is at least this, the classes are taken for names of one thing."""


def foremost(score_map: ScoreMap, first: Selection, count: int) -> tuple[Selection, ...]:
    """The classes of at most `count` different things in an image.

    After `first` come the classes with the highest probability in a cell, if it is at least `FLOOR`. A class
    is left out if it is at the same place as an earlier class (`SAME_PLACE`).
    """
    chosen, planes = [first], [shown(score_map.class_map(first)).ravel()]
    for window in score_map.best_windows(len(score_map.labels)) if count > 1 else ():
        if len(chosen) == count or window.probability < FLOOR:
            break
        selection = score_map.labels.same(window.class_idx, window.category)
        plane = shown(score_map.class_map(selection)).ravel()
        if all(_cosine(plane, other) < SAME_PLACE for other in planes):
            chosen.append(selection)
            planes.append(plane)
    if len(chosen) > 1:
        log.info("also showing %s", ", ".join(selection.name for selection in chosen[1:]))
    elif count > 1:
        log.info("no other class reaches %g at another place", FLOOR)
    return tuple(chosen)


def _cosine(one: FloatArray, other: FloatArray) -> float:
    """The cosine of the angle between two maps of probabilities, 0 to 1."""
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def log_foremost(score_map: ScoreMap) -> Selection:
    """Logs and returns the category that a picture shows if no class was chosen.

    It is the top class of `Classifier.classify` for the image. For a map without that answer, it is the
    category that is strongest over all windows, see `scores.strength`.
    """
    if score_map.info.answer is not None:
        first = score_map.info.answer().predictions[0]
        chosen = score_map.labels.same(first.class_idx, first.category)
        sure = f"{first.probability:.2f} for the whole image; "
    else:
        strong = np.zeros(len(score_map.labels))
        for piece in score_map.stream().pieces():
            strong += strength(shown(piece.probabilities()))
        chosen, sure = score_map.labels.category(int(strong.argmax())), ""
    highest = float(shown(score_map.class_map(chosen)).max())
    log.info(
        "showing %s (%sup to %.2f in a %s); choose with --class",
        chosen.name,
        sure,
        highest,
        score_map.info.unit,
    )
    return chosen
