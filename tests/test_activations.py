"""Heads of one output, of independent classes, and of probabilities: from the formula to the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Command
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ordinary import ordinary
from torch import nn

import fcnconv as package
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.errors import UsageError
from fcnconv.labels import imagenet, numbered
from fcnconv.models.torchvision import make_network
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_scales
from fcnconv.provenance import Activation
from fcnconv.scores.activations import (
    ACTIVATIONS,
    check_outputs,
    divergence,
    independent_divergence,
    log_sigmoid,
    sigmoid,
    softmax,
)
from fcnconv.verify.compare import compare, fit_temperature, measure
from fcnconv.writers import OutputSpec

LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-30, 30, width=32))  # torch's own end at 36
PIXELS = np.random.default_rng(0).integers(0, 256, (80, 112, 3), np.uint8)


def network(outputs: int, *more: nn.Module) -> nn.Module:
    """A tiny classifier of this many outputs, with logits of ordinary size, and what follows them."""
    torch.manual_seed(outputs)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)]
    body = ordinary(nn.Sequential(*layers, *head), 32)
    body[-1].weight.data *= 30  # type: ignore[index,operator]
    return nn.Sequential(body, *more)


def load(outputs: int, *more: nn.Module, activation: Activation | None = None) -> Classifier:
    return package.load(network(outputs, *more), window=32, activation=activation)


@given(LOGITS)
def test_sigmoid_is_torchs(logits: np.ndarray) -> None:
    expected = torch.from_numpy(logits).double()
    np.testing.assert_allclose(sigmoid(logits), torch.sigmoid(expected), rtol=2e-5)
    np.testing.assert_allclose(log_sigmoid(logits), nn.functional.logsigmoid(expected), rtol=1e-6, atol=1e-30)


@given(LOGITS, LOGITS)
def test_independent_divergence_is_the_sum_of_torchs(crops: np.ndarray, logits: np.ndarray) -> None:
    p, q = (torch.distributions.Bernoulli(logits=torch.from_numpy(x).double()) for x in (crops, logits))
    expected = torch.distributions.kl_divergence(p, q).sum(-1).numpy()
    np.testing.assert_allclose(independent_divergence(crops, logits), expected, rtol=1e-6, atol=1e-9)


def test_a_pair_of_logits_and_their_difference_alone_are_the_same_network() -> None:
    """Softmax over (a, b) is the sigmoid of a - b: all that is said of the one holds of the other."""
    random = np.random.default_rng(0)
    dense, crops = (3 * random.standard_normal((40, 2)).astype(np.float32) for _ in range(2))
    one = [each[:, :1] - each[:, 1:] for each in (dense, crops)]
    np.testing.assert_allclose(softmax(dense)[:, :1], sigmoid(one[0]), rtol=1e-5)
    np.testing.assert_allclose(divergence(crops, dense), independent_divergence(one[1], one[0]), rtol=1e-4)
    pair, single = ACTIVATIONS["softmax"], ACTIVATIONS["sigmoid"]
    assert (pair.same(dense, crops) == single.same(*one)).all()
    np.testing.assert_allclose(pair.margins(dense[None])[0], single.margins(one[0]), rtol=1e-5)
    assert fit_temperature(dense, crops) == pytest.approx(fit_temperature(*one, "sigmoid"), rel=1e-3)
    two, alone = compare(dense, crops, images=1), compare(*one, images=1, activation="sigmoid")
    for name in ("agreement", "kl", "tv", "confidence"):
        assert getattr(two.all, name) == pytest.approx(getattr(alone.all, name), rel=1e-4), name
    assert two.bins == alone.bins and alone.in_top5 is None and "top 5" not in alone.text()


def test_one_output_is_read_by_a_sigmoid() -> None:
    classifier = load(1)
    found = classifier(PIXELS, anchors=1)
    model = network(1).eval()
    crop = (torch.from_numpy(PIXELS[:32, :32] / 255.0) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        expected = torch.sigmoid(model(crop.permute(2, 0, 1)[None].float()))
    np.testing.assert_allclose(found.probabilities()[0, 0], expected[0], rtol=1e-4)
    assert classifier.labels.activation == "sigmoid" and len(np.unique(found.probabilities())) > 1
    with pytest.raises(UsageError, match="softmax of a single output is 1 everywhere"):
        load(1, activation="softmax")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("join", ["finest", "max", "mean"])
def test_sizes_are_joined_by_their_probabilities(activation: Activation, join: str) -> None:
    classifier = load(3, activation=activation)
    options = ScanOptions(scales=parse_scales("0.5,1"), join=join, anchors=0)  # type: ignore[arg-type]
    found = ScoreMap.collect(classifier.stream(PIXELS, options))
    each = [classifier(PIXELS, scales=scale, anchors=0).probabilities() for scale in ("0.5", "1")]
    probabilities = found.probabilities()
    assert (probabilities.max() <= 1 and (probabilities >= each[1] - 1e-5).all()) or join == "mean"
    if join == "mean":
        near = [found.info.scales[0].nearest(found.grid, row, 0)[0] for row in range(found.shape[0])]
        cols = [found.info.scales[0].nearest(found.grid, 0, col)[1] for col in range(found.shape[1])]
        expected = (each[0][np.ix_(near, cols)] + each[1]) / 2
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4)


def test_classes_that_are_there_together_agree_together() -> None:
    classifier = load(3, activation="sigmoid")
    dense, crops = classifier(PIXELS, anchors=0), classifier(PIXELS, anchors=1)
    assert classifier(PIXELS, anchors=4).provenance.agreement is not None
    truth = ((dense.logits > 0) == (crops.logits > 0)).all(-1).mean()
    assert measure(classifier, [PIXELS], max_windows=10**6).all.agreement == pytest.approx(truth)
    answer = classifier.classify(PIXELS, scales="1")
    expected = sigmoid((dense.logits.mean((0, 1)) / 1).astype(np.float32))
    assert [p.probability for p in answer.predictions] == pytest.approx(sorted(expected, reverse=True), 1e-4)


def test_probabilities_of_the_networks_own_are_taken_as_they_are() -> None:
    own, plain = load(3, nn.Softmax(1), activation="none"), load(3)
    found, expected = (each(PIXELS, anchors=1).probabilities() for each in (own, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UsageError, match=r"sum to 1 in every window.*--activation none"):
        load(3, nn.Softmax(1))(PIXELS)
    with pytest.raises(UsageError, match="no measure of how sure"):
        own(PIXELS, refine=0.1)
    with pytest.raises(UsageError, match="no probabilities to compare"):
        measure(own, [PIXELS])
    assert own(PIXELS, anchors=4).provenance.agreement is None


def test_probabilities_that_are_exactly_0_and_1_are_recognised() -> None:
    sure = np.eye(5, dtype=np.float32)
    with pytest.raises(UsageError, match="sum to 1"):
        check_outputs(sure, "softmax", "net")
    for logits in (sure * 1.01, sure - 0.01):
        check_outputs(logits, "softmax", "net")


def test_a_sigmoid_of_the_networks_own_is_told(caplog: pytest.LogCaptureFixture) -> None:
    load(2, nn.Sigmoid(), activation="sigmoid")(PIXELS, anchors=0)
    assert "all outputs lie between 0 and 1" in caplog.text
    caplog.clear()
    load(2, activation="sigmoid")(PIXELS, anchors=0)
    assert "lie between" not in caplog.text


def test_outputs_that_are_no_probabilities_are_written_and_not_shown() -> None:
    found = load(2, activation="none")(PIXELS, anchors=0)
    assert np.abs(found.logits).max() > 1.5
    with pytest.raises(UsageError, match=r"outputs from -?\d.* are no probabilities; .*\.npy"):
        found.probabilities()
    (piece,) = found.stream().pieces()
    assert (OutputSpec().scores(piece) == found.logits).all()


def test_concepts_are_left_to_classes_that_exclude_each_other() -> None:
    assert imagenet().under("sigmoid").concepts == () and imagenet().under(None) == imagenet()
    assert numbered(1).under(None).activation == "sigmoid"


def test_from_the_command(fcnconv: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, photo = tmp_path / "crack.pth", SAMPLES / "coffee.png"
    network = ordinary(make_network("squeezenet1_1", 64, num_classes=1), 64)
    state = network.state_dict()
    torch.save(state | {"classifier.1.weight": 100 * state["classifier.1.weight"]}, weights)
    spec: dict[str, object] = {"arch": "squeezenet1_1", "window": 64, "categories": ["crack"]}
    weights.with_suffix(".json").write_text(json.dumps(spec))
    done = fcnconv("heatmap", photo, "-m", weights, "-o", tmp_path / "map.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "map.npz") as saved:
        assert saved["activation"] == "sigmoid" and saved["scores"].std() > 0
    done = fcnconv("classify", photo, "-m", weights, "--json")
    (answer,) = json.loads(done.stdout)["predictions"]
    assert answer["category"] == "crack" and 0 < answer["probability"] < 1
    for out in ("map.png", "map.geojson"):
        done = fcnconv("heatmap", photo, "-m", weights, "-c", "crack", "-o", tmp_path / out)
        assert done.returncode == 0, done.stderr

    weights.with_suffix(".json").write_text(json.dumps(spec | {"activation": "none"}))
    done = fcnconv("heatmap", photo, "-m", weights, "-c", "crack", "-o", tmp_path / "raw.npy")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "raw.npy")).max() > 1
    done = fcnconv("heatmap", photo, "-m", weights, "-c", "crack", "-o", tmp_path / "raw.png")
    assert done.returncode == 2 and b"are no probabilities" in done.stderr and b"Trace" not in done.stderr
    assert not (tmp_path / "raw.png").exists()
    for wrong in (["--activation", "relu"], ["--activation", "softmax"], ["--temperature", "2"]):
        done = fcnconv("heatmap", photo, "-m", weights, "-o", tmp_path / "x.npy", "--anchors", "0", *wrong)
        assert done.returncode == 2 and len(done.stderr.splitlines()) < 4, (wrong, done.stderr)
