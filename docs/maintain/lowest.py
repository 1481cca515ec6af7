"""Prints the lowest versions that pyproject.toml allows of what fcnconv requires by itself, a line each.

python docs/maintain/lowest.py > lowest.txt
pip install --constraint lowest.txt .
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lowest(text: str) -> list[str]:
    """The lower limits among the dependencies in the text of a pyproject.toml, as exact versions."""
    match = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)
    if match is None:
        raise SystemExit("pyproject.toml names no dependencies")
    return [f"{name}=={version}" for name, version in re.findall(r'"([\w.-]+)[>=]=([\w.]+)"', match[1])]


if __name__ == "__main__":
    print("\n".join(lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))))
