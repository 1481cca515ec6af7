"""Exported networks, run by the programs that they are for, against the program's own map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import SAMPLES, Command
from tiny_network import Tiny

from fcnconv.backends.network_files import FORMATS, export, export_format
from fcnconv.convert import convolutionize
from fcnconv.errors import UsageError
from fcnconv.images.reading import read_image
from fcnconv.models import ModelSpec


def logits(fcnconv: Command, folder: Path, *options: str) -> np.ndarray:
    out = folder / "map.npy"
    plain = ["--values", "logits", "--anchors", "0"]
    done = fcnconv("heatmap", SAMPLES / "coffee.png", *plain, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    return np.load(out)


def pixels(about: dict, wide: int, high: int) -> np.ndarray:
    """The sample photo's first pixels, normalised as the file itself says."""
    image = read_image(SAMPLES / "coffee.png")[:high, :wide] / 255
    return ((image - about["mean"]) / about["std"]).transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("stride", [32, pytest.param(16, marks=pytest.mark.slow)])
def test_onnx_runtime_gives_the_map(fcnconv: Command, tmp_path: Path, stride: int) -> None:
    out = tmp_path / "lite0.onnx"
    done = fcnconv("export", "efficientnet_lite0", "-o", out, "--stride", str(stride))
    assert done.returncode == 0 and done.stdout == b"", done.stderr
    onnx.checker.check_model(str(out))
    session = onnxruntime.InferenceSession(out)
    about = json.loads(session.get_modelmeta().custom_metadata_map["fcnconv"])
    assert (about["window"], about["stride"], about["step"]) == (224, stride, 32)
    assert len(about["categories"]) == 1000 and about["categories"][967] == "espresso"
    found = session.run(["logits"], {"pixels": pixels(about, 576, 384)})[0]
    assert found.shape[2:] == ((384 - 224) // stride + 1, (576 - 224) // stride + 1)
    expected = logits(fcnconv, tmp_path, "--stride", str(stride))[: found.shape[2], : found.shape[3]]
    assert np.abs(found[0].transpose(1, 2, 0) - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("format", "stride"),
    [*((each, 2) for each in FORMATS), *(pytest.param(each, 4, marks=pytest.mark.slow) for each in FORMATS)],
)
def test_a_small_network_is_the_same_in_the_file(
    spec: ModelSpec, tmp_path: Path, format: str, stride: int
) -> None:
    out = tmp_path / f"tiny.{format}"
    about, error = export(spec, str(out), format, stride)
    assert error <= 1e-4 and about.conversion.geometry.stride == stride
    x = torch.randn(2, 3, 32 + 12, 32 + 4)
    if format == "onnx":
        found = onnxruntime.InferenceSession(out).run(["logits"], {"pixels": x.numpy()})[0]
    else:
        with torch.no_grad():
            found = torch.export.load(out).module()(x).numpy()
    assert found.shape == (2, 5, 12 // stride + 1, 4 // stride + 1)
    whole = convolutionize(Tiny().eval(), 32, stride)(x).detach().numpy()
    assert np.abs(found - whole).max() <= 1e-4 * np.abs(whole).max()


@pytest.mark.slow
def test_torch_gives_the_map(fcnconv: Command, tmp_path: Path) -> None:
    out = tmp_path / "lite0.pt2"
    done = fcnconv("export", "efficientnet_lite0", "-o", out)
    assert done.returncode == 0, done.stderr
    files = {"fcnconv": ""}
    network = torch.export.load(out, extra_files=files).module()
    about = json.loads(files["fcnconv"])
    expected = logits(fcnconv, tmp_path)
    for wide, high in ((576, 384), (224, 224), (224, 320)):
        with torch.no_grad():
            found = network(torch.from_numpy(pixels(about, wide, high)))
        assert tuple(found.shape) == (1, 1000, (high - 224) // 32 + 1, (wide - 224) // 32 + 1)
        if (wide, high) == (576, 384):  # all of the photo that has whole windows
            assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() <= 1e-4


def test_a_network_goes_to_a_pipe(fcnconv: Command, small: list[str]) -> None:
    done = fcnconv("export", *small, "-o", "-", "--format", "onnx", "-q")
    assert done.returncode == 0 and done.stderr == b""
    assert onnx.load_from_string(done.stdout).graph.input[0].name == "pixels"


def test_what_cannot_be_exported_is_refused_in_a_line(fcnconv: Command, tmp_path: Path) -> None:
    for arguments, status, reason in (
        (
            ("vit_b_16", "-o", tmp_path / "a.onnx"),
            1,
            b"classify, heatmap, locate and batch run the network with --mode windows",
        ),
        (("efficientnet_lite0", "-o", tmp_path / "a.txt"), 2, b".onnx, .pt2"),
        (
            ("efficientnet_lite0", "-o", tmp_path / "a.onnx", "--stride", "7"),
            2,
            b"choose one of 32, 16, 8, 4, 2",
        ),
        (("efficientnet_lite0", "-o", tmp_path / "no" / "a.onnx"), 2, b"cannot be written"),
    ):
        done = fcnconv("export", *arguments)
        assert done.returncode == status, arguments
        assert reason in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_suffix_names_the_format(format: str) -> None:
    assert export_format(f"net.{format.upper()}", None) == export_format("-", format) == format
    with pytest.raises(UsageError, match=r"exported as \.onnx, \.pt2"):
        export_format("-", None)
