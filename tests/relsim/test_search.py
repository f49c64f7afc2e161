"""Search gives what the full matrix holds, and evaluates less of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from relsim.data import nations
from relsim.distribution import FactDistribution
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator, Enumerate, RaoBlackwell
from relsim.rows import LazyRows
from relsim.search import nearest, similar_pairs
from relsim.similar import nearest_pairs, neighbours, pair_record, symmetric_kl
from relsim.training import fit_counts
from tests.relsim.conftest import random_model

ESTIMATORS = [Enumerate(), RaoBlackwell(mass=1.0, samples=40, seed=1), RaoBlackwell(mass=1.0, samples=60, seed=2)]


def agree(model: FactDistribution, estimator: DesignEstimator, div: Divergence, name: str, k: int) -> int:
    """Check one search against the matrix; return the rows that it took."""
    found, effort = nearest(model, name, k, estimator=estimator)
    expected = neighbours(div, name, k)
    assert [n.name for n in found] == [n.name for n in expected]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose((mine.kl_from, mine.kl_to), (theirs.kl_from, theirs.kl_to), rtol=2e-5, atol=2e-5)
        if estimator == Enumerate():
            assert mine.kl_from_stderr == mine.kl_to_stderr == 0
    assert effort.pairs == len(div.relations) - 1
    assert 0 <= effort.excluded <= effort.pairs
    return effort.rows


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["exact", "seed1", "seed2"])
@pytest.mark.parametrize("seed", range(3))
def test_nearest_is_the_row_of_the_full_matrix(estimator: DesignEstimator, seed: int) -> None:
    model = random_model(150, 30, seed)
    div = estimator.divergence(model, progress=False)
    for name in ("r0", "r7", "r29"):
        for k in (1, 4, 29, 100):
            agree(model, estimator, div, name, k)


@pytest.mark.data
@pytest.mark.parametrize("name", ["nations", "umls", "codex"])
@pytest.mark.parametrize("seed", range(2))
def test_nearest_is_the_row_of_the_full_matrix_on_fitted_models(
    name: str, seed: int, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(f"{name}_model")
    estimator = RaoBlackwell(samples=max(10, len(model.entities) // 4), seed=seed)
    div = estimator.divergence(model, progress=False)
    for relation in model.relations[:: max(1, len(model.relations) // 6)]:
        agree(model, estimator, div, relation, 3)


def test_nearest_works_on_counts() -> None:
    model = fit_counts(nations())
    div = Enumerate().divergence(model, progress=False)
    agree(model, Enumerate(), div, "embassy", 5)


def test_search_for_few_evaluates_less_than_the_matrix() -> None:
    model = random_model(400, 60, seed=4)
    estimator = RaoBlackwell(mass=1.0, samples=200)
    div = estimator.divergence(model, progress=False)
    rows = [agree(model, estimator, div, name, 3) for name in model.relations[::10]]
    assert np.mean(rows) < 0.3 * 200 * 60  # relations of a random model have no near ones, which would raise the bound


def pairs_above(div: Divergence, threshold: float) -> list[tuple[str, str]]:
    distance = symmetric_kl(div)
    return [
        (div.relations[a], div.relations[b])
        for a, b in nearest_pairs(div)
        if math.exp(-max(distance[a, b], 0)) >= threshold
    ]


def between(distance: NDArray[np.float64], rank: int) -> float:
    """A threshold half-way between two neighbours in rank, so that rounding cannot decide."""
    ordered = np.sort(distance[np.triu_indices(len(distance), 1)])
    return math.exp(-0.5 * float(ordered[rank - 1] + ordered[rank]))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["exact", "seed1", "seed2"])
@pytest.mark.parametrize("rank", [1, 5, 40])
def test_similar_pairs_are_those_of_the_full_matrix(estimator: DesignEstimator, rank: int) -> None:
    model = random_model(150, 30, seed=7)
    div = estimator.divergence(model, progress=False)
    threshold = between(symmetric_kl(div), rank)
    found, effort = similar_pairs(model, threshold, estimator=estimator)
    assert [(r["a"], r["b"]) for r in found] == pairs_above(div, threshold)
    assert len(found) == rank
    for record in found:
        expected = pair_record(div, div.index(record["a"]), div.index(record["b"]))
        assert record.keys() == expected.keys()
        for key in ("kl_ab", "kl_ba", "head_ab", "head_ba", "tail_ab", "tail_ba", "similarity"):
            assert record[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-9)
        assert (record["support_a"], record["support_b"]) == (expected["support_a"], expected["support_b"])
    assert effort.rows < effort.all_rows * (1 if rank < 10 else 2)  # a row may first be wanted without its mean
    assert effort.excluded > (0.5 if rank < 10 else 0.2) * effort.pairs


def test_raw_standard_errors_are_those_of_the_matrix_when_every_pair_is_asked_for() -> None:
    """Moderation looks at what a row has in common; with the whole row evaluated it is the same row."""
    model = random_model(150, 12, seed=3)
    estimator = RaoBlackwell(mass=1.0, samples=50)
    div = estimator.divergence(model, progress=False)
    found, _ = nearest(model, "r4", 11, estimator=estimator)
    for n in found:
        assert n.kl_from_stderr == pytest.approx(div.stderr[4, div.index(n.name)], rel=1e-6)


@pytest.mark.parametrize("count", [5, 100])  # in one pass, and in several
@torch.no_grad()
def test_the_way_back_takes_no_row_twice(count: int) -> None:
    model = random_model(150, 6, seed=3)
    design = RaoBlackwell(mass=1.0, samples=120, features=4).design(model, torch.arange(6))
    rows = LazyRows(model, design)
    heads = torch.arange(count)
    a, b = torch.full((2, count), 1), torch.full((2, count), 4)
    there = rows.gather(heads, a[0], b[0], both=True)
    assert rows.evaluated == 2 * count
    counts = design.sample.weight[heads, 4] > 0
    back = rows.gather(heads[counts], b[0, counts], a[0, counts])
    p, q = (model.tail_log_prob(design.sample.heads[heads], r).double() for r in (a[0], b[0]))
    np.testing.assert_allclose(there, (p.exp() * (p - q)).sum(dim=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(back, (q.exp() * (q - p)).sum(dim=1)[counts], rtol=1e-9, atol=1e-12)
    assert 0 < int(counts.sum())
    assert rows.evaluated == 2 * count


def test_no_pair_at_all_is_an_empty_answer() -> None:
    found, effort = similar_pairs(random_model(60, 5), 1.0)
    assert found == []
    assert effort.pairs == 10


@torch.no_grad()
def test_equal_relations_are_found_at_any_threshold() -> None:
    model = random_model(60, 6)
    model.relation[4] = model.relation[1]
    found, _ = similar_pairs(model, 0.999999)
    assert [(r["a"], r["b"]) for r in found] == [("r1", "r4")]


def test_one_relation_is_refused() -> None:
    with pytest.raises(RelsimError, match="1 relation: a search needs two or more"):
        nearest(random_model(20, 1), "r0")


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.1, math.nan])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"expected threshold in \(0, 1\]"):
        similar_pairs(random_model(20, 3), threshold)


def test_the_model_is_left_in_training_mode_if_it_was() -> None:
    model = random_model(20, 3).train()
    nearest(model, "r0", 1)
    assert model.training
