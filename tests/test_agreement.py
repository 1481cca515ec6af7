"""The estimate of a map's truth: its sample, and intervals against exhaustive counts and simulation."""

from __future__ import annotations

from dataclasses import replace
from math import comb, gamma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnconv.scan.agreement import AgreementEstimator, sample_size, sample_windows, unseen_interval
from fcnconv.scores.activations import divergence


@given(
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    count=st.integers(0, 50),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_samples_are_cells_between_anchors(
    rows: int, cols: int, count: int, seed: int, data: st.DataObject
) -> None:
    down = np.array(sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1))))
    across = np.array(sorted(data.draw(st.sets(st.integers(0, cols - 1), min_size=1))))
    cells = sample_windows((rows, cols), down, across, count, seed)
    free = np.ones((rows, cols), bool)
    free[np.ix_(down, across)] = False
    assert len(cells) == min(count, free.sum()) and (np.diff(cells) > 0).all()
    assert free.ravel()[cells].all()


def test_every_cell_is_as_likely() -> None:
    lines = np.array([0, 2])
    drawn = [sample_windows((4, 4), lines, lines, 3, seed) for seed in range(3000)]
    counts = np.bincount(np.concatenate(drawn), minlength=16)
    assert (counts[[0, 2, 8, 10]] == 0).all()
    others = counts[counts > 0]
    assert len(others) == 12 and abs(others / 3000 - 3 / 12).max() < 0.04


def test_the_size_of_the_sample_follows_the_map() -> None:
    assert [sample_size(windows) for windows in (4, 72, 1014, 400_000)] == [16, 16, 25, 256]


def test_the_interval_against_the_formula() -> None:
    same, compared, rest = 7, 9, 12
    a, b = same + 0.5, compared - same + 0.5

    def beta(x: float, y: float) -> float:
        return gamma(x) * gamma(y) / gamma(x + y)

    chance = [comb(rest, k) * beta(k + a, rest - k + b) / beta(a, b) for k in range(rest + 1)]
    assert sum(chance) == pytest.approx(1)
    low, high = unseen_interval(same, compared, rest, 0.9)
    assert sum(chance[: int(low)]) < 0.05 <= sum(chance[: int(low) + 1])
    assert sum(chance[: int(high)]) < 0.95 <= sum(chance[: int(high) + 1])


def test_the_interval_of_a_large_map_is_that_of_many_windows() -> None:
    few, many = unseen_interval(45, 50, 20_000), unseen_interval(45, 50, 40_000)
    assert np.allclose(np.array(many) / 40_000, np.array(few) / 20_000)
    assert unseen_interval(5, 5, 0) == (0, 0)


@given(cells=st.integers(2, 300), share=st.floats(0, 1), compared=st.integers(1, 40), data=st.data())
def test_the_estimate_lies_in_its_interval(
    cells: int, share: float, compared: int, data: st.DataObject
) -> None:
    same = data.draw(st.integers(0, compared))
    tally = AgreementEstimator(cells, round(share * cells), same, [0.1] * same + [0.5] * (compared - same))
    found = tally.agreement()
    assert found is not None
    assert (
        0 <= found.low <= found.first_class + 1 / cells and found.first_class - 1 / cells <= found.high <= 1
    )
    assert 0 <= found.divergence_low <= found.divergence <= found.divergence_high
    assert found.low >= found.exact / found.cells, "what is exact agrees"


@pytest.mark.parametrize(("cells", "share"), [(60, 0.85), (170, 0.7), (700, 0.6), (700, 0.95)])
def test_the_interval_covers_the_truth(cells: int, share: float) -> None:
    generator, covered, count = np.random.default_rng(0), 0, 400
    for _ in range(count):
        agrees = generator.random(cells) < share
        sample = generator.choice(cells, sample_size(cells), replace=False)
        tally = AgreementEstimator(cells, len(sample), int(agrees[sample].sum()), [0.1] * len(sample))
        found = tally.agreement()
        agrees[sample] = True
        assert found is not None
        covered += found.low <= agrees.mean() <= found.high
    assert covered / count > 0.92


def test_nothing_is_claimed_without_a_sample() -> None:
    assert AgreementEstimator().agreement() is None
    assert AgreementEstimator(cells=10, exact=4).agreement() is None


def test_divergence_against_the_definition() -> None:
    crops, logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    p, q = (np.exp(x.astype(np.float64)) for x in (crops, logits))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    assert divergence(crops, logits) == pytest.approx((p * np.log(p / q)).sum(-1))
    assert divergence(crops, crops + 3).max() < 1e-6


def test_it_is_told_in_words() -> None:
    counted = AgreementEstimator(cells=100, exact=30, same=18, divergences=[0.1] * 20, variations=[0.2] * 20)
    assert "no crop is at least 50 % sure" in str(counted.agreement())
    told = str(replace(counted, sure=8, sure_same=6).agreement())
    assert "75 %" in told and "6 of 8" in told and "0.14" in told  # 70 of 100 windows differ by 0.2


def test_only_crops_that_are_sure_count() -> None:
    crops = np.log(np.array([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.1, 0.6, 0.3]], np.float32))
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.5, 0.2, 0.3]], np.float32))
    tally = AgreementEstimator()
    tally.compare(logits, crops)
    assert (tally.same, tally.sure, tally.sure_same) == (1, 2, 1)
    assert tally.variations == pytest.approx([0.1, 0.1, 0.4])


def test_every_window_a_crop_is_told_so() -> None:
    assert str(AgreementEstimator(cells=4, exact=4).agreement()) == "has a crop for every window"
