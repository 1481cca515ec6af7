"""What the tests share: the embedded model, loaded once, the real command as a process, and a browser."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_network import tiny_spec

from fcnconv.classifier import Classifier, load
from fcnconv.models import ModelSpec

SAMPLES = Path(__file__).parents[1] / "sample_images"

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def make_photos(folder: Path, count: int) -> None:
    """A folder of photos, all different."""
    folder.mkdir()
    with Image.open(SAMPLES / "coffee.png") as photo:
        photo = photo.convert("RGB")
    for number in range(count):
        photo.crop((number, 0, 560 + number, 400)).save(folder / f"{number:02}.png", compress_level=1)


Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, for their processes too: the user's is neither read nor filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def as_talkative_as_ever() -> None:
    """What a command run in this process silences, as with --quiet, is heard again by the next test.

    Nothing is kept of what was before the test either: a fixture of a whole module runs commands too.
    """
    log = logging.getLogger("fcnconv")
    log.setLevel(logging.NOTSET)
    log.handlers.clear()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A tiny model whose weights are a file, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny_spec(tmp_path)


@pytest.fixture(scope="session")
def lite0() -> Classifier:
    """The embedded EfficientNet-Lite0 in fcn mode."""
    return load("efficientnet_lite0")


@pytest.fixture
def fcnconv(lite0: Classifier) -> Command:
    """Runs the real command in a process of its own, without a terminal. The embedded model has its plan."""

    def run(
        *args: str | Path, stdin: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "fcnconv", *map(str, args)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=os.environ | environment,
            timeout=300,
        )

    return run


needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium to look at the page with: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, in which tests look at pages."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'fcnconv[test]'")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --window-size=1200,900 --user-data-dir={profile}"
    ).split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()
