"""What the default commands take for a photo, next to a script with torchvision and grad-cam.

    pip install grad-cam
    python benchmarks/default_commands.py [--rounds N]

Whole processes in turns, with a model that is prepared: the median processor time of each, for a photo of
0.3, 1 and 4 megapixels. A batch has four photos, and its time is divided by four.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).parent
PHOTO = HERE.parent / "sample_images/rocket.jpg"
MEGAPIXELS = (0.3, 1, 4)
PHOTOS = 4
OURS = [sys.executable, "-m", "fcnconv"]
PEER = [sys.executable, str(HERE / "grad_cam_script.py")]
ONE, MANY = "script with grad-cam, a picture", f"script with grad-cam, {PHOTOS} pictures"


def processor_seconds(command: Sequence[str]) -> float:
    """The processor time of one process; exits if the process fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: failed")
    return usage.ru_utime + usage.ru_stime


def commands(photos: Path, out: Path) -> dict[str, tuple[list[str], int]]:
    """Each command, and how many photos it takes. photos: a folder of `PHOTOS` photos."""
    first, *_ = listed = sorted(map(str, photos.iterdir()))
    batch = [*OURS, "batch", str(photos), "-q", "--overwrite", "-o"]
    return {
        "`heatmap photo.jpg -o map.png`": ([*OURS, "heatmap", first, "-o", str(out / "map.png")], 1),
        "`heatmap photo.jpg -o map.npz`": ([*OURS, "heatmap", first, "-o", str(out / "map.npz")], 1),
        ONE: ([*PEER, str(out), first], 1),
        "`batch -f html`": ([*batch, str(out / "pages"), "-f", "html"], PHOTOS),
        "`batch -f parquet`": ([*batch, str(out / "answers"), "-f", "parquet"], PHOTOS),
        MANY: ([*PEER, str(out), *listed], PHOTOS),
    }


def measured(megapixels: float, rounds: int) -> dict[str, float]:
    """The median seconds for each photo, by command."""
    taken: dict[str, list[float]] = {}
    with TemporaryDirectory() as temporary:
        (photos := Path(temporary) / "photos").mkdir()
        with Image.open(PHOTO) as image:
            factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
            resized = image.convert("RGB").resize([round(side * factor) for side in image.size])
        for n in range(PHOTOS):
            resized.save(photos / f"{n}.jpg", quality=90)
        for _ in range(rounds):
            for name, (command, count) in commands(photos, Path(temporary)).items():
                taken.setdefault(name, []).append(processor_seconds(command) / count)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    found = {size: measured(size, given.rounds) for size in MEGAPIXELS}
    print(f"| seconds a photo | {' | '.join(f'{size} megapixels' for size in MEGAPIXELS)} |")
    print("|---|" + "---|" * len(MEGAPIXELS))
    for name in found[MEGAPIXELS[0]]:
        print(f"| {name} | {' | '.join(f'{found[size][name]:.2f}' for size in MEGAPIXELS)} |")
    print()
    for ours, peer in (("`heatmap photo.jpg -o map.png`", ONE), ("`batch -f html`", MANY)):
        ratios = ", ".join(f"{found[size][ours] / found[size][peer]:.2f}" for size in MEGAPIXELS)
        print(f"- {ours} against the {peer}: {ratios}")


if __name__ == "__main__":
    main()
