"""What a network is, and how scores came from it: told once, and carried by whatever is made of it.

Nothing here imports numpy, so that models can be listed without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["fcn", "windows"]
"""How a network is run: converted, with features shared between windows; or as it is, on every real crop."""

Channels = tuple[float, float, float]
"""One number for each of red, green and blue."""


@dataclass(frozen=True)
class Identity:
    """Which network, with which weights, on pixels prepared how.

    model: what `load` and ``--model`` call it. weights_sha256: of the file that its weights came from.
    mean, std: what pixels are centred on and divided by, of each channel, for intensities 0 to 1.
    """

    model: str
    weights_sha256: str
    mean: Channels
    std: Channels

    @property
    def preprocessing(self) -> str:
        """What is done to the pixels, in words that can be followed."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"RGB, bicubic resize, (pixels / 255 - [{mean}]) / [{std}]"


@dataclass(frozen=True)
class Provenance:
    """Where scores come from: enough to make them again.

    tiles: pieces that a network which looks at the whole image was run in, so that the scores depend on them;
        1 for all others.
    """

    identity: Identity
    mode: Mode = "fcn"
    tiles: int = 1
