"""Turns a file's bands into the pixels that a network sees: chooses the bands, and their black and white."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError
from fcnconv.images.source import Pixels
from fcnconv.rescale import Rescale
from fcnconv.system.progress import counted

log = logging.getLogger("fcnconv")

Range = tuple[float, float]

MOST_BLOCK = 1 << 26
"""The maximum number of pixels that are decoded at once in an image that may be larger than memory: 8192 ×
8192.
"""


@dataclass(frozen=True)
class Asked:
    """The options for a file's pixels.

    Attributes:
        frame: a frame or page, from 1; None is the file's own picture.
        bands, rescale: of its samples, as in `options.ReadOptions`.
        channels: number of channels that the network takes.
        max_pixels: maximum number of pixels that are decoded at once.
    """

    frame: int | None = None
    bands: tuple[int, ...] | None = None
    rescale: Rescale | None = None
    channels: int = 3
    max_pixels: int = MOST_BLOCK

    @property
    def samples(self) -> bool:
        """Whether the options ask for values that are not plain colours."""
        return bool(self.bands or self.rescale or self.channels != 3)


PLAIN = Asked()
"""Only the file's own picture in its own colours."""


WHITE = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""The values that are black and white for each type, unless the file or the user defines others. Other types
have no such values.
"""

NEARLY_BLACK = 1 / 8
"""Share of the 16-bit range below which an image is nearly black. 12 bits are a sixteenth."""


@dataclass(frozen=True)
class Declared:
    """The declarations of a file about its bands.

    Attributes:
        count: number of bands.
        dtype: their type.
        colours: the bands, from 1, that are red, green and blue, or the band that is grey; None if the file
            does not declare them.
        white: the values that are black and white, in that order; None if the type has none.
        alpha: the band of opacity, from 1.
        premultiplied: whether the colours are multiplied by the opacity.
        palette: uint8 (n, 4), the colour and opacity of each value of the first band.
        cmyk: whether the first four bands are cyan, magenta, yellow and black.
    """

    count: int
    dtype: np.dtype[Any]
    colours: tuple[int, ...] | None = None
    white: Range | None = None
    alpha: int | None = None
    premultiplied: bool = False
    palette: Pixels | None = None
    cmyk: bool = False

    @property
    def opaque(self) -> float:
        """The value of an opaque pixel in the band of opacity."""
        return 1.0 if self.dtype.kind == "f" else float(np.iinfo(self.dtype).max)


@dataclass(frozen=True)
class Samples:
    """Which bands of a file are used, and how.

    Attributes:
        bands: from 1: red, green and blue, or one for grey, or as many as the network takes.
        ranges: for each band, the values that become 0 and 255; values outside are clipped.
        declared: the declarations of the file about its bands.
        channels: number of channels of the network's images.
        chosen: whether the user chose bands or ranges; then they are recorded.
    """

    bands: tuple[int, ...]
    ranges: tuple[Range, ...]
    declared: Declared
    channels: int = 3
    chosen: bool = True

    @property
    def needed(self) -> tuple[int, ...]:
        """The bands to read, from 1, in this order: the bands in use, and the opacity."""
        declared = self.declared
        return (*self.bands, *(() if declared.alpha is None else (declared.alpha,)))

    @property
    def has_clear_colours(self) -> bool:
        """Whether some colours of the palette are transparent."""
        palette = self.declared.palette
        return palette is not None and not self.chosen and bool((palette[:, 3] == 0).any())

    @property
    def may_be_dark(self) -> bool:
        """Whether white is the highest value of 16 bits, which the values may not reach."""
        return self.declared.dtype == np.uint16 and self.ranges[0][1] == 65535

    def seen(self, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
        """The pixels that have data and are not transparent: bool (H, W). values, known: as for `pixels`."""
        seen = np.ones(values.shape[:2], np.bool_) if known is None else known.copy()
        declared, count = self.declared, len(self.bands)
        if declared.dtype.kind == "f":
            seen &= np.isfinite(values[:, :, :count]).all(-1)
        if declared.alpha is not None:
            seen &= values[:, :, count] > 0
        if self.has_clear_colours and declared.palette is not None:
            seen &= declared.palette[np.minimum(values[:, :, 0], len(declared.palette) - 1), 3] > 0
        return seen

    def pixels(self, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None = None) -> Pixels:
        """The pixels on white paper: uint8 (H, W, channels).

        Args:
            values: (H, W, len(needed)).
            known: bool (H, W), where the file has data; None means everywhere.
        """
        count = len(self.bands)
        bands, declared = values[:, :, :count], self.declared
        opacity = None
        if (
            declared.alpha is not None
            and not (values[:, :, count] == declared.dtype.type(declared.opaque)).all()
        ):
            opacity = values[:, :, count:].astype(np.float32) / np.float32(declared.opaque)
        if declared.palette is not None and not self.chosen:
            table = declared.palette
            colours = table[np.minimum(bands[:, :, 0], len(table) - 1)]
            seen, clear = colours[:, :, :3], colours[:, :, 3:]
            if (table[:, 3] < 255).any():
                opacity = clear.astype(np.float32) / 255
        else:
            seen = np.ascontiguousarray(bands)
            if values.dtype != np.uint8 or set(self.ranges) != {(0.0, 255.0)}:
                each = [_stretched(bands[:, :, i], limits) for i, limits in enumerate(self.ranges)]
                seen = np.stack(each, axis=-1)
        if declared.cmyk and not self.chosen:
            ink = 255 - seen.astype(np.uint16)
            seen = ((ink[:, :, :3] * ink[:, :, 3:] + 127) // 255).astype(np.uint8)
        if opacity is not None:
            over = seen if declared.premultiplied else seen * opacity
            seen = np.clip(over + 255 * (1 - opacity) + 0.5, 0, 255).astype(np.uint8)
        if values.dtype.kind == "f":
            finite = np.isfinite(bands).all(-1)
            known = finite if known is None else known & finite
        if known is not None and not known.all():
            seen = seen.copy()
            seen[~known] = 255
        if seen.shape[2] == 1 and self.channels > 1:
            return np.repeat(seen, self.channels, axis=2)
        return np.ascontiguousarray(seen)

    def fitted(self, parts: Sequence[npt.NDArray[Any]], percentiles: Range, name: str) -> Samples:
        """The same samples with each band's range between two percentiles of its values.

        Args:
            parts: values (n, len(bands)) of pixels that have data.
            percentiles: the lower and the upper percentile.
            name: of the image, for messages.

        Raises:
            ImageError: if no pixel has data, or if all have one value.
        """
        known = np.concatenate(parts) if parts else np.empty((0, len(self.bands)))
        known = known[np.isfinite(known).all(-1)] if known.dtype.kind == "f" else known
        if not len(known):
            raise ImageError(
                f"{name}: no pixel has data, so there are no percentiles; give --rescale LOW,HIGH"
            )
        found = [tuple(map(float, np.percentile(band, percentiles))) for band in known.T.astype(np.float64)]
        for band, (low, high) in zip(self.bands, found, strict=True):
            if not low < high:
                raise ImageError(f"{name}: band {band} is {low:g} nearly everywhere; give --rescale LOW,HIGH")
        fitted = replace(self, ranges=tuple((low, high) for low, high in found))
        log.info("%s: bands %s, black to white %s", name, *fitted.record().values())
        return fitted

    def record(self) -> dict[str, str]:
        """The bands and ranges as named texts."""
        ranges = dict.fromkeys(f"{low:g},{high:g}" for low, high in self.ranges)
        each = ranges if len(ranges) == 1 else [f"{low:g},{high:g}" for low, high in self.ranges]
        return {"bands": ",".join(map(str, self.bands)), "rescale": ";".join(each)}


def _stretched(values: npt.NDArray[Any], limits: Range) -> Pixels:
    """Stretches values from the range `limits` to 0 to 255, rounded half up: uint8.

    Values of up to 16 bits are looked up in a table.
    """
    low, high = limits
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        limit = np.iinfo(values.dtype)
        table = _scaled(np.arange(limit.min, limit.max + 1, dtype=np.float64), low, high)
        return table[values.astype(np.int64) - limit.min]
    return _scaled(values.astype(np.float64), low, high)


def _scaled(values: npt.NDArray[np.float64], low: float, high: float) -> Pixels:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.nan_to_num((values - low) * (255 / (high - low)), nan=0, posinf=255, neginf=0)
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)


def warn_if_dark(name: str, parts: Sequence[npt.NDArray[Any]]) -> None:
    """Warns of 16 bits that come out nearly black. parts: values (n, …) from all over the image."""
    highest = max((int(part.max()) for part in parts if part.size), default=0)
    if 0 < highest < NEARLY_BLACK * 65535:
        log.warning(
            "%s: its 16 bits reach only %d of 65535, so it is nearly black; lighten it with --rescale 0,%d",
            *(name, highest, (1 << highest.bit_length()) - 1),
        )


def choose_samples(name: str, declared: Declared, asked: Asked) -> Samples:
    """Chooses the bands of an image that are used, and their ranges; percentiles are still to be fitted.

    Raises:
        ImageError: for bands that do not exist, and if the user has to choose.
    """
    count, white, usual = declared.count, declared.white, declared.colours
    bands, rescale, channels = asked.bands, asked.rescale, asked.channels
    if channels != 3 and bands is None:
        colours = count - (declared.alpha is not None)
        if channels not in (count, colours):
            raise ImageError(
                f"{name}: has {counted(count, 'band')}, but the network takes {channels}; name them in its "
                "order with --bands"
            )
        usual = tuple(band for band in range(1, count + 1) if channels == count or band != declared.alpha)
    if declared.dtype.kind == "c":
        raise ImageError(f"{name}: its values are complex numbers; convert it to amplitudes first")
    if asked.samples and bands is None and (declared.palette is not None or declared.cmyk) and channels == 3:
        raise ImageError(
            f"{name}: --rescale is for measured values, but this file has its own colours; leave it out"
        )
    bands = bands or usual
    if bands is None:
        raise ImageError(
            f"{name}: has {count} bands, and does not say which are its colours; name them: --bands 3,2,1"
        )
    if max(bands) > count:
        raise ImageError(f"{name}: has no band {max(bands)}, only {count}")
    if declared.alpha in bands:
        declared = replace(declared, alpha=None)
    if rescale is None and white is None:
        raise ImageError(
            f"{name}: nothing defines which of its values are black and white; give --rescale LOW,HIGH, or "
            "--rescale percentile:2,98"
        )
    ranges: tuple[Range, ...] = (white or (0.0, 1.0),)
    if rescale is not None and rescale.ranges:
        ranges = rescale.ranges
        if len(ranges) not in (1, len(bands)):
            raise ImageError(f"{name}: --rescale {rescale} has {len(ranges)} ranges for {len(bands)} bands")
    each = ranges * len(bands) if len(ranges) == 1 else ranges
    return Samples(bands, each, declared, channels, asked.samples or declared.dtype.kind == "f")


def exact_nodata(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """A nodata value in the file's own type; None if the type cannot hold it."""
    if nodata is None or math.isnan(nodata):
        return None
    if dtype.kind in "ui":
        limit = np.iinfo(dtype)
        exact = nodata == int(nodata) and limit.min <= nodata <= limit.max
        return dtype.type(int(nodata)) if exact else None
    return nodata
