"""Reading the pages of the documentation: their blocks of code, and the outputs that they show."""

from __future__ import annotations

import math
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
TIMED = re.compile(r"^(  --anchors .*?) +[0-9.]+$", re.M)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def examples(text: str) -> list[tuple[str, str]]:
    """Each command of the ``console`` blocks of a page with the output that follows it."""
    return [
        (line, output)
        for block in blocks(text, "console")
        for line, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    ]


def same(shown: str, printed: str) -> bool:
    """Whether two texts are equal, decimal fractions to two places. The times of ways to make a map are the
    machine's own, and count for nothing.
    """
    shown, printed = (TIMED.sub(r"\1", text) for text in (shown, printed))
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), abs_tol=0.01) for a, b in pairs)
