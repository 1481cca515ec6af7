"""Locating: finds the regions of classes in an image, and chooses which of them to report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from shapely import box

from fcnconv.api.maps import ScoreMap
from fcnconv.images import ImageSource
from fcnconv.options import SURE, ScanOptions
from fcnconv.scores import ScoreStream
from fcnconv.scores.regions import Located, Region, by_probability, most_probable
from fcnconv.writers import OutputSpec

if TYPE_CHECKING:
    from fcnconv.api.classifier import Classifier

OVERLAP = 0.5
"""Two regions are taken for one thing if the intersection over union of their boxes is at least this value.
If no class was named, only the more probable class of the two is reported. It is the usual value of
non-maximum suppression.
"""


def locate(classifier: Classifier, source: ImageSource, scan: ScanOptions, output: OutputSpec) -> Located:
    """Find the regions in an image, see `regions_in`.

    If no classes were chosen, the regions of the top class of `Classifier.classify` come first, unless the
    options limit the scan to a region of interest.
    """
    stream, first = classifier.stream(source, scan), None
    if not output.selections and not stream.info.roi:
        first = classifier.classify(source, k=1).predictions[0].class_idx
    return regions_in(stream, output, first)


def regions_in(stream: ScoreStream, output: OutputSpec, first: int | None = None) -> Located:
    """Find the regions of the chosen classes in a map.

    If no classes were chosen, these are the regions of the first class and of every class that reaches `SURE`
    (or ``at_least``) in a window. Regions of the other classes are dropped if they overlap (`OVERLAP`) a
    region of the first class or a more probable region.

    Args:
        stream: the map.
        output: the classes, and the options for regions.
        first: the index of the first class. By default the class that is most probable in a window.
    """
    options, score_map = output.options, ScoreMap.collect(stream)
    if output.selections:
        each = (score_map.regions_as(selection, options) for selection in output.selections)
        regions = [region for found in each for region in found]
    else:
        least = SURE if options.at_least is None else options.at_least
        windows = score_map.best_windows(len(score_map.labels))
        sure = [window.class_idx for window in windows if window.probability >= least]
        first = windows[0].class_idx if first is None else first
        rest = [
            region
            for class_idx in sure
            if class_idx is not None and class_idx != first
            for region in score_map.regions_as(
                score_map.labels.category(class_idx), replace(options, at_least=least)
            )
        ]
        own = [] if first is None else score_map.regions_as(score_map.labels.category(first), options)
        regions = without_overlaps([*own, *by_probability(rest)])
    kept = most_probable(regions, options.max_regions)
    source, identity = score_map.info.source, score_map.provenance.identity
    return Located(
        "image" if source is None else source.name,
        *score_map.grid.image_size,
        identity.model,
        tuple(region for region in regions if id(region) in kept),
        source.info.georeference if source is not None else None,
    )


def without_overlaps(regions: Iterable[Region]) -> list[Region]:
    """The regions without those that overlap an earlier region of another class."""
    kept: list[Region] = []
    for region in regions:
        if all(same.category == region.category or overlap(same, region) < OVERLAP for same in kept):
            kept.append(region)
    return kept


def overlap(one: Region, other: Region) -> float:
    """Intersection over union of two regions' boxes, 0 to 1."""
    first, second = box(*one.box), box(*other.box)
    return float(first.intersection(second).area / first.union(second).area)
