"""Makes docs/pictures/report.png: the report of the sample photos and of parts of them, in Chromium.

python docs/maintain/make_report.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parents[2]
SIZE = (1200, 760)
SMALLEST = 300
"""Pixels of the shortest side of a part."""


def make_parts(folder: Path, count: int) -> None:
    """The sample photos, and `count` parts of each, of random places and sizes."""
    random = np.random.default_rng(1)
    for path in sorted((ROOT / "sample_images").glob("*.*g")):
        photo = Image.open(path).convert("RGB")
        photo.save(folder / f"{path.stem}.jpg", quality=92)
        for number in range(1, count + 1):
            width, height = (int(random.integers(min(SMALLEST, side - 1), side)) for side in photo.size)
            left, top = int(random.integers(photo.width - width)), int(random.integers(photo.height - height))
            part = photo.crop((left, top, left + width, top + height))
            part.save(folder / f"{path.stem}-{number}.jpg", quality=92)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name, "photos")
        photos.mkdir()
        make_parts(photos, 5)
        command = [sys.executable, "-m", "fcnconv", "batch", "photos", "-o", "maps", "-f", "html", "-q"]
        subprocess.run(command, cwd=name, check=True, stdout=subprocess.DEVNULL)
        options = webdriver.ChromeOptions()
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(Path(name, "maps", "index.html").as_uri() + "#class=espresso&sort=peak")
        time.sleep(1)  # until the thumbnails are decoded
        driver.save_screenshot(str(ROOT / "docs" / "pictures" / "report.png"))
        driver.quit()


if __name__ == "__main__":
    main()
