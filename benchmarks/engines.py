"""2,000 photos by each engine: equal answers, images a second, and what an engine itself costs.

    python benchmarks/engines.py                       (2,000 photos: this process, Ray, four shards at once)
    python benchmarks/engines.py --photos 400 --kills 20      (and 20 kills, of workers and of the whole run)

The pace is that from the first answer to the last, so without what an engine takes to start, which stands
beside it. All run on the same cores. Killed are, in turn, a worker of Ray's and all of a run, which is then
started again; in the end its answers must be those of the quiet run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_images"
FCNCONV = [
    sys.executable,
    "-m",
    "fcnconv",
    "batch",
    "photos",
    "-f",
    "json",
    "-k",
    "3",
    "--anchors",
    "0",
    "-q",
]
TOGETHER = 0.3
"""Seconds within which answers count as come at once, as those of Ray come in packets."""

RAY = ["--engine", "ray", "--workers", "2"]


def make_photos(folder: Path, count: int) -> None:
    """Parts of the sample photos, of 0.1 to 0.3 megapixels, all different."""
    rng = np.random.default_rng(0)
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.[jp][pn]g"))]
    for number in range(count):
        photo = samples[number % len(samples)]
        share = rng.uniform(0.6, 1)
        width, height = round(photo.width * share), round(photo.height * share)
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        scale = (rng.uniform(0.1e6, 0.3e6) / (width * height)) ** 0.5
        part = photo.crop((left, top, left + width, top + height))
        path = folder / f"{number // 500:02}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.resize((round(width * scale), round(height * scale))).save(path, quality=90)


def answers(folder: Path) -> dict[str, str]:
    """The digest of each answer, by its name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.json"))
        if path.name != "fcnconv.json"
    }


def timed(*commands: list[str]) -> tuple[float, float]:
    """Runs commands at once: images a second from the first answer to the last, and seconds until the
    first.
    """
    start, times = time.perf_counter(), []
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    with selectors.DefaultSelector() as selector:
        for process in running:
            selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if chunk := os.read(key.fd, 1 << 16):
                    times += [time.perf_counter()] * chunk.count(b"\n")
                else:
                    selector.unregister(key.fileobj)
    if any(process.wait() for process in running):
        sys.exit("a run failed")
    first = times[0] + TOGETHER  # with those that come in the same moment
    return sum(moment > first for moment in times) / (times[-1] - times[0]), times[0] - start


def killed(out: str, kills: int) -> tuple[int, int]:
    """Runs Ray until all is done, while a worker or the whole run is killed at random moments.

    Returns how many workers and how many runs were killed.
    """
    rng, workers, runs = random.Random(0), 0, 0
    while True:
        process = subprocess.Popen(
            [*FCNCONV, "-o", out, *RAY], stdout=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None:
            time.sleep(rng.uniform(0.5, 2))
            asked = subprocess.run(["pgrep", "-f", "ray::MapWorker"], capture_output=True, text=True)
            found = asked.stdout.split()
            if process.poll() is not None or workers + runs >= kills or not found:
                continue
            if (workers + runs) % 4 == 3:
                os.killpg(process.pid, signal.SIGKILL)
                subprocess.run(["pkill", "-9", "-f", "ray::|raylet|gcs_server"], check=False)
                runs += 1
            else:
                os.kill(int(rng.choice(found)), signal.SIGKILL)
                workers += 1
        if process.returncode == 0:
            return workers, runs
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"a run failed with {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make_photos(Path("photos"), asked.photos)
        ways = {
            "this process": [[*FCNCONV, "-o", "local"]],
            "Ray, two workers": [[*FCNCONV, "-o", "ray", *RAY]],
            "four shards at once": [[*FCNCONV, "-o", "shards", "--shard", f"{i}/4"] for i in range(1, 5)],
        }
        print(f"{asked.photos} photos of 0.1 to 0.3 megapixels:\n")
        print("| engine | images a second | × | first answer | equal |\n|---|--:|--:|--:|---|")
        expected: dict[str, str] = {}
        pace = 0.0
        for name, commands in ways.items():
            measured, first = timed(*commands)
            found = answers(Path(commands[0][commands[0].index("-o") + 1]))
            expected, pace = expected or found, pace or measured
            equal = "yes" if found == expected and len(found) == asked.photos else "no"
            print(
                f"| {name} | {measured:.1f} | {pace / measured:.2f} | {first:.1f} s | {equal} |", flush=True
            )
        if asked.kills:
            workers, runs = killed("killed", asked.kills)
            equal = "the same answers" if answers(Path("killed")) == expected else "OTHER ANSWERS"
            left = [path for path in Path("killed").rglob(".*") if path.name.endswith(".tmp")]
            print(f"\n{workers} workers and {runs} whole runs killed: {equal}, {len(left)} leftovers.")
        os.chdir("/")
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
