"""Comparing dense maps with crops, temperature, refinement: on made-up logits and on the embedded network."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnconv.api.classifier import Classifier
from fcnconv.api.loading import load
from fcnconv.errors import UsageError
from fcnconv.images.reading import open_image
from fcnconv.models import LITE0_ANSWER_TEMPERATURE
from fcnconv.provenance import correction_record
from fcnconv.scores.activations import softmax
from fcnconv.verify.compare import compare, fit_temperature, measure
from fcnconv.verify.ways import WAYS

RANDOM = np.random.default_rng(0)
CROPS = RANDOM.normal(0, 3, (400, 20)).astype(np.float32)


@settings(max_examples=30)
@given(st.floats(0.3, 3))
def test_the_temperature_that_was_applied_is_found(temperature: float) -> None:
    found = fit_temperature(CROPS * np.float32(temperature), CROPS)
    assert found == pytest.approx(temperature, rel=1e-3)


def test_equal_logits_agree_in_everything() -> None:
    found = compare(CROPS, CROPS, images=1)
    assert found.all.agreement == found.in_top5 == 1
    assert found.correlation == pytest.approx(1)
    assert found.all.kl == pytest.approx(0, abs=1e-6) and found.all.tv == 0
    assert found.temperature == pytest.approx(1, abs=1e-3)


def test_noise_is_seen_where_the_crop_is_unsure() -> None:
    dense = (CROPS + RANDOM.normal(0, 1, CROPS.shape)).astype(np.float32) / 2
    found = compare(dense, CROPS, images=1)
    assert 0.5 < found.all.agreement < 1
    assert sum(b.windows for b in found.bins) == found.windows == 400
    agreement = [b.agreement for b in found.bins]
    assert agreement[0] < agreement[-1]
    assert found.after.kl < found.before.kl


def test_the_embedded_network_is_near_its_crops_but_not_equal(lite0: Classifier) -> None:
    found = measure(lite0, [SAMPLES / "coffee.png"], max_windows=20)
    assert found.windows == 20 and found.images == 1
    assert 0.5 < found.correlation < 0.999
    assert found.logit_spread < 1


def test_too_few_windows_are_refused(lite0: Classifier) -> None:
    with pytest.raises(UsageError, match="1 window: too few to compare"):
        measure(lite0, [np.zeros((224, 224, 3), np.uint8)])


def test_refined_cells_are_the_least_sure_and_equal_windows_mode(lite0: Classifier) -> None:
    pixels = open_image(SAMPLES / "coffee.png").read((100, 50, 420, 370))
    dense, refined = lite0(pixels, anchors=0), lite0(pixels, anchors=0, refine=0.25)
    exact = load(mode="windows")(pixels)
    assert refined.exact is not None and refined.exact.sum() == 4
    second, first = np.sort(dense.logits, -1)[:, :, -2:].transpose(2, 0, 1)
    margin = first - second
    assert margin[refined.exact].max() <= margin[~refined.exact].min()
    assert np.abs(refined.logits[refined.exact] - exact.logits[refined.exact]).max() <= 1e-4
    assert (refined.logits[~refined.exact] == dense.logits[~refined.exact]).all()
    # exact cells have the crop's own probabilities, the others the temperature's
    assert np.abs(refined.probabilities()[refined.exact] - exact.probabilities()[refined.exact]).max() <= 1e-4
    everything = lite0(pixels, anchors=0, refine=1)
    assert np.abs(everything.probabilities() - exact.probabilities()).max() <= 1e-4
    assert exact.temperature == 1 and exact.exact.all()


def test_a_share_over_one_is_refused(lite0: Classifier) -> None:
    with pytest.raises(UsageError, match=r"--refine 1\.5 is not a share of the windows"):
        lite0(np.zeros((224, 224, 3), np.uint8), refine=1.5)


def test_the_temperature_leaves_logits_and_single_windows_alone(lite0: Classifier) -> None:
    pixels = open_image(SAMPLES / "coffee.png").read((100, 50, 356, 306))
    cool, off = lite0(pixels, anchors=0), load(temperature=1)(pixels, anchors=0)
    assert (cool.logits == off.logits).all()
    assert (cool.temperature, off.temperature) == (0.75, 1)
    assert np.abs(cool.probabilities() - softmax(cool.logits / np.float32(0.75))).max() < 1e-6
    single = lite0(pixels[:224, :224])
    assert single.temperature == 1 and (single.probabilities() == softmax(single.logits)).all()


def test_the_command_tells_the_proof_and_the_measures(
    fcnconv: Command, small: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text.md").write_text("no image")
    arguments = ["--json", SAMPLES / "coffee.png", tmp_path / "text.md", "--max-windows", "8"]
    done = fcnconv("verify", "efficientnet_lite0", *arguments)
    assert done.returncode == 1 and b"text.md: not an image" in done.stderr
    found = json.loads(done.stdout)
    assert found["receptive_field"] == 851 and found["local"] is True
    assert found["max_error"] <= found["tolerance"] * found["scale"] and found["tolerance"] == 1e-9
    assert 0 < found["rounding"] < 1e-4 and found["changes"]
    assert found["agreement"]["windows"] == 8
    ways = found["agreement"]["ways"]
    assert [(way["anchors"], way["refine"]) for way in ways] == [
        (record["anchors"], record["refine"]) for record in map(correction_record, WAYS)
    ]
    assert (ways[-1]["crops"], ways[-1]["agreement"]) == (1, 1) and ways[-1]["divergence"] < 1e-6
    assert ways[0]["crops"] == 0 and ways[0]["time"] < 1
    told = fcnconv("verify", *small, SAMPLES / "coffee.png", "--max-windows", "8").stdout.decode()
    assert "proved equal to the classifier at 64" in told
    assert "--anchors 4 --refine 0.1" in told and "same top class" in told


def test_an_answer_is_the_mean_of_the_windows_over_its_own_temperature(lite0: Classifier) -> None:
    mean = lite0(SAMPLES / "chelsea.png", scales="fit").logits.mean((0, 1))
    for classifier, temperature in ((lite0, LITE0_ANSWER_TEMPERATURE), (load(temperature=1), 1.0)):
        expected = softmax(mean / np.float32(temperature)).max()
        first = classifier.classify(SAMPLES / "chelsea.png").predictions[0]
        assert first.probability == pytest.approx(expected, rel=1e-4)
