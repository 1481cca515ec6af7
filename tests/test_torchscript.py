"""TorchScript files: nothing in them runs unasked; once allowed, they answer as their networks do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from commands import Command, assert_refused
from conftest import SAMPLES
from ordinary import ordinary
from PIL import Image
from torch import nn

from fcnconv.api.loading import load
from fcnconv.errors import ConversionError, ModelError, UsageError
from fcnconv.models import OwnModel, find_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

WINDOW, MEAN, STD = 64, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
INPUT: dict[str, Any] = {"window": WINDOW, "mean": MEAN, "std": STD}
OPTIONS = ["--window", str(WINDOW), "--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3"]


def network(name: str = "squeezenet1_1") -> nn.Module:
    torch.manual_seed(0)
    options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    model: nn.Module = torchvision.models.get_model(name, num_classes=4, **options)
    return ordinary(model, WINDOW) if name != "googlenet" else model.eval()


def traced(model: nn.Module) -> Any:
    return torch.jit.trace(model, torch.zeros(1, 3, WINDOW, WINDOW))


HOW = {
    "scripted": torch.jit.script,
    "traced": traced,
    "frozen": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "in training mode": lambda model: torch.jit.script(model.train()),
}


def tile() -> np.ndarray:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((100, 100, 100 + WINDOW + 32, 100 + WINDOW)))


def expected(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """float32 (2, 4): the logits of the two windows of `tile`."""
    x = (image / 255 - np.array(MEAN)) / np.array(STD)
    windows = np.stack([x[:, :WINDOW], x[:, 32:]]).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(windows))
    logits: np.ndarray = (found.logits if isinstance(found, Outputs) else found).numpy()
    return logits


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_it_answers_as_its_network(name: str, how: str, tmp_path: Path) -> None:
    if name == "resnet18" and how != "traced":
        pytest.skip("one way is enough for a second network")
    model, path = network(name), tmp_path / "model.pt"
    HOW[how](model).save(path)
    classifier = load(str(path), allow_torchscript=True, **INPUT)
    assert classifier.provenance.mode == "windows"
    found, oracle = classifier(tile()).logits[0], expected(model, tile())
    assert np.ptp(oracle) > 1e-3
    np.testing.assert_allclose(found, oracle, atol=1e-4 * abs(oracle).max())


class Outputs(NamedTuple):
    logits: torch.Tensor
    auxiliary: torch.Tensor


class Named(nn.Module):
    """A network with a second head, and a name for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.second = nn.Conv2d(3, 8, 8, 4), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Outputs:
        features = self.body(x).relu().mean((2, 3))
        return Outputs(self.head(features), self.second(features))


def test_a_network_that_returns_a_named_tuple(tmp_path: Path) -> None:
    model, path = Named().eval(), tmp_path / "model.pt"
    torch.jit.script(model).save(path)
    found = load(str(path), allow_torchscript=True, **INPUT)(tile()).logits[0]
    np.testing.assert_allclose(found, expected(model, tile()), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Scripted GoogleNet")
def test_a_network_with_auxiliary_heads(tmp_path: Path) -> None:
    model, path = network("googlenet"), tmp_path / "model.pt"
    torch.jit.script(model).save(path)
    found = load(str(path), allow_torchscript=True, **INPUT)(tile()).logits[0]
    oracle = expected(model, tile())
    np.testing.assert_allclose(found, oracle, atol=1e-4 * abs(oracle).max())


def test_names_and_input_from_the_file_beside_it(tmp_path: Path) -> None:
    traced(network()).save(tmp_path / "trees.pt")
    said = {"categories": list("abcd"), "window": WINDOW, "mean": MEAN, "std": STD, "mpp": 0.5}
    (tmp_path / "trees.json").write_text(json.dumps(said))
    spec = find_model(str(tmp_path / "trees.pt"), OwnModel(allow_torchscript=True))
    assert (spec.window, spec.mean, spec.std, spec.pixel_size) == (WINDOW, MEAN, STD, pytest.approx(0.5e-6))
    assert spec.labels().categories == tuple("abcd")


class Evil(nn.Module):
    """Its code leaves a trace when it runs: its result is not the image's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("RUN")
        return x.mean((2, 3))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".torchscript", ".ckpt", ".bin"])
def test_nothing_runs_unasked(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"evil{suffix}"
    torch.jit.script(Evil()).save(path)
    # Permission written beside the file by whoever made the file is none.
    (tmp_path / "evil.json").write_text('{"allow_torchscript": true, "window": 32}')
    for own in (OwnModel(), OwnModel(arch="squeezenet1_1"), OwnModel(allow_torchscript=False)):
        with pytest.raises((ModelError, UsageError)):
            find_model(str(path), own).labels()
    assert "RUN" not in capfd.readouterr().out
    (tmp_path / "evil.json").unlink()
    load(str(path), allow_torchscript=True)
    assert "RUN" in capfd.readouterr().out


def test_no_json_file_gives_permission(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"allow_torchscript": true}')
    with pytest.raises(UsageError, match="unknown 'allow_torchscript'"):
        OwnModel(spec=tmp_path / "spec.json")  # type: ignore[arg-type]


def test_on_the_command_line(fcnconv: Command, tmp_path: Path) -> None:
    path, image = tmp_path / "ts.pt", tmp_path / "tile.png"
    model = network()
    traced(model).save(path)
    Image.fromarray(tile()).save(image)
    for command in ("classify", "heatmap", "batch", "locate"):
        out = {"heatmap": ["-o", tmp_path / "a.npy"], "batch": ["-o", tmp_path / "b"]}.get(command, [])
        done = fcnconv(command, image, "-m", path, *OPTIONS, *out)
        assert_refused(done, "TorchScript ... contain code ... --allow-torchscript", status=1)
    assert not (tmp_path / "a.npy").exists()

    allowed = ["-m", path, "--allow-torchscript", *OPTIONS]
    done = fcnconv("heatmap", image, *allowed, "--values", "logits", "-o", tmp_path / "map.npy")
    assert done.returncode == 0, done.stderr
    assert b"every window is scored as a crop" in done.stderr.lower()
    oracle = expected(model, tile())
    np.testing.assert_allclose(np.load(tmp_path / "map.npy")[0], oracle, atol=1e-4 * abs(oracle).max())
    done = fcnconv("batch", image, *allowed, "--values", "logits", "--format", "npy", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out").rglob("*.npy")
    np.testing.assert_array_equal(np.load(written), np.load(tmp_path / "map.npy"))
    done = fcnconv("classify", image, *allowed, "--json")
    assert json.loads(done.stdout)["predictions"]
    for command, *more in (("export", "-o", tmp_path / "x.onnx"), ("verify",), ("prepare",)):
        done = fcnconv(command, *allowed, *more)
        assert (done.returncode, done.stdout) == (1, b""), done.stderr


@pytest.mark.parametrize("own", [{"arch": "squeezenet1_1"}, {"ema": True}, {"head_activation": "relu"}])
def test_options_about_weights_do_not_apply(own: dict[str, Any], tmp_path: Path) -> None:
    traced(network()).save(tmp_path / "ts.pt")
    with pytest.raises(UsageError, match="contains its own network; leave out"):
        find_model(str(tmp_path / "ts.pt"), OwnModel(allow_torchscript=True, **own))


def test_permission_for_what_is_no_program(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    for name in ("squeezenet1_1", str(tmp_path / "w.pth"), network()):
        with pytest.raises(UsageError, match="allow_torchscript"):
            load(name, allow_torchscript=True)


def test_what_cannot_be_run(tmp_path: Path) -> None:
    torch.jit.script(network()).save(tmp_path / "ts.pt")
    with pytest.raises(ConversionError, match="cannot be traced"):
        load(str(tmp_path / "ts.pt"), allow_torchscript=True, mode="fcn", **INPUT)
    with pytest.raises(ModelError, match="1, 64, 64"):  # torch names the shape
        load(str(tmp_path / "ts.pt"), allow_torchscript=True, window=64, mean=(0.5,), std=(0.5,))
    with zipfile.ZipFile(tmp_path / "ts.pt") as old, zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"nonsense" if name.endswith(".py") else old.read(name))
    with pytest.raises(ModelError, match=r"bad\.pt: torch cannot load this TorchScript file"):
        load(str(tmp_path / "bad.pt"), allow_torchscript=True, **INPUT)


# Folders of WSInfer's zoo


def folder(path: Path, **changed: Any) -> Path:
    path.mkdir()
    config = {
        "spec_version": "1.0",
        "architecture": "squeezenet1_1",
        "num_classes": 4,
        "class_names": list("abcd"),
        "patch_size_pixels": 128,
        "spacing_um_px": 0.25,
        "transform": [
            {"name": "Resize", "arguments": {"size": WINDOW}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": MEAN, "std": STD}},
        ],
    }
    (path / "config.json").write_text(json.dumps(config | changed))
    return path


def test_a_folder_of_wsinfers_zoo(tmp_path: Path) -> None:
    model, zoo = network(), folder(tmp_path / "zoo", architecture="inceptionv4nobn")
    traced(model).save(zoo / "torchscript_model.pt")
    classifier = load(str(zoo), allow_torchscript=True, image_mpp=0.5)  # the architecture is not looked up
    assert classifier.labels.categories == tuple("abcd")
    oracle = expected(model, tile())
    np.testing.assert_allclose(classifier(tile()).logits[0], oracle, atol=1e-4 * abs(oracle).max())
    (zoo / "config.json").write_text(
        (zoo / "config.json").read_text().replace("inceptionv4nobn", "squeezenet1_1")
    )
    with pytest.raises(ModelError, match=r"torchscript_model\.pt: refused: .*contain code"):
        load(str(zoo))


def test_weights_without_code_are_taken(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model, zoo = network(), folder(tmp_path / "zoo")
    torch.jit.script(Evil()).save(zoo / "torchscript_model.pt")
    safetensors.save_file(model.state_dict(), zoo / "model.safetensors")
    for allowed in (False, True):
        classifier = load(str(zoo), allow_torchscript=allowed, image_mpp=0.5)
        assert classifier.provenance.mode == "fcn"
        oracle = expected(model, tile())[0]
        found = classifier(tile()[:, :WINDOW]).logits[0, 0]
        np.testing.assert_allclose(found, oracle, atol=1e-4 * abs(oracle).max())
    with pytest.raises(ModelError, match=r"otherwise name .*model\.safetensors instead"):
        find_model(str(zoo / "torchscript_model.pt"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_a_program_in_the_place_of_weights(name: str, tmp_path: Path) -> None:
    model, zoo = network(), folder(tmp_path / "zoo")
    traced(model).save(zoo / name)
    with pytest.raises(ModelError, match="refused: TorchScript files contain code"):
        find_model(str(zoo)).labels()
    found = load(str(zoo), allow_torchscript=True, image_mpp=0.5)(tile()).logits[0]
    np.testing.assert_allclose(found, expected(model, tile()), atol=1e-3)


def test_a_folder_without_a_program(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no torchscript_model\.pt"):
        load(str(folder(tmp_path / "zoo")), allow_torchscript=True)
