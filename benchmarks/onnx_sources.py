"""Prints the table of ONNX files: networks exported by torch, then read, converted and compared.

Random weights whose logits differ from image to image take the place of published ones, which need a
download. Each network is exported once, by either of torch's exporters at some opset. The probabilities
of its plan are compared with those of the module that it came from, on eight images. Seconds are
processor time, with one thread (OMP_NUM_THREADS=1), from the ONNX file to the finished plan. The spread
is the largest standard deviation of a probability over the images: it shows that the networks answer
differently for different images.

    python benchmarks/onnx_sources.py                    # torchvision, a few minutes
    python benchmarks/onnx_sources.py timm               # timm
    python benchmarks/onnx_sources.py resnet18 timm/resnet10t
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from ordinary import images, ordinary  # noqa: E402

from fcnconv.api.loading import load  # noqa: E402
from fcnconv.errors import FcnconvError  # noqa: E402
from fcnconv.models.torchvision import make_network  # noqa: E402
from fcnconv.system.records import cache_path  # noqa: E402

WINDOW, CLASSES = 96, 20
TORCHVISION = (
    ("resnet18", 11),
    ("mobilenet_v2", 13),
    ("mnasnet1_0", 17),
    ("efficientnet_b0", 18),
    ("mobilenet_v3_small", 12),
    ("shufflenet_v2_x1_0", 16),
    ("squeezenet1_1", 14),
    ("densenet121", 15),
    ("regnet_y_400mf", 20),
    ("convnext_tiny", 21),
    ("googlenet", 19),
    ("resnext50_32x4d", 18),
)
"""Networks, and the opset that each is exported with."""

TIMM = (
    ("resnet10t", 11),
    ("convnext_atto", 13),
    ("efficientnet_lite0", 14),
    ("tf_mobilenetv3_small_minimal_100", 15),
    ("regnetx_002", 16),
    ("repvgg_a0", 17),
    ("mobilenetv4_conv_small_035", 18),
    ("ghostnet_050", 19),
    ("resnest14d", 20),
    ("edgenext_xx_small", 21),
    ("hardcorenas_a", 18),
    ("lcnet_050", 12),
    ("res2net50_26w_4s", 18),
    ("ese_vovnet19b_slim", 18),
    ("starnet_s050", 18),
    ("convnextv2_atto", 17),
    ("poolformer_s12", 18),
    ("hrnet_w18_small", 13),
)
DYNAMO = 18
"""From this opset on the newer of torch's two exporters is used, which writes no older ones."""


def network(name: str) -> nn.Module:
    """A network with random weights, whose logits are of ordinary size and depend on the image."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        model: nn.Module = timm.create_model(name.removeprefix("timm/"), num_classes=CLASSES, exportable=True)
    else:
        model = make_network(name, WINDOW, CLASSES)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
            if type(layer).__name__ == "CNBlock":
                layer.layer_scale.fill_(0.5)
    model = ordinary(model, WINDOW)
    last = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))][-1]
    with torch.no_grad():
        spread = model(images(8, WINDOW, WINDOW)).std(0).mean()
        last.weight *= 1.5 / spread  # as much as classes of a trained network differ from image to image
    return model


def export(model: nn.Module, path: Path, opset: int) -> None:
    """Writes the network as an ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = {"dynamo": True, "verbose": False} if opset >= DYNAMO else {"dynamo": False}
        torch.onnx.export(model, (torch.zeros(1, 3, WINDOW, WINDOW),), str(path), opset_version=opset, **more)


def row(name: str, opset: int, folder: Path) -> tuple[str, ...]:
    """The table's row of one network."""
    exporter = "new" if opset >= DYNAMO else "old"
    model, path = network(name), folder / f"{name.replace('/', '_')}.onnx"
    export(model, path, opset)
    since, before = time.process_time(), set(cache_path().rglob("*.onnx"))
    try:
        classifier = load(str(path), mean=(0.5,) * 3, std=(0.25,) * 3)
    except FcnconvError as error:
        return name, exporter, str(opset), f"no: {error}", "", "", ""
    seconds = time.process_time() - since
    (plan,) = set(cache_path().rglob("*.onnx")) - before
    x = images(8, WINDOW, WINDOW, seed=2)
    with torch.no_grad():
        oracle = model(x).softmax(1)
    found = torch.from_numpy(classifier.run(x.numpy())[:, :, 0, 0]).softmax(1)
    return (
        name,
        exporter,
        str(opset),
        f"{seconds:.1f}",
        f"{plan.stat().st_size / 1e6:.1f}",
        f"{float((found - oracle).abs().max()):.0e}",
        f"{float(oracle.std(0).max()):.2f}",
    )


def main() -> None:
    """Prints the table in Markdown, a row as soon as it is there."""
    table = {name: opset for name, opset in TORCHVISION} | {f"timm/{name}": opset for name, opset in TIMM}
    asked = sys.argv[1:] or [name for name, _ in TORCHVISION]
    names = [name for name in table if name.startswith("timm/")] if asked == ["timm"] else asked
    columns = "network, exporter, opset, seconds, plan (MB), largest difference of a probability, spread"
    print("|", columns.replace(", ", " | "), "|\n" + "|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name in names:
            print("|", " | ".join(row(name, table[name], Path(folder))), "|", flush=True)


if __name__ == "__main__":
    main()
