"""A model of one's own: from a file of weights with its description, and from a module in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command
from ordinary import ordinary
from PIL import Image
from torch import nn

import fcnconv as package
from fcnconv.errors import ConversionError, ModelError, UsageError
from fcnconv.labels.class_names import read_names
from fcnconv.models import OwnModel, find_model, models
from fcnconv.models.own import read_spec
from fcnconv.models.torchvision import make_network
from fcnconv.options import Backend, option_info

NAMES = ("ash", "beech", "elm", "fir", "larch", "oak", "yew")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a SqueezeNet with seven classes, as a training script would leave them."""
    torch.manual_seed(0)
    model = ordinary(make_network("squeezenet1_1", 64, num_classes=len(NAMES)), 64)
    path = tmp_path_factory.mktemp("own") / "trees.pth"
    torch.save({"state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, path)
    (path.parent / "names.txt").write_text("\n".join(NAMES) + "\n")
    return path


def test_weights_and_names_from_the_shell(trees: Path, fcnconv: Command, tmp_path: Path) -> None:
    options = ["--arch", "squeezenet1_1", "--categories", trees.parent / "names.txt", "--window", "64"]
    options += ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    done = fcnconv("heatmap", SAMPLES / "coffee.png", "-m", trees, *options, "-o", tmp_path / "map.npz")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    with np.load(tmp_path / "map.npz") as saved:
        assert saved["scores"].shape == ((400 - 64) // 16 + 1, (600 - 64) // 16 + 1, 7)
        assert tuple(saved["categories"]) == NAMES
        assert (saved["window"], saved["model"]) == (64, str(trees))
    done = fcnconv("classify", SAMPLES / "coffee.png", "-m", trees, *options, "-k", "1", "--mode", "windows")
    assert done.stdout.split(b"\t")[2].decode() in NAMES


def test_a_window_of_few_cells_is_told_unless_the_user_has_chosen(
    trees: Path, fcnconv: Command, tmp_path: Path
) -> None:
    own = ("-m", trees, "--arch", "squeezenet1_1", "--window", "64", "-o", tmp_path / "map.npy")
    told = fcnconv("heatmap", SAMPLES / "coffee.png", "--scales", "0.5", *own).stderr.decode()
    assert "4 × 4 feature cells" in told and "fcnconv verify" in told and "--anchors 4" in told
    for chosen in ("0", "4"):
        done = fcnconv("heatmap", SAMPLES / "coffee.png", "--scales", "0.5", "--anchors", chosen, *own)
        assert done.returncode == 0 and b"feature cells" not in done.stderr
    with Image.open(SAMPLES / "coffee.png") as photo:
        photo.convert("RGB").resize((64, 64)).save(tmp_path / "tile.png")
    one = fcnconv("heatmap", tmp_path / "tile.png", "--scales", "1", *own)
    assert one.returncode == 0 and b"feature cells" not in one.stderr


def test_file_and_module_give_the_same_map(trees: Path) -> None:
    settings: dict[str, Any] = {
        "backend": "torch",
        "window": 64,
        "categories": NAMES,
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    model = make_network("squeezenet1_1", 64, num_classes=7)
    state = torch.load(trees, weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    from_file = package.load(str(trees), arch="squeezenet1_1", **settings)
    from_module = package.load(model, **settings)
    image = np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)
    assert np.array_equal(from_file(image).logits, from_module(image).logits)
    assert from_module(image).logits.shape == (3, 5, 7)

    # The oracle: the unconverted network on the one window of an image of the native size.
    crop = image[:64, :64]
    x = torch.from_numpy((crop / 255.0 - 0.5) / 0.25).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model.eval()(x)[0].numpy()
    np.testing.assert_allclose(from_module(crop).logits[0, 0], expected, atol=1e-4 * abs(expected).max())


def test_a_module_is_left_as_it_was_and_hashed_by_its_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(net, nn.Linear(8, 5)).half().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = package.load(model, window=16, mode="windows").provenance
    assert model.training and all(p.requires_grad and p.dtype == torch.half for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert package.load(model, window=16).provenance.identity.weights_sha256 == first.identity.weights_sha256
    with torch.no_grad():
        model[1].bias[0] += 1
    assert package.load(model, window=16).provenance.identity.weights_sha256 != first.identity.weights_sha256
    assert package.load(model, window=16).labels.categories[4] == "class 4"
    with pytest.raises(ModelError, match="the network has 5 classes, and 2 are named"):
        package.load(model, window=16, categories=["a", "b"])


def test_the_file_beside_the_weights_describes_them(trees: Path, tmp_path: Path) -> None:
    weights = tmp_path / "trees.pth"
    weights.write_bytes(trees.read_bytes())
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    record = {
        "arch": "squeezenet1_1",
        "categories": "names.txt",
        "window": 96,
        "eval_size": 110,
        "temperature": 0.8,
    }
    (tmp_path / "trees.json").write_text(json.dumps(record))
    spec = find_model(str(weights))
    assert (spec.window, spec.eval_size, spec.labels().categories) == (96, 110, NAMES)
    assert spec.temperature == 0.8
    assert spec.mean == models()["squeezenet1_1"].mean  # what nobody said comes from the architecture
    assert find_model(str(weights), OwnModel(window=64)).window == 64  # an option goes before the file


def test_what_is_not_said_comes_from_the_architecture(trees: Path) -> None:
    spec = find_model(str(trees), OwnModel(arch="squeezenet1_1"))
    assert (spec.window, spec.eval_size, spec.stride) == (224, 256, 16)
    assert spec.labels().categories == tuple(f"class {i}" for i in range(7))
    assert find_model(str(trees), OwnModel(arch="squeezenet1_1", window=112)).eval_size == 128
    assert find_model(str(trees), OwnModel(arch="inception_v3")).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"arch": "resnet18", "windw": 64}, r"m\.json: unknown 'windw'; known: arch, categories, window"),
        ({"window": "64"}, r"m\.json: window is a number of pixels, not '64'"),
        ({"window": True}, r"m\.json: window is a number of pixels, not True"),
        ({"mean": [0.5, "a"]}, r"m\.json: mean needs one number per channel, .* not \[0\.5, 'a'\]"),
        ({"std": [0.5, 0, 0.5]}, r"m\.json: std must be over 0"),
        ({"categories": [1, 2]}, r"m\.json: categories is a list of names"),
        (["resnet18"], r"m\.json: a model's description is a JSON object, not a list"),
    ],
)
def test_mistakes_in_a_description_are_named(tmp_path: Path, record: object, message: str) -> None:
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=message):
        read_spec(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"window": 0}, "window is a number of pixels, not 0"),
        (
            {"mean": "0.5,half,0.5"},
            "mean needs one number per channel, such as 0.5,0.5,0.5, not '0.5,half,0.5'",
        ),
        ({"std": (0.5, -1, 0.5)}, "std must be over 0"),
        ({"temperature": 0}, "temperature is a number over 0, not 0"),
        ({"arch": 18}, "arch is a name, not 18"),
        ({"categories": "none.txt"}, "none.txt: the categories cannot be read"),
        ({"spec": "none.json"}, "none.json: the model's description cannot be read"),
    ],
)
def test_values_are_checked_whatever_way_they_come(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OwnModel(**said)


def test_a_field_has_one_check_for_text_values_and_json(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ash\nelm\n")
    (tmp_path / "m.json").write_text(
        json.dumps({"mean": [0.1, 0.2, 0.3], "categories": "names.txt", "window": 64})
    )
    read, text = (
        read_spec(tmp_path / "m.json"),
        {name: note.read for name, (_, note) in option_info(OwnModel).items()},
    )
    assert read == OwnModel(mean="0.1,0.2,0.3", categories=["ash", "elm"], window=64)  # type: ignore[arg-type]
    assert read == OwnModel(spec=tmp_path / "m.json").completed()  # type: ignore[arg-type]
    assert text["mean"] and text["mean"]("0.1,0.2,0.3") == read.mean
    for name, file in (("categories", "names.txt"), ("spec", "m.json")):  # read when all is said
        assert text[name] and text[name](str(tmp_path / file)) == str(tmp_path / file)
    assert OwnModel(categories=str(tmp_path / "names.txt")).categories == read.categories  # type: ignore[arg-type]
    said = OwnModel(spec=str(tmp_path / "m.json"))  # type: ignore[arg-type]
    assert said.files == (tmp_path / "m.json", tmp_path / "names.txt")
    assert OwnModel(window=96, spec=read).completed() == OwnModel(
        window=96, mean=read.mean, categories=read.categories
    )


def test_names_that_are_too_few_are_told_though_there_is_a_plan(trees: Path) -> None:
    package.load(str(trees), arch="squeezenet1_1", window=64)
    with pytest.raises(ModelError, match="the network has 7 classes, and 2 are named"):
        package.load(str(trees), arch="squeezenet1_1", window=64, categories=["a", "b"])


def test_other_mistakes(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gap.txt").write_text("ash\n\nelm\n")
    with pytest.raises(UsageError, match="line 2 is empty"):
        read_names(tmp_path / "gap.txt")
    with pytest.raises(UsageError, match=r"mean needs one number per channel, .* not ''"):
        OwnModel(mean="")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name the network that these weights belong to with --arch"):
        find_model(str(trees))
    with pytest.raises(UsageError, match="unknown architecture 'resnet19'"):
        find_model(str(trees), OwnModel(arch="resnet19"))
    with pytest.raises(UsageError, match="arch: only for a custom model"):
        find_model("squeezenet1_1", OwnModel(arch="resnet18"))
    with pytest.raises(ModelError, match=r"none\.pth: no such file of weights"):
        package.load(str(tmp_path / "none.pth"), arch="squeezenet1_1")
    with pytest.raises(ModelError, match="the network has 7 classes, and 2 are named"):
        package.load(str(trees), arch="squeezenet1_1", categories=["a", "b"])
    monkeypatch.setattr("fcnconv.models.nearest._known", dict)  # which takes seconds, and has its own test
    with pytest.raises(
        ModelError, match=r"trees\.pth: not the weights of squeezenet1_0: .* is missing.* more"
    ):
        package.load(str(trees), arch="squeezenet1_0")


def test_timm_architectures(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = ordinary(timm.create_model("resnet18d", num_classes=4), 64)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    classifier = package.load(str(tmp_path / "w.pth"), arch="timm/resnet18d", window=64)
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    made = classifier.provenance.identity
    mean, std = np.array(made.mean), np.array(made.std)
    x = torch.from_numpy((crop / 255.0 - mean) / std).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(x)[0].numpy()
    np.testing.assert_allclose(classifier(crop).logits[0, 0], expected, atol=1e-4 * abs(expected).max())
    with pytest.raises(UsageError, match="timm has no model 'resnet18x'; it has resnet"):
        find_model(str(tmp_path / "w.pth"), OwnModel(arch="timm/resnet18x"))
    with pytest.raises(UsageError, match=r"timm has no weights 'resnet18\.x'; it has resnet18\.a1_in1k"):
        find_model(str(tmp_path / "w.pth"), OwnModel(arch="timm/resnet18.x"))


@pytest.mark.parametrize(
    ("arch", "backend"),
    [
        ("swin_t", "torch"),
        *(pytest.param(arch, "onnx", marks=pytest.mark.slow) for arch in ("swin_t", "vit_b_32", "maxvit_t")),
    ],
)
def test_transformers_are_refused_by_name_and_run_on_windows(
    arch: str, backend: Backend, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=f"{arch} has no fully convolutional form: .*mode=.windows"):
        package.load(arch, mode="fcn")  # before anything is downloaded
    torch.manual_seed(0)
    model = make_network(arch, 224, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    classifier = package.load(str(tmp_path / "w.pth"), arch=arch, backend=backend)
    assert classifier.provenance.mode == "windows"
    image = np.random.default_rng(0).integers(0, 256, (224, 256, 3), np.uint8)
    logits = classifier(image).logits
    assert logits.shape == (1, 2, 3)
    made = classifier.provenance.identity
    mean, std = np.array(made.mean), np.array(made.std)
    x = torch.from_numpy((image[:, 32:] / 255.0 - mean) / std).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        np.testing.assert_allclose(logits[0, 1], model(x)[0].numpy(), atol=1e-5)
