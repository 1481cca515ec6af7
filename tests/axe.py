"""What axe-core finds wrong with a page for people who do not see it or use no pointer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def look(driver: Any, scheme: str, width: int) -> None:
    """Shows the page in a colour scheme, ``light`` or ``dark``, at this width, with axe-core in it."""
    core = pytest.importorskip("axe_core_python", reason="no axe-core: pip install '.[test-all]'")
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_script((Path(core.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))


def look_away(driver: Any) -> None:
    """Puts back what `look` changed."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def violations(driver: Any) -> list[tuple[str, str]]:
    """Each fault, by axe-core's name of the rule, and the element that has it."""
    found = driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
    return [(one["id"], node["html"]) for one in found for node in one["nodes"]]
