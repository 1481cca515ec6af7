"""Values from the text that stands for them on the command line and in files: each form once, with its words.

Nothing here imports torch or numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Scale
from fcnconv.system.jobs import part_of_job


def checked(name: str, value: Any, choices: Any) -> Any:
    """The value, if it is one of a ``Literal``'s. name: what it is. Raises UsageError."""
    if value not in get_args(choices):
        raise UsageError(f"unknown {name} {value!r}; known: {', '.join(get_args(choices))}")
    return value


def parse_scales(text: str) -> tuple[Scale, ...]:
    """The scales of a comma-separated list such as ``1``, ``fit`` or ``0.5,256px``.

    A number is a factor of the image's own size, ``NNNpx`` the length of the short side, ``fit`` the model's
    evaluation size, and ``auto`` all sizes at which something may be found, see `grid.Scale`. Raises
    UsageError.
    """
    return tuple(_parse_scale(part.strip()) for part in text.split(","))


def as_scales(scales: str | Sequence[Scale]) -> tuple[Scale, ...]:
    """Scales that may be told as text. Raises UsageError."""
    return parse_scales(scales) if isinstance(scales, str) else tuple(scales)


def _parse_scale(text: str) -> Scale:
    if text == "fit":
        return Scale()
    if text == "auto":
        return Scale(factor=1, pyramid=True)
    if match := re.fullmatch(r"(\d{1,9})px", text):
        short_side = int(match[1])
        if short_side > 0:
            return Scale(short_side=short_side)
    elif re.fullmatch(r"\d*\.?\d+|\d+\.", text) and 0 < float(text) <= 64:
        return Scale(factor=float(text))
    raise UsageError(
        f"unknown scale {text!r}; a factor of the image's size up to 64 (1, 0.5), a short side (256px), "
        "fit or auto"
    )


def parse_memory(text: str) -> float:
    """Bytes of a size such as ``2GB``, ``500M`` or ``1.5g``. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,18}\.?\d{0,18})\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match or not float(match[1]):
        raise UsageError(f"unknown amount of memory {text!r}; give a number with a unit, as in 2GB or 500MB")
    unit: int = (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " ")
    return float(match[1]) * unit


def parse_temperature(text: str) -> float | None:
    """The number that divides logits; None for ``auto``. Raises UsageError."""
    if text == "auto":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0.01 <= number <= 100:
        raise UsageError(f"a temperature of {text!r} cannot be used; give 'auto' or a number such as 0.75")
    return number


@dataclass(frozen=True)
class Rescale:
    """What of a file's values becomes black and white. ranges: one, or one for each band; none where they are
    those between two percentiles of each image.
    """

    ranges: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.percentiles:
            return "percentile:{:g},{:g}".format(*self.percentiles)
        return ";".join(f"{low:g},{high:g}" for low, high in self.ranges)


def parse_rescale(text: str) -> Rescale:
    """A range such as ``0,3000``, one for each band as ``0,3000;0,2500;0,2000``, or ``percentile:2,98``.
    Raises UsageError.
    """
    kind, _, rest = text.rpartition(":")
    try:
        ranges = tuple(
            (float(low), float(high)) for low, high in (part.split(",") for part in rest.split(";"))
        )
    except ValueError:
        ranges = ()
    rising = ranges and all(-math.inf < low < high < math.inf for low, high in ranges)
    if rising and not kind:
        return Rescale(ranges)
    if rising and kind == "percentile" and len(ranges) == 1 and ranges[0][0] >= 0 and ranges[0][1] <= 100:
        return Rescale(percentiles=ranges[0])
    raise UsageError(
        f"unknown range {text!r}; give LOW,HIGH as in 0,3000, one for each band by ';', or percentile:2,98"
    )


def parse_bands(text: str) -> tuple[int, ...]:
    """Three bands for red, green and blue, one for grey, or as many as the network takes, from 1. Raises
    UsageError.
    """
    if re.fullmatch(r"\d{1,6}(,\d{1,6})*", text) and min(bands := tuple(map(int, text.split(",")))):
        return bands
    raise UsageError(
        f"unknown bands {text!r}; give three for red, green and blue, as in 4,3,2, one, or as many as the "
        "network takes; from 1"
    )


def parse_region(text: str) -> Box:
    """(x0, y0, x1, y1) of a rectangle of pixels such as ``0,0,4000,3000``. Raises UsageError."""
    if re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", text):
        x0, y0, x1, y1 = map(int, text.split(","))
        if x0 < x1 and y0 < y1:
            return x0, y0, x1, y1
    raise UsageError(
        f"unknown region {text!r}; give x0,y0,x1,y1 in pixels of the image, left and top first, as in "
        "0,0,4000,3000"
    )


def parse_device(text: str) -> str:
    """The name of a device of torch's, whether or not it is there. Raises UsageError."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise UsageError(f"unknown device {text!r}; known: auto, cpu, cuda, cuda:N, mps")
    return text


def parse_shard(text: str) -> tuple[int, int]:
    """(I, N) of a part such as ``2/8``, or of ``auto`` as the queue tells it. Raises UsageError."""
    if text == "auto":
        return part_of_job()
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    first, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= step:
        raise UsageError(f"unknown shard {text!r}; give I/N, as in 1/8, 2/8, … 8/8, or auto")
    return first, step


Frame = int | Literal["all"]
"""A frame of an animation or a page of a TIFF, from 1; or each of them."""


def parse_frame(text: str) -> Frame:
    """A number from 1 on, or ``all``. Raises UsageError."""
    if text == "all":
        return "all"
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
        raise UsageError(f"unknown frame {text!r}; give its number, from 1 on, or 'all'")
    return int(text)


def parse_number(
    name: str, kind: type[int] | type[float], least: float | None, most: float | None, text: str
) -> float:
    """The number that a text says, of its kind and within its bounds.

    name: of the option. Raises UsageError.
    """
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if (least if least is not None else -math.inf) <= number <= (most if most is not None else math.inf):
        return number
    bounds = f" from {least:g}" if least is not None else ""
    bounds += f" to {most:g}" if most is not None else " on" if bounds else ""
    raise UsageError(f"{name} takes a {'whole ' if kind is int else ''}number{bounds}, not {text!r}")


def parse_share(text: str) -> float:
    """A number above 0 and up to 1. Raises UsageError."""
    number = _number(text)
    if number is None or not 0 < number <= 1:
        raise UsageError(
            f"a share of {text!r} cannot be used; give a number above 0 and up to 1, such as 0.3"
        )
    return number


@dataclass(frozen=True)
class Area:
    """An area: value, in square pixels, or of the whole image if it is relative."""

    value: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"

    def pixels(self, image_size: tuple[int, int]) -> float:
        """Square pixels of an image of (width, height)."""
        return self.value * image_size[0] * image_size[1] if self.relative else self.value


def parse_extent(text: str) -> Area:
    """An area such as ``400``, in square pixels, or ``1.5%`` of the image. Raises UsageError."""
    relative = text.strip().endswith("%")
    number = _number(text.strip().removesuffix("%"))
    if number is None or number < 0 or (relative and number > 100):
        raise UsageError(
            f"an area of {text!r} cannot be used; give square pixels, as in 400, or a share, as in 1%"
        )
    return Area(number / 100 if relative else number, relative)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
