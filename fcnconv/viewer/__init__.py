"""The viewer: one HTML file with the photo and the probability of every class in every window.

The page needs no network and no server. Its template, style and script are in ``data/viewer/``. This package
packs the scores and the photo, and assembles the page.
"""

from fcnconv.viewer.packing import MAX_VALUES, MIN_KEPT, Packed, pack
from fcnconv.viewer.page import PAGE_BYTES, viewer_page
from fcnconv.viewer.photo import MAX_SIDE

__all__ = [
    "MAX_SIDE",
    "MAX_VALUES",
    "MIN_KEPT",
    "PAGE_BYTES",
    "Packed",
    "pack",
    "viewer_page",
]
