"""Combined similarities against formulas and against data of a known model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from relsim.agreement import above
from relsim.combining import fit_logistic, rank_average


def _similarity(rng: np.random.Generator, size: int) -> np.ndarray:
    s = rng.normal(size=(size, size))
    return s + s.T


def test_the_rank_average_of_one_similarity_keeps_its_order() -> None:
    s = _similarity(np.random.default_rng(0), 7)
    flat = above(rank_average([s]))
    np.testing.assert_array_equal(np.argsort(flat), np.argsort(above(s)))
    assert np.sort(flat) == pytest.approx((np.arange(21) + 0.5) / 21)


def test_ranks_forget_monotone_scales_and_share_ties() -> None:
    rng = np.random.default_rng(1)
    a, b = _similarity(rng, 6), _similarity(rng, 6)
    np.testing.assert_allclose(rank_average([a, b]), rank_average([np.exp(a), 3 * b - 8]))
    assert above(rank_average([np.zeros((6, 6))])) == pytest.approx(np.full(15, 0.5))


def test_logistic_weights_are_recovered_from_pairs_drawn_of_the_model() -> None:
    rng = np.random.default_rng(2)
    similarities = [_similarity(rng, 150) / 2**0.5 for _ in range(2)]
    drawn = rng.random((150, 150)) < expit(-1 + 1.5 * similarities[0] - 0.5 * similarities[1])
    gold = np.triu(drawn, 1)
    model = fit_logistic(similarities, gold | gold.T)
    assert model.weights == pytest.approx([1.5, -0.5], abs=0.12)  # 11,175 pairs: four standard errors
    assert model.bias == pytest.approx(-1, abs=0.12)


def test_the_fitted_loss_has_no_gradient_and_ridge_shrinks() -> None:
    rng = np.random.default_rng(3)
    similarities = [_similarity(rng, 20) for _ in range(3)]
    gold = similarities[0] > 1.5
    loose, tight = (fit_logistic(similarities, gold, ridge) for ridge in (0.1, 100.0))
    assert np.linalg.norm(tight.weights) < np.linalg.norm(loose.weights)
    p = above(loose(similarities))
    assert p.sum() == pytest.approx(above(gold).sum(), rel=1e-4)  # the score equation of the bias


def test_pairs_of_one_kind_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        fit_logistic([np.eye(4)], np.zeros((4, 4), bool))
