"""Score maps: softmax, ranking, planes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcnconv.labels import numbered
from fcnconv.scores import Grid, Provenance, ScoreMap, softmax, top_k

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


def test_a_map_gives_planes_and_the_best_classes_of_each_cell() -> None:
    logits = np.array([[[0, 1, 2], [5, 0, 0]]], np.float32)
    score_map = ScoreMap(logits, Grid(8, 4, (12, 8), (12, 8)), numbered(3), Provenance("m", "", "fcn"))
    assert score_map.shape == (1, 2, 3)
    assert np.allclose(
        score_map.plane(score_map.labels.category(2))[0, 0], np.exp(2) / (1 + np.e + np.exp(2))
    )
    class_idx, probability = score_map.top_k(2)
    assert class_idx.tolist() == [[[2, 1], [0, 1]]]
    assert np.allclose(probability[0, 1, 0], softmax(logits)[0, 1, 0])


def test_scale_is_that_of_the_short_side() -> None:
    assert Grid(224, 32, (600, 400), (384, 256)).scale == 0.64
    assert Grid(224, 32, (400, 600), (256, 384)).scale == 0.64
