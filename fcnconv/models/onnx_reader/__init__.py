"""Reads ONNX graphs as torch networks, for the operations that image classifiers consist of.

The graph is computed once, on images of zeros at the native size. ONNX's own reference implementation
computes values that do not depend on pixels, and they become constants. Everything else becomes the operation
that a network built in torch would have there, so that an ONNX file and its source are converted alike. Axis
0 is the number of the image throughout.

tracer        values, and the network that grows
layers        convolutions, linear layers, normalisation, pooling
arithmetic    operations on each value
shapes        operations that move, select or gather values

A new operation goes into the file of its kind, as a function and a row in the table there.
"""

from __future__ import annotations

from torch import fx

from fcnconv.models.onnx_file import Graph
from fcnconv.models.onnx_reader.arithmetic import ARITHMETIC
from fcnconv.models.onnx_reader.layers import LAYERS
from fcnconv.models.onnx_reader.shapes import SHAPES
from fcnconv.models.onnx_reader.tracer import Tracer, UnreadableError

__all__ = ["UnreadableError", "as_torch"]


def as_torch(graph: Graph, window: int, source: str) -> fx.GraphModule:
    """Builds the network of a graph: float (N, channels, window, window) -> logits (N, num_classes).

    The layout is channels first, whatever the layout of the graph.

    Args:
        graph: the graph.
        window: side of the input, in pixels.
        source: the file, for messages.

    Raises:
        UnreadableError: fcnconv does not support an operation. The message names it.
    """
    return Tracer(graph, window, source, LAYERS | ARITHMETIC | SHAPES).network()
