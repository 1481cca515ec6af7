"""The time of a finer stride against the coarse pass and against crops, on a 512 × 512 photo.

python benchmarks/finer_stride.py
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import fcnconv

PHOTO = Path(__file__).parents[1] / "sample_images" / "camera.png"


def seconds(run, x: np.ndarray, repeats: int = 3) -> float:
    """The shortest of some runs, after one that warms up."""
    run(x)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    pixels = fcnconv.read_image(PHOTO)[:512, :512]
    x = ((pixels.transpose(2, 0, 1)[None].astype(np.float32)) - 127) / 128
    crop = np.ascontiguousarray(np.repeat(x[:, :, :224, :224], 32, axis=0))
    crops = fcnconv.load(mode="windows", backend="torch").run
    each = seconds(crops, crop) / 32
    coarse, own = None, 0.0
    for stride in (32, 16, 8, 4):
        classifier = fcnconv.load(backend="torch", stride=stride)
        taken = seconds(classifier.run, x)
        logits = classifier.run(x)
        if coarse is None:
            coarse, own = logits, taken
        phase = logits[:, :, :: 32 // stride, :: 32 // stride]
        cells = logits.shape[2] * logits.shape[3]
        print(
            f"- stride {stride}: {logits.shape[2]} × {logits.shape[3]} windows in {taken:.3f} s, "
            f"{taken / own:.1f} × the coarse pass; {each * cells / taken:.0f} × faster than {cells} crops; "
            f"phase (0, 0) differs by {np.abs(phase - coarse).max()}"
        )


if __name__ == "__main__":
    main()
