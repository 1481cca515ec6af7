"""Turning a classifier into a fully convolutional network, and proving that it still is the classifier.

A classifier ends its spatial axes somewhere: by pooling the whole feature map, or by flattening it. Here that
place becomes a sliding window of the same size with stride 1, and each linear layer below it the 1 × 1 (or k
× k) convolution with the same weights (Sermanet et al., "OverFeat", 2014; Long, Shelhamer and Darrell, 2015).
At the native size nothing changes; a larger image gives one vector of logits for each window.
"""

from fcnconv.convert.fully_convolutional import FullyConvolutional, converted_geometry, convolutionize
from fcnconv.convert.proof import TOLERANCE
from fcnconv.provenance import EXACT

__all__ = ["EXACT", "TOLERANCE", "FullyConvolutional", "converted_geometry", "convolutionize"]
