"""How well regions box labelled things: the share of labelled boxes that are found, by threshold.

    python benchmarks/regions.py PHOTOS LABELS.json [--model NAME]

LABELS.json is a list of ``{"photo": NAME, "things": [{"name", "class_idx", "boxes"}]}``: for each photo in
the folder PHOTOS the things on it, the class indices that name the same thing, and boxes x0, y0, x1, y1 as
shares of width and height. Each thing is asked for by its classes, as by ``fcnconv locate -c``.

found: share of the labelled boxes that a region's box matches, by intersection over union of 0.3 and of 0.5.
right: share of the regions that match a labelled box. first: share of the things whose most probable region
does, at 0.3, 0.5 and 0.7; their mean is the MaxBoxAccV2 of Choe et al., "Evaluating Weakly Supervised Object
Localization Methods Right", 2020, but for one threshold of the map.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnconv
from fcnconv.api.maps import ScoreMap
from fcnconv.labels import Selection
from fcnconv.options import AT_LEAST, THRESHOLD, LocateOptions, OutputOptions
from fcnconv.scores.regions import Placement, find_regions, placement_of_windows

THRESHOLDS = (0.1, 0.15, 0.2, THRESHOLD, 0.3, 0.4, 0.5)
LEAST = (AT_LEAST, 0.1, 0.2, 0.3)
OVERLAPS = (0.3, 0.5, 0.7)

Box = Sequence[float]
Thing = tuple[Any, Placement, list[Box]]
"""The plane of a thing's classes, its place, and its labelled boxes in pixels."""


def things(classifier: fcnconv.Classifier, photos: Path, labels: Path) -> Iterator[Thing]:
    """Every labelled thing with its map, photo after photo."""
    for number, labelled in enumerate(json.loads(labels.read_text(encoding="utf-8"))):
        stream = classifier.stream(str(photos / labelled["photo"]), LocateOptions().scan())
        score_map = ScoreMap.collect(stream)
        width, height = score_map.grid.image_size
        for thing in labelled["things"]:
            selection = Selection(thing["name"], tuple(sorted(thing["class_idx"])))
            boxes = [[x0 * width, y0 * height, x1 * width, y1 * height] for x0, y0, x1, y1 in thing["boxes"]]
            yield score_map.class_map(selection), placement_of_windows(score_map.grid), boxes
        print(f"\r{number + 1} photos", end="", flush=True)
    print()


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    if wide <= 0 or high <= 0:
        return 0.0
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return wide * high / (sum(areas) - wide * high)


def row(found: Sequence[Thing], options: OutputOptions) -> str:
    """A row of the table: what these options find."""
    selection = Selection("thing", (0,))
    boxes = regions = things_found = 0
    matched = {least: [0, 0, 0] for least in OVERLAPS}  # boxes, regions, first regions
    for plane, place, labelled in found:
        each = find_regions(plane, place, selection, options)
        overlaps = np.array([[overlap(r.box, box) for box in labelled] for r in each]).reshape(
            -1, len(labelled)
        )
        boxes, regions, things_found = boxes + len(labelled), regions + len(each), things_found + bool(each)
        for least, counts in matched.items():
            hits = overlaps >= least
            counts[0] += hits.any(0).sum()
            counts[1] += hits.any(1).sum()
            counts[2] += bool(len(each) and hits[0].any())
    shares = [
        *(f"{matched[least][0] / boxes:.3f}" for least in (0.3, 0.5)),
        *(f"{matched[least][1] / max(regions, 1):.3f}" for least in (0.3, 0.5)),
        *(f"{matched[least][2] / len(found):.3f}" for least in OVERLAPS),
        f"{np.mean([matched[least][2] for least in OVERLAPS]) / len(found):.3f}",
    ]
    return f"| {options.at_least} | {options.threshold} | {regions} | {things_found} | {' | '.join(shares)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    asked = parser.parse_args()
    found = list(things(fcnconv.load(asked.model), asked.photos, asked.labels))
    print(f"{len(found)} things, {sum(len(boxes) for _, _, boxes in found)} boxes")
    names = (
        "found 0.3 | found 0.5 | right 0.3 | right 0.5 | first 0.3 | first 0.5 | first 0.7 | mean of first"
    )
    print(f"| --at-least | --threshold | regions | things with a region | {names} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for least in LEAST:
        for threshold in THRESHOLDS:
            print(row(found, OutputOptions(at_least=least, threshold=threshold)), flush=True)


if __name__ == "__main__":
    main()
