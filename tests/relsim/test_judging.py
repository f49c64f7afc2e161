"""The estimate of recall from some judgements, against the recall that all of them give."""

from __future__ import annotations

import numpy as np
import pytest

from relsim.judging import judge_some


def _world(pairs: int = 5000) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(0)
    score = rng.beta(0.5, 5, pairs) + 1e-3
    positive = rng.random(pairs) < 0.6 * score
    taken = score > 0.3
    return score, positive, taken, float((positive & taken).sum() / positive.sum())


def test_sums_over_draws_are_unbiased_for_sums_over_all_pairs() -> None:
    score, positive, _, _ = _world()
    totals = [(j := judge_some(score, positive.__getitem__, 100, seed=s)).weight @ j.positive for s in range(2000)]
    assert np.mean(totals) == pytest.approx(positive.sum(), abs=4 * np.std(totals) / 2000**0.5)


def test_recall_and_its_standard_error_hold_the_truth() -> None:
    score, positive, taken, truth = _world()
    found = np.array([judge_some(score, positive.__getitem__, 400, seed=s).recall(taken) for s in range(500)])
    assert found[:, 0].mean() == pytest.approx(truth, abs=0.01)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)
    assert 0.9 <= (np.abs(found[:, 0] - truth) <= 1.96 * found[:, 1]).mean() <= 0.98


def test_drawing_by_the_score_beats_drawing_evenly() -> None:
    score, positive, taken, _ = _world()
    spread = [
        np.nanstd([judge_some(s, positive.__getitem__, 400, seed=seed).recall(taken)[0] for seed in range(300)])
        for s in (score, np.ones_like(score))
    ]
    assert spread[0] < 0.8 * spread[1]


def test_a_pair_that_cannot_be_drawn_is_refused_and_no_positive_says_nothing() -> None:
    with pytest.raises(ValueError, match="positive scores"):
        judge_some(np.array([0.0, 1.0]), lambda rows: rows > 0, 5)
    nothing = judge_some(np.ones(4), lambda rows: np.zeros(len(rows), bool), 5)
    assert np.isnan(nothing.recall(np.ones(4, bool))[0])
