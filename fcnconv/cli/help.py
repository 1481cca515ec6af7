"""The help of a command: the most important options on the first screen, then the others in groups."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

Entry = tuple[str, str]
"""The typed form of an option or argument, and its meaning."""

LEFT = 18
"""The largest width of the left column. A longer entry has a line of its own."""


def help_page(usage: str, about: str, groups: Mapping[str, Sequence[Entry]], width: int) -> str:
    """Returns the help, with a heading for each group that has entries.

    Args:
        usage: The usage line.
        about: Paragraphs. Indented paragraphs are examples, which come last and are not wrapped.
        groups: The entries of each group.
        width: The width of a line, in characters.
    """
    paragraphs = about.strip().split("\n\n")
    examples = [text for text in paragraphs if text.startswith(" ")]
    prose = [textwrap.fill(" ".join(text.split()), width) for text in paragraphs if text not in examples]
    parts = [f"Usage: {usage}", *prose]
    if examples:
        parts.append(
            "Examples:\n" + "\n".join(textwrap.indent(textwrap.dedent(text), "  ") for text in examples)
        )
    left = min(max(len(typed) for entries in groups.values() for typed, _ in entries), LEFT)
    for name, entries in groups.items():
        if entries:
            parts.append(f"{name}:\n" + "\n".join(_entry(*entry, left, width) for entry in entries))
    return "\n\n".join(parts) + "\n"


def _entry(typed: str, meaning: str, left: int, width: int) -> str:
    lines = textwrap.wrap(meaning, width - left - 4, break_on_hyphens=False) or [""]
    rows = [typed, *lines] if len(typed) > left else [f"{typed:{left}}  {lines[0]}", *lines[1:]]
    return "\n".join(f"  {row}" if i == 0 else " " * (left + 4) + row for i, row in enumerate(rows)).rstrip()


def examples_in(about: str) -> list[str]:
    """Returns the commands among the examples of a help text, without their comments."""
    lines = [line for line in about.splitlines() if line.startswith(" ") and line.strip()]
    return [line.split("  #")[0].strip() for line in lines]
