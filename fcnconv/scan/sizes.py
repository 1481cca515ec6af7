"""The sizes at which an image is scanned: of its scales, of its pixels and of the limits."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fcnconv.errors import ImageError, UsageError
from fcnconv.grid import MOST_ENLARGED, Geometry, Grid, Scale
from fcnconv.images import ImageSource, MemorySource
from fcnconv.images.reading import MAX_PIXELS

log = logging.getLogger("fcnconv")

NEARLY_SQUARE = 1.01
"""The ratio of a pixel's sides up to which the pixel counts as square."""

MEANINGLESS = 6
"""The enlargement to the window from which the network's answer no longer means anything. Enlarged 4 times,
photos keep their top class in 67 %, 6 times in 40 %, 8 times in 20 %, and 16 times in none
(`benchmarks/small.py`).
"""


@dataclass(frozen=True)
class Sizing:
    """The facts that decide, together with the scales, at which sizes an image is scanned.

    Attributes:
        eval_size: short side, in pixels, of the scale that names no size: the model's evaluation size.
        pixel_size: metres across a pixel that the network was trained on; None is any size.
        image_pixel_size: metres across a pixel of images whose files do not record it.
        max_pixels: the most pixels of an image in memory, also after it is resized.
    """

    eval_size: int
    pixel_size: float | None = None
    image_pixel_size: float | None = None
    max_pixels: int = MAX_PIXELS

    def grids(self, source: ImageSource, scales: Sequence[Scale], geometry: Geometry) -> list[Grid]:
        """The grids of an image, one per scan size, each once.

        Raises:
            ImageError: if the image is too large at a size, or does not say how large its pixels are.
            UsageError: if a scale does not fit a network for pixels of one size.
        """
        g, grids, own_size = geometry, [], source.size
        if self.pixel_size is not None:
            own_size = true_size(source, self.pixel_size, self.image_pixel_size, g.window)
            scales = [as_factor(scale) for scale in scales]
        sizes = [
            size for scale in scales for size in scale.scan_sizes(own_size, self.eval_size, g.window, g.step)
        ]
        for size in dict.fromkeys(sizes):
            if size[0] * size[1] > self.max_pixels and isinstance(source, MemorySource):
                width, height = size
                raise ImageError(
                    f"{source.name}: scanned at {width} × {height} it has {width * height:,} pixels, "
                    f"over the limit of {self.max_pixels:,}; choose a smaller scale, or raise --max-pixels"
                )
            grids.append(Grid(g.window, g.stride, source.size, size, g.phases))
        return grids

    def short_side(self, scales: Sequence[Scale], window: int) -> int | None:
        """The short side of the largest scan, in pixels; None if it depends on the image's own size."""
        sides = [scale.pixels(self.eval_size, window) for scale in scales]
        return None if None in sides else max(side for side in sides if side)


def true_size(source: ImageSource, wanted: float, told: float | None, window: int) -> tuple[int, int]:
    """The size of an image at which its pixels are as large as the pixels that a network learned from.

    The appearance of tissue or trees depends on the size of pixels. At another size, a network for such
    images gives wrong answers without any sign of it.

    Args:
        source: the image.
        wanted: metres across a pixel that the network learned from.
        told: metres across a pixel of the image, from the user; used if the file does not state it.
        window: the network's window in pixels.

    Returns:
        (width, height) in pixels.

    Raises:
        ImageError: if neither the file nor the user states the size of a pixel, and for an image that would
            be enlarged too much or would be smaller than a window.
    """
    sides, name = source.info.pixel_size, source.name
    if sides is None and told is not None:
        sides = told, told
    if sides is None:
        raise ImageError(
            f"{name}: does not say how large its pixels are, and the network is for pixels of "
            f"{length_text(wanted)}; give their size with --image-mpp or --image-gsd"
        )
    if max(sides) < min(sides) * NEARLY_SQUARE:  # as files round their numbers
        side = math.sqrt(sides[0] * sides[1])
        sides = side, side
    else:
        log.warning(
            "%s: its pixels are not square (%s across and %s down); fcnconv resamples it so that they are",
            *(name, length_text(sides[0]), length_text(sides[1])),
        )
    width, height = (
        max(round(count * side / wanted), 1) for count, side in zip(source.size, sides, strict=True)
    )
    longest = max(sides)
    if longest / wanted > MOST_ENLARGED:
        raise ImageError(
            f"{name}: its pixels of {length_text(longest)} would be enlarged {longest / wanted:.1f} times "
            f"for a network for pixels of {length_text(wanted)}; the limit is {MOST_ENLARGED:g} times"
        )
    if min(width, height) < window:
        raise ImageError(
            f"{name}: with pixels of {length_text(wanted)} it is {width} × {height}, smaller than the "
            f"network's window of {window} px"
        )
    return width, height


def as_factor(scale: Scale) -> Scale:
    """The scale for a network that is for pixels of one size: a factor of the image at that size.

    ``fit`` and ``auto`` are such factors too.

    Raises:
        UsageError: for a number of pixels.
    """
    if scale.short_side is not None:
        raise UsageError(
            f"the network is for pixels of one size, and --scales {scale} changes it; use --scales 1"
        )
    return Scale(factor=1.0 if scale.pyramid else scale.factor or 1.0)


def length_text(metres: float) -> str:
    """Formats a length for a message, as ``0.5 µm`` or ``0.3 m``."""
    return f"{metres:g} m" if metres >= 1e-3 else f"{metres * 1e6:g} µm"


def log_enlarged(source: ImageSource, grid: Grid) -> None:
    """Logs that an image is enlarged to the window, from `MEANINGLESS` times on as a warning."""
    window, times = grid.window, grid.window / min(source.size)
    if times >= MEANINGLESS:
        log.warning(
            "%s: %d × %d is enlarged %.0f times to the model's window of %d px: too few pixels to know "
            "a class by, so its scores mean little or nothing",
            *(source.name, *source.size, times, window),
        )
    elif times > 1:
        log.info(
            "%s: %d × %d is smaller than the model's window of %d px; enlarged to %d × %d",
            *(source.name, *source.size, window, *grid.scan_size),
        )
