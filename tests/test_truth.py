"""Maps that are true by default, on the embedded network: held against its answers for every real crop."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command

from fcnconv import load
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.provenance import Anchored
from fcnconv.scores.activations import divergence

COFFEE, ROCKET = SAMPLES / "coffee.png", SAMPLES / "rocket.jpg"


@pytest.fixture(scope="module")
def crops() -> ScoreMap:
    """Every real crop of coffee.png."""
    return load(mode="windows")(COFFEE)


def same(found: ScoreMap, true: ScoreMap) -> float:
    return float((found.logits.argmax(-1) == true.logits.argmax(-1)).mean())


def test_exact_cells_are_real_crops_and_the_rest_is_nearer_to_them(
    lite0: Classifier, crops: ScoreMap
) -> None:
    plain, found = lite0(COFFEE), lite0(COFFEE, anchors=4)
    assert found.provenance.correction == Anchored(4) and found.temperature == 1
    assert 0 < found.exact.sum() < found.exact.size
    assert np.abs(found.logits - crops.logits)[found.exact].max() <= 1e-4
    between = ~found.exact
    off = [divergence(crops.logits[between], m.logits[between]).mean() for m in (plain, found)]
    assert off[1] < 0.5 * off[0] and same(found, crops) > same(plain, crops)


def test_more_anchors_are_nearer_and_every_window_is_the_classifier(
    lite0: Classifier, crops: ScoreMap
) -> None:
    off = [
        divergence(crops.logits.reshape(-1, 1000), lite0(COFFEE, anchors=k).logits.reshape(-1, 1000)).mean()
        for k in (6, 3, 2, 1)
    ]
    assert off == sorted(off, reverse=True) and off[-1] < 1e-6
    assert lite0(COFFEE, anchors=1).exact.all()


@pytest.mark.slow
def test_the_estimate_holds_the_truth(lite0: Classifier) -> None:
    held, seeds = 0, range(6)
    for image in (COFFEE, SAMPLES / "chelsea.png"):
        true = load(mode="windows")(image)
        for seed in seeds:
            found = lite0(image, anchors=4, seed=seed)
            told = found.provenance.agreement
            assert told is not None and told.compared <= found.exact.sum()
            assert found.provenance.correction == Anchored(4, seed=seed)
            held += told.low - 1e-9 <= same(found, true) <= told.high + 1e-9
    assert held >= 0.9 * 2 * len(seeds)


def test_a_share_of_agreement_is_reached(lite0: Classifier, crops: ScoreMap) -> None:
    found = lite0(COFFEE, agreement=0.95)
    told = found.provenance.agreement
    assert told is not None and told.low >= 0.95 and told.exact == found.exact.sum() < found.exact.size
    assert same(found, crops) >= 0.95
    assert lite0(COFFEE, agreement=1.0).exact.all()


def test_crops_alone_are_interpolated_in_windows_mode(crops: ScoreMap) -> None:
    found = load(mode="windows")(COFFEE, anchors=3)
    assert found.provenance.correction == Anchored(3) and 0 < found.exact.sum() < found.exact.size
    assert np.abs(found.logits - crops.logits)[found.exact].max() <= 1e-4
    assert same(found, crops) > 0.8


def test_a_map_in_little_memory_is_corrected_alike(lite0: Classifier) -> None:
    whole = lite0(SAMPLES / "collage.jpg", anchors=4)
    parts = replace(lite0, memory=400e6)(SAMPLES / "collage.jpg", anchors=4)
    assert (whole.exact == parts.exact).all()
    assert np.abs(whole.logits - parts.logits).max() <= 1e-4 * np.abs(whole.logits).max()
    assert str(whole.provenance.agreement) == str(parts.provenance.agreement)


def test_fine_maps_have_their_anchors_on_the_networks_own_windows(lite0: Classifier) -> None:
    coarse, fine = lite0(ROCKET, anchors=4), load(stride=16)(ROCKET, anchors=4)
    rows, cols = np.nonzero(fine.exact)
    anchors = (rows % 2 == 0) & (cols % 2 == 0)
    assert anchors.mean() > 0.5  # the others are the sample
    assert fine.provenance.correction == coarse.provenance.correction == Anchored(4)


def test_one_window_is_the_classifier_untouched(lite0: Classifier) -> None:
    pixels = lite0.open(COFFEE).read((100, 50, 324, 274))
    alone, plain = lite0(pixels, anchors=4), lite0(pixels)
    assert (alone.logits == plain.logits).all() and alone.exact.all()
    assert str(alone.provenance.agreement) == "has a crop for every window"


@pytest.mark.parametrize("suffix", ["npz", "json", "zarr", "tif", "png", "geojson", "html"])
def test_every_format_tells_how_true_its_map_is(fcnconv: Command, suffix: str, tmp_path: Path) -> None:
    if suffix in ("zarr", "tif"):
        pytest.importorskip({"zarr": "zarr", "tif": "tifffile"}[suffix])
    out = tmp_path / f"map.{suffix}"
    done = fcnconv("heatmap", COFFEE, "-o", out, "-c", "espresso", "--scales", "1", "--anchors", "4")
    assert done.returncode == 0
    assert re.search(
        rb"same top class as the crop in \d+ % .*at least 50 % sure.*28 of 72 windows", done.stderr
    )
    if suffix == "npz":
        told: dict[str, object] = dict(np.load(out))
        assert told["exact"].sum() == 28  # type: ignore[attr-defined]
    elif suffix == "zarr":
        import zarr

        group = zarr.open_group(out, mode="r")
        told = group.attrs.asdict()
        assert group["exact"][:].sum() == 28
    elif suffix == "tif":
        import tifffile

        with tifffile.TiffFile(out) as file:
            told = json.loads(file.imagej_metadata["Info"])
    elif suffix == "png":
        from PIL import Image

        told = json.loads(Image.open(out).text["fcnconv"])
    elif suffix == "html":
        assert "<dt>agreement low</dt>" in out.read_text(encoding="utf-8")
        return
    else:
        document = json.loads(out.read_text())
        told = document if suffix == "json" else document["provenance"]
        if suffix == "geojson":
            assert any(feature["properties"]["exact"] for feature in document["features"])
        if suffix == "json":
            assert sum(cell["exact"] for cell in document["cells"]) == 28
    exact = 0 if suffix == "png" else 28  # no cell of a focused map is a crop
    assert (int(told["anchors"]), int(told["exact_cells"]), int(told["compared"])) == (4, exact, 16)
    assert math.isclose(float(told["agreement_low"]), 0.9028, abs_tol=0.02)


def test_batch_tells_it_in_json(fcnconv: Command, tmp_path: Path) -> None:
    done = fcnconv("batch", COFFEE, "-o", tmp_path / "maps", "--anchors", "3", "--refine", "0.1", "--json")
    (record,) = map(json.loads, done.stdout.splitlines())
    assert record["new"] and 0.8 < record["agreement_low"] <= record["agreement"] <= 1
    settings = json.loads((tmp_path / "maps/fcnconv.json").read_text())
    assert (settings["anchors"], settings["refine"], settings["seed"]) == (3, 0.1, 0)
