"""ONNX files as models: the same scores as their source whatever exported them, and no file read beyond."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import fcnconv
from fcnconv.convert import convolutionize
from fcnconv.errors import ConversionError, ModelError, UsageError
from fcnconv.models import OwnModel, find_model
from fcnconv.models.onnx_file import read_graph

WINDOW = 32


class Net(nn.Module):
    """A small classifier with what exporters write in different ways: shapes, gates, shuffled channels."""

    def __init__(self, inside: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.pool, self.next = nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=2)
        self.fc = nn.Linear(8, 5)
        self.inside = inside
        self.norm.running_mean.normal_(0, 0.2)
        self.norm.running_var.uniform_(0.3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inside:
            x = (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.25
        x = F.hardswish(self.pool(F.relu6(self.norm(self.stem(x)))))
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        a, b = F.silu(self.next(x)).chunk(2, 1)
        logits: torch.Tensor = self.fc(torch.cat([b, a], 1).mean((2, 3)))
        return logits


def export(model: nn.Module, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"dynamo": False, "opset_version": 17} | options
        if given["dynamo"]:
            given["verbose"] = False
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, WINDOW, WINDOW),), str(path), **given)
    return path


def probabilities(model: nn.Module, pixels: np.ndarray[Any, Any], **given: Any) -> np.ndarray[Any, Any]:
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        return np.asarray(model.eval()((x - 0.5) / 0.25).softmax(1)[0])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (WINDOW, WINDOW, 3), np.uint8)


NORMALISED = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.mark.parametrize(
    "options",
    [
        {"opset_version": 11},
        {"opset_version": 13, "do_constant_folding": False},
        {"opset_version": 17, "input_names": ["x"], "dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}},
        {"opset_version": 18, "dynamo": True},
        {"opset_version": 21, "dynamo": True},
    ],
)
def test_an_export_scores_as_its_source(options: dict[str, Any], tmp_path: Path, pixels: Any) -> None:
    if options.get("dynamo"):
        pytest.importorskip("onnxscript", reason="no onnxscript: pip install 'fcnconv[test-all]'")
    path = export(Net(), tmp_path / "net.onnx", **options)
    window = WINDOW if "dynamic_axes" in options else None
    spec = find_model(str(path), OwnModel(window=window, **NORMALISED))
    assert (spec.window, len(spec.labels())) == (WINDOW, 5)
    for mode in ("fcn", "windows"):
        net = fcnconv.load(str(path), mode=mode, window=window, **NORMALISED)
        found = net.classify(pixels, scales="1", k=5)
        right = probabilities(Net(), pixels)
        for each in found.predictions:
            assert abs(each.probability - right[each.class_idx]) < 1e-4
    image = np.random.default_rng(1).integers(0, 256, (WINDOW + 24, WINDOW + 16, 3), np.uint8)
    fcn = fcnconv.load(str(path), window=window, **NORMALISED)
    whole = fcnconv.load(Net().eval(), window=WINDOW, **NORMALISED)
    assert np.allclose(fcn(image, anchors=0).logits, whole(image, anchors=0).logits, atol=1e-4)


def test_a_plan_belongs_to_the_content(tmp_path: Path) -> None:
    path = export(Net(), tmp_path / "net.onnx")
    one = find_model(str(path), OwnModel())
    before = one.sha256(path)
    model = onnx.load(str(path))
    fc = next(each for each in model.graph.initializer if each.dims == [5])
    fc.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(fc) + 1, fc.name))
    onnx.save(model, str(path))
    assert find_model(str(path), OwnModel()).sha256(path) != before


def test_weights_beside_the_file_count_as_its_content(tmp_path: Path) -> None:
    path = export(Net(), tmp_path / "net.onnx")
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    spec = find_model(str(path), OwnModel())
    before = spec.sha256(path)
    assert spec.build(path)(torch.zeros(3, 3, WINDOW, WINDOW)).shape == (3, 5)
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[40] ^= 1
    (tmp_path / "net.data").write_bytes(data)
    assert find_model(str(path), OwnModel()).sha256(path) != before


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_nothing_outside_the_folder_is_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(str(export(Net(), folder / "net.onnx")))
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"refused: the weights of .* lie outside its folder"):
        find_model(str(folder / "net.onnx"), OwnModel())


def small(
    nodes: list[onnx.NodeProto], shape: list[Any], weights: dict[str, Any], out: str, **meta: str
) -> bytes:
    """A model of one input x and one output (N, 5)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, [shape[0], 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, meta)
    content: bytes = model.SerializeToString()
    return content


def keras(flat: bool) -> bytes:
    """As tf2onnx writes a network of Keras: channels last, pixels of 0 to 255, SAME padding, a softmax."""
    random = np.random.default_rng(0)
    weights = {
        "scale": np.float32(1 / 127.5),
        "one": np.float32(1),
        "w": random.standard_normal((6, 3, 3, 3), np.float32),
        "b": random.standard_normal(6, np.float32),
        "fc": random.standard_normal((6 * 16 * 16 if flat else 6, 5), np.float32) / (30 if flat else 1),
        "bias": random.standard_normal(5, np.float32),
        "flat": np.array([-1, 6 * 16 * 16]),
    }
    make = helper.make_node
    nodes = [
        make("Mul", ["x", "scale"], ["x1"]),
        make("Sub", ["x1", "one"], ["x2"]),
        make("Transpose", ["x2"], ["x3"], perm=[0, 3, 1, 2]),
        make("Conv", ["x3", "w", "b"], ["x4"], strides=[2, 2], auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        make("Relu", ["x4"], ["x5"]),
        make("Transpose", ["x5"], ["x6"], perm=[0, 2, 3, 1]),
        make("Reshape", ["x6", "flat"], ["x7"])
        if flat
        else make("ReduceMean", ["x6"], ["x7"], axes=[1, 2], keepdims=0),
        make("MatMul", ["x7", "fc"], ["x8"]),
        make("Add", ["x8", "bias"], ["x9"]),
        make("Softmax", ["x9"], ["y"], axis=1),
    ]
    return small(nodes, ["N", 32, 32, 3], weights, "y", names="['a', 'b', 'c', 'd', 'e']")


@pytest.mark.parametrize(
    ("flat", "mode"), [(False, "fcn"), (False, "windows"), (True, "fcn"), (True, "windows")]
)
def test_a_network_of_keras(flat: bool, mode: Any, tmp_path: Path, pixels: Any) -> None:
    import onnxruntime

    path = tmp_path / "keras.onnx"
    path.write_bytes(keras(flat))
    graph = read_graph(path)
    assert (graph.channels, graph.height, graph.activation) == (3, 32, "softmax")
    session = onnxruntime.InferenceSession(path.read_bytes())
    (right,) = session.run(None, {"x": pixels[None].astype(np.float32)})
    net = fcnconv.load(str(path), mode=mode)
    assert net.labels.categories == tuple("abcde")
    for each in net.classify(pixels, scales="1", k=5).predictions:
        assert abs(each.probability - right[0, each.class_idx]) < 1e-4


def test_normalisation_inside_the_graph_is_recognised(tmp_path: Path, pixels: Any) -> None:
    path = export(Net(inside=True), tmp_path / "net.onnx")
    spec = find_model(str(path), OwnModel())
    assert np.allclose((spec.mean, spec.std), ((0.4, 0.5, 0.6), (0.25,) * 3))
    with pytest.raises(UsageError, match="normalises images itself"):
        find_model(str(path), OwnModel(**NORMALISED))
    with torch.no_grad():
        right = Net(inside=True).eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).softmax(1)[0]
    for each in fcnconv.load(str(path)).classify(pixels, scales="1", k=5).predictions:
        assert abs(each.probability - float(right[each.class_idx])) < 1e-4


def test_what_has_no_counterpart_runs_on_windows(tmp_path: Path, pixels: Any) -> None:
    make, random = helper.make_node, np.random.default_rng(0)
    weights = {
        "fc": random.standard_normal((3, 5), np.float32),
        "k": np.array([2]),
        "shape": np.array([-1, 3]),
    }
    nodes = [
        make("CumSum", ["x", "k"], ["x1"]),
        make("GlobalAveragePool", ["x1"], ["x2"]),
        make("Reshape", ["x2", "shape"], ["x3"]),
        make("MatMul", ["x3", "fc"], ["y"]),
    ]
    path = tmp_path / "odd.onnx"
    path.write_bytes(small(nodes, [1, 3, 16, 16], weights, "y"))
    with pytest.raises(ConversionError, match=r"the operation CumSum .*windows"):
        fcnconv.load(str(path))
    assert fcnconv.load(str(path), mode="windows")(pixels).logits.shape == (1, 1, 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file"),
        (b"\x80\x04hello", "not an ONNX file"),
        (small([helper.make_node("Identity", ["x"], ["y"])], [1, 5], {}, "y"), "does not take one image"),
        (
            small([helper.make_node("ArgMax", ["x"], ["y"], axis=1)], [1, 3, 8, 8], {}, "y"),
            "ends in ArgMax",
        ),
    ],
)
def test_what_is_no_classifier_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        find_model(str(tmp_path / "x.onnx"), OwnModel())


def test_what_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    path = str(export(Net(), tmp_path / "net.onnx"))
    with pytest.raises(UsageError, match="takes windows of 32 px only"):
        find_model(path, OwnModel(window=64))
    with pytest.raises(UsageError, match="its own architecture"):
        find_model(path, OwnModel(arch="resnet18"))
    with pytest.raises(UsageError, match="takes images of 3 channels"):
        find_model(path, OwnModel(mean=(0.5,), std=(0.5,)))


def test_inputs_with_a_value_or_without_a_use_are_no_images(tmp_path: Path, pixels: Any) -> None:
    path = export(Net(), tmp_path / "net.onnx", keep_initializers_as_inputs=True)
    model = onnx.load(path)
    assert len(model.graph.input) > 1
    model.graph.input.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 3, 1, 1]))
    onnx.save(model, path)
    found = fcnconv.load(str(path), **NORMALISED)(pixels).logits
    right = fcnconv.load(Net().eval(), window=WINDOW, **NORMALISED)(pixels).logits
    assert np.allclose(found, right, atol=1e-4)
    model.graph.node.append(helper.make_node("Mul", [model.graph.output[0].name, "mean"], ["scaled"]))
    model.graph.output[0].name = "scaled"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"does not take one image .* mean \(1, 3, 1, 1\)"):
        find_model(str(path), OwnModel())


def in_front(nodes: list[onnx.NodeProto], weights: dict[str, Any], shape: list[Any], folder: Path) -> Path:
    """A network of `Net` behind nodes that compute "pre" of the image "pix"."""
    model = onnx.load(export(Net(), folder / "net.onnx"))
    image = model.graph.input[0].name
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = "pre"
    rest = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.input.append(helper.make_tensor_value_info("pix", TensorProto.FLOAT, shape))
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items())
    onnx.save(model, folder / "front.onnx")
    return folder / "front.onnx"


CAFFE = np.array([104, 117, 123], np.float32)


@pytest.mark.parametrize("how", ["gather", "slice, channels last"])
@pytest.mark.parametrize("mode", ["fcn", "windows"])
def test_caffes_blue_before_red_is_recognised(how: str, mode: Any, tmp_path: Path, pixels: Any) -> None:
    import onnxruntime

    make = helper.make_node
    if how == "gather":
        nodes = [make("Gather", ["pix", "order"], ["bgr"], axis=1), make("Sub", ["bgr", "mean"], ["pre"])]
        weights = {"order": np.array([2, 1, 0]), "mean": CAFFE.reshape(1, 3, 1, 1)}
        shape, x = [1, 3, WINDOW, WINDOW], pixels.transpose(2, 0, 1)[None]
    else:
        nodes = [
            make("Slice", ["pix", "start", "end", "axis", "step"], ["bgr"]),
            make("Sub", ["bgr", "mean"], ["centred"]),
            make("Transpose", ["centred"], ["pre"], perm=[0, 3, 1, 2]),
        ]
        weights = {"start": [-1], "end": [-(2**31)], "axis": [3], "step": [-1]}
        weights = {name: np.array(value, np.int64) for name, value in weights.items()} | {"mean": CAFFE}
        shape, x = [1, WINDOW, WINDOW, 3], pixels[None]
    path = in_front(nodes, weights, shape, tmp_path)
    net = fcnconv.load(str(path), mode=mode)
    assert np.allclose(net.provenance.identity.mean, CAFFE[::-1] / 255)
    (right,) = onnxruntime.InferenceSession(str(path)).run(None, {"pix": x.astype(np.float32)})
    assert np.allclose(net(pixels).logits[0, 0], right[0], atol=1e-4 * abs(right).max())


def test_nodes_may_stand_in_any_order(tmp_path: Path, pixels: Any) -> None:
    model = onnx.load(export(Net(), tmp_path / "net.onnx"))
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "other.onnx")
    found, right = (
        fcnconv.load(str(tmp_path / name), **NORMALISED)(pixels).logits for name in ("other.onnx", "net.onnx")
    )
    np.testing.assert_array_equal(found, right)


def quantised(path: Path, *, weights_alone: bool) -> Path:
    """The network with its first weights, or its image too, in whole numbers."""
    model = onnx.load(path)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(each for each in model.graph.initializer if each.name == conv.input[1])
    values = numpy_helper.to_array(weight)
    scale = abs(values).max((1, 2, 3)) / 127
    whole = np.round(values / scale[:, None, None, None]).astype(np.int8)
    model.graph.initializer.remove(weight)
    model.graph.initializer.extend(
        [numpy_helper.from_array(whole, "whole"), numpy_helper.from_array(scale, "scales")]
    )
    nodes = [helper.make_node("DequantizeLinear", ["whole", "scales"], [conv.input[1]], axis=0)]
    if not weights_alone:
        zero = numpy_helper.from_array(np.int8(0), "zero"), numpy_helper.from_array(np.float32(0.05), "step")
        model.graph.initializer.extend(zero)
        nodes.append(helper.make_node("Relu", [conv.input[0]], ["positive"]))
        nodes.append(helper.make_node("QuantizeLinear", ["positive", "step", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["dq"]))
        conv.input[0] = "dq"
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    onnx.save(model, path)
    return path


def test_a_quantised_graph_runs_on_windows(tmp_path: Path, pixels: Any) -> None:
    path = quantised(export(Net(), tmp_path / "net.onnx"), weights_alone=False)
    with pytest.raises(ConversionError, match=r"the graph is quantised .*windows"):
        fcnconv.load(str(path), **NORMALISED)
    assert fcnconv.load(str(path), mode="windows", **NORMALISED)(pixels).logits.shape == (1, 1, 5)


def test_weights_of_whole_numbers_convert(tmp_path: Path, pixels: Any) -> None:
    path = quantised(export(Net(), tmp_path / "net.onnx"), weights_alone=True)
    found, right = (
        fcnconv.load(str(path), mode=mode, **NORMALISED)(pixels).logits for mode in ("fcn", "windows")
    )
    assert np.allclose(found, right, atol=1e-4 * abs(right).max())


class NormalisedHead(nn.Module):
    """A layer normalisation between the mean and the head, as in exports of ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.fc = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.norm(F.gelu(self.stem(x)).mean((2, 3))))
        return logits


def test_a_normalised_head_has_a_plan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fcnconv")
    fcnconv.load(str(export(NormalisedHead(), tmp_path / "net.onnx")), **NORMALISED)
    assert "running with torch" not in caplog.text and "prepared in" in caplog.text


class Bodies(nn.Module):
    """A classifier whose body, or pooled features, pass through a function."""

    def __init__(self, body: Any = None, head: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.groups, self.neighbours = nn.GroupNorm(2, 8), nn.Conv1d(1, 1, 3, padding=1)
        self.body, self.head = body, head
        self.groups.weight.data.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = (self.body(self, x) if self.body else x).mean((2, 3))
        logits: torch.Tensor = self.fc(self.head(self, x) if self.head else x)
        return logits


def _gated(net: Bodies, x: torch.Tensor) -> torch.Tensor:
    gate = net.neighbours(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
    return x * gate.view(x.shape[0], -1, 1, 1).expand_as(x)


@pytest.mark.parametrize(
    ("operations", "local", "body", "head"),
    [
        ("ReduceL2 Expand", True, lambda net, x: F.normalize(x, dim=1), None),
        ("ReduceL2", True, None, lambda net, x: F.normalize(x)),
        ("ReduceL1", True, lambda net, x: x / x.norm(p=1, dim=1, keepdim=True), None),
        ("ReduceL2", False, lambda net, x: x * x.norm(p=2, dim=(2, 3), keepdim=True), None),
        ("InstanceNormalization", False, lambda net, x: net.groups(x), None),
        ("Erf", True, lambda net, x: F.gelu(x), None),
        ("Where Greater", True, lambda net, x: torch.where(x > 0, x, 0.1 * x), None),
        ("Resize", True, lambda net, x: F.avg_pool2d(F.interpolate(x, scale_factor=2.0), 2), None),
        ("Conv Expand", False, _gated, None),
    ],
)
def test_operations_of_timms_networks(
    operations: str, local: bool, body: Any, head: Any, tmp_path: Path
) -> None:
    net = Bodies(body, head)
    path = export(net, tmp_path / "net.onnx", opset_version=13)
    assert set(operations.split()) <= {node.op_type for node in onnx.load(path).graph.node}
    x = torch.randn(2, 3, WINDOW, WINDOW)
    read = find_model(str(path), OwnModel(**NORMALISED)).build(path)
    torch.testing.assert_close(read(x), net(x), atol=1e-4, rtol=1e-4)
    assert convolutionize(read, WINDOW).geometry.local is local


def _with_token(net: Bodies, x: torch.Tensor) -> torch.Tensor:
    token = torch.ones(1, 8, 1, 1).expand(x.shape[0], 8, 1, 8)
    return torch.cat([token, x], 2)


def test_a_graph_of_single_images_is_refused(tmp_path: Path) -> None:
    path = export(Bodies(_with_token), tmp_path / "net.onnx", opset_version=13)
    with pytest.raises(ConversionError, match=r"valid for 1 image at a time only .*windows"):
        fcnconv.load(str(path), **NORMALISED)


@pytest.mark.parametrize(
    "operation",
    [
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="DCR"),
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD"),
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2),
        helper.make_node("LpNormalization", ["x"], ["y"], axis=1, p=1),
        helper.make_node("InstanceNormalization", ["x", "scales", "means"], ["y"]),
        helper.make_node("ReduceSumSquare", ["x"], ["y"], axes=[1]),
        helper.make_node("Einsum", ["x", "mix"], ["y"], equation="nchw,dc->ndhw"),
        helper.make_node(
            "Resize",
            ["x", "roi", "twice"],
            ["y"],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
    ],
    ids=lambda node: node.op_type,
)
def test_operations_of_other_exporters(operation: onnx.NodeProto, tmp_path: Path) -> None:
    import onnxruntime

    random = np.random.default_rng(0)
    weights = {
        "scales": random.random(12, np.float32),
        "means": random.random(12, np.float32),
        "mix": random.random((12, 12), np.float32),
        "roi": np.array([], np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "fc": random.random((48, 5), np.float32),
        "k": random.standard_normal((12, 3, 1, 1), np.float32),
        "cut": np.array([48]),
        "row": np.array([1, -1]),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "k"], ["x"]),
        operation,
        helper.make_node("Reshape", ["y", "row"], ["flat"]),
        helper.make_node("Slice", ["flat", "zero", "cut", "one"], ["few"]),
        helper.make_node("Slice", ["fc", "zero", "cut", "zero"], ["weight"]),
        helper.make_node("MatMul", ["few", "weight"], ["scores"]),
    ]
    weights |= {"zero": np.array([0]), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)
    x = random.standard_normal((1, 3, 8, 8), np.float32)
    (right,) = onnxruntime.InferenceSession(str(path)).run(None, {"pixels": x})
    read = find_model(str(path), OwnModel(**NORMALISED)).build(path)
    np.testing.assert_allclose(read(torch.from_numpy(x)), right, rtol=1e-4, atol=1e-4 * abs(right).max())
