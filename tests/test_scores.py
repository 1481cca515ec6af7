"""Score maps: softmax, ranking, planes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import make_map

from fcnconv.grid import Grid
from fcnconv.labels import Selection, numbered
from fcnconv.scores import sum_over, top_k
from fcnconv.scores.activations import softmax
from fcnconv.scores.predictions import most_specific

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
    elements=st.floats(-80, 80, width=32),
)


@given(LOGITS)
def test_probabilities_sum_to_one(logits: np.ndarray) -> None:
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    assert np.abs(probabilities.sum(-1) - 1).max() < 1e-5


@given(LOGITS, st.integers(1, 12))
def test_top_k_is_the_head_of_a_sort(logits: np.ndarray, k: int) -> None:
    expected = np.array(
        [
            [sorted(range(len(cell)), key=lambda i, cell=cell: (-cell[i], i))[:k] for cell in row]
            for row in logits
        ]
    )
    assert (top_k(logits, k) == expected).all()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(8, 60)),
        elements=st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -np.inf, np.nan]),
    ),
    st.integers(1, 8),
)
def test_the_few_best_of_many_are_found_among_equal_ones_and_what_is_no_number(
    scores: np.ndarray, k: int
) -> None:
    found = top_k(scores, k)
    assert found.shape == (len(scores), min(k, scores.shape[1]))
    for line, indices in zip(scores, found, strict=True):
        numbers = sorted(np.flatnonzero(~np.isnan(line)), key=lambda i, line=line: (-line[i], i))
        assert indices.tolist() == [*numbers, *np.flatnonzero(np.isnan(line))][:k]


def test_a_map_gives_planes_and_the_best_classes_of_each_cell() -> None:
    logits = np.array([[[0, 1, 2], [5, 0, 0]]], np.float32)
    score_map = make_map(logits, Grid(8, 4, (12, 8), (12, 8)), numbered(3))
    assert score_map.shape == (1, 2, 3)
    assert np.allclose(
        score_map.class_map(score_map.labels.category(2))[0, 0], np.exp(2) / (1 + np.e + np.exp(2))
    )
    class_idx, probability = score_map.top_k(2)
    assert class_idx.tolist() == [[[2, 1], [0, 1]]]
    assert np.allclose(probability[0, 1, 0], softmax(logits)[0, 1, 0])


def test_scale_is_that_of_the_short_side() -> None:
    assert Grid(224, 32, (600, 400), (384, 256)).scale == 0.64
    assert Grid(224, 32, (400, 600), (256, 384)).scale == 0.64


def test_the_answer_is_the_smallest_selection_that_is_sure() -> None:
    one, two, pair, all_four = (
        Selection("one", (0,)),
        Selection("two", (1,)),
        Selection("pair", (0, 1)),
        Selection("all", (0, 1, 2, 3)),
    )
    selections = (one, two, pair, all_four)
    probabilities = sum_over(np.array([0.3, 0.4, 0.2, 0.1], np.float32), selections)
    assert np.allclose(probabilities, [0.3, 0.4, 0.7, 1])
    for at_least, answer in [(0.25, two), (0.4, two), (0.5, pair), (0.8, all_four), (1.0, all_four)]:
        assert selections[most_specific(selections, probabilities, at_least - 1e-6)] is answer
    assert selections[most_specific(selections, probabilities / 2, 0.9)] is all_four  # none: the widest


@given(LOGITS, st.data())
def test_a_concepts_logit_keeps_the_odds(logits: np.ndarray, data: st.DataObject) -> None:
    classes = data.draw(st.sets(st.integers(0, logits.shape[-1] - 1), min_size=1))
    concept = Selection("concept", tuple(sorted(classes)))
    grid = Grid(8, 4, (8, 8), (8, 8))
    score_map = make_map(logits, grid, numbered(logits.shape[-1]))
    logit = score_map.class_maps([concept], "logits")[..., 0].astype(float)
    total = np.log(np.exp(logits.astype(float)).sum(-1))
    assert np.allclose(np.exp(logit - total), score_map.class_map(concept), rtol=1e-4, atol=1e-6)
