"""Reads options: how the command line shows and reads a field of a dataclass of options (`OptionInfo`), and a
function for each form of text that a value can have.

Nothing here imports torch or numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Scale
from fcnconv.rescale import Rescale
from fcnconv.system.jobs import part_of_job


@dataclass(frozen=True)
class OptionInfo:
    """How the command line shows and reads a field of options.

    help: the help text.
    flags: the flags on the command line; if empty, ``--`` and the field's name.
    metavar: the placeholder for the value in the help.
    group: the heading under which the help lists the option.
    read: parses the value from text; None if the type is enough.
    least, most: the bounds of a number.
    envvar: an environment variable that sets the option.
    complete: returns the values that start with a text, for completion in the shell.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    group: str = "Map"
    read: Callable[[str], Any] | None = None
    least: float | None = None
    most: float | None = None
    envvar: str | None = None
    complete: Callable[[str], Any] | None = None


def option_info(options: type) -> dict[str, tuple[Any, OptionInfo]]:
    """The fields of a dataclass that are options: name -> (type, `OptionInfo`)."""
    hints = get_type_hints(options, include_extras=True)
    infos = {}
    for field in fields(options):
        value, *notes = get_args(hints[field.name]) or (None,)
        if notes and isinstance(notes[0], OptionInfo):
            infos[field.name] = value, notes[0]
    return infos


def flag(options: type, field: str) -> str:
    """The flag of a field of options on the command line."""
    _, note = option_info(options)[field]
    return note.flags[0] if note.flags else f"--{field.replace('_', '-')}"


def checked(name: str, value: Any, choices: Any) -> Any:
    """Return the value if it is one of the choices of a ``Literal``.

    Args:
        name: the name of the argument, for the message.
        value: the value to check.
        choices: the ``Literal``.

    Raises:
        UsageError: the value is not one of the choices.
    """
    if value not in get_args(choices):
        raise UsageError(f"unknown {name} {value!r}; known: {', '.join(get_args(choices))}")
    return value


def parse_scales(text: str) -> tuple[Scale, ...]:
    """Parse a comma-separated list of scales such as ``1``, ``fit`` or ``0.5,256px``.

    A number is a factor of the image's own size. ``NNNpx`` is the length of the short side. ``fit`` is the
    model's evaluation size. ``auto`` is all sizes at which something may be found, see `grid.Scale`.

    Raises:
        UsageError: the text is not such a list.
    """
    return tuple(_parse_scale(part.strip()) for part in text.split(","))


def as_scales(scales: str | Sequence[Scale]) -> tuple[Scale, ...]:
    """Scales from text, or from a sequence of scales. Raises UsageError."""
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
        f"unknown scale {text!r}; give a factor of the image's size up to 64 (1, 0.5), a short side (256px), "
        "fit or auto"
    )


def parse_memory(text: str) -> float:
    """Parse an amount of memory such as ``2GB``, ``500M`` or ``1.5g``, to bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,18}\.?\d{0,18})\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match or not float(match[1]):
        raise UsageError(f"unknown amount of memory {text!r}; give a number with a unit, as in 2GB or 500MB")
    unit: int = (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " ")
    return float(match[1]) * unit


def parse_temperature(text: str) -> float | None:
    """Parse a temperature, the number that divides logits. ``auto`` is None. Raises UsageError."""
    if text == "auto":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0.01 <= number <= 100:
        raise UsageError(f"a temperature of {text!r} cannot be used; give 'auto' or a number such as 0.75")
    return number


def parse_rescale(text: str) -> Rescale:
    """Parse a range of values.

    Args:
        text: one range such as ``0,3000``, one range per band as in ``0,3000;0,2500;0,2000``, or
            ``percentile:2,98``.

    Raises:
        UsageError: the text is not a range.
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
        f"unknown range {text!r}; give LOW,HIGH as in 0,3000, one per band separated by ';', or "
        "percentile:2,98"
    )


def parse_bands(text: str) -> tuple[int, ...]:
    """Parse a list of bands, counted from 1: three for red, green and blue, one for grey, or as many as the
    network takes. Raises UsageError.
    """
    if re.fullmatch(r"\d{1,6}(,\d{1,6})*", text) and min(bands := tuple(map(int, text.split(",")))):
        return bands
    raise UsageError(
        f"unknown bands {text!r}; give numbers from 1 on: three for red, green and blue, as in 4,3,2, one "
        "for grey, or as many as the network takes"
    )


def parse_region(text: str) -> Box:
    """Parse a rectangle of pixels (x0, y0, x1, y1) such as ``0,0,4000,3000``. Raises UsageError."""
    if re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", text):
        x0, y0, x1, y1 = map(int, text.split(","))
        if x0 < x1 and y0 < y1:
            return x0, y0, x1, y1
    raise UsageError(
        f"unknown region {text!r}; give x0,y0,x1,y1 in pixels of the image, left and top first, as in "
        "0,0,4000,3000"
    )


def parse_device(text: str) -> str:
    """Check the name of a torch device, which need not exist on this machine. Raises UsageError."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise UsageError(f"unknown device {text!r}; known: auto, cpu, cuda, cuda:N, mps")
    return text


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a shard such as ``2/8`` to (I, N). ``auto`` reads it from the job queue. Raises UsageError."""
    if text == "auto":
        return part_of_job()
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    first, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= step:
        raise UsageError(f"unknown shard {text!r}; give I/N, as in 1/8, 2/8, … 8/8, or auto")
    return first, step


Frame = int | Literal["all"]
"""A frame of an animation or a page of a TIFF, from 1; or all of them."""


def parse_frame(text: str) -> Frame:
    """Parse a frame: a number from 1 on, or ``all``. Raises UsageError."""
    if text == "all":
        return "all"
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
        raise UsageError(f"unknown frame {text!r}; give its number, from 1 on, or 'all'")
    return int(text)


def parse_number(
    name: str, kind: type[int] | type[float], least: float | None, most: float | None, text: str
) -> float:
    """Parse a number within bounds.

    Args:
        name: the name of the option, for the message.
        kind: `int` or `float`.
        least: the smallest value, or None.
        most: the largest value, or None.
        text: the text.

    Raises:
        UsageError: the text is not such a number.
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
    """Parse a share: a number above 0 and up to 1. Raises UsageError."""
    number = _number(text)
    if number is None or not 0 < number <= 1:
        raise UsageError(
            f"a share of {text!r} cannot be used; give a number above 0 and up to 1, such as 0.3"
        )
    return number


@dataclass(frozen=True)
class Area:
    """An area. value: in square pixels, or as a share of the whole image if `relative` is true."""

    value: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"

    def pixels(self, image_size: tuple[int, int]) -> float:
        """The area in square pixels, for an image of (width, height)."""
        return self.value * image_size[0] * image_size[1] if self.relative else self.value


def parse_extent(text: str) -> Area:
    """Parse an area: square pixels such as ``400``, or a share of the image such as ``1.5%``.

    Raises UsageError.
    """
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
