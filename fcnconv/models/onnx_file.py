"""Reads ONNX files as data, without executing them, and finds out how their graph works as a classifier.

Weights in separate files (external data) are read only from the folder of the ONNX file. The first and last
operations of a graph complete the description of its input and output: channels last, normalisation inside, a
softmax at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fcnconv.errors import ModelError, first_line
from fcnconv.labels.class_names import NamesError, names_of_object, parse_notation
from fcnconv.provenance import Activation

Array = npt.NDArray[Any]

MOST_CHANNELS = 32
"""Longest axis that is read as the channels of an image. A longer axis is a side of the image."""

_NAME_KEYS = ("names", "class_names", "classes", "labels", "categories", "id2label")
_PASSED = ("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear")
"""Operations that do not matter for the normalisation."""


@dataclass(frozen=True)
class Graph:
    """A classifier in an ONNX file.

    Attributes:
        model: the ONNX model with its weights.
        input: name of the image.
        output: name of the scores.
        channels, height, width: size of the image; a side is None if the graph accepts any.
        channels_last: whether the channels are the last axis.
        batch: the only batch size that the graph accepts; None if it accepts any.
        scale, shift: float64 (channels,), the normalisation at the start of the graph, scale · x + shift;
            None if there is no normalisation. It is skipped: `input` is its result.
        activation: activation at the end of the graph, which `output` skips; None if the graph ends in
            logits.
        order: for each channel of `input`, the image channel that it is, if the graph reorders channels first
            (such as RGB to BGR); None if it does not.
        categories: class names in the metadata.
        type: type of the image values, as ONNX numbers types.
    """

    model: onnx.ModelProto
    input: str
    output: str
    channels: int
    height: int | None
    width: int | None
    channels_last: bool
    batch: int | None
    scale: Array | None
    shift: Array | None
    activation: Activation | None
    categories: tuple[str, ...] | None
    type: int = onnx.TensorProto.FLOAT
    order: tuple[int, ...] | None = None

    @property
    def whole_numbers(self) -> bool:
        """Whether the image consists of whole numbers, 0 to 255."""
        return self.type not in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.DOUBLE,
            onnx.TensorProto.BFLOAT16,
        )


def read_graph(path: Path) -> Graph:
    """Reads an ONNX file.

    Raises:
        ModelError: the file cannot be read, its weights lie outside its folder, or it is not an image
            classifier.
    """
    model = parse(path)
    if external_files(model, path):
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # the library's errors have no other common base class
            raise ModelError(f"{path}: its weights cannot be read ({first_line(error)})") from error
    _sort(model.graph)
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return _described(model, path)


def _sort(graph: onnx.GraphProto) -> None:
    """Puts each node after the nodes that compute its inputs. Some converters write them in another order."""
    made = {name for node in graph.node for name in node.output}
    waiting, done, ordered = list(graph.node), set[str](), []
    while waiting:
        ready = [node for node in waiting if not any(n in made and n not in done for n in _taken(node))]
        if not ready:  # a cyclic graph, which ONNX Runtime refuses
            return
        ordered += ready
        done.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not any(node is each for each in ready)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _taken(node: onnx.NodeProto) -> list[str]:
    """The names of a node's inputs, including the inputs of its subgraphs."""
    inner = [each for attribute in node.attribute for each in (attribute.g, *attribute.graphs)]
    return [*node.input, *(name for graph in inner for part in graph.node for name in _taken(part))]


def parse(path: Path) -> onnx.ModelProto:
    """Parses an ONNX file, without weights in separate files. Raises ModelError if it is not one."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's errors differ between versions
        raise ModelError(f"{path}: not an ONNX file ({first_line(error)})") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file: it has no graph")
    return model


def external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The separate files that contain weights of an ONNX file.

    Raises:
        ModelError: a file lies outside the folder of the ONNX file, or is missing.
    """
    files: dict[Path, None] = {}
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = path.parent / location
        if not location or Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise ModelError(
                f"{path}: refused: the weights of {tensor.name} lie outside its folder, at {location!r}"
            )
        if not file.is_file():
            raise ModelError(f"{path}: its weights are in {location!r}, which is missing from its folder")
        files[file] = None
    return list(files)


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            for inner in (attribute.g, *attribute.graphs):
                tensors += _tensors(inner)
    return tensors


def _described(model: onnx.ModelProto, path: Path) -> Graph:
    graph = model.graph
    output, activation = _output(graph, path)
    known = {each.name for each in graph.initializer}
    used = {name for node in _needed(list(graph.node), output) for name in _taken(node)}
    inputs = [each for each in graph.input if each.name in used - known]  # tf2onnx lists more
    images = [each for each in inputs if len(each.type.tensor_type.shape.dim) == 4]
    if len(inputs) != 1 or not images:
        shapes = "; ".join(f"{each.name} {_sides(each)}" for each in inputs)
        raise ModelError(
            f"{path}: does not take one image (N, channels, height, width), but {shapes or 'nothing'}"
        )
    image = images[0]
    dims = [dim.dim_value or None for dim in image.type.tensor_type.shape.dim]
    last, channels = _layout(graph, image.name, dims)
    if channels is None:
        raise ModelError(f"{path}: its input {_sides(image)} does not state the number of image channels")
    height, width = (dims[1], dims[2]) if last else (dims[2], dims[3])
    kind = image.type.tensor_type.elem_type
    name, turned, scale, shift, order = _normalisation(graph, image.name, channels, last)
    if name != image.name:
        last, kind = turned, onnx.TensorProto.FLOAT
    return Graph(
        model,
        name,
        output,
        channels,
        height,
        width,
        last,
        dims[0],
        scale,
        shift,
        activation,
        _categories(model),
        kind,
        order,
    )


def program(graph: Graph) -> bytes:
    """The graph as an ONNX file: float32 (N, channels, height, width) -> logits (N, num_classes).

    If the graph expects channels last or whole numbers, the program converts them inside. Operations after
    the logits are removed.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    made = model.graph
    sides: list[Any] = [graph.batch or "N", graph.channels, graph.height or "H", graph.width or "W"]
    taken = {name for node in made.node for name in (*node.input, *node.output)}
    pixels = next(name for name in ("pixels", "fcnconv_pixels") if name not in taken)
    first, name = [], pixels
    if graph.order:
        made.initializer.append(numpy_helper.from_array(np.array(graph.order), f"{pixels}_order"))
        first.append(
            onnx.helper.make_node("Gather", [name, f"{pixels}_order"], [f"{pixels}_in_order"], axis=1)
        )
        name = f"{pixels}_in_order"
    if graph.channels_last:
        first.append(onnx.helper.make_node("Transpose", [name], [f"{pixels}_last"], perm=[0, 2, 3, 1]))
        name = f"{pixels}_last"
    if graph.whole_numbers:
        first.append(onnx.helper.make_node("Round", [name], [f"{pixels}_round"]))
        name = f"{pixels}_round"
    first.append(onnx.helper.make_node("Cast", [name], [graph.input], to=graph.type))
    last = onnx.helper.make_node("Cast", [graph.output], [f"{pixels}_logits"], to=onnx.TensorProto.FLOAT)
    nodes = _needed([*first, *nodes_of(graph), last], f"{pixels}_logits")
    used = {name for node in nodes for name in node.input}
    weights = [each for each in made.initializer if each.name in used or _has_graphs(made)]
    del made.node[:], made.input[:], made.output[:], made.initializer[:], made.value_info[:]
    made.initializer.extend(weights)
    made.node.extend(nodes)
    made.input.append(onnx.helper.make_tensor_value_info(pixels, onnx.TensorProto.FLOAT, sides))
    made.output.append(onnx.helper.make_tensor_value_info(f"{pixels}_logits", onnx.TensorProto.FLOAT, None))
    content: bytes = model.SerializeToString()
    return content


def nodes_of(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes from the image to the logits, in order."""
    nodes = [node for node in graph.model.graph.node if graph.input not in node.output]
    return _needed(nodes, graph.output)


def _has_graphs(graph: onnx.GraphProto) -> bool:
    """Whether a node has a subgraph, which may use any of the weights."""
    return any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that lead to an output, in order."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
            for each in node.attribute:
                for inner in (each.g, *each.graphs):
                    needed.update(name for part in inner.node for name in part.input)
    return kept[::-1]


def _sides(value: onnx.ValueInfoProto) -> str:
    sides = [str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim]
    return f"({', '.join(sides)})"


def _users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    match = next((each for each in node.attribute if each.name == name), None)
    return default if match is None else onnx.helper.get_attribute_value(match)


def _layout(graph: onnx.GraphProto, image: str, dims: list[int | None]) -> tuple[bool, int | None]:
    """Whether the channels of an image are the last axis, and their number; None if it is unknown."""
    first, last = dims[1], dims[3]
    if first is not None and first <= MOST_CHANNELS and not (last is not None and last <= MOST_CHANNELS):
        return False, first
    if last is not None and last <= MOST_CHANNELS and not (first is not None and first <= MOST_CHANNELS):
        return True, last
    weights = {each.name: each for each in graph.initializer}
    name, turned = image, False
    for _ in range(len(graph.node)):
        users = _users(graph, name)
        if not users:
            break
        node = users[0]
        if node.op_type == "Transpose":
            turned = turned != (list(attribute(node, "perm", [])) == [0, 3, 1, 2])
        if node.op_type == "Conv":
            weight = weights.get(node.input[1])
            channels = None if weight is None else weight.dims[1] * attribute(node, "group", 1)
            return turned, channels or (last if turned else first)
        name = node.output[0]
    return False, first


def _output(graph: onnx.GraphProto, path: Path) -> tuple[str, Activation | None]:
    """The name of the logits, and the activation after them."""
    made = {name: node for node in graph.node for name in node.output}
    scores = [each for each in graph.output if each.name in made]
    floats = [each for each in scores if len(each.type.tensor_type.shape.dim) in (0, 2)]
    if not floats:
        shapes = "; ".join(f"{each.name} {_sides(each)}" for each in scores)
        raise ModelError(f"{path}: does not return scores (N, classes), but {shapes or 'nothing'}")
    name = floats[0].name
    while made[name].op_type in ("Identity", "Cast") and made[name].input[0] in made:
        name = made[name].input[0]
    node = made[name]
    if node.op_type in ("ArgMax", "TopK", "ZipMap"):
        raise ModelError(
            f"{path}: ends in {node.op_type}, which returns labels without scores; export the scores"
        )
    if node.op_type in ("Softmax", "LogSoftmax") and node.input[0] in made:
        return node.input[0], "softmax"
    if node.op_type == "Sigmoid" and node.input[0] in made:
        return node.input[0], "sigmoid"
    return name, None


def _normalisation(
    graph: onnx.GraphProto, image: str, channels: int, last: bool
) -> tuple[str, bool, Array | None, Array | None, tuple[int, ...] | None]:
    """The operations with constants at the start of a graph.

    Returns:
        The name of the result, whether its channels are last, the scale and shift that lead to it, in the
        order of the image's channels, and the new order of the channels. Without such operations, the name of
        the image itself.
    """
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (tensor := attribute(node, "value")) is not None:
            constants[node.output[0]] = tensor
    scale, shift, normalises = np.ones(channels), np.zeros(channels), False
    name, turned = image, last
    order = list(range(channels))
    end: tuple[str, bool, Array | None, Array | None, tuple[int, ...] | None] = image, last, None, None, None
    while len(users := _users(graph, name)) == 1:
        node = users[0]
        if node.op_type == "Transpose":
            turned = False
        elif (taken := _reordered(node, constants, channels, 3 if turned else 1)) is not None:
            order = [order[n] for n in taken]
            normalises = True
        elif node.op_type in ("Sub", "Add", "Mul", "Div"):
            other = [each for each in node.input if each != name]
            if len(other) != 1 or other[0] not in constants:
                break
            value = _per_channel(numpy_helper.to_array(constants[other[0]]), channels, turned)
            if value is None or (node.input[0] != name and node.op_type in ("Sub", "Div")):
                break
            normalises = True
            value = value[np.argsort(order)]  # in the order of the image's channels
            if node.op_type in ("Mul", "Div"):
                factor = value if node.op_type == "Mul" else 1 / value
                scale, shift = scale * factor, shift * factor
            else:
                shift = shift + (value if node.op_type == "Add" else -value)
        elif node.op_type not in _PASSED:
            break
        name = node.output[0]
        if normalises:
            changed = not (np.all(scale == 1) and np.all(shift == 0))
            new = None if order == sorted(order) else tuple(order)
            end = name, turned, scale if changed else None, shift if changed else None, new
    return end


def _reordered(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], channels: int, axis: int
) -> list[int] | None:
    """The image channel of each channel in a node's result, if the node only reorders channels; else None."""
    given = [numpy_helper.to_array(constants[n]).reshape(-1) for n in node.input[1:] if n in constants]
    if len(given) != len(node.input) - 1 or node.input[0] in constants:
        return None
    if node.op_type == "Gather" and attribute(node, "axis", 0) in (axis, axis - 4):
        taken = [int(n) % channels for n in given[0]]
    elif node.op_type == "Slice" and len(given) == 4 and list(given[2]) in ([axis], [axis - 4]):
        start, end, step = (int(given[n][0]) for n in (0, 1, 3))
        # an end far below 0 means up to and including the first, which is None in Python
        taken = list(range(channels))[start : None if end < -channels else end : step]
    else:
        return None
    return taken if sorted(taken) == list(range(channels)) else None


def _per_channel(value: Array, channels: int, last: bool) -> Array | None:
    """float64 (channels,): a constant that has one value, or one value per channel."""
    shape = [1] * (4 - value.ndim) + list(value.shape) if value.ndim <= 4 else []
    axis = 3 if last else 1
    if not shape or any(length != 1 for n, length in enumerate(shape) if n != axis):
        return None
    flat = value.reshape(-1).astype(np.float64)
    return np.broadcast_to(flat, (channels,)).copy() if len(flat) in (1, channels) else None


def _categories(model: onnx.ModelProto) -> tuple[str, ...] | None:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    for key in _NAME_KEYS:
        if key in metadata:
            try:
                return names_of_object(parse_notation(metadata[key]))
            except NamesError:
                continue
    return None
