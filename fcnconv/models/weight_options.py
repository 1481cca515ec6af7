"""The user's choices for a weights file, where the file leaves them open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadActivation = Literal["none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "hardswish"]
"""The possible functions between the linear layers of a head. No weights file records the function."""


@dataclass(frozen=True)
class WeightOptions:
    """The user's choices for a weights file, where the file leaves them open.

    Attributes:
        ema: whether to use the averaged weights; None uses them if the file has any.
        head_activation: the function between the linear layers of a head; None if it is not given.
    """

    ema: bool | None = None
    head_activation: HeadActivation | None = None

    @property
    def key(self) -> str:
        """Text that distinguishes networks that are built from the same file with different choices."""
        ema = "" if self.ema is None else " ema" if self.ema else " no-ema"
        return ema + (f" {self.head_activation}" if self.head_activation else "")


AS_THEY_ARE = WeightOptions()
