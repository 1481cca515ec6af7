"""Files of weights are data: what they hold is found, misfits are named, and what would run is refused."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fcnconv.errors import ModelError
from fcnconv.models.checkpoint import count_classes, fill, modern_name, read_tensors, skeleton
from fcnconv.models.torchvision import make_network


def small(num_classes: int = 7) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    )


class Payload:
    """A pickle of it makes a folder when it is loaded by an unrestricted unpickler."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, ""),
        (None, "module."),
        (None, "_orig_mod.module."),
        (None, "backbone."),
        ("state_dict", "model."),
        ("model", ""),
        ("model_state_dict", "module."),
    ],
)
def test_wrappers_and_prefixes(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    model = small()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    tensors = read_tensors(tmp_path / "w.pth")
    assert list(tensors) == list(model.state_dict())
    filled = fill(skeleton(small), tensors, "w.pth")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(filled(x), model.eval()(x))


def test_a_model_that_calls_a_part_of_itself_model_keeps_its_names(tmp_path: Path) -> None:
    torch.save({"model.0.weight": torch.ones(1), "head.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_tensors(tmp_path / "w.pt")) == ["model.0.weight", "head.weight"]


def test_safetensors_and_half_precision(tmp_path: Path) -> None:
    model = small()
    save_file(
        {name: tensor.half() for name, tensor in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    filled = fill(skeleton(small), read_tensors(tmp_path / "w.safetensors"), "w")
    assert {p.dtype for p in filled.parameters()} == {torch.float32}
    torch.testing.assert_close(filled[0].weight, model[0].weight, atol=1e-3, rtol=0, check_dtype=True)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"state_dict": small().state_dict(), "extra": Payload(made)}, tmp_path / "evil.pth")
    with pytest.raises(
        ModelError, match=r"evil\.pth: refused: .*run code .*mkdir.*save model\.state_dict\(\)"
    ):
        read_tensors(tmp_path / "evil.pth")
    assert not made.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)  # the payload works: what refused it was the reader
    assert made.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match=r"refused: .*save model\.state_dict\(\)"):
        read_tensors(tmp_path / "whole.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_are_refused(tmp_path: Path) -> None:
    example = torch.randn(1, 3, 8, 8)
    torch.jit.trace(small().eval(), example).save(tmp_path / "script.pt")
    torch.export.save(torch.export.export(small().eval(), (example,)), tmp_path / "exported.pt2")
    for name in ("script.pt", "exported.pt2"):
        with pytest.raises(ModelError, match=r"refused: TorchScript and torch\.export files are programs"):
            read_tensors(tmp_path / name)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello, this is no header")
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"text\.pth"):
        read_tensors(tmp_path / "text.pth")
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_tensors(tmp_path / "text.safetensors")
    with pytest.raises(ModelError, match=r"no state dict in it \(it has 'epoch', 'optimizer'\)"):
        read_tensors(tmp_path / "other.pth")
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "none.pth")


def test_misfits_are_named(tmp_path: Path) -> None:
    tensors = dict(small().state_dict())
    tensors["1.gamma"] = tensors.pop("1.weight")
    tensors["4.weight"] = torch.zeros(7, 5)
    with pytest.raises(
        ModelError, match=r"1\.weight is missing; 1\.gamma is unknown; 4\.weight is 7 × 5, not 7 × 4"
    ):
        fill(skeleton(small), tensors, "w.pth")
    many = {f"layer{i}.weight": torch.zeros(1) for i in range(20)}
    with pytest.raises(ModelError, match=r"0\.weight is missing; (.*; ){3}.* and 23 more"):
        fill(skeleton(small), many, "w.pth")


@pytest.mark.parametrize(
    "arch", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "vgg11", "vit_b_32", "regnet_x_400mf"]
)
def test_number_of_classes_comes_from_the_head(arch: str) -> None:
    make = partial(make_network, arch, 224)
    tensors = skeleton(lambda: make(7)).state_dict()
    assert count_classes(make, tensors, "w.pth") == 7
    with pytest.raises(ModelError, match=r"these weights are not of this architecture"):
        count_classes(make, {"conv.weight": torch.zeros(1)}, "w.pth")


@pytest.mark.parametrize("arch", ["mnasnet0_5", "shufflenet_v2_x0_5", "googlenet"])
def test_a_skeleton_becomes_the_same_network(arch: str) -> None:
    torch.manual_seed(0)
    model = make_network(arch, 224)
    filled = fill(skeleton(partial(make_network, arch, 224)), dict(model.state_dict()), "w.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(filled(x), model(x))


def test_published_densenets_have_older_names() -> None:
    old = "features.denseblock1.denselayer2.norm.1.running_mean"
    assert modern_name(old) == "features.denseblock1.denselayer2.norm1.running_mean"
    today = set(skeleton(partial(make_network, "densenet121", 224)).state_dict())
    assert modern_name(old) in today
    assert all(modern_name(name) == name for name in today)
