"""The ways to a dense map of one network, ours and others', each prepared once and run on the same pixels.

Every function gives the work of one round on a normalised image (1, 3, size, size). Peers that score crops do
a part of them, `CROPS` at most, and say which share of all it was.
"""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
from side_by_side import Work

from fcnconv.models import find_model
from fcnconv.options import Precision

WINDOW, STRIDE, BATCH, CROPS = 224, 32, 32, 64


def fcnconv_plan(size: int) -> Work:
    """Ours: the plan, as `classify` and `heatmap` run it."""
    from fcnconv import load

    run, x = load(backend="onnx").run, pixels(size)
    return Work(lambda: run(x))


def fcnconv_openvino(size: int, precision: Precision) -> Work:
    """Ours in OpenVINO, from the same plan."""
    from fcnconv import load

    run, x = load(backend="openvino", precision=precision).run, pixels(size)
    return Work(lambda: run(x))


def fcnconv_torch(size: int) -> Work:
    """Ours on torch: converted, batch normalisation folded, channels last."""
    from fcnconv import load

    run, x = load(backend="torch", device="cpu").run, pixels(size)
    return Work(lambda: run(x))


def plain_torch(size: int) -> Work:
    """What one writes by hand: the linear layer as a 1 × 1 convolution after a sliding average."""
    import torch

    model, x = converted_by_hand(), torch.from_numpy(pixels(size))
    return Work(torch.inference_mode()(lambda: model(x)))


def plain_onnxruntime(size: int) -> Work:
    """The same network through torch's default ONNX exporter, with any height and width, on ONNX Runtime."""
    import onnxruntime
    import torch

    file, dynamic = io.BytesIO(), torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(1, 3, 256, 288)
        shapes = ({2: dynamic, 3: dynamic},)
        program = torch.onnx.export(
            converted_by_hand(), (example,), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name, x = session.get_inputs()[0].name, pixels(size)
    return Work(lambda: session.run(None, {name: x}))


def plain_openvino(size: int, precision: Precision, *, fixed: bool = False) -> Work:
    """The network converted by hand, from torch's exporter, in OpenVINO with its own hint for latency.

    fixed: made for this size of image alone, as OpenVINO prefers.
    """
    import openvino
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            converted_by_hand(),
            (torch.zeros(1, 3, 256, 288),),
            file,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {2: "height", 3: "width"}},
        )
    core = openvino.Core()
    model, x = core.read_model(file.getvalue()), pixels(size)
    if fixed:
        model.reshape(list(x.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return Work(lambda: request.infer({0: x}, share_inputs=True, share_outputs=True))


def timm_test_time_pool(size: int) -> Work:
    """timm's TestTimePoolHead, which slides the pooling window and then averages the map away."""
    import torch
    from timm.layers.test_time_pool import TestTimePoolHead

    model = TestTimePoolHead(timm_lite0(), original_pool=WINDOW // STRIDE).eval()
    x = torch.from_numpy(pixels(size))
    return Work(torch.inference_mode()(lambda: model(x)))


def crops_onnxruntime(size: int) -> Work:
    """The classifier on every crop, `BATCH` at a time, on ONNX Runtime."""
    from fcnconv import load

    run, (x, share) = load(mode="windows", backend="onnx").run, some_rows(size)
    return Work(lambda: run(x), share)


def crops_torch(size: int, batch: int = BATCH) -> Work:
    """The classifier on every crop, on torch, as written."""
    import torch

    model, (x, share) = classifier(), some_rows(size)
    views = torch.from_numpy(x).unfold(2, WINDOW, STRIDE).unfold(3, WINDOW, STRIDE)[0]
    crops = views.permute(1, 2, 0, 3, 4).flatten(0, 1)

    def do() -> None:
        for start in range(0, len(crops), batch):
            model(crops[start : start + batch].contiguous())

    return Work(torch.inference_mode()(do), share)


def monai_inferer(size: int) -> Work:
    """MONAI's SlidingWindowInferer around the classifier, for the map of one class."""
    import torch
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(WINDOW, sw_batch_size=BATCH, overlap=1 - STRIDE / WINDOW)
    model, (x, share) = classifier(), some_rows(size)

    def score(crops: torch.Tensor) -> torch.Tensor:
        return model(crops)[:, :1, None, None].repeat(1, 1, WINDOW, WINDOW)

    return Work(torch.inference_mode()(lambda: inferer(torch.from_numpy(x), score)), share)


def pixels(size: int) -> np.ndarray:
    """float32 (1, 3, size, size): noise of the size of normalised pixels."""
    return np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)


def some_rows(size: int) -> tuple[np.ndarray, float]:
    """The top of the image, whole rows of `CROPS` windows at most, and its share of all windows."""
    side = (size - WINDOW) // STRIDE + 1
    rows = max(min(CROPS // side, side), 1)
    return np.ascontiguousarray(pixels(size)[:, :, : WINDOW + (rows - 1) * STRIDE]), rows / side


def classifier():  # type: ignore[no-untyped-def]
    """EfficientNet-Lite0 in torch, as written."""
    spec = find_model("efficientnet_lite0")
    return spec.build(spec.weights()).eval()


def converted_by_hand():  # type: ignore[no-untyped-def]
    """The classifier with its head made convolutional, and nothing else done."""
    from torch import nn

    model = classifier()
    linear = model.classifier
    head = nn.Conv2d(linear.in_features, linear.out_features, 1)
    head.weight.data, head.bias.data = linear.weight.data[:, :, None, None], linear.bias.data
    return nn.Sequential(copy.deepcopy(model.features), nn.AvgPool2d(WINDOW // STRIDE, 1), head).eval()


def timm_lite0():  # type: ignore[no-untyped-def]
    """timm's own EfficientNet-Lite0 with the same weights."""
    import timm
    import torch

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = torch.load(find_model("efficientnet_lite0").weights(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    return model.eval()
