"""What the tests share: a cache of plans, the embedded model, the command, and a browser."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from commands import Command, run_here, run_process
from outcomes import pytest_addoption, pytest_configure
from PIL import Image
from tiny_network import tiny_spec

from fcnconv.api.classifier import Classifier
from fcnconv.api.loading import load
from fcnconv.models import ModelSpec
from fcnconv.system.machine import usable_cpus

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
"""Some tests import ONNX Runtime themselves."""

SAMPLES = Path(__file__).parents[1] / "sample_images"

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def make_photos(folder: Path, count: int) -> None:
    """A folder of photos, all different."""
    folder.mkdir()
    with Image.open(SAMPLES / "coffee.png") as photo:
        photo = photo.convert("RGB")
    for number in range(count):
        photo.crop((number, 0, 560 + number, 400)).save(folder / f"{number:02}.png", compress_level=1)


__all__ = [
    "SAMPLES",
    "Command",
    "make_photos",
    "needs_chromium",
    "needs_geo",
    "needs_jq",
    "pytest_addoption",
    "pytest_configure",
]

# A busy machine may be slow at any moment, so neither running nor drawing an example has a deadline.
hypothesis.settings.register_profile(
    "fcnconv", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fcnconv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests, which repeat others for longer lists, run without coverage: it would double their time."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, for their processes too: the user's is neither read nor filled.

    All workers of pytest-xdist share it. Whoever needs a plan first makes it, under a lock, as the command
    does; the others wait for it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def threads() -> Iterator[None]:
    """Shares the processors among the workers of pytest-xdist, and among the processes that they start."""
    each = max(usable_cpus() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), 1)
    torch.set_num_threads(each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(each))
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
    """The embedded EfficientNet-Lite0 in fcn mode, with all plans that its commands need, made in one go."""
    done = run_here("prepare")
    assert done.returncode == 0, done.stderr
    return load("efficientnet_lite0")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a small model of random weights: seven classes, a window of 64 px."""
    from fcnconv.models.torchvision import make_network

    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("small") / "small.pth"
    torch.save(make_network("squeezenet1_1", 64, num_classes=7).state_dict(), weights)
    return ["-m", str(weights), "--arch", "squeezenet1_1", "--window", "64"]


@pytest.fixture
def fcnconv(lite0: Classifier) -> Command:
    """Runs the real command in this process, with streams of its own. The embedded model has its plan."""
    return run_here


@pytest.fixture
def fcnconv_process(lite0: Classifier) -> Command:
    """Runs the command in a process of its own, for tests whose subject is the process."""
    return run_process


needs_geo = pytest.mark.skipif(
    not all(map(find_spec, ("rasterio", "pyogrio", "geopandas"))),
    reason="no rasterio, pyogrio and geopandas: pip install '.[test-all]'",
)
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="no jq: apt-get install jq")
needs_rasterio, needs_openvino, needs_hub, needs_timm = (
    pytest.mark.skipif(find_spec(package) is None, reason=f"no {package}: pip install '.[test-all]'")
    for package in ("rasterio", "openvino", "huggingface_hub", "timm")
)
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium to look at the page with: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, in which tests look at pages."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install '.[test-all]'")
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
