"""Maps a synthetic image of any size in bounded memory, and prints the time and the peak.

    python benchmarks/huge_image.py --size 20000 --memory 2GB
    python benchmarks/huge_image.py --size 8192 --memory 2GB --compare
    python benchmarks/huge_image.py --size 12000 --precision bfloat16
    python benchmarks/huge_image.py --size 33000 --jpeg --out map.png --class cat

The image is made of the sample photos, side by side, written tile by tile as a BigTIFF. The mapping runs in a
process of its own, whose address space may grow by `--memory` and no more once torch and the network are
loaded, and writes the probabilities of all classes as .npy, or what `--out` names by its suffix. Printed are
the shares of the time, and the pace against that of the network alone, on 2048 × 2048 px in one piece. With
`--compare` another process maps the image in one piece, for the time and for the scores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_images"
TILE = 512

SHARE = 0.8
"""Of the limit, what the scan is told that it may take: address space also goes to threads and libraries."""


def make(path: Path, size: int, *, jpeg: bool = False) -> None:
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
        compression="jpeg" if jpeg else None,
    )


def status(name: str) -> int:
    """Bytes of one line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")


class Shares:
    """Seconds that calls of some functions take, by what they are."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, call):
        """The function, with its time counted."""

        def run(*args, **kwargs):
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        return run


def network_pace(classifier) -> float:
    """Megapixels a second of the network alone, on 2048 × 2048 px in one piece: the best of three."""
    x, taken = np.zeros((1, 3, 2048, 2048), np.float32), []
    for _ in range(4):
        start = time.perf_counter()
        classifier.run(x)
        taken.append(time.perf_counter() - start)
    return x[0, 0].size / 1e6 / min(taken)


def scan(path: Path, out: Path, options: argparse.Namespace) -> None:
    """Maps the image, and prints what it took as a line of JSON."""
    import fcnconv
    from fcnconv.api.maps import save_map
    from fcnconv.options import OWN_SIZE, OutputOptions, ScanOptions
    from fcnconv.options.parsing import parse_memory
    from fcnconv.scan import network as module
    from fcnconv.writers import OutputSpec, find_writer

    limit, shares = parse_memory(options.memory), Shares()
    memory = "1TB" if options.whole else f"{limit * SHARE:.0f}"
    asked_network = {"backend": options.backend, "stride": options.stride, "precision": options.precision}
    classifier = fcnconv.load(max_memory=memory, **asked_network)
    classifier(np.zeros((256, 256, 3), np.uint8), anchors=options.anchors)  # its threads are started
    network = classifier.network
    parts = tuple(replace(p, run=shares.timed("network", p.run)) for p in network.stages.cut())
    wholly = replace(network.stages.whole, run=shares.timed("network", network.stages.whole.run))
    timed = replace(network.stages, whole=wholly, cut=lambda: parts)
    classifier = replace(classifier, network=replace(network, stages=timed))
    module.normalize = shares.timed("pixels to numbers", module.normalize)
    before, resident = status("VmSize"), status("VmRSS")
    if not options.whole:
        resource.setrlimit(resource.RLIMIT_AS, (before + int(limit), resource.RLIM_INFINITY))
    start, start_cpu = time.perf_counter(), time.process_time()
    source = classifier.open(path)
    type(source).read = shares.timed("reading", type(source).read)
    (grid,) = classifier.grids(source, OWN_SIZE)
    tiling = classifier.plan_dense(source, [grid]).tilings[grid]
    stream = classifier.stream(source, ScanOptions(anchors=options.anchors))
    asked = OutputOptions(classes=tuple(options.classes), store=options.store)
    save_map(stream, str(out), find_writer(str(out), None, asked), OutputSpec.of(asked, classifier.labels))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    took = shares.seconds | {"the rest: copies, softmax, writing": seconds - sum(shares.seconds.values())}
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds, 1),
                "windows": grid.rows * grid.cols,
                "crops": stream.finish().exact_cells,
                "megapixels_a_second": round(source.size[0] * source.size[1] / 1e6 / seconds, 2),
                "shares": {name: f"{part / seconds:.1%}" for name, part in took.items()},
                "map_gb": round(out.stat().st_size / 1e9, 2),
                "parts": len(tiling.stages),
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


def run(*arguments: str) -> Any:
    """Runs this script in a process of its own and reads its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the scan failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def pace(options: argparse.Namespace) -> None:
    """Prints the network's own pace as a line of JSON."""
    import fcnconv

    print(json.dumps(network_pace(fcnconv.load(backend=options.backend, precision=options.precision))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--stride", type=int)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--anchors", type=int, default=0)
    parser.add_argument("--jpeg", action="store_true", help="compress the image's tiles")
    parser.add_argument("--out", default="map.npy", help="what is written, by its suffix")
    parser.add_argument("--class", dest="classes", action="append", default=[])
    parser.add_argument("--store", default="auto", choices=("all", "top-k", "auto"))
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--scan", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.scan:
        scan(*options.scan, options)
        return
    if options.pace:
        pace(options)
        return
    same = [argument for argument in sys.argv[1:] if argument != "--compare"]
    with tempfile.TemporaryDirectory() as folder:
        image, first, second = (Path(folder, name) for name in ("image.tif", f"a.{options.out}", "b.npy"))
        make(image, options.size, jpeg=options.jpeg)
        print(f"{options.size} × {options.size} px, {image.stat().st_size / 1e9:.2f} GB:\n", flush=True)
        alone = run("--pace", *same)
        cut = run("--scan", str(image), str(first), *same)
        cut["the network alone, megapixels a second"] = round(alone, 1)
        cut["share of its pace"] = round(cut["megapixels_a_second"] / alone, 2)
        cut |= cut.pop("shares")
        print(f"| within {options.memory} | |\n|---|---|")
        for name, value in cut.items():
            print(f"| {name.replace('_', ' ')} | {value} |")
        if options.compare:
            whole = run("--scan", str(image), str(second), "--whole", *same)
            ratio = cut["seconds"] / whole["seconds"]
            print(f"| in one piece, seconds | {whole['seconds']} |")
            print(f"| against one piece | {ratio:.2f} |")
            print(f"| its peak growth gb | {whole['peak_growth_gb']} |")
            print(f"| largest difference | {difference(first, second)} |")


if __name__ == "__main__":
    main()
