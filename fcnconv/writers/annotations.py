"""Regions of many images in the formats of annotation tools: COCO, Label Studio, FiftyOne and YOLO.

Boxes and polygons are in coordinates of the upright image: if the EXIF data rotates a photo, the annotations
fit the rotated photo.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np

from fcnconv.errors import OutputError
from fcnconv.images.remote import is_address
from fcnconv.labels import Labels, Selection
from fcnconv.scores.regions import Located, Region
from fcnconv.version import __version__
from fcnconv.writers.output_spec import OutputSpec

_DIGITS = 2
"""Decimal places of pixel coordinates. Outlines come from cells of many pixels."""


class Categories:
    """The classes that annotations refer to, numbered from 0: the selected classes in their order, or every
    class of the network by its index.
    """

    def __init__(self, labels: Labels, chosen: Sequence[Selection] = ()):
        self.selections = tuple(chosen) or labels.all_categories()
        self._numbers = {(s.class_idx, s.name): number for number, s in enumerate(self.selections)}

    def number(self, region: Region) -> int:
        """The number of a region's class."""
        return self._numbers[region.class_idx, region.category]

    def names(self) -> list[str]:
        """Returns the name of each class, in order. Classes with the same name differ by their numbers."""
        return [selection.name for selection in self.selections]


def write_coco(path: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes COCO object detection: ``images``, ``annotations`` and ``categories`` (https://cocodataset.org).

    An annotation contains the ``bbox`` (x, y, width, height), the ``segmentation`` as polygons, the ``area``
    without holes, and the ``score``, as in COCO's results. COCO's polygons have no holes, so the segmentation
    omits the holes of a region. Numbers start at 1, because many tools treat category 0 as the background.
    """
    categories = Categories(labels, output.selections)
    with path.open("w", encoding="utf-8") as file:
        images: list[dict[str, Any]] = []
        head = {"info": {"description": f"regions found by fcnconv {__version__}"}, "licenses": []}
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
        _write_each(file, _coco_annotations(found, categories, images))
        rest = {
            "images": images,
            "categories": [
                {"id": number, "name": s.name, "supercategory": "", "class_idx": s.class_idx, "wnid": s.wnid}
                for number, s in enumerate(categories.selections, start=1)
            ],
        }
        file.write("], " + json.dumps(rest)[1:] + "\n")


def _coco_annotations(
    found: Iterable[Located], categories: Categories, images: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the annotations, and appends the images that they belong to to `images`."""
    annotation = 0
    for image, located in enumerate(found, start=1):
        images.append(
            {"id": image, "file_name": located.name, "width": located.width, "height": located.height}
        )
        for region in located.regions:
            annotation += 1
            x0, y0, x1, y1 = region.box
            yield {
                "id": annotation,
                "image_id": image,
                "category_id": categories.number(region) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": [np.round(region.rings[0], _DIGITS).ravel().tolist()],
                "area": round(region.area, _DIGITS),
                "iscrowd": 0,
                "score": round(region.probability, 6),
            }


def write_label_studio(path: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes tasks of Label Studio with predictions: one rectangle and one polygon per region, in percent of
    the image (https://labelstud.io/guide/predictions).

    They fit a labelling configuration whose controls ``box`` and ``outline`` refer to the object ``image``.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        _write_each(file, map(_task, found))
        file.write("]\n")


def _task(located: Located) -> dict[str, Any]:
    results = [result for region in located.regions for result in _results(located, region)]
    score = max((region.probability for region in located.regions), default=0.0)
    prediction = {"model_version": located.model, "score": round(score, 6), "result": results}
    return {"data": {"image": located.name}, "predictions": [prediction]}


def _results(located: Located, region: Region) -> Iterator[dict[str, Any]]:
    percent = 100 / np.array([located.width, located.height])
    x, y, right, bottom = np.round(np.array(region.box) * np.tile(percent, 2), 4).tolist()
    outline = np.round(region.rings[0][:-1] * percent, 4).tolist()  # the context manager closes it
    box = {"x": x, "y": y, "width": round(right - x, 4), "height": round(bottom - y, 4), "rotation": 0}
    about = {
        "to_name": "image",
        "original_width": located.width,
        "original_height": located.height,
        "image_rotation": 0,
        "score": round(region.probability, 6),
    }
    names = [region.category]
    yield about | {
        "from_name": "box",
        "type": "rectanglelabels",
        "value": box | {"rectanglelabels": names},
    }
    yield about | {
        "from_name": "outline",
        "type": "polygonlabels",
        "value": {"points": outline, "polygonlabels": names},
    }


def write_fiftyone(path: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes labels of FiftyOne's type ``FiftyOneImageDetectionDataset``.

    Each image is named by its absolute path. Its boxes are fractions of the image, with label and confidence.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write('{"labels": {')
        comma = "\n"
        for located in found:
            size = np.array([located.width, located.height])
            detections = [
                {
                    "label": region.category,
                    "bounding_box": _corner_and_size(region, size),
                    "confidence": round(region.probability, 6),
                    "attributes": {"mean": round(region.mean, 6)},
                }
                for region in located.regions
            ]
            name = located.name if is_address(located.name) else str(Path(located.name).absolute())
            file.write(f"{comma}{json.dumps(name)}: {json.dumps(detections)}")
            comma = ",\n"
        file.write("\n}}\n")


def _corner_and_size(region: Region, size: Any) -> list[float]:
    """Returns x, y, width and height of a region's box as fractions of the image."""
    corners = np.array(region.box, np.float64).reshape(2, 2) / size
    return [*np.round(corners[0], 6).tolist(), *np.round(corners[1] - corners[0], 6).tolist()]


def write_yolo(folder: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes a folder in YOLO's format: ``labels/PATH.txt`` for each image, with one line per region, and
    ``data.yaml`` with the class names (https://docs.ultralytics.com/datasets/detect).

    A line contains the class, x and y of the box's centre, width and height as fractions of the image, and
    the confidence.

    Raises:
        OutputError: Two images would share one label file.
    """
    categories = Categories(labels, output.selections)
    written: dict[str, str] = {}
    for located in found:
        name = label_file(located.name)
        if name in written:
            raise OutputError(
                f"{located.name} and {written[name]}: YOLO keeps the labels of both in labels/{name}; rename "
                "one, or write them to different directories"
            )
        written[name] = located.name
        file = folder / "labels" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(_yolo_lines(located, categories)), encoding="utf-8")
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(categories.names()))
    (folder / "data.yaml").write_text(
        f"path: .\ntrain: images\nval: images\nnames:\n{names}", encoding="utf-8"
    )


def label_file(name: str) -> str:
    """Returns the path below ``labels`` where YOLO looks for an image's labels: the image's path with suffix
    ``.txt``.
    """
    path = PurePath(name.replace("://", "/", 1))
    if ".." in path.parts:
        path = Path(path).resolve()
    *parents, last = path.relative_to(path.anchor).parts or ("image",)
    return "/".join([*parents, f"{PurePath(last).stem}.txt"])


def _yolo_lines(located: Located, categories: Categories) -> Iterator[str]:
    size = np.array([located.width, located.height])
    for region in located.regions:
        x, y, wide, high = _corner_and_size(region, size)
        box = " ".join(f"{value:.6f}" for value in (x + wide / 2, y + high / 2, wide, high))
        yield f"{categories.number(region)} {box} {region.probability:.6f}\n"


def _write_each(file: IO[str], records: Iterable[dict[str, Any]]) -> None:
    """Writes the records of a JSON list, one per line."""
    comma = "\n"
    for record in records:
        file.write(comma + json.dumps(record))
        comma = ",\n"
    file.write("\n")
