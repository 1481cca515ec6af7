"""ONNX graphs as networks of torch: a reader of the operations that classifiers of images are made of.

The graph is computed once, on images of zeros at the native size. What depends on no pixel is computed by
ONNX's own reference implementation, and becomes a constant. Everything else becomes the operation that a
network built in torch would have there, so that an ONNX file and its source are converted alike. Axis 0 is
the number of the image throughout.

tracer        values, and the network that grows
layers        convolutions, linear layers, normalisation, pooling
arithmetic    what computes value by value
shapes        what moves, selects or gathers values

A new operation goes into the file of its kind, as a function and a row of the table there.
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
    """The network of a graph: float (N, channels, window, window) -> logits (N, num_classes).

    The layout is channels first, whatever the graph's own. Raises UnreadableError, naming the operation.
    """
    return Tracer(graph, window, source, LAYERS | ARITHMETIC | SHAPES).network()
