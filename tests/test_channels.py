"""Networks that take other channels than red, green and blue, against the network itself on its own bands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from PIL import Image
from torch import nn
from torchvision.models import squeezenet1_1

import fcnconv as package
from fcnconv.convert.probes import channels_of
from fcnconv.errors import ImageError, ModelError, UsageError
from fcnconv.images import resize
from fcnconv.models import OwnModel, find_model

tifffile = pytest.importorskip("tifffile")

WINDOW, STRIDE, BANDS = 64, 16, 5
MEAN, STD = (0.2, 0.3, 0.4, 0.5, 0.6), (0.2, 0.25, 0.3, 0.35, 0.4)
TOLD = {"arch": "squeezenet1_1", "window": WINDOW, "mean": MEAN, "std": STD}
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A SqueezeNet of five channels and three classes."""
    torch.manual_seed(0)
    model = squeezenet1_1(num_classes=3)
    model.features[0] = nn.Conv2d(BANDS, 64, 3, 2)
    nn.init.kaiming_uniform_(model.classifier[1].weight)
    return model.eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "fields.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A TIFF of five smooth bands of 16 bits, 0 to 4000, of 3 × 4 windows; and the bands."""
    small = RNG.integers(0, 4001, (BANDS, 12, 16)).astype(np.float32)
    size = WINDOW + 3 * STRIDE, WINDOW + 2 * STRIDE
    planes = [np.asarray(Image.fromarray(band).resize(size, Image.Resampling.BICUBIC)) for band in small]
    bands = np.clip(np.stack(planes), 0, 4000).astype(np.uint16)
    path = tmp_path_factory.mktemp("tiles") / "tile.tif"
    tifffile.imwrite(
        path, bands.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig", tile=(64, 64)
    )
    return path, bands


def windows_of(network: nn.Module, bands: np.ndarray) -> np.ndarray:
    """The logits of each window, of bands (channels, H, W) with 0 to 4000, by the network itself."""
    x = np.floor(bands * (255 / 4000) + 0.5) / 255
    x = (x - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    rows, cols = ((side - WINDOW) // STRIDE + 1 for side in x.shape[1:])
    crops = [
        x[:, STRIDE * i : STRIDE * i + WINDOW, STRIDE * j : STRIDE * j + WINDOW]
        for i in range(rows)
        for j in range(cols)
    ]
    with torch.no_grad():
        logits = network(torch.from_numpy(np.stack(crops)).float())
    return logits.numpy().reshape(rows, cols, -1)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() < 1e-4 * np.abs(expected).max() and np.ptp(expected) > 0.01)


def test_every_window_is_the_networks_own(
    network: nn.Module, weights: Path, tile: tuple[Path, np.ndarray]
) -> None:
    path, bands = tile
    exact = package.load(str(weights), mode="windows", rescale="0,4000", **TOLD)
    assert close(exact(path).logits, windows_of(network, bands))
    swapped = package.load(str(weights), mode="windows", rescale="0,4000", bands="5,4,3,2,1", **TOLD)
    assert close(swapped(path).logits, windows_of(network, bands[::-1]))


def test_the_converted_network_is_the_classifier(
    network: nn.Module, weights: Path, tile: tuple[Path, np.ndarray]
) -> None:
    classifier = package.load(str(weights), rescale="0,4000", **TOLD)
    one = classifier.open(tile[0]).read((STRIDE, 0, STRIDE + WINDOW, WINDOW))
    assert one.shape == (WINDOW, WINDOW, BANDS)
    expected = windows_of(network, tile[1])
    assert close(classifier(one).logits[0, 0], expected[0, 1])
    corrected = classifier(tile[0], anchors=1)
    assert close(corrected.logits, expected) and corrected.exact.all()
    # at another size each band is resized as Pillow does alone
    smaller = resize(classifier.open(tile[0]), (84, 72)).read((0, 0, 84, 72))
    for band in range(BANDS):
        whole = Image.fromarray(classifier.open(tile[0]).read((0, 0, 112, 96))[:, :, band])
        expected = np.asarray(whole.resize((84, 72), Image.Resampling.BICUBIC))
        assert np.abs(smaller[:, :, band].astype(int) - expected).max() <= 1


def test_a_module_of_other_channels_is_converted_and_refused_without_their_means(network: nn.Module) -> None:
    assert package.convolutionize(network, window=WINDOW).proof.relative_error < 1e-9
    classifier = package.load(network, window=WINDOW, mean=MEAN, std=STD)
    assert classifier.channels == BANDS
    with pytest.raises(ModelError, match="fails on an image"):
        package.load(network, window=WINDOW)
    with pytest.raises(UsageError, match=r"an image array must be uint8 \(H, W, 5\)"):
        classifier(np.zeros((64, 64, 3), np.uint8))


class Folded(nn.Module):
    """A network that folds squares of pixels into channels before its first convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(16 * channels, 16, 2, 2), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(nn.functional.pixel_unshuffle(x, 4)).relu().mean((2, 3)))
        return y


def test_the_channels_of_images_are_found_behind_what_folds_them(network: nn.Module) -> None:
    timm = pytest.importorskip("timm")
    assert channels_of(Folded(3), 16, 16) == channels_of(nn.Linear(3, 4), 16, 16) == 3
    assert channels_of(timm.create_model("tresnet_m", num_classes=4), 64, 64) == 3
    assert channels_of(network, WINDOW, WINDOW) == BANDS


def test_from_the_command(
    fcnconv: Command, weights: Path, tile: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    spec = tmp_path / "fields.json"
    spec.write_text(json.dumps({**TOLD, "categories": ["wheat", "maize", "fallow"]}))
    own = ("-m", weights, "--spec", spec, "--rescale", "0,4000")
    for out in ("map.npz", "map.png"):
        done = fcnconv("heatmap", tile[0], *own, "-o", tmp_path / out)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "map.npz") as file:
        assert file["scores"].shape == (3, 4, 3)
        assert (str(file["bands"]), str(file["rescale"])) == ("1,2,3,4,5", "0,4000")
        assert "5 bands, bicubic resize" in str(file["preprocessing"])
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width >= 112 and len(np.unique(np.asarray(picture)[:100])) > 50
    estimate = fcnconv("heatmap", tile[0], *own, "--anchors", "2", "--dry-run")
    assert estimate.returncode == 0 and b" crops" in estimate.stdout, estimate.stderr
    dark = fcnconv("classify", tile[0], *own[:-2])
    assert re.search(rb"reach only \d+ of 65535.* --rescale 0,4095", dark.stderr), dark.stderr
    photo = tmp_path / "photo.png"
    Image.new("RGB", (100, 100)).save(photo)
    done = fcnconv("heatmap", photo, *own[:-2], "-o", tmp_path / "map.npy")
    assert done.returncode == 1 and b"photo.png: " in done.stderr and b"5" in done.stderr


def test_what_does_not_fit_is_told(weights: Path, tile: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mean has 5 channels, and std has 3"):
        find_model(str(weights), OwnModel(arch="squeezenet1_1", mean=MEAN))
    three = find_model(str(weights), OwnModel(arch="squeezenet1_1", window=WINDOW))
    with pytest.raises(ModelError, match="takes images of 5 channels, and mean and std are for 3"):
        three.build(weights)
    with pytest.raises(UsageError, match="--bands names 3 bands, and the network takes 5"):
        package.load(str(weights), rescale="0,4000", bands="1,2,3", **TOLD)
    four = tmp_path / "four.tif"
    tifffile.imwrite(four, np.zeros((64, 64, 4), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="has 4 bands, but the network takes 5; name them"):
        package.load(str(weights), rescale="0,4000", **TOLD)(four)
    with pytest.raises(UsageError, match="names 5 bands, and the network takes three, or one for all"):
        package.load(bands="1,2,3,4,5")


def test_a_network_of_one_channel_takes_grey_pictures_of_every_kind(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    network = nn.Sequential(*layers).eval()
    net = package.load(network, window=32, mean=(0.5,), std=(0.25,))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40), np.uint8)
    right = net(pixels[..., None]).logits
    assert np.array_equal(net(pixels).logits, right)
    assert np.array_equal(net(Image.fromarray(pixels)).logits, right)
    assert np.array_equal(net(Image.fromarray(pixels).convert("RGB")).logits, right)
    for name in ("grey.png", "grey.bmp", "grey.webp", "grey.pgm", "grey.tif"):
        lossless = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(pixels).save(tmp_path / name, **lossless)
        assert np.array_equal(net(tmp_path / name).logits, right), name
    colours = np.random.default_rng(1).integers(0, 256, (48, 40, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    brightness = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.array_equal(net(tmp_path / "colours.png").logits, net(brightness).logits)
