"""Converts a classifier to a fully convolutional network, and proves that both compute the same.

A classifier removes its spatial axes somewhere: by pooling the whole feature map, or by flattening it. The
conversion replaces this operation by a sliding window of the same size with stride 1, and each linear layer
after it by the 1 × 1 (or k × k) convolution with the same weights (Sermanet et al., "OverFeat", 2014; Long,
Shelhamer and Darrell, 2015). At the native size nothing changes. A larger image gives one vector of logits
per window.
"""

from fcnconv.convert.fully_convolutional import FullyConvolutional, converted_geometry, convolutionize
from fcnconv.convert.proof import TOLERANCE
from fcnconv.provenance import EXACT

__all__ = ["EXACT", "TOLERANCE", "FullyConvolutional", "converted_geometry", "convolutionize"]
