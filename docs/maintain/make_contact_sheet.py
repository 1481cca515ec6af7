"""Makes a contact sheet of twenty photos, each with three maps of the class that it shows.

    pip install grad-cam
    python docs/maintain/make_contact_sheet.py docs/pictures/contact_sheet.jpg

The columns are the picture that fcnconv drew by default before version 0.3 (windows at all scales, corrected
by crops at every 4th window), the one that it draws now (the focused map), and Grad-CAM of the same network
on the photo squeezed to its window. The photos are the samples, parts of them, and both made smaller or
larger. All maps have the colours of probabilities; Grad-CAM gives none, and is scaled to its own highest
value.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

import fcnconv
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.grid import Grid
from fcnconv.labels import Selection
from fcnconv.models import DEFAULT_MODEL
from fcnconv.options import ALL_SIZES, ScanOptions
from fcnconv.render.draw import draw_plane
from fcnconv.scores import shown

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from localisation import peers  # noqa: E402  of the repository, not of the package

SAMPLES = ROOT / "sample_images"
FONT = ROOT / "fcnconv" / "data" / "fonts" / "DejaVuSans.ttf"
PHOTOS: list[tuple[str, tuple[int, int, int, int] | None, int]] = [
    # sample, the part of it (all), and the width to bring that to
    ("chelsea.png", None, 451),
    ("coffee.png", None, 600),
    ("rocket.jpg", None, 640),
    ("camera.png", None, 512),
    ("collage.jpg", (800, 0, 1600, 600), 800),
    ("collage.jpg", (0, 600, 800, 1200), 800),
    ("chelsea.png", (110, 40, 310, 240), 200),
    ("coffee.png", None, 240),
    ("rocket.jpg", (40, 0, 609, 427), 320),
    ("camera.png", (40, 60, 360, 512), 320),
    ("collage.jpg", (700, 600, 1600, 1200), 900),
    ("collage.jpg", (0, 620, 1600, 1180), 1600),
    ("chelsea.png", (0, 0, 300, 300), 300),
    ("coffee.png", (250, 20, 600, 400), 350),
    ("rocket.jpg", (250, 0, 450, 427), 200),
    ("camera.png", (180, 40, 512, 372), 332),
    ("coffee.png", (0, 0, 600, 300), 600),
    ("collage.jpg", (0, 0, 900, 600), 900),
    ("chelsea.png", None, 2000),
    ("coffee.png", (100, 0, 500, 400), 1200),
]
BLOCKS, CELL, CAPTION, HEAD, GAP = 2, (300, 220), 24, 30, 10
HEADINGS = ("before 0.3", "now: focused", "Grad-CAM at 224 px")
BEFORE, NOW = ScanOptions(map="windows", scales=ALL_SIZES, anchors=4), ScanOptions().for_display()
Panel = tuple[Image.Image, str]


def main(out: str) -> None:
    """Writes the sheet to the file `out`."""
    down = -(-len(PHOTOS) // BLOCKS)
    wide, high = CELL[0] + GAP, CELL[1] + CAPTION + GAP
    block = len(HEADINGS) * wide + 2 * GAP
    sheet = Image.new("RGB", (BLOCKS * block, HEAD + down * high + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    small, large = (ImageFont.truetype(str(FONT), size) for size in (14, 18))
    for number in range(BLOCKS):
        for column, heading in enumerate(HEADINGS):
            x = GAP + number * block + column * wide + CELL[0] // 2
            draw.text((x, HEAD // 2), heading, fill="black", font=large, anchor="mm")
    for number, panels in enumerate(map(all_panels, PHOTOS)):
        left, top = GAP + number // down * block, HEAD + number % down * high
        for column, (picture, words) in enumerate(panels):
            small_one = ImageOps.contain(picture, CELL, Image.Resampling.LANCZOS)
            x = left + column * wide + CELL[0] // 2
            sheet.paste(small_one, (x - small_one.width // 2, top + (CELL[1] - small_one.height) // 2))
            draw.text((x, top + CELL[1] + 4), words, fill="black", font=small, anchor="ma")
    sheet.save(out, quality=80)


classifier = fcnconv.load(DEFAULT_MODEL)
grad_cam = next(way for name, way in peers(DEFAULT_MODEL).items() if name.startswith("grad-cam"))


def all_panels(photo: tuple[str, tuple[int, int, int, int] | None, int]) -> list[Panel]:
    """The three pictures of a photo, with the class and its probability, or the highest of it."""
    name, box, width = photo
    with Image.open(SAMPLES / name) as sample:
        part = sample.convert("RGB").crop(box or (0, 0, *sample.size))
    part = part.resize((width, round(part.height * width / part.width)), Image.Resampling.LANCZOS)
    answer = classifier.classify(part).predictions[0]
    selection = classifier.labels.same(answer.class_idx, answer.category)
    sizes = f"{part.width} × {part.height} px"
    before, now = (of_map(classifier, part, selection, options) for options in (BEFORE, NOW))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo.png")
        part.save(file)
        plane = grad_cam(file, selection)
    whole = Grid(1, 1, part.size, plane.shape[::-1])
    peer = draw_plane(np.asarray(part), np.asarray(plane, np.float32), whole)
    return [
        (before[0], f"highest in a window {before[1]:.2f}"),
        (now[0], f"{answer.category} {answer.probability:.2f}; in a cell {now[1]:.2f}"),
        (peer, sizes),
    ]


def of_map(
    classifier: Classifier, photo: Image.Image, selection: Selection, options: ScanOptions
) -> tuple[Image.Image, float]:
    """The picture of a class without its legend, and the highest value in it."""
    found = ScoreMap.collect(classifier.stream(photo, options))
    plane = shown(found.class_map(selection))
    return draw_plane(np.asarray(photo), plane, found.grid), float(plane.max())


if __name__ == "__main__":
    main(sys.argv[1])
