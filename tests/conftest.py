"""What the tests share: the embedded model, loaded once, and the real command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fcnconv.classifier import Classifier, load

SAMPLES = Path(__file__).parents[1] / "sample_images"

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def lite0() -> Classifier:
    """The embedded EfficientNet-Lite0 in fcn mode."""
    return load("efficientnet_lite0")


@pytest.fixture
def fcnconv() -> Command:
    """Runs the real command in a process of its own, without a terminal."""

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
