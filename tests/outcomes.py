"""What pytest says of a run, beside its own summary: why tests were skipped, and which of them have passed.

``conftest.py`` hands these hooks to pytest.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

REMEDIES = {
    r"chromium": "apt-get install chromium chromium-driver",
    r"\bjq\b": "apt-get install jq",
    r"wordnet": "apt-get install wordnet-base",
    r"could not import|pip install|\bneeds \w+( or|,|$)": "pip install '.[test-all]'",
}
"""What a reason for skipping a test looks like, and what makes the test run."""

OTHERWISE = "no remedy: pytest -rs lists the reasons"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--passed",
        metavar="FILE",
        help="leave out the tests that FILE lists, and add those that pass: two runs share the work",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes(config))


class Outcomes:
    """The outcomes of one run."""

    def __init__(self, config: pytest.Config):
        given = config.getoption("passed")
        self.file = Path(given) if given else None
        self.before = set(self.file.read_text().splitlines()) if self.file and self.file.exists() else set()
        self.skipped: Counter[str] = Counter()
        self.passed: list[str] = []
        self.is_worker = hasattr(config, "workerinput")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self.before]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in self.before]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and not self.is_worker:
            self._skip(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skip(report)
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)

    def _skip(self, report: Any) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        remedy = (remedy for kind, remedy in REMEDIES.items() if re.search(kind, reason, re.I))
        self.skipped[next(remedy, OTHERWISE)] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self.is_worker:
            return
        if self.file:
            self.file.write_text("".join(f"{name}\n" for name in sorted(self.before | {*self.passed})))
        if self.skipped:
            counts = [f"{count} ({remedy})" for remedy, count in self.skipped.most_common()]
            print(f"skipped: {', '.join(counts)}")
