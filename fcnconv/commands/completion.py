"""What the shell completes: names of models, categories and concepts, without torch and numpy."""

from __future__ import annotations

from fcnconv.labels import folded, imagenet
from fcnconv.models import models


def complete_model(incomplete: str) -> list[str]:
    """The names of models that start so."""
    return [name for name in models() if name.startswith(incomplete)]


def complete_class(incomplete: str) -> list[tuple[str, str]]:
    """The names of ImageNet's categories and concepts that start so, as words that need no quotes in a shell,
    each with what it is.
    """
    start = folded(incomplete)
    words = {}
    for selection in imagenet().selections():
        for name in map(folded, selection.names):
            if name.startswith(start):
                size = len(selection.classes)
                words[name.replace(" ", "_")] = "category" if size == 1 else f"{size} categories"
    return sorted(words.items())
