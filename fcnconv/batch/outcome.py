"""The outcome of one image of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcnconv.batch.inputs import Input
from fcnconv.provenance import Agreement


@dataclass(frozen=True)
class Outcome:
    """The outcome of an image.

    Attributes:
        path: The file that contains the answer.
        new: Whether the answer was computed in this run; otherwise it existed already.
        agreement: The agreement of a new map with crops.
        megapixels: The size of the image, if the answer is new.
        content: The answer, if many answers share the file and it is not written yet.
    """

    path: str
    new: bool
    agreement: Agreement | None = None
    megapixels: float = 0.0
    content: Any = None


@dataclass(frozen=True)
class Later:
    """An image that another process works on, or that a process died with. It is processed last."""

    item: Input
