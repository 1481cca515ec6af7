"""What the tests share: the embedded model, loaded once, and the real command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fcnconv.classifier import Classifier, load

SAMPLES = Path(__file__).parents[1] / "sample_images"

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, for their processes too: the user's is neither read nor filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
