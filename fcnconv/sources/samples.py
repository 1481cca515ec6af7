"""Samples of any bands and bits as red, green and blue of 8 bits: what measuring cameras deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError
from fcnconv.parsing import Rescale
from fcnconv.sources.source import Pixels

Range = tuple[float, float]

WHITE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""Of types of samples, what is black and white unless it is told. Of others no file says it."""

NEARLY_BLACK = 1 / 8
"""Share of 16 bits under which an image's values stay nearly black. 12 bits are a sixteenth."""


@dataclass(frozen=True)
class Samples:
    """Which bands of a file are seen, and how.

    bands: three of them for red, green and blue, or one for grey; or as many as the network takes; from 1.
    ranges: of each, the values that become 0 and 255; what lies beyond is cut off.
    nodata: the value of pixels that nothing is known of, which are white, as those that are no number.
    channels: of the network's images.
    """

    bands: tuple[int, ...]
    ranges: tuple[Range, ...]
    nodata: float | None = None
    channels: int = 3

    def pixels(self, samples: npt.NDArray[Any]) -> Pixels:
        """uint8 (H, W, channels), from all bands (H, W, bands) of any type."""
        chosen = self.chosen(samples)
        low, high = np.array(self.ranges).T
        unknown = self.unknown(chosen)
        scaled = np.nan_to_num((chosen - low) * (255 / (high - low)), nan=0, posinf=255, neginf=0)
        seen: Pixels = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
        seen[unknown] = 255
        return np.repeat(seen, self.channels, axis=2) if seen.shape[2] == 1 else seen

    def chosen(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """float64 (H, W, len(bands)): the bands that are seen."""
        return samples[:, :, [band - 1 for band in self.bands]].astype(np.float64)

    def unknown(self, chosen: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """bool (H, W): the pixels without data in any of the bands that are seen, or no number in one."""
        unknown = np.logical_not(np.isfinite(chosen).all(-1))
        if self.nodata is not None:
            unknown |= (chosen == self.nodata).all(-1)
        return np.asarray(unknown)

    def fitted(self, parts: Sequence[npt.NDArray[Any]], percentiles: Range, name: str) -> Samples:
        """The same with each band's range between two percentiles of its values in parts of the image, (H, W,
        bands) each. Raises ImageError where nothing is known of them, or all are one.
        """
        values = []
        for part in parts:
            chosen = self.chosen(part)
            values.append(chosen[~self.unknown(chosen)])
        known = np.concatenate(values)
        if not len(known):
            raise ImageError(
                f"{name}: no pixel has data, so that there are no percentiles; give --rescale LOW,HIGH"
            )
        found = [tuple(map(float, np.percentile(band, percentiles))) for band in known.T]
        for band, (low, high) in zip(self.bands, found, strict=True):
            if not low < high:
                raise ImageError(f"{name}: band {band} is {low:g} nearly everywhere; give --rescale LOW,HIGH")
        return replace(self, ranges=tuple((low, high) for low, high in found))

    def record(self) -> dict[str, str]:
        """How pixels were made, as named texts."""
        ranges = dict.fromkeys(f"{low:g},{high:g}" for low, high in self.ranges)
        each = ranges if len(ranges) == 1 else [f"{low:g},{high:g}" for low, high in self.ranges]
        return {"bands": ",".join(map(str, self.bands)), "rescale": ";".join(each)}


def samples_of(source: object) -> Samples | None:
    """How an image is made of samples that are no plain colours; None if it is not."""
    found = getattr(source, "samples", None)
    return found if isinstance(found, Samples) else None


def choose_samples(
    name: str,
    count: int,
    usual: tuple[int, ...] | None,
    white: Range | None,
    bands: tuple[int, ...] | None,
    rescale: Rescale | None,
    nodata: float | None = None,
    channels: int = 3,
) -> Samples:
    """The bands of an image that are seen, and their ranges; for percentiles to be fitted still.

    count: how many bands the file has. usual: those that it says are its colours; None if it does not.
    white: the range that it says its values have; None if it does not.
    bands, rescale: what was asked for. channels: that the network takes.

    Raises ImageError for bands that are not there, and where something must be told.
    """
    if channels != 3 and bands is None:
        if count != channels:
            raise ImageError(
                f"{name}: has {count} bands, and the network takes {channels}; name these in its order with "
                "--bands"
            )
        usual = tuple(range(1, channels + 1))
    bands = bands or usual
    if bands is None:
        raise ImageError(
            f"{name}: has {count} bands, and does not say which are its colours; --bands 3,2,1 does"
        )
    if max(bands) > count:
        raise ImageError(f"{name}: has no band {max(bands)}, only {count}")
    if rescale is None and white is None:
        raise ImageError(
            f"{name}: its values have no range that is black to white; give one with --rescale LOW,HIGH, or "
            "--rescale percentile:2,98"
        )
    ranges: tuple[Range, ...] = ((0.0, 1.0),) if white is None else (white,)
    if rescale is not None and rescale.ranges:
        ranges = rescale.ranges
        if len(ranges) not in (1, len(bands)):
            raise ImageError(f"{name}: --rescale {rescale} has {len(ranges)} ranges for {len(bands)} bands")
    return Samples(bands, ranges * len(bands) if len(ranges) == 1 else ranges, nodata, channels)
