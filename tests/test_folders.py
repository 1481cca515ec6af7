"""Models as they are shared: folders and repositories of timm, transformers and WSInfer, against the networks
of these libraries themselves.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command, needs_hub, needs_timm
from ordinary import ordinary
from PIL import Image
from torch import nn

from fcnconv.api.loading import load
from fcnconv.errors import ModelError, UsageError
from fcnconv.models import OwnModel, find_model

safetensors = pytest.importorskip("safetensors.torch")
NAMES = ["oak", "ash", "elm", "fir"]


def tile(window: int) -> np.ndarray:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").resize((window, window)))


def logits(folder: Path | str, window: int, **own: Any) -> np.ndarray:
    """What fcnconv answers for a tile of the native size."""
    classifier = load(str(folder), anchors=0, **own) if "anchors" in own else load(str(folder), **own)
    return classifier(tile(window)).logits[0, 0]


def expected(network: nn.Module, window: int, mean: list[float], std: list[float]) -> np.ndarray:
    x = torch.from_numpy(tile(window).astype(np.float32) / 255).permute(2, 0, 1)
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        y = network.eval()(x[None])
    found: np.ndarray = getattr(y, "logits", y)[0].numpy()
    return found


def close(found: np.ndarray, oracle: np.ndarray) -> bool:
    return bool(np.abs(found - oracle).max() <= 1e-4 * np.abs(oracle).max() and np.ptp(oracle) > 1e-3)


@pytest.fixture
def timm_folder(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A network of timm's with an argument of its own, as its hub has it."""
    timm = pytest.importorskip("timm")
    network = ordinary(timm.create_model("resnet10t", num_classes=4, stem_width=16), 64)
    folder = tmp_path / "trees"
    folder.mkdir()
    safetensors.save_file(network.state_dict(), folder / "model.safetensors")
    used = {"input_size": [3, 64, 64], "crop_pct": 0.875, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    config = {
        "architecture": "resnet10t",
        "model_type": "timm_wrapper",
        "num_classes": 4,
        "model_args": {"stem_width": 16},
        "label_names": ["o", "a", "e", "f"],
        "label_descriptions": dict(zip("oaef", NAMES, strict=True)),
        "pretrained_cfg": used,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, network


@pytest.mark.parametrize("name", ["{}", "local-dir:{}"])
def test_a_folder_of_timms(name: str, timm_folder: tuple[Path, nn.Module]) -> None:
    folder, network = timm_folder
    spec = find_model(name.format(folder))
    assert (spec.window, spec.eval_size, spec.labels().categories) == (64, 73, tuple(NAMES))
    oracle = expected(network, 64, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    assert close(logits(name.format(folder), 64), oracle)


def test_what_is_said_goes_before_what_a_folder_tells(timm_folder: tuple[Path, nn.Module]) -> None:
    spec = find_model(str(timm_folder[0]), OwnModel(mean=(0, 0, 0), categories=("a", "b", "c", "d")))
    assert (spec.mean, spec.std) == ((0, 0, 0), (0.2, 0.25, 0.3)) and spec.labels().categories[0] == "a"


KINDS = ["resnet", "convnext", "regnet", "efficientnet", pytest.param("mobilenet_v1", marks=pytest.mark.slow)]


def small(kind: str) -> Any:
    """A small network of transformers'."""
    transformers = pytest.importorskip("transformers")
    sizes = {"num_labels": 4, "id2label": dict(enumerate(NAMES)), "depths": [1, 1, 1, 1]}
    return {
        "resnet": lambda: transformers.ResNetConfig(
            **sizes, hidden_sizes=[32, 48, 64, 96], embedding_size=16
        ),
        "convnext": lambda: transformers.ConvNextConfig(**sizes, hidden_sizes=[16, 24, 32, 48]),
        "regnet": lambda: transformers.RegNetConfig(
            **sizes, hidden_sizes=[16, 32, 48, 64], embedding_size=16, groups_width=8
        ),
        "mobilenet_v1": lambda: transformers.MobileNetV1Config(
            num_labels=4, id2label=dict(enumerate(NAMES)), depth_multiplier=0.25, image_size=64
        ),
        "efficientnet": lambda: transformers.EfficientNetConfig(
            num_labels=4,
            id2label=dict(enumerate(NAMES)),
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.3,
            hidden_dim=320,
        ),
    }[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.AutoModelForImageClassification.from_config(small(kind)).eval()

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):  # their own start is so small that nothing comes out
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x).logits

    ordinary(Logits(), 64)
    network.save_pretrained(tmp_path / "model")
    prepared = {
        "resnet": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
        "convnext": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
        "regnet": {"size": {"height": 64, "width": 64}},
        "mobilenet_v1": {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}},
        "efficientnet": {"size": {"height": 64, "width": 64}, "include_top": True},
    }[kind]
    mean, std = [0.4, 0.5, 0.6], [0.5, 0.6, 0.7]
    record = {**prepared, "image_mean": mean, "image_std": std, "rescale_factor": 1 / 255}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(record))
    spec = find_model(str(tmp_path / "model"))
    eval_size = 73 if "crop_pct" in prepared or "crop_size" in prepared else 64
    assert (spec.window, spec.eval_size, spec.labels().categories) == (64, eval_size, tuple(NAMES))
    if "include_top" in prepared:
        std = [value**2 for value in std]
    assert close(logits(tmp_path / "model", 64), expected(network, 64, mean, std))


def test_a_rescaling_of_its_own_is_followed(tmp_path: Path) -> None:
    from fcnconv.models.transformers import preparation

    config = {
        "size": 64,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.5],
    }
    own = preparation(config, None, "")
    value = np.array([0.25, 0.5, 1.0])
    theirs = ((255 * value / 127.5 - 1) - [0.1, 0.2, 0.3]) / 0.5
    assert own.mean is not None and np.allclose((value - own.mean) / np.array(own.std), theirs)
    with pytest.raises(ModelError, match="blue before red"):
        preparation(config | {"do_flip_channel_order": True}, None, "p.json")


def wsinfer_config(**changed: Any) -> dict[str, Any]:
    return {
        "spec_version": "1.0",
        "architecture": "squeezenet1_1",
        "num_classes": 4,
        "class_names": NAMES,
        "patch_size_pixels": 128,
        "spacing_um_px": 0.25,
        "transform": [
            {"name": "Resize", "arguments": {"size": 64}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}},
        ],
    } | changed


def test_a_folder_of_wsinfers(tmp_path: Path) -> None:
    import torchvision

    network = ordinary(torchvision.models.squeezenet1_1(num_classes=4), 64)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(wsinfer_config()))
    spec = find_model(str(tmp_path))
    assert (spec.window, spec.pixel_size) == (64, pytest.approx(0.5e-6))
    found = load(str(tmp_path), image_mpp=0.5)(tile(64)).logits[0, 0]
    assert close(found, expected(network, 64, [0.7, 0.6, 0.7], [0.2, 0.2, 0.2]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"model: no such folder"),
        ({}, "unknown kind of model"),
        ([], "expected a JSON object, not a list"),
        (
            wsinfer_config(transform=[{"name": "Jitter"}]),
            "pass through Jitter, which fcnconv does not support",
        ),
        (wsinfer_config(class_names=4), "cannot be read as the kind of model that it describes"),
        (
            wsinfer_config(spacing_um_px=10**10, patch_size_pixels=[1]),
            "cannot be read as the kind of model that it describes",
        ),
        (
            wsinfer_config(spacing_um_px=[0.5], patch_size_pixels=10**10),
            "cannot be read as the kind of model",
        ),
        (wsinfer_config(), "has no file of weights, model.safetensors, pytorch_model.bin"),
        ({"model_type": "resnet"}, "has no preprocessor_config.json"),
        pytest.param(
            {"architecture": "resnet18", "pretrained_cfg": {"mean": 13 * [0.5], "std": 3 * [0.5]}},
            "mean has 13 channels, and std has 3",
            marks=needs_timm,
        ),
    ],
)
def test_a_folder_that_is_none_is_told(config: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if config is not None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((ModelError, UsageError), match=message):
        find_model(f"local-dir:{folder}").weights()


class Hub(BaseHTTPRequestHandler):
    """The hub's ``resolve`` addresses for one folder, as ``user/trees`` at the revision ``v1``."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.folder / self.path.rpartition("/")[2]
        known = self.path.startswith("/user/trees/resolve/v1/")
        found = known and path.is_file()
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", 40 * "a")
        self.send_header("ETag", f'"{path.name}-1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(timm_folder: tuple[Path, nn.Module], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of processes for which a hub is on this machine."""
    Hub.folder, Hub.asked = timm_folder[0], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        server.shutdown()


def test_a_repository_of_the_hub(fcnconv_process: Command, hub: dict[str, str]) -> None:
    name, photo = "hf-hub:user/trees@v1", str(SAMPLES / "coffee.png")
    first = fcnconv_process("classify", photo, "-m", name, "--json", **hub)
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert record["model"] == name and {p["category"] for p in record["predictions"]} == set(NAMES)
    assert any("model.safetensors" in line for line in Hub.asked)
    Hub.asked.clear()
    again = fcnconv_process("classify", photo, "-m", name, "--json", **hub)
    assert again.stdout == first.stdout and not Hub.asked


def test_what_the_hub_had_not_is_asked_for_again(
    hub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    code = "from fcnconv.models.hub import hub_file; print(hub_file('user/trees', 'v1', 'notes.txt'))"

    def asked() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | hub, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert asked() == "None"
    (Hub.folder / "notes.txt").write_text("new")
    assert Path(asked()).read_text() == "new"


def test_a_models_own_files_are_no_outputs(
    fcnconv: Command, timm_folder: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    folder, _ = timm_folder
    before = (folder / "config.json").read_bytes()
    for name in (str(folder), f"local-dir:{folder}"):
        done = fcnconv("heatmap", SAMPLES / "coffee.png", "-m", name, "-o", folder / "config.json")
        assert done.returncode == 2 and b"would replace its own input" in done.stderr, done.stderr
    assert (folder / "config.json").read_bytes() == before


def test_what_the_hub_has_not_is_told_in_a_line(fcnconv_process: Command, hub: dict[str, str]) -> None:
    for name, message, status in (
        ("hf-hub:user/shrubs", b"the hub has no such repository", 1),
        ("hf-hub:trees", b"names no repository; write hf-hub:USER/REPO", 2),
    ):
        done = fcnconv_process("classify", SAMPLES / "coffee.png", "-m", name, **hub)
        assert done.returncode == status and message in done.stderr and done.stderr.count(b"\n") == 1, (
            done.stderr
        )


@needs_hub
def test_without_a_network_the_hub_is_given_up_at_once(fcnconv_process: Command, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = fcnconv_process(
        "classify",
        SAMPLES / "coffee.png",
        "-m",
        "hf-hub:user/trees",
        HF_ENDPOINT=endpoint,
        HF_HOME=str(tmp_path),
    )
    assert done.returncode != 0 and done.stderr.count(b"\n") == 1
    assert b"the hub cannot be reached (Connection refused); put its files in a folder" in done.stderr


@pytest.mark.parametrize("kind", ["vit", "swin", "dinov2"])
def test_a_transformer_runs_on_windows(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_labels": 3}
    if kind == "swin":
        sizes |= {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    else:
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {} if kind == "dinov2" else {"intermediate_size": 32}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json.*--window, --mean and --std"):
        load(str(tmp_path), mode="windows")
    told = load(str(tmp_path), mode="windows", mean=(0.5,) * 3, std=(0.25,) * 3)
    prepared = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    net = load(str(tmp_path), mode="windows")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    with torch.no_grad():
        right = model(x).logits[0].numpy()
    assert np.allclose(net(pixels).logits[0, 0], right, atol=1e-4)
    assert np.allclose(told(pixels).logits[0, 0], right, atol=1e-4)
