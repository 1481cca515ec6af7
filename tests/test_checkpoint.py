"""Files of weights are data: what they hold is found, misfits are named, and what would run is refused."""

from __future__ import annotations

import argparse
import datetime
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fcnconv.errors import ModelError
from fcnconv.models import nearest
from fcnconv.models.architecture import WeightOptions
from fcnconv.models.checkpoint import modern_name, read_checkpoint, read_tensors, skeleton
from fcnconv.models.fitting import fill, fit
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


class Net(nn.Module):
    """A body and a head, by names as torchvision's."""

    def __init__(self, num_classes: int = 7, head: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = head or nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.bn(self.conv(x)).mean((2, 3)))
        return logits


def net(head: nn.Module | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Net(head=head).eval()


def loaded(path: Path, **options: Any) -> nn.Module:
    """The network of a file, as an architecture builds it."""
    given = WeightOptions(**options)
    found = fit(Net, read_checkpoint(path, given.ema).tensors, str(path), "net", given)
    return fill(found.network(Net), found.tensors, str(path))


def same(a: nn.Module, b: nn.Module) -> bool:
    torch.manual_seed(1)
    x = torch.randn(3, 3, 8, 8)
    return torch.allclose(a(x), b(x), atol=1e-6)


def prefixed(prefix: str, model: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m.state_dict(),
        lambda m: prefixed("module.", m),
        lambda m: prefixed("module._orig_mod.", m),
        lambda m: {"state_dict": prefixed("model.net.resnet.", m), "epoch": 3},
        lambda m: {"state_dict": prefixed("model.", m) | {"criterion.weight": torch.ones(7)}},
        lambda m: {"state_dict": prefixed("model.", m) | {"train_acc.tp": torch.ones(7)}},
        lambda m: AveragedModel(m).state_dict(),
        lambda m: {
            "model": {"state_dict": m.state_dict()},
            "optimizer": {"state": {0: {"exp_avg": torch.ones(9)}}},
        },
        lambda m: {"params": m.state_dict()},
        lambda m: {"anything": {"at": {"all": prefixed("a.b.", m)}}},
        lambda m: (3, m.state_dict()),
        lambda m: {"model": m.state_dict(), "args": argparse.Namespace(lr=0.1), "best": np.float64(91.2)},
        lambda m: {"model": m.state_dict(), "at": Path("runs"), "when": datetime.datetime(2026, 1, 1)},
        lambda m: {
            name: nn.Parameter(t) if t.is_floating_point() else t for name, t in m.state_dict().items()
        },
        lambda m: {name: t for name, t in m.state_dict().items() if "num_batches" not in name},
    ],
)
def test_nestings_and_prefixes_of_any_name(tmp_path: Path, wrap: Callable[[nn.Module], object]) -> None:
    torch.save(wrap(net()), tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), net())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: {"state_dict": b.state_dict(), "state_dict_ema": a.state_dict()},
        lambda a, b: {"model": b.state_dict(), "model_ema": AveragedModel(a).state_dict()},
        lambda a, b: {"state_dict": prefixed("model.", b) | prefixed("ema_model.module.", a)},
    ],
)
def test_averaged_weights_are_taken_and_told(
    tmp_path: Path, wrap: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    averaged, plain = net(), net(seed=5)
    torch.save(wrap(averaged, plain), tmp_path / "w.pth")
    with caplog.at_level("INFO", "fcnconv"):
        assert same(loaded(tmp_path / "w.pth"), averaged)
    assert "using the averaged weights" in caplog.text
    assert same(loaded(tmp_path / "w.pth", ema=True), averaged)
    assert same(loaded(tmp_path / "w.pth", ema=False), plain)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ModelError, match="no averaged weights; leave out --ema"):
        loaded(tmp_path / "plain.pth", ema=True)


def test_of_two_networks_none_is_guessed(tmp_path: Path) -> None:
    torch.save(prefixed("student.", net()) | prefixed("teacher.", net(seed=2)), tmp_path / "flat.pth")
    with pytest.raises(ModelError, match=r"several networks, under 'student\.' and 'teacher\.'"):
        loaded(tmp_path / "flat.pth")
    torch.save({"first": net().state_dict(), "second": net(seed=2).state_dict()}, tmp_path / "two.pth")
    with pytest.raises(ModelError, match="several state dicts, under 'first' and 'second'"):
        loaded(tmp_path / "two.pth")


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Dropout(), nn.Linear(4, 5)),
        nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 5, bias=False)),
        nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)),
        nn.Linear(4, 5, bias=False),
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)),
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)),
    ],
)
def test_a_head_is_built_from_its_tensors(tmp_path: Path, head: nn.Module) -> None:
    model = net(head)
    torch.save(prefixed("model.", model), tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), model)


def test_a_head_beside_the_body(tmp_path: Path) -> None:
    model = net()
    state = {f"backbone.{name}": value for name, value in model.state_dict().items() if "fc" not in name}
    state |= {f"out.{name}": value for name, value in model.fc.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"), model)
    torch.save({name: value for name, value in state.items() if "backbone" in name}, tmp_path / "none.pth")
    with pytest.raises(ModelError, match=r"has the body of net and no head \(fc\.weight or fc\.bias\)"):
        loaded(tmp_path / "none.pth")


def test_a_head_in_several_modules_is_asked_for(tmp_path: Path) -> None:
    state = prefixed("backbone.", nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)}))
    state |= prefixed("neck.", nn.Linear(4, 6)) | prefixed("head.", nn.Linear(6, 5))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"next to it, neck, head; .*model\.fc = nn"):
        loaded(tmp_path / "w.pth")


def test_an_activation_that_no_file_tells_is_asked_for(tmp_path: Path) -> None:
    model = net(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(), nn.Linear(6, 5)))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        ModelError, match=r"between fc\.0 and fc\.3\..*--head-activation.*nn\.Linear\(4, 6\), nn\."
    ):
        loaded(tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth", head_activation="tanh"), model)
    assert not same(loaded(tmp_path / "w.pth", head_activation="relu"), model)


def test_layers_that_nobody_can_place_are_refused(tmp_path: Path) -> None:
    torch.save(prefixed("net.", net()) | {"attention.weight": torch.ones(4, 4)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"has more layers than net: attention\.weight"):
        loaded(tmp_path / "w.pth")
    named = net(nn.Sequential(OrderedDict(a=nn.Linear(4, 6), b=nn.ReLU(), c=nn.Linear(6, 5))))
    torch.save(named.state_dict(), tmp_path / "named.pth")
    with pytest.raises(ModelError, match="the order of a, c"):
        loaded(tmp_path / "named.pth")


def test_values_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    model = net()
    model.fc.weight.data[0, :2] = float("nan")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"2 of the 28 values of fc\.weight are NaN"):
        loaded(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "names",
    [
        {"class_to_idx": {"cat": 1, "ant": 0}},
        {"meta": {"classes": ["ant", "cat"]}},
        {"meta": {"CLASSES": ("ant", "cat")}},
        {"hyper_parameters": {"idx_to_class": {1: "cat", 0: "ant"}}},
    ],
)
def test_names_of_classes_in_the_file(tmp_path: Path, names: dict[str, object]) -> None:
    torch.save({"state_dict": net().state_dict()} | names, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").categories == ("ant", "cat")


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
    for name, kind in (("script.pt", "TorchScript"), ("exported.pt2", r"torch\.export")):
        with pytest.raises(ModelError, match=rf"refused: {kind} files contain code"):
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
    assert fit(make, skeleton(lambda: make(7)).state_dict(), "w.pth", arch).num_classes == 7


def test_the_nearest_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(arch: str) -> dict[str, torch.Tensor]:
        return dict(skeleton(partial(make_network, arch, 224, 7)).state_dict())

    known = {arch: nearest.signature(made(arch)) for arch in ("resnet18", "resnet34", "resnet50")}
    monkeypatch.setattr(nearest, "_known", lambda: known)
    tensors = {f"model.{name}": value for name, value in made("resnet34").items()}
    found = r"not the weights of resnet50: .* networks are resnet34 \(182 of its 182 tensors fit\), "
    with pytest.raises(ModelError, match=found):
        fit(partial(make_network, "resnet50", 224), tensors, "w.pth", "resnet50")


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
