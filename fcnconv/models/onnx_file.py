"""ONNX files as data: opened without executing anything, and what their graph says of a classifier.

Weights beside a file (external data) are read only from its own folder. What a graph says of its input and
output is completed by looking at its first and last operations: channels last, normalisation inside, a
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

from fcnconv.class_names import NamesError, names_of_object, parse_notation
from fcnconv.errors import ModelError, first_line
from fcnconv.provenance import Activation

Array = npt.NDArray[Any]

MOST_CHANNELS = 32
"""An axis of at most so many values is taken for the channels of an image, and not for a side of it."""

_NAME_KEYS = ("names", "class_names", "classes", "labels", "categories", "id2label")
_PASSED = ("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear")
"""Operations that leave values as they are, as far as normalisation goes."""


@dataclass(frozen=True)
class Graph:
    """A classifier in an ONNX file.

    model: with its weights. input, output: names of the image and the scores.
    channels, height, width: of the image; a side is None where the graph takes any. channels_last: the
        layout.
    batch: the only number of images that the graph takes at a time; None where it takes any.
    scale, shift: float64 (channels,): the normalisation that the graph begins with, scale · x + shift. It is
        left out: `input` is its result. None where there is none.
    activation: that the graph ends in, left out of `output`; None where it ends in logits.
    order: which channel of the image each channel of `input` is, where the graph first reorders them, as from
        RGB to BGR; None where it does not.
    categories: names of classes in its metadata. type: of the image's values, as ONNX numbers types.
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
        """Whether the image is one of whole numbers, 0 to 255."""
        return self.type not in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.DOUBLE,
            onnx.TensorProto.BFLOAT16,
        )


def read_graph(path: Path) -> Graph:
    """Reads an ONNX file.

    Raises:
        ModelError: it cannot be read, its weights lie outside its folder, or it is no classifier of images.
    """
    model = parse(path)
    if external_files(model, path):
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # the library's errors share no class but this
            raise ModelError(f"{path}: its weights cannot be read ({first_line(error)})") from error
    _sort(model.graph)
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return _described(model, path)


def _sort(graph: onnx.GraphProto) -> None:
    """Puts each node behind those whose results it takes: some converters write them in another order."""
    made = {name for node in graph.node for name in node.output}
    waiting, done, ordered = list(graph.node), set[str](), []
    while waiting:
        ready = [node for node in waiting if not any(n in made and n not in done for n in _taken(node))]
        if not ready:  # a graph in a circle, which ONNX Runtime refuses
            return
        ordered += ready
        done.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not any(node is each for each in ready)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _taken(node: onnx.NodeProto) -> list[str]:
    """The names of what a node takes, also in graphs of its own."""
    inner = [each for attribute in node.attribute for each in (attribute.g, *attribute.graphs)]
    return [*node.input, *(name for graph in inner for part in graph.node for name in _taken(part))]


def parse(path: Path) -> onnx.ModelProto:
    """What an ONNX file holds, without weights that lie beside it. Raises ModelError."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of protobuf, whose errors differ between versions
        raise ModelError(f"{path}: not an ONNX file ({first_line(error)})") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file: it has no graph")
    return model


def external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights. Raises ModelError for one outside its folder."""
    found: dict[Path, None] = {}
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
            raise ModelError(f"{path}: its weights are in {location!r}, which is not beside it")
        found[file] = None
    return list(found)


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
    known = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in known]
    images = [each for each in inputs if len(each.type.tensor_type.shape.dim) == 4]
    if len(inputs) != 1 or not images:
        shapes = "; ".join(f"{each.name} {_sides(each)}" for each in inputs)
        raise ModelError(f"{path}: takes no single image (N, channels, height, width): {shapes or 'nothing'}")
    image = images[0]
    dims = [dim.dim_value or None for dim in image.type.tensor_type.shape.dim]
    last, channels = _layout(graph, image.name, dims)
    if channels is None:
        raise ModelError(f"{path}: its input {_sides(image)} does not say how many channels an image has")
    height, width = (dims[1], dims[2]) if last else (dims[2], dims[3])
    output, activation = _output(graph, path)
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

    Channels are put last and values made whole numbers inside, where the graph wants that; what follows the
    logits is left out.
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
    """The nodes from the image to the logits, in their order."""
    nodes = [node for node in graph.model.graph.node if graph.input not in node.output]
    return _needed(nodes, graph.output)


def _has_graphs(graph: onnx.GraphProto) -> bool:
    """Whether a node has a graph of its own, which may use any of the weights."""
    return any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that lead to an output, in their order."""
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
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _layout(graph: onnx.GraphProto, image: str, dims: list[int | None]) -> tuple[bool, int | None]:
    """Whether the channels of an image are last, and how many there are; None if nothing says it."""
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
            found = None if weight is None else weight.dims[1] * attribute(node, "group", 1)
            return turned, found or (last if turned else first)
        name = node.output[0]
    return False, first


def _output(graph: onnx.GraphProto, path: Path) -> tuple[str, Activation | None]:
    """The name of the logits, and the activation that follows them."""
    made = {name: node for node in graph.node for name in node.output}
    scores = [each for each in graph.output if each.name in made]
    floats = [each for each in scores if len(each.type.tensor_type.shape.dim) in (0, 2)]
    if not floats:
        shapes = "; ".join(f"{each.name} {_sides(each)}" for each in scores)
        raise ModelError(f"{path}: gives no scores (N, classes): {shapes or 'nothing'}")
    name = floats[0].name
    while made[name].op_type in ("Identity", "Cast") and made[name].input[0] in made:
        name = made[name].input[0]
    node = made[name]
    if node.op_type in ("ArgMax", "TopK", "ZipMap"):
        raise ModelError(
            f"{path}: ends in {node.op_type}, and gives labels without scores; export the scores"
        )
    if node.op_type in ("Softmax", "LogSoftmax") and node.input[0] in made:
        return node.input[0], "softmax"
    if node.op_type == "Sigmoid" and node.input[0] in made:
        return node.input[0], "sigmoid"
    return name, None


def _normalisation(
    graph: onnx.GraphProto, image: str, channels: int, last: bool
) -> tuple[str, bool, Array | None, Array | None, tuple[int, ...] | None]:
    """What is computed of the image with constants alone, before anything else.

    The name of the result, whether its channels are last, the scale and shift that lead to it, by the image's
    channels, and their new order; the image itself if there is nothing.
    """
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (tensor := attribute(node, "value")) is not None:
            constants[node.output[0]] = tensor
    scale, shift, found = np.ones(channels), np.zeros(channels), False
    name, turned = image, last
    order = list(range(channels))
    end: tuple[str, bool, Array | None, Array | None, tuple[int, ...] | None] = image, last, None, None, None
    while len(users := _users(graph, name)) == 1:
        node = users[0]
        if node.op_type == "Transpose":
            turned = False
        elif (taken := _reordered(node, constants, channels, 3 if turned else 1)) is not None:
            order = [order[n] for n in taken]
            found = True
        elif node.op_type in ("Sub", "Add", "Mul", "Div"):
            other = [each for each in node.input if each != name]
            if len(other) != 1 or other[0] not in constants:
                break
            value = _per_channel(numpy_helper.to_array(constants[other[0]]), channels, turned)
            if value is None or (node.input[0] != name and node.op_type in ("Sub", "Div")):
                break
            found = True
            value = value[np.argsort(order)]  # by the image's own channels
            if node.op_type in ("Mul", "Div"):
                factor = value if node.op_type == "Mul" else 1 / value
                scale, shift = scale * factor, shift * factor
            else:
                shift = shift + (value if node.op_type == "Add" else -value)
        elif node.op_type not in _PASSED:
            break
        name = node.output[0]
        if found:
            changed = not (np.all(scale == 1) and np.all(shift == 0))
            new = None if order == sorted(order) else tuple(order)
            end = name, turned, scale if changed else None, shift if changed else None, new
    return end


def _reordered(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], channels: int, axis: int
) -> list[int] | None:
    """Which channel each channel of a node's result is, if all that the node does is to reorder them."""
    given = [numpy_helper.to_array(constants[n]).reshape(-1) for n in node.input[1:] if n in constants]
    if len(given) != len(node.input) - 1 or node.input[0] in constants:
        return None
    if node.op_type == "Gather" and attribute(node, "axis", 0) in (axis, axis - 4):
        taken = [int(n) % channels for n in given[0]]
    elif node.op_type == "Slice" and len(given) == 4 and list(given[2]) in ([axis], [axis - 4]):
        start, end, step = (int(given[n][0]) for n in (0, 1, 3))
        # an end far below 0 goes on to the first, which Python says with None
        taken = list(range(channels))[start : None if end < -channels else end : step]
    else:
        return None
    return taken if sorted(taken) == list(range(channels)) else None


def _per_channel(value: Array, channels: int, last: bool) -> Array | None:
    """float64 (channels,): a constant of one value, or of one for each channel."""
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
