"""What becomes of an image of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcnconv.batch.inputs import Input
from fcnconv.provenance import Agreement


@dataclass(frozen=True)
class Outcome:
    """The answer about an image.

    path: the file that it is in. new: whether it was made now; else it was there already.
    agreement: of a new map, with real crops. megapixels: of the image, where it was made now.
    content: what goes into that file, where many share one and it is not written yet.
    """

    path: str
    new: bool
    agreement: Agreement | None = None
    megapixels: float = 0.0
    content: Any = None


@dataclass(frozen=True)
class Later:
    """An image that another process works on, or that one died with: to be looked at once the rest is
    done.
    """

    item: Input
