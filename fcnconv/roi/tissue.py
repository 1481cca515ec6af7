"""Where a slide has tissue: where it is coloured, as glass is grey and stains are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fcnconv.images import ImageSource, read_within
from fcnconv.roi.areas import Inside

SIDE = 2048
"""Pixels of the longest side of the overview in which tissue is looked for."""

MEDIAN, CLOSING = 7, 7
"""Sides, in pixels of the overview, of the median that takes out dust, and of the gaps that are closed."""

LEAST = 8
"""Saturation, of 255, that is taken for tissue at least, however grey the slide is."""


def find_tissue(source: ImageSource) -> tuple[Inside, int]:
    """Where the image has tissue, bool (h, w) of an overview of it, and the saturation from which on, of 255.

    The saturation of HSV, smoothed by a median, is parted by Otsu's threshold ("A threshold selection method
    from gray-level histograms", 1979), and small gaps are closed, as CLAM does (Lu et al., 2021).
    """
    overview = Image.fromarray(read_within(source, SIDE))
    saturation = overview.convert("HSV").getchannel("S").filter(ImageFilter.MedianFilter(MEDIAN))
    threshold = max(otsu(np.bincount(np.asarray(saturation).ravel(), minlength=256)), LEAST)
    tissue = saturation.point(lambda value: 255 * (value >= threshold))
    tissue = tissue.filter(ImageFilter.MaxFilter(CLOSING)).filter(ImageFilter.MinFilter(CLOSING))
    return np.asarray(tissue) > 0, threshold


def otsu(histogram: npt.NDArray[np.integer]) -> int:
    """The least value of the upper of two classes, whose means are as far apart as can be for their sizes.

    histogram: int (n,), how often each value 0 to n - 1 occurs.
    """
    counts = histogram.astype(np.float64)
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * np.arange(len(counts))).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return int(np.nan_to_num(between).argmax()) + 1
