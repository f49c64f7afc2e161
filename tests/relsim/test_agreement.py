"""Agreement with judged pairs, against brute force, and resampling on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, mannwhitneyu

from relsim.agreement import (
    above,
    auc,
    average_precision,
    bootstrap,
    gold_matrix,
    interval,
    permutation_test,
    precision_recall,
)


def _items(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n) < 0.3, rng.integers(0, 12, n) / 3.0  # many ties


def _brute_average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    total, last = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        taken = score >= threshold
        recall = (taken & positive).sum() / positive.sum()
        total += (recall - last) * (taken & positive).sum() / taken.sum()
        last = recall
    return total


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_mann_whitney_statistic(seed: int) -> None:
    positive, score = _items(seed)
    u = mannwhitneyu(score[positive], score[~positive]).statistic
    assert auc(positive, score) == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_sum_over_thresholds(seed: int) -> None:
    positive, score = _items(seed)
    assert average_precision(positive, score) == pytest.approx(_brute_average_precision(positive, score), abs=1e-12)


def test_the_curve_is_precision_and_recall_at_every_threshold() -> None:
    positive, score = _items(4)
    curve = precision_recall(positive, score)
    assert curve.threshold.tolist() == sorted(set(score), reverse=True)
    for threshold, precision, recall, f1 in zip(*curve, curve.f1, strict=True):
        taken = score >= threshold
        hits = (taken & positive).sum()
        assert precision == pytest.approx(hits / taken.sum())
        assert recall == pytest.approx(hits / positive.sum())
        assert f1 == pytest.approx(2 * hits / (taken.sum() + positive.sum()))


@pytest.mark.parametrize("statistic", [auc, average_precision])
def test_a_weight_counts_an_item_so_often(statistic) -> None:  # type: ignore[no-untyped-def]
    positive, score = _items(7)
    times = np.random.default_rng(1).integers(0, 4, (3, len(score)))
    repeated = [statistic(np.repeat(positive, row), np.repeat(score, row)) for row in times]
    assert statistic(positive, score, times) == pytest.approx(np.array(repeated), abs=1e-12)


@pytest.mark.parametrize("statistic", [auc, average_precision])
def test_a_perfect_order_has_one_and_no_positives_have_none(statistic) -> None:  # type: ignore[no-untyped-def]
    positive = np.array([False, True, False, True])
    assert statistic(positive, positive.astype(float)) == 1.0
    assert np.isnan(statistic(np.zeros(4, bool), np.arange(4.0)))


@pytest.mark.parametrize("statistic", [auc, average_precision])
def test_labels_may_come_in_rows(statistic) -> None:  # type: ignore[no-untyped-def]
    _, score = _items(8)
    rows = np.random.default_rng(2).random((4, len(score))) < 0.4
    assert statistic(rows, score) == pytest.approx(np.array([statistic(row, score) for row in rows]), abs=1e-12)


def test_a_permutation_test_finds_what_is_there() -> None:
    gold, score = _null(0, size=20)
    p = permutation_test(gold, {"itself": gold.astype(float), "nothing": score}, draws=199)
    assert p["itself"] == 1 / 200
    assert p["nothing"] > 0.01


def test_scores_that_cannot_be_ordered_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        auc([True, False], [np.nan, 1.0])
    with pytest.raises(ValueError, match="expected labels"):
        auc([True, False], [1.0])


def test_pairs_become_a_symmetric_matrix_without_strangers() -> None:
    gold = gold_matrix(["a", "b", "c"], [("b", "a"), ("a", "x"), ("c", "c")])
    assert gold.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert above(gold).tolist() == [True, False, False]


def _null(seed: int, size: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """A judgement and a score that depend on their relations, pairs not independent, and not on each other."""
    rng = np.random.default_rng(seed)
    activity, appeal = rng.normal(size=size), rng.normal(size=size)
    gold = activity[:, None] + activity[None] + 0.3 * rng.normal(size=(size, size)) > 1.8
    gold |= gold.T
    np.fill_diagonal(gold, False)
    gold[0, 1] = gold[1, 0] = True
    score = appeal[:, None] + appeal[None] + 0.2 * rng.normal(size=(size, size))
    return gold, score + score.T


@pytest.mark.parametrize("statistic", [auc, average_precision])
def test_permutation_p_values_are_uniform_on_null_data(statistic) -> None:  # type: ignore[no-untyped-def]
    p = []
    for seed in range(300):
        gold, score = _null(seed)
        p.append(permutation_test(gold, {"s": score}, statistic, draws=99, seed=seed)["s"])
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) <= 0.1


def test_a_permutation_of_pairs_would_not_be_calibrated() -> None:
    """The reason for renaming relations: shuffled pairs reject a true null far too often."""
    rejected = 0
    for seed in range(100):
        gold, score = _null(seed)
        positive, flat, rng = above(gold), above(score), np.random.default_rng(seed)
        observed = auc(positive, flat)
        rejected += np.mean([auc(rng.permutation(positive), flat) >= observed for _ in range(99)]) <= 0.05
    assert rejected >= 15


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Relations of four types, judged alike within a type; the truth is that of a population of many relations."""

    def sample(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        kind = rng.integers(0, 4, size)
        place = np.eye(4)[kind] * 1.2 + rng.normal(size=(size, 4))
        gold = kind[:, None] == kind[None]
        np.fill_diagonal(gold, False)
        return gold, place @ place.T

    rng = np.random.default_rng(0)
    gold, score = sample(rng, 2000)
    truth = float(auc(above(gold), above(score)))
    held = 0
    for draw in range(100):
        gold, score = sample(rng, 40)
        low, high = interval(bootstrap(gold, {"s": score}, draws=200, seed=draw)["s"])
        held += low <= truth <= high
    assert 85 <= held <= 100


def test_resamples_are_shared_between_scores() -> None:
    gold, score = _null(3)
    drawn = bootstrap(gold, {"a": score, "b": 2 * score + 1}, draws=50)
    np.testing.assert_array_equal(drawn["a"], drawn["b"])


def test_slabs_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    gold, score = _null(3)

    def both() -> tuple[np.ndarray, dict[str, float]]:
        return bootstrap(gold, {"s": score}, draws=20)["s"], permutation_test(gold, {"s": score}, draws=20)

    whole = both()
    monkeypatch.setattr("relsim.agreement.HELD", 200)  # two resamples at a time
    parts = both()
    np.testing.assert_array_equal(parts[0], whole[0])
    assert parts[1] == whole[1]
