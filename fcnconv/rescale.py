"""The values of an image that become black and white.

Options say them and images apply them. So this module is below both, and does not import numpy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rescale:
    """The values of a file that become black and white.

    ranges: one (low, high) for all bands, or one per band; empty if percentiles are given.
    percentiles: the two percentiles of each image's values that become black and white.
    """

    ranges: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.percentiles:
            return "percentile:{:g},{:g}".format(*self.percentiles)
        return ";".join(f"{low:g},{high:g}" for low, high in self.ranges)
