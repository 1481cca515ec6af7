"""The table of models and its listing, which need no torch; finding one by name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import Command

from fcnconv.errors import UsageError
from fcnconv.models import find_model, list_models, models


def test_the_listing_has_every_model_once() -> None:
    listed = list_models()
    assert [spec.name for spec in listed][:2] == ["efficientnet_lite0", "alexnet"]
    weights = [spec.published and spec.published.weights for spec in listed]
    assert len(set(zip((spec.arch for spec in listed), weights, strict=True))) == len(listed)
    names = [spec.name for spec in listed if "." not in spec.name]
    assert len(names) == 81
    transformers = [spec.name for spec in listed if spec.mode == "windows"]
    assert {name.split("_")[0] for name in transformers} == {"vit", "swin", "maxvit"}
    assert len([name for name in transformers if "." not in name]) == 12
    assert list_models("RESNET50")[0].name == "resnet50"


def test_a_row_is_what_the_model_is(lite0: object) -> None:
    from fcnconv.api.classifier import Classifier

    assert isinstance(lite0, Classifier)
    (row,) = list_models("lite0")
    geometry, facts = lite0.geometry, row.published
    assert facts is not None
    assert (facts.stride, facts.receptive_field) == (geometry.stride, geometry.receptive_field)
    assert (facts.local, row.window, facts.on_disk()) == (geometry.local, geometry.window, True)
    spec = find_model(row.name)
    assert facts.parameters == sum(p.numel() for p in spec.build(spec.weights()).parameters())


def test_every_row_names_a_model_that_can_be_found() -> None:
    for spec in list_models():
        assert find_model(spec.name).name == spec.name


def test_names() -> None:
    assert find_model("resnet50").published is models()["resnet50.IMAGENET1K_V2"].published
    assert find_model("resnet50.IMAGENET1K_V1").eval_size == 256
    assert find_model("regnet_y_128gf").window == 384
    with pytest.raises(UsageError, match="resnet50 has no weights 'V3'; known: IMAGENET1K_V2, IMAGENET1K_V1"):
        find_model("resnet50.V3")
    with pytest.raises(UsageError, match="vgg16 has no weights 'IMAGENET1K_FEATURES'; known: IMAGENET1K_V1"):
        find_model("vgg16.IMAGENET1K_FEATURES")
    with pytest.raises(
        UsageError, match=r"unknown model 'resnet5'; did you mean 'resnet50'.*'fcnconv models'"
    ):
        find_model("resnet5")


def test_finding_a_model_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from fcnconv.models import find_model, list_models; "
        "find_model('resnet50'); list_models(); print({'torch', 'torchvision', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_command(fcnconv: Command) -> None:
    done = fcnconv("models", "squeezenet", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["name"], first["stride"], second["receptive_field"]) == ("squeezenet1_0", 16, 207)
    assert fcnconv("models", "lite0").stdout.split(b"\t")[:3] == [b"efficientnet_lite0", b"embedded", b"4.7M"]
    done = fcnconv("models", "nothing-like-it")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no model's name contains 'nothing-like-it'" in done.stderr
