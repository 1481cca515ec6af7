"""Where maps point: pointing accuracy and box accuracy on labelled photos, next to torchcam and grad-cam.

    python benchmarks/localisation.py PHOTOS --labels labels.json [--model NAME …] [--limit N]

All ways use the same network and the same photos. Labels are one of three:

    a COCO file             its category names are looked up among the network's classes and concepts
    a folder of YOLO files  one .txt a photo; --names lists the names of the classes, one a line
    a list                  [{"photo": …, "things": [{"name", "class_idx", "boxes": [[x0, y0, x1, y1]]}]}],
                            in shares of the photo's width and height

Pointing accuracy: the highest place of the map of the thing's classes lies in one of its boxes, with a
tolerance of 15 px (Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016). Small things
cover less than a tenth of the photo. Box accuracy: MaxBoxAccV2 (Choe et al., "Evaluating Weakly Supervised
Object Localization Methods Right", 2020) over the pairs with one box: the share of pairs where the box around
a connected area over a threshold has an IoU of at least 0.3, 0.5 and 0.7 with the labelled box, at the best
threshold of each; the mean of the three.

Peers that are not installed are left out: `pip install torchcam grad-cam`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

import fcnconv
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.errors import UsageError
from fcnconv.labels import Labels, Selection
from fcnconv.models import find_model
from fcnconv.options import ScanOptions
from fcnconv.render.draw import Style, spread

TOLERANCE = 15
SMALL = 0.1
IOUS = (0.3, 0.5, 0.7)
THRESHOLDS = np.linspace(0.02, 0.98, 49)
SIDE = 4
"""Pixels of the photo for each pixel of a map that is judged."""

Way = Callable[[Path, Selection], np.ndarray]
"""A photo and a class -> its map, float (h, w) over the whole photo."""


@dataclass(frozen=True)
class Thing:
    """A class that is on a photo. boxes: float (n, 4), (x0, y0, x1, y1) as shares of the photo's sides."""

    photo: Path
    selection: Selection
    boxes: np.ndarray

    @property
    def share(self) -> float:
        """The share of the photo that its boxes cover."""
        covered = np.zeros((200, 200), np.bool_)
        for x0, y0, x1, y1 in (200 * self.boxes).tolist():
            covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
        return float(covered.mean())


@dataclass
class Result:
    """What a way found: of each thing whether it was hit, and of things with one box the best IoU at each
    threshold.
    """

    hit: list[bool] = field(default_factory=list)
    overlaps: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, thing: Thing, found: np.ndarray, size: tuple[int, int]) -> None:
        """Judges a map over the whole photo. size: of the photo."""
        height, width = found.shape
        y, x = np.unravel_index(int(found.argmax()), found.shape)
        px, py = (x + 0.5) * size[0] / width, (y + 0.5) * size[1] / height
        x0, y0, x1, y1 = (thing.boxes * [*size, *size]).T
        inside = (
            (x0 - TOLERANCE <= px) & (px <= x1 + TOLERANCE) & (y0 - TOLERANCE <= py) & (py <= y1 + TOLERANCE)
        )
        self.hit.append(bool(inside.any()))
        if len(thing.boxes) == 1:
            self.overlaps.append(_overlaps(found, thing.boxes[0] * [width, height, width, height]))

    def box_accuracy(self) -> float:
        """MaxBoxAccV2."""
        best = np.stack(self.overlaps)
        return float(np.mean([(best >= iou).mean(0).max() for iou in IOUS]))


def _overlaps(found: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(len(THRESHOLDS),): the best IoU with the box of a connected area over each threshold."""
    low, high = found.min(), found.max()
    scaled = (found - low) / (high - low) if high > low else np.zeros_like(found)
    best = np.zeros(len(THRESHOLDS))
    for i, threshold in enumerate(THRESHOLDS):
        areas, _ = ndimage.label(scaled >= threshold)
        for rows, cols in ndimage.find_objects(areas):
            down = min(rows.stop, box[3]) - max(rows.start, box[1])
            across = min(cols.stop, box[2]) - max(cols.start, box[0])
            shared = max(down, 0) * max(across, 0)
            own = (rows.stop - rows.start) * (cols.stop - cols.start)
            union = own + (box[2] - box[0]) * (box[3] - box[1]) - shared
            best[i] = max(best[i], shared / union)
    return best


def over_photo(plane: np.ndarray, grid: fcnconv.grid.Grid) -> np.ndarray:
    """A plane of cells as a map of the whole photo, a pixel for `SIDE` of the photo's."""
    width, height = (max(side // SIDE, 1) for side in grid.image_size)
    whole = np.empty((height, width), np.float32)
    for rows, values in spread(np.nan_to_num(plane), grid, (height, width), Style()):
        whole[rows] = values
    return whole


def ours(classifier: Classifier, options: ScanOptions) -> Way:
    """The map that fcnconv gives with these options."""
    last: dict[Path, ScoreMap] = {}

    def way(photo: Path, selection: Selection) -> np.ndarray:
        if photo not in last:
            last.clear()
            last[photo] = ScoreMap.collect(classifier.stream(photo, options))
        found = last[photo]
        if found.info.kind == "activations":  # their probability saturates, their order does not
            plane = found.logits[:, :, list(selection.classes)].max(-1)
            return over_photo((plane - plane.min()) / max(float(np.ptp(plane)), 1e-6), found.grid)
        return over_photo(found.class_map(selection), found.grid)

    return way


def centre(photo: Path, selection: Selection) -> np.ndarray:
    """The middle of the photo: what any way must beat."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    return np.exp(-(x**2) - y**2)


def peers(model: str) -> dict[str, Way]:
    """Class activation maps by the usual tools, on the photo squeezed to the network's window."""
    import torch
    from torch import nn

    spec = find_model(model)
    network = spec.build(spec.weights()).eval()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    last = getattr(network, "features", None) or convolutions[-1]

    def tensor(photo: Path) -> torch.Tensor:
        with Image.open(photo) as image:
            small = image.convert("RGB").resize((spec.window, spec.window), Image.Resampling.BICUBIC)
        x = (np.asarray(small, np.float32) / 255 - spec.mean) / np.array(spec.std, np.float32)
        return torch.from_numpy(x.astype(np.float32).transpose(2, 0, 1)[None].copy())

    def best_of(x: torch.Tensor, selection: Selection) -> int:
        with torch.no_grad():
            logits = network(x)[0]
        return max(selection.classes, key=lambda i: float(logits[i]))

    ways: dict[str, Way] = {}
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        tool = GradCAM(model=network, target_layers=[last])

        def grad_cam(photo: Path, selection: Selection) -> np.ndarray:
            x = tensor(photo)
            return tool(input_tensor=x, targets=[ClassifierOutputTarget(best_of(x, selection))])[0]

        ways[f"grad-cam: Grad-CAM, squeezed to {spec.window} px"] = grad_cam
    if find_spec("torchcam"):
        from torchcam.methods import LayerCAM

        extractor = LayerCAM(network, last)

        def layer_cam(photo: Path, selection: Selection) -> np.ndarray:
            x = tensor(photo)
            class_idx = best_of(x, selection)
            scores = network(x.requires_grad_())
            return extractor(class_idx, scores)[0][0].detach().numpy()

        ways[f"torchcam: LayerCAM, squeezed to {spec.window} px"] = layer_cam
    return ways


def things(folder: Path, path: Path, names: Path | None, labels: Labels) -> Iterator[Thing]:
    """What is on the photos of a folder, as far as the network knows such things."""
    if path.is_dir():
        listed = (names or path / "classes.txt").read_text().splitlines()
        for photo in sorted(folder.iterdir()):
            found = path / f"{photo.stem}.txt"
            rows = [line.split() for line in found.read_text().splitlines()] if found.exists() else []
            of_class: dict[str, list[list[float]]] = {}
            for row in rows:
                x, y, w, h = map(float, row[1:5])
                of_class.setdefault(listed[int(row[0])], []).append(
                    [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                )
            yield from _named(photo, of_class, labels)
        return
    record = json.loads(path.read_text())
    if isinstance(record, list):
        for row in record:
            for thing in row["things"]:
                selection = Selection(thing["name"], tuple(thing["class_idx"]))
                yield Thing(folder / row["photo"], selection, np.array(thing["boxes"]))
        return
    categories = {each["id"]: each["name"] for each in record["categories"]}
    for image in record["images"]:
        of_class = {}
        for each in record["annotations"]:
            if each["image_id"] == image["id"]:
                x, y, w, h = each["bbox"]
                box = np.array([x, y, x + w, y + h]) / ([image["width"], image["height"]] * 2)
                of_class.setdefault(categories[each["category_id"]], []).append(box.tolist())
        yield from _named(folder / image["file_name"], of_class, labels)


def _named(photo: Path, of_class: dict[str, list[list[float]]], labels: Labels) -> Iterator[Thing]:
    for name, boxes in of_class.items():
        try:
            yield Thing(photo, labels.find(name), np.array(boxes))
        except UsageError:  # the network knows no such thing
            continue


def measured(ways: dict[str, Way], listed: Sequence[Thing]) -> dict[str, Result]:
    """Every way on every thing."""
    results = {name: Result() for name in ways}
    for thing in listed:
        with Image.open(thing.photo) as image:
            size = image.size
        for name, way in ways.items():
            start = time.process_time()
            found = way(thing.photo, thing.selection)
            results[name].seconds += time.process_time() - start
            results[name].add(thing, found, size)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--names", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--limit", type=int, help="take so many photos")
    parser.add_argument(
        "--crops", action="store_true", help="also score every window as a crop, which is slow"
    )
    given = parser.parse_args()
    logging.getLogger("fcnconv").setLevel(logging.WARNING)
    for model in given.model or [fcnconv.models.DEFAULT_MODEL]:
        classifier = fcnconv.load(model)
        listed = list(things(given.photos, given.labels, given.names, classifier.labels))
        photos = sorted({thing.photo for thing in listed})[: given.limit]
        listed = sorted((t for t in listed if t.photo in photos), key=lambda thing: thing.photo)
        displayed = ScanOptions().for_display()
        ways: dict[str, Way] = {
            "centre of the photo": centre,
            **peers(model),
            "windows at own size, corrected (--anchors 4)": ours(classifier, ScanOptions(anchors=4)),
            "windows at own size": ours(classifier, ScanOptions()),
            "windows at all scales": ours(classifier, ScanOptions(scales=displayed.scales)),
            "activations at own size": ours(classifier, ScanOptions(map="activations")),
            "focused at own size": ours(classifier, ScanOptions(map="focused")),
            "focused, the default picture": ours(classifier, displayed),
        }
        if given.crops:
            ways["windows at own size, crops"] = ours(fcnconv.load(model, mode="windows"), ScanOptions())
        results = measured(ways, listed)
        small = np.array([thing.share < SMALL for thing in listed])
        boxes = sum(len(thing.boxes) == 1 for thing in listed)
        print(f"{model}: {len(listed)} pairs of photo and class on {len(photos)} photos;")
        print(f"{int(small.sum())} of them are small, {boxes} have one box.\n")
        print("| map | pointing: all | small | large | box accuracy | time, windows at own size = 1 |")
        print("|---|---|---|---|---|---|")
        base = results["windows at own size"].seconds
        for name, result in results.items():
            hit = np.array(result.hit)
            print(
                f"| {name} | {hit.mean():.3f} | {hit[small].mean():.3f} | {hit[~small].mean():.3f} | "
                f"{result.box_accuracy():.3f} | {result.seconds / base:.1f} |"
            )
        print()


if __name__ == "__main__":
    main()
