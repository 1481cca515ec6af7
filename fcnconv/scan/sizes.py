"""At which size an image is scanned, where that is not asked for alone."""

from __future__ import annotations

import logging
import math

from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import MOST_ENLARGED, Grid, Scale
from fcnconv.images import ImageSource, pixel_sides_of

log = logging.getLogger("fcnconv")

NEARLY_SQUARE = 1.01
"""How many times longer one side of a pixel may be than the other for it to be taken for a square."""

MEANINGLESS = 6
"""How many times an image is enlarged to the window when what the network says of it no longer counts: at 4,
photos keep their first class in 67 %, at 6 in 40 %, at 8 in 20 %, at 16 in none (`benchmarks/small.py`)."""


def true_size(source: ImageSource, wanted: float, told: float | None, window: int) -> tuple[int, int]:
    """The size of an image at which its pixels are as large as those that a network learned from: what tissue
    or trees look like depends on it, and at another one a network of theirs is wrong without a sign.

    wanted: metres across such a pixel. told: across one of the image, if its file does not say it.

    Raises ImageError if nobody says it, and for an image that would be enlarged too much, or smaller than a
    window.
    """
    sides, name = pixel_sides_of(source), source.name
    if sides is None and told is not None:
        sides = told, told
    if sides is None:
        raise ImageError(
            f"{name}: does not tell how large its pixels are, and the network is for pixels of "
            f"{length_text(wanted)}; tell it with --image-mpp or --image-gsd"
        )
    if max(sides) < min(sides) * NEARLY_SQUARE:  # as files round their numbers
        side = math.sqrt(sides[0] * sides[1])
        sides = side, side
    else:
        log.warning(
            "%s: its pixels are not square, %s across and %s down; it is resampled so that they are",
            *(name, length_text(sides[0]), length_text(sides[1])),
        )
    width, height = (
        max(round(count * side / wanted), 1) for count, side in zip(source.size, sides, strict=True)
    )
    found = max(sides)
    if found / wanted > MOST_ENLARGED:
        raise ImageError(
            f"{name}: its pixels of {length_text(found)} would be enlarged {found / wanted:.1f} times for a "
            f"network for pixels of {length_text(wanted)}; {MOST_ENLARGED:g} times are the most"
        )
    if min(width, height) < window:
        raise ImageError(
            f"{name}: with pixels of {length_text(wanted)} it is {width} × {height}, smaller than the "
            f"network's window of {window} px"
        )
    return width, height


def as_factor(scale: Scale) -> Scale:
    """A scale of a network for pixels of one size: a factor of the image at that size, which is also what
    ``fit`` and ``auto`` are. Raises UsageError for a number of pixels.
    """
    if scale.short_side is not None:
        raise UsageError(f"the network is for pixels of one size, and --scales {scale} makes others; 1 is it")
    return Scale(factor=1.0 if scale.pyramid else scale.factor or 1.0)


def length_text(metres: float) -> str:
    """A length in words, as ``0.5 µm`` or ``0.3 m``."""
    return f"{metres:g} m" if metres >= 1e-3 else f"{metres * 1e6:g} µm"


def tell_enlarged(source: ImageSource, grid: Grid) -> None:
    """Logs that an image is enlarged to the window; from `MEANINGLESS` times on as a warning."""
    window, times = grid.window, grid.window / min(source.size)
    if times >= MEANINGLESS:
        log.warning(
            "%s: %d × %d is enlarged %.0f times to the model's window of %d px: too few pixels to know "
            "a class by, so that what follows means little or nothing",
            *(source.name, *source.size, times, window),
        )
    elif times > 1:
        log.info(
            "%s: %d × %d is smaller than the model's window of %d px; enlarged to %d × %d",
            *(source.name, *source.size, window, *grid.scan_size),
        )
