"""What a user says of a file of weights, where the file leaves it open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadActivation = Literal["none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "hardswish"]
"""What may stand between the linear layers of a head, which no file of weights says."""


@dataclass(frozen=True)
class WeightOptions:
    """What a user says of a file of weights, where the file leaves it open.

    ema: whether to take the averaged weights; None takes them where there are some.
    head_activation: what stands between the linear layers of a head, None where nothing is said.
    """

    ema: bool | None = None
    head_activation: HeadActivation | None = None

    @property
    def key(self) -> str:
        """What tells networks apart that are made of the same file."""
        ema = "" if self.ema is None else " ema" if self.ema else " no-ema"
        return ema + (f" {self.head_activation}" if self.head_activation else "")


AS_THEY_ARE = WeightOptions()
