"""Finds the tissue on a slide by its colour: glass is grey, and stains are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fcnconv.images import ImageSource, read_within
from fcnconv.scan.roi.areas import Inside

SIDE = 2048
"""Pixels of the longest side of the overview that tissue is searched in."""

MEDIAN, CLOSING = 7, 7
"""Side of the median filter that removes dust, and of the gaps that are closed, in pixels of the overview."""

LEAST = 8
"""The minimum saturation, of 255, that counts as tissue, however grey the slide is."""


def find_tissue(source: ImageSource) -> tuple[Inside, int]:
    """Finds the tissue of an image.

    The saturation of HSV, smoothed by a median, is split by Otsu's threshold ("A threshold selection method
    from gray-level histograms", 1979). Small gaps are closed, as CLAM does (Lu et al., 2021).

    Returns:
        bool (h, w) of an overview of the image: where it has tissue; and the minimum saturation, of 255.
    """
    overview = Image.fromarray(read_within(source, SIDE))
    saturation = overview.convert("HSV").getchannel("S").filter(ImageFilter.MedianFilter(MEDIAN))
    threshold = max(otsu(np.bincount(np.asarray(saturation).ravel(), minlength=256)), LEAST)
    tissue = saturation.point(lambda value: 255 * (value >= threshold))
    tissue = tissue.filter(ImageFilter.MaxFilter(CLOSING)).filter(ImageFilter.MinFilter(CLOSING))
    return np.asarray(tissue) > 0, threshold


def otsu(histogram: npt.NDArray[np.integer]) -> int:
    """The threshold that splits values into two classes whose means are as far apart as possible for their
    sizes.

    Args:
        histogram: int (n,), the number of times that each value 0 to n - 1 occurs.

    Returns:
        The lowest value of the upper class.
    """
    counts = histogram.astype(np.float64)
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * np.arange(len(counts))).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return int(np.nan_to_num(between).argmax()) + 1
