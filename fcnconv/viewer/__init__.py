"""The viewer: one HTML file with the photo and the probability of every class in every window.

The page needs no network and no server. Its template, style and script are in ``data/viewer/``; here the
scores and the photo are packed for it, and the page is put together.
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
