"""How long a report of many images takes to make, to open, and to work with in Chromium.

    python benchmarks/report.py [COUNT]

The cards are made up: thumbnails of the sample photos, with random peaks of ImageNet's classes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcnconv.batch.cards import SIDE, Card, Peak, write_card
from fcnconv.batch.inputs import CARDS
from fcnconv.batch.report import INDEX, Report
from fcnconv.labels import imagenet

SAMPLES = Path(__file__).parents[1] / "sample_images"
FRAMES = 240
CHANGES = {
    "a class": "choose(entries.find((e) => e.name === 'tabby'))",
    "a concept": "choose(concepts.find((e) => e.name === 'dog'))",
    "all classes": "choose(null)",
    "sorted by peak": "state.sort = 'peak'; update()",
    "sorted by name": "state.sort = 'name'; update()",
    "part of the path": "state.text = '17'; update()",
    "at least 0.5": "state.text = ''; state.least = 0.5; update()",
    "list of classes": "state.least = 0; update(); search.value = 'cat'; openList(); closeList()",
}

SCROLL = """
const [step, count, done] = arguments, times = [];
let last;
scrollTo(0, 0);
function frame(now) {
  if (last) times.push(now - last);
  last = now;
  if (times.length === count) return done(times);
  scrollBy(0, step);
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""


def make_cards(folder: Path, count: int) -> None:
    """Pages, which are empty, and their cards, twenty folders of them."""
    random, labels = np.random.default_rng(0), imagenet()
    photos = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.*g"))]
    for photo in photos:
        photo.thumbnail((SIDE, SIDE))
    for number in range(count):
        name = f"photos/{number % 20:02}/image{number:05}.jpg"
        page = folder / f"{name}.html"
        card = folder / CARDS / f"{name}.jpg"
        for path in (page, card):
            path.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
        chosen = random.choice(len(labels), random.integers(3, 20), replace=False).tolist()
        heights = np.sort(random.uniform(0.05, 1, len(chosen)) ** 2)[::-1].tolist()
        peaks = tuple(Peak(i, labels.categories[i], p) for i, p in zip(chosen, heights, strict=True))
        write_card(card, Card(name, 4000, 3000, peaks, 0, 0.9), photos[number % len(photos)])


def main(count: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fcnconv-report-"))
    try:
        make_cards(folder, count)
        report, start = Report(folder, imagenet(), ()), time.perf_counter()
        report.write([], 0, {"model": "made up"})
        page = folder / INDEX
        took, size = time.perf_counter() - start, page.stat().st_size / 1e6
        print(f"{count:,} images: made in {took:.1f} s, {size:.1f} MB")
        look(page)
    finally:
        shutil.rmtree(folder)


def look(page: Path) -> None:
    """Opens, scrolls, sorts and filters the page."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    driver: Any = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(page.as_uri())
        driver.set_script_timeout(120)
        time.sleep(2)
        opened = driver.execute_script(
            "const [paint] = performance.getEntriesByName('first-contentful-paint');"
            "return [performance.getEntriesByType('navigation')[0].domInteractive, paint.startTime]"
        )
        print("script done after {:.0f} ms, first drawn after {:.0f} ms".format(*opened))
        for name, change in CHANGES.items():
            took = driver.execute_script(
                f"const start = performance.now(); {change}; document.body.offsetHeight;"
                "return performance.now() - start"
            )
            print(f"{name}: {took:.0f} ms, {driver.find_element('id', 'count').text}")
        for name, step in (("scrolled", 120), ("flung", 4000)):
            frames = driver.execute_async_script(SCROLL, step, FRAMES)
            middle, most, worst = np.percentile(frames, [50, 95, 100])
            print(f"{name} {step} px a frame: median {middle:.1f} ms, 95 % {most:.1f}, worst {worst:.1f}")
        nodes = driver.execute_script("return document.querySelectorAll('*').length")
        print(f"{nodes} elements")
    finally:
        driver.quit()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
