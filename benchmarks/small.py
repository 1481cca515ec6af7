"""How small an image may be: photos at ever smaller sizes, enlarged to the window, against themselves.

    python benchmarks/small.py

The five samples and five crops of each, three quarters of its short side, at the corners and in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import fcnconv

SAMPLES = Path(__file__).parents[1] / "sample_images"
SIDES = 224, 112, 56, 37, 28, 20, 14, 7, 1


def pictures() -> Iterator[Image.Image]:
    """Each sample, then its five crops."""
    for path in sorted(path for path in SAMPLES.iterdir() if path.suffix in (".png", ".jpg")):
        photo = Image.open(path).convert("RGB")
        yield photo
        right, low = (length - min(photo.size) * 3 // 4 for length in photo.size)
        side = min(photo.size) * 3 // 4
        for x, y in ((0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)):
            yield photo.crop((x, y, x + side, y + side))


if __name__ == "__main__":
    classifier = fcnconv.load()

    def ranking(image: Image.Image) -> list[str]:
        """The five first classes."""
        return [prediction.category for prediction in classifier.classify(image).predictions]

    images = list(pictures())
    whole = [ranking(image) for image in images]
    print(f"{len(images)} pictures\n\n| short side | enlarged | same first class | in the first five |")
    print("|---|---|---|---|")
    for side in SIDES:
        smaller = [
            ranking(image.resize([max(round(length * side / min(image.size)), 1) for length in image.size]))
            for image in images
        ]
        pairs = list(zip(whole, smaller, strict=True))
        same = sum(a[0] == b[0] for a, b in pairs) / len(pairs)
        among = sum(a[0] in b for a, b in pairs) / len(pairs)
        print(f"| {side} px | {224 / side:.0f} × | {same:.0%} | {among:.0%} |", flush=True)
