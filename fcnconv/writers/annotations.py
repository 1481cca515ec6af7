"""Regions of many images in the formats of annotation tools: COCO, Label Studio, FiftyOne and YOLO.

Boxes and polygons lie in the upright image: a photo whose EXIF data turns it is annotated as it is shown.
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
from fcnconv.regions import Located, Region
from fcnconv.version import __version__
from fcnconv.writers.output_spec import Choice

_DIGITS = 2
"""Of pixels: outlines come from cells of many pixels."""


class Categories:
    """The classes that annotations name, with their numbers from 0: the chosen ones in their order, or every
    class of the network by its index.
    """

    def __init__(self, labels: Labels, chosen: Sequence[Selection] = ()):
        self.selections = tuple(chosen) or labels.all_categories()
        self._numbers = {(s.class_idx, s.name): number for number, s in enumerate(self.selections)}

    def number(self, region: Region) -> int:
        """The number of a region's class."""
        return self._numbers[region.class_idx, region.category]

    def names(self) -> list[str]:
        """The name of each class, in order. Where two have the same name, their numbers tell them apart."""
        return [selection.name for selection in self.selections]


def write_coco(path: Path, found: Iterable[Located], labels: Labels, choice: Choice) -> None:
    """Writes COCO object detection: ``images``, ``annotations`` and ``categories`` (https://cocodataset.org).

    An annotation has the ``bbox`` x, y, width and height, the ``segmentation`` as polygons, the ``area``
    without holes, and as in COCO's results the ``score``. COCO's polygons have no holes: those of a region
    are left out of its segmentation. Numbers start at 1, since many tools take category 0 as the background.
    """
    categories = Categories(labels, choice.selections)
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
    """The annotations; adds to `images` those that they belong to."""
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


def write_label_studio(path: Path, found: Iterable[Located], labels: Labels, choice: Choice) -> None:
    """Writes tasks of Label Studio with predictions: for each region a rectangle and a polygon, in percent of
    the image (https://labelstud.io/guide/predictions).

    They belong to a labelling configuration whose controls ``box`` and ``outline`` are on the object
    ``image``.
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
    outline = np.round(region.rings[0][:-1] * percent, 4).tolist()  # it closes by itself
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


def write_fiftyone(path: Path, found: Iterable[Located], labels: Labels, choice: Choice) -> None:
    """Writes labels of FiftyOne's type ``FiftyOneImageDetectionDataset``: for each image, by its absolute
    path, boxes as shares of the image with label and confidence.
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
    """x, y, width and height of a region's box as shares of the image."""
    corners = np.array(region.box, np.float64).reshape(2, 2) / size
    return [*np.round(corners[0], 6).tolist(), *np.round(corners[1] - corners[0], 6).tolist()]


def write_yolo(folder: Path, found: Iterable[Located], labels: Labels, choice: Choice) -> None:
    """Writes a folder as YOLO reads and writes them: ``labels/PATH.txt`` for each image, with a line for each
    region, and ``data.yaml`` with the names of the classes (https://docs.ultralytics.com/datasets/detect).

    A line is class, x and y of the box's centre, width and height as shares of the image, and confidence.
    Raises OutputError where two images would share a file of labels.
    """
    categories = Categories(labels, choice.selections)
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
    """Where YOLO looks for the labels of an image below ``labels``: its path with the suffix ``.txt``."""
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
    """Writes records of a JSON list, a line each."""
    comma = "\n"
    for record in records:
        file.write(comma + json.dumps(record))
        comma = ",\n"
    file.write("\n")
