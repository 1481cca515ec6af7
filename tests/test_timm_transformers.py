"""Vision transformers of timm, by name, folder and hub: in `windows` mode unasked, compared with timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from PIL import Image

from fcnconv.api.loading import load
from fcnconv.errors import ConversionError
from fcnconv.models import find_model

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")

SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 1, "embed_dim": 48},
    "deit_tiny_distilled_patch16_224": {"depth": 1, "embed_dim": 48},
    "deit3_small_patch16_224": {"depth": 1, "embed_dim": 48, "num_heads": 3},
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 48, "num_heads": 3},
    "eva02_tiny_patch14_224": {"depth": 1, "embed_dim": 48, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"depths": [1, 1], "embed_dim": 24, "num_heads": [3, 3]},
    "swinv2_tiny_window8_256": {"depths": [1, 1], "embed_dim": 24, "num_heads": [3, 3]},
    "cait_xxs24_224": {"depth": 1, "embed_dim": 48, "num_heads": 4},
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def network(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, exportable=True, **arguments).eval()
    for parameter in model.parameters():  # their own heads begin at 0, and their layers' scales near it
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def tile(window: int) -> np.ndarray:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").resize((window, window)))


def expected(model: Any, window: int, mean: list[float], std: list[float]) -> np.ndarray:
    x = (tile(window) / 255 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        found: np.ndarray = model(torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None])[0].numpy()
    return found


@pytest.mark.parametrize("name", SMALL)
def test_a_folder(name: str, tmp_path: Path) -> None:
    window = 70 if "patch14" in name else 64
    arguments = SMALL[name]
    model = network(name, img_size=window, **arguments)
    safetensors.save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    used = {"input_size": [3, window, window], "mean": MEAN, "std": STD, "crop_pct": 0.9}
    config = {"architecture": name, "num_classes": 4, "model_args": arguments, "pretrained_cfg": used}
    (tmp_path / "config.json").write_text(json.dumps(config))
    classifier = load(str(tmp_path))
    assert classifier.provenance.mode == "windows"
    found, oracle = classifier(tile(window)).logits[0, 0], expected(model, window, MEAN, STD)
    assert np.ptp(oracle) > 1e-3
    np.testing.assert_allclose(found, oracle, atol=1e-4 * abs(oracle).max())


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "hf-hub:user/vit"])
def test_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    torch.manual_seed(0)
    model = timm.create_model(arch, exportable=True).eval()
    torch.nn.init.normal_(model.head.weight)
    safetensors.save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": arch.partition(".")[0], "pretrained_cfg": dict(model.pretrained_cfg)}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def from_hub(repository: str, revision: str, filename: str) -> Path | None:
        return tmp_path / filename if (tmp_path / filename).is_file() else None

    monkeypatch.setattr("fcnconv.models.timm.hub_file", from_hub)
    monkeypatch.setattr("fcnconv.models.hub.hub_file", from_hub)
    spec = find_model(name)
    assert (spec.mode, spec.window, spec.mean) == ("windows", 224, (0.5, 0.5, 0.5))
    with pytest.raises(ConversionError, match=r'no fully convolutional form.*mode="windows"'):
        load(name, mode="fcn")
    found = load(name)(tile(224)).logits[0, 0]
    oracle = expected(model, 224, [0.5] * 3, [0.5] * 3)
    np.testing.assert_allclose(found, oracle, atol=1e-4 * abs(oracle).max())
