"""200 photos of ordinary size in one command: images a second, against a DataLoader script, and against what
decoding and the network alone would allow.

    python benchmarks/photos.py

Ours scores every window of the photo at the evaluation size; the script scores the one in the middle. The
limit is the time of decoding and resizing all photos, and then that of the network, each keeping all cores
busy.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import Work, commands_in_turns, in_turns, table

HERE = Path(__file__).parent
COUNT = 200

ALIKE = 16
"""Photos of one size, which could be computed together."""

CLASSIFY, DECODE = "fcnconv classify, without its start", "decoding and resizing alone"
ALL_CORES, CORE_EACH = (
    "the network alone, all cores for each photo",
    "the network alone, a core for each photo",
)


def make(folder: str) -> list[str]:
    """The photos: the samples in 200 sizes."""
    samples = [
        path for path in sorted((HERE.parent / "sample_images").iterdir()) if path.suffix in (".png", ".jpg")
    ]
    photos = []
    for i in range(COUNT):
        photo = Image.open(samples[i % len(samples)]).convert("RGB")
        width = 400 + i * 2
        photos.append(str(Path(folder, f"{i:03}.jpg")))
        photo.resize((width, width * photo.height // photo.width)).save(photos[-1], quality=90)
    return photos


def classifying(photos: list[str]) -> Work:
    """What the command does once it has started."""
    import fcnconv
    from fcnconv.batch.inputs import from_paths
    from fcnconv.batch.workers import classify_each
    from fcnconv.options import ClassifyOptions

    classifier = fcnconv.load()
    return Work(lambda: list(classify_each(classifier, from_paths(photos), ClassifyOptions())))


def decoding(photos: list[str]) -> Work:
    """Photos made what the network takes, on all cores."""
    ready, pool = partial(_ready, _loaded()), ThreadPoolExecutor()
    return Work(lambda: list(pool.map(ready, photos)))


def network(photos: list[str], each: bool) -> Work:
    """The network on photos that are ready. each: whether it runs on several at a time, a core for each."""
    from fcnconv.system.machine import busy, usable_cpus

    classifier = _loaded()
    ready = [_ready(classifier, photo) for photo in photos]
    return Work(_running(classifier.run, ready, busy, usable_cpus() if each else 1))


def alike(batch: int, each: bool = False) -> Work:
    """The network on photos of one size, `batch` at once."""
    from fcnconv.system.machine import busy, usable_cpus

    run = _loaded().run
    x = np.random.default_rng(0).random((ALIKE, 3, 256, 341), np.float32)
    ready = [x[i : i + batch] for i in range(0, ALIKE, batch)]
    return Work(_running(run, ready, busy, usable_cpus() if each else 1))


def _running(run, ready: list, busy, threads: int) -> Callable[[], object]:
    """Runs a network on all that is ready, in so many threads."""
    if threads == 1:
        return lambda: [run(x) for x in ready]
    pool = ThreadPoolExecutor(threads)

    def spread() -> object:
        with busy(threads + 1):
            return list(pool.map(run, ready))

    return spread


def _loaded():
    import fcnconv

    return fcnconv.load()


def _ready(classifier, photo: str) -> np.ndarray:
    """A photo as the network takes it, at the evaluation size."""
    from fcnconv.images import resize
    from fcnconv.options import EVALUATION_SIZE

    source = classifier.open(photo, EVALUATION_SIZE)
    (grid,) = classifier.grids(source, EVALUATION_SIZE)
    return classifier.prepare(resize(source, grid.scan_size).read((0, 0, *grid.scan_size)))


def lines() -> Iterator[str]:
    """Of photos of one size, the time of computing several at once against one after another."""
    ways = {f"{batch} at once": partial(alike, batch) for batch in (1, 2, 4, 8, 16)}
    measured = in_turns(ways | {"one by one, a core for each": partial(alike, 1, True)}, rounds=7)
    base = measured["1 at once"].median
    for name, one in measured.items():
        yield f"{name} {one.median / base:.2f}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos, ours = make(folder), "fcnconv classify"
        script = str(HERE / "dataloader_script.py")
        a_second = ("images a second", lambda seconds: f"{COUNT / seconds:.1f}")
        measured = commands_in_turns(
            {
                ours: [sys.executable, "-m", "fcnconv", "classify", *photos],
                "torchvision DataLoader script": [sys.executable, script, *photos],
            },
            rounds=3,
        )
        table(measured, ours, a_second)
        ways = {
            CLASSIFY: partial(classifying, photos),
            DECODE: partial(decoding, photos),
            ALL_CORES: partial(network, photos, False),
            CORE_EACH: partial(network, photos, True),
        }
        alone = in_turns(ways, rounds=5)
        print()
        table(alone, CLASSIFY, a_second)
        limit = alone[DECODE].median + min(alone[ALL_CORES].median, alone[CORE_EACH].median)
        print(f"\nDecoding and the network one after the other allow {COUNT / limit:.0f} images a second;")
        print(f"ours has {limit / alone[CLASSIFY].median:.2f} of that.\n")
        print(f"{ALIKE} photos of one size, in the network: {'; '.join(lines())}.")


if __name__ == "__main__":
    main()
