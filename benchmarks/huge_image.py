"""Maps a synthetic image of any size in bounded memory, and prints the time and the peak.

    python benchmarks/huge_image.py --size 20000 --memory 2GB
    python benchmarks/huge_image.py --size 8192 --memory 2GB --compare

The image is made of the sample photos, side by side, written tile by tile as a BigTIFF. The mapping runs in a
process of its own, whose address space may grow by `--memory` and no more once torch and the network are
loaded, and writes the probabilities of all classes as .npy. With `--compare` a third process maps the image
in one piece, for the time and for the scores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_images"
TILE = 512

SHARE = 0.8
"""Of the limit, what the scan is told that it may take: address space also goes to threads and libraries."""


def make(path: Path, size: int) -> None:
    """Writes the image: square tiles of 512 px, each cut from a sample photo at a place of its own."""
    import tifffile

    photos = []
    for file in sorted(SAMPLES.glob("*.*")):
        if file.suffix in (".png", ".jpg"):
            with Image.open(file) as photo:
                photos.append(np.asarray(photo.convert("RGB").resize((TILE * 2, TILE * 2))))
    generator = np.random.default_rng(0)

    def tiles():
        for _ in range((-(-size // TILE)) ** 2):
            y, x = generator.integers(0, TILE, 2)
            yield np.ascontiguousarray(photos[generator.integers(len(photos))][y : y + TILE, x : x + TILE])

    tifffile.imwrite(
        path,
        tiles(),
        shape=(size, size, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(TILE, TILE),
        bigtiff=True,
    )


def status(name: str) -> int:
    """Bytes of one line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")


def scan(
    path: Path, out: Path, memory: str, stride: int | None, backend: str, anchors: int, whole: bool
) -> None:
    """Maps the image to a .npy of all classes, and prints what it took as a line of JSON."""
    import fcnconv
    from fcnconv.options import OWN_SIZE, MapOptions, parse_memory
    from fcnconv.writers import Choice, find_writer, save

    limit = parse_memory(memory)
    classifier = fcnconv.load(
        backend=backend, stride=stride, max_memory="1TB" if whole else f"{limit * SHARE:.0f}"
    )
    classifier(
        np.zeros((256, 256, 3), np.uint8), anchors=anchors
    )  # its libraries are loaded, its threads started
    classifier.parts.cut()
    before, resident = status("VmSize"), status("VmRSS")
    if not whole:
        resource.setrlimit(resource.RLIMIT_AS, (before + int(limit), resource.RLIM_INFINITY))
    start = time.perf_counter()
    source = classifier.open(path)
    (grid,) = classifier.grids(source, OWN_SIZE)
    tiling = classifier.tilings([grid])[grid]
    stream = classifier.stream(source, MapOptions(anchors=anchors))
    save(stream, str(out), find_writer(str(out), None), Choice())
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "windows": grid.rows * grid.cols,
                "crops": stream.exact_cells,
                "map_gb": round(out.stat().st_size / 1e9, 2),
                "parts": len(tiling.parts),
                "blocks": tiling.blocks,
                "expected_gb": round(tiling.memory / 1e9, 2),
                "peak_growth_gb": round((status("VmHWM") - resident) / 1e9, 2),
                "address_space_growth_gb": round((status("VmPeak") - before) / 1e9, 2),
            }
        )
    )


def difference(first: Path, second: Path) -> float:
    """The largest difference of two maps, read row by row."""
    a, b = np.load(first, mmap_mode="r"), np.load(second, mmap_mode="r")
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def run(*arguments: str) -> dict:
    """Runs this script in a process of its own and reads its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the scan failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--stride", type=int)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--anchors", type=int, default=0)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--scan", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scan:
        scan(*options.scan, options.memory, options.stride, options.backend, options.anchors, options.whole)
        return
    stride = ["--stride", str(options.stride)] if options.stride else []
    same = [
        "--memory",
        options.memory,
        "--backend",
        options.backend,
        "--anchors",
        str(options.anchors),
        *stride,
    ]
    with tempfile.TemporaryDirectory() as folder:
        image, first, second = (Path(folder, name) for name in ("image.tif", "a.npy", "b.npy"))
        make(image, options.size)
        print(f"{options.size} × {options.size} px, {image.stat().st_size / 1e9:.2f} GB", flush=True)
        cut = run("--scan", str(image), str(first), *same)
        print(f"within {options.memory}: {cut}", flush=True)
        if options.compare:
            whole = run("--scan", str(image), str(second), "--whole", *same)
            print(f"in one piece: {whole}")
            ratio = cut["seconds"] / whole["seconds"]
            print(f"largest difference {difference(first, second)}; time {ratio:.2f} × that of one piece")


if __name__ == "__main__":
    main()
