"""The estimators against full enumeration over facts, and their standard errors against what they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relsim.counts import CountsDistribution
from relsim.design import Design, bregman, exact_design, sampled_design
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.estimators import Enumerate, MonteCarlo, RaoBlackwell
from relsim.kb import KB
from relsim.mlp import MLPDistribution
from tests.relsim.conftest import random_model


def brute_force(model: FactDistribution) -> NDArray[np.float64]:
    """KL(a || b) as the plain sum over all facts of p_a (log p_a - log p_b), from `log_prob` alone."""
    size, relations = len(model.entities), len(model.relations)
    heads, tails = (index.reshape(-1) for index in torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij"))
    with torch.no_grad():
        joint = torch.stack([model.log_prob(heads, torch.tensor(r), tails) for r in range(relations)])  # (R, E^2)
    torch.testing.assert_close(joint.exp().sum(dim=1), torch.ones(relations, dtype=joint.dtype))
    return np.array([[float((a.exp() * (a - b)).sum()) for b in joint] for a in joint])


def deviations(model: FactDistribution, estimator: MonteCarlo | RaoBlackwell, exact: NDArray[np.float64]) -> NDArray:
    """Deviations of an estimate from the exact divergence, in its standard errors, over all pairs."""
    div = estimator.divergence(model, progress=False)
    pairs = ~np.eye(len(div.relations), dtype=bool)
    assert (div.stderr[pairs] > 0).all()
    return ((div.kl - exact)[pairs]) / div.stderr[pairs]


@pytest.mark.parametrize(("entities", "relations"), [(2, 2), (7, 5), (31, 3)], ids=["E2-R2", "E7-R5", "E31-R3"])
def test_enumerate_is_the_sum_over_all_facts(entities: int, relations: int) -> None:
    model = random_model(entities, relations, seed=entities)
    div = Enumerate().divergence(model, progress=False)
    np.testing.assert_allclose(div.kl, brute_force(model), rtol=0, atol=1e-9)
    assert (div.stderr == 0).all()


def test_enumerate_is_the_sum_over_all_facts_on_a_trained_model(nations_model: MLPDistribution) -> None:
    model = nations_model.double()
    try:
        np.testing.assert_allclose(Enumerate().divergence(model).kl, brute_force(model), rtol=0, atol=1e-9)
    finally:
        model.float()


def test_enumerate_is_the_sum_over_all_facts_of_smoothed_counts() -> None:
    rng = np.random.default_rng(0)
    facts = np.unique(rng.integers(0, [9, 4, 9], (60, 3)), axis=0)
    facts = torch.from_numpy(np.column_stack([facts, rng.integers(1, 4, len(facts))]))
    model = CountsDistribution([str(i) for i in range(9)], [str(i) for i in range(5)], facts=facts)  # one unseen
    np.testing.assert_allclose(Enumerate().divergence(model).kl, brute_force(model), rtol=0, atol=1e-9)


def test_single_precision_keeps_six_digits(nations_model: MLPDistribution) -> None:
    single = Enumerate().divergence(nations_model).kl
    try:
        np.testing.assert_allclose(single, Enumerate().divergence(nations_model.double()).kl, rtol=1e-5, atol=2e-5)
    finally:
        nations_model.float()


@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_head_part_is_a_lower_bound(entities: int, relations: int, seed: int) -> None:
    model = random_model(entities, relations, seed)
    div = Enumerate().divergence(model, progress=False)
    assert (div.head <= div.kl + 1e-10).all()
    assert (div.head >= -1e-10).all()
    np.testing.assert_allclose(div.head, exact_design(model, torch.arange(relations)).head_part().detach(), atol=1e-10)


def test_bregman_is_the_divergence_of_softmaxes() -> None:
    generator = torch.Generator().manual_seed(0)
    table, natural = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((50, 4), (2, 3, 4)))
    log_p = torch.log_softmax(natural @ table.T, dim=-1)
    expected = (log_p.exp()[:, :, None] * (log_p[:, :, None] - log_p[:, None])).sum(dim=-1)
    found = bregman(natural, torch.logsumexp(natural @ table.T, -1), log_p.exp() @ table)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_a_subset_of_relations_is_the_same_as_the_submatrix(nations_model: MLPDistribution) -> None:
    names = ["embassy", "tourism", "treaties"]
    whole, part = (Enumerate().divergence(nations_model, relations) for relations in (None, names))
    rows = [whole.index(name) for name in names]
    np.testing.assert_allclose(part.kl, whole.kl[np.ix_(rows, rows)], rtol=1e-5, atol=1e-5)
    assert list(part.relations) == names


def test_rao_blackwell_with_every_head_is_exact() -> None:
    model = random_model(20, 4)
    div = RaoBlackwell(mass=1.0, samples=20).divergence(model, progress=False)
    np.testing.assert_allclose(div.kl, Enumerate().divergence(model).kl, atol=1e-12)
    assert (div.stderr == 0).all()


def test_equal_seeds_give_equal_results(nations_model: MLPDistribution) -> None:
    for estimator in (RaoBlackwell(samples=8, seed=3), MonteCarlo(seed=3)):
        first, second = (estimator.divergence(nations_model, progress=False) for _ in range(2))
        np.testing.assert_array_equal(first.kl, second.kl)
        other = type(estimator)(samples=estimator.samples, seed=4).divergence(nations_model, progress=False)
        assert (first.kl != other.kl).any()


@pytest.mark.parametrize("seed", range(3))
def test_monte_carlo_agrees_within_its_standard_errors_on_nations(nations_model: MLPDistribution, seed: int) -> None:
    exact = Enumerate().divergence(nations_model).kl
    z = deviations(nations_model, MonteCarlo(samples=400, seed=seed), exact)
    assert 0.9 <= np.mean(np.abs(z) < 1.96) <= 0.99
    assert abs(np.mean(z)) < 0.5


def test_rao_blackwell_agrees_within_its_standard_errors_on_nations(nations_model: MLPDistribution) -> None:
    """Ten of 14 heads: hardly a sample, so the coverage is that over seeds."""
    exact = Enumerate().divergence(nations_model).kl
    estimators = [RaoBlackwell(mass=1.0, samples=10, seed=seed) for seed in range(30)]
    inside = [np.mean(np.abs(deviations(nations_model, each, exact)) < 1.96) for each in estimators]
    assert 0.9 <= np.mean(inside) <= 0.99


@pytest.mark.data
@pytest.mark.parametrize("name", ["umls", "codex"])
def test_both_agree_within_their_standard_errors_on_benchmarks(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(f"{name}_model")
    exact = Enumerate().divergence(model, progress=False).kl
    heads = len(model.entities) // 3
    inside = [
        np.mean(np.abs(deviations(model, estimator, exact)) < 1.96)
        for seed in range(4)
        for estimator in (RaoBlackwell(mass=1.0, samples=heads, seed=seed), MonteCarlo(samples=50, seed=seed))
    ]
    assert 0.9 <= np.mean(inside[::2]) <= 0.99, "RaoBlackwell"
    assert 0.9 <= np.mean(inside[1::2]) <= 0.99, "MonteCarlo"


def test_coverage_of_the_95_percent_interval_over_seeds() -> None:
    """On a model with broad and narrow relations: the share of intervals that hold the truth, over 60 samples."""
    model = random_model(300, 8, seed=5)
    exact = Enumerate().divergence(model, progress=False).kl
    inside = [
        np.mean(np.abs(deviations(model, RaoBlackwell(mass=1.0, samples=80, seed=seed), exact)) < 1.96)
        for seed in range(60)
    ]
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize(("entities", "relations", "seed"), [(300, 8, 5), (200, 5, 2)])
def test_relations_of_one_or_two_heads_are_exact_to_a_hundredth_of_a_percent(
    entities: int, relations: int, seed: int
) -> None:
    """Where all but 1e-6 of the mass is certain, standard errors say little, but the errors are as small."""
    model = random_model(entities, relations, seed, scale=1.5)
    exact = Enumerate().divergence(model, progress=False).kl
    for sample in range(20):
        kl = RaoBlackwell(mass=1.0, samples=entities // 4, seed=sample).divergence(model, progress=False).kl
        np.testing.assert_allclose(kl, exact, rtol=1e-4, atol=1e-9)


def test_rao_blackwell_is_unbiased_over_seeds() -> None:
    model = random_model(200, 5, seed=2)
    exact = Enumerate().divergence(model, progress=False).kl
    estimator = [RaoBlackwell(mass=1.0, samples=50, seed=seed).divergence(model, progress=False) for seed in range(80)]
    kl = np.stack([div.kl for div in estimator])
    error = kl.std(axis=0, ddof=1) / len(kl) ** 0.5
    pairs = ~np.eye(5, dtype=bool)
    assert np.abs((kl.mean(axis=0) - exact)[pairs] / error[pairs]).max() < 4.0


def test_calibrated_weights_beat_self_normalised_ones(nations_model: MLPDistribution) -> None:
    """What the regression on features of heads is for: on a model whose divergences follow them, errors shrink."""
    model = random_model(600, 24, seed=1, dim=4)
    exact = Enumerate().divergence(model, progress=False).kl

    def error(features: int) -> float:
        runs = [RaoBlackwell(mass=1.0, samples=200, features=features, seed=seed) for seed in range(6)]
        return float(np.mean([np.square(run.divergence(model, progress=False).kl - exact).mean() for run in runs]))

    assert error(8) < 0.8 * error(0)


@torch.no_grad()
@pytest.mark.parametrize(("bias", "rows"), [(True, 1 << 15), (True, 40), (False, 40)])
def test_features_of_heads_come_from_the_table_alone(bias: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """log p(h | r) has the rank of the table: a factor as thin gives the features of the dense matrix, up to sign."""
    monkeypatch.setattr("relsim.distribution.FEATURE_ROWS", rows)
    model = random_model(150, 12, dim=4)
    if not bias:
        model.head_bias = None
    thin, dense = (cls.head_features(model, torch.arange(12), 3) for cls in (MLPDistribution, FactDistribution))
    assert thin.shape == (150, 4)
    torch.testing.assert_close((thin * dense).mean(dim=0).abs(), thin.new_ones(4), rtol=1e-9, atol=0)


@torch.no_grad()
def test_a_design_survives_a_round_trip_through_tensors() -> None:
    model = random_model(80, 6)
    design = sampled_design(model, torch.arange(6), mass=1.0, samples=40, features=2, seed=1)
    again = Design.of_tensors(design.tensors())
    assert again.sample.features.shape == (40, 3)
    for key, value in design.tensors().items():
        assert torch.equal(value, again.tensors()[key])


def test_one_relation_is_refused(nations_model: MLPDistribution) -> None:
    with pytest.raises(RelsimError, match="1 relation: a comparison needs two or more"):
        Enumerate().divergence(nations_model, ["embassy"])


def test_an_unknown_relation_is_refused_with_the_nearest(nations_model: MLPDistribution) -> None:
    with pytest.raises(RelsimError, match="unknown relation 'embasy': did you mean 'embassy'"):
        Enumerate().divergence(nations_model, ["embasy", "treaties"])


def test_the_model_is_left_in_training_mode_if_it_was(nations_model: MLPDistribution) -> None:
    try:
        RaoBlackwell(samples=5).divergence(nations_model.train(), progress=False)
        assert nations_model.training
    finally:
        nations_model.eval()


@pytest.mark.parametrize("arguments", [{"mass": 0.0}, {"mass": 1.1}, {"samples": 0}, {"features": -1}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected mass"):
        RaoBlackwell(**arguments)  # type: ignore[arg-type]


def test_counts_of_a_kb_give_zero_divergence_between_equal_relations() -> None:
    facts = [(h, r, t) for h, t in [("a", "b"), ("b", "c"), ("c", "a")] for r in ("x", "y")]
    from relsim.training import fit_counts

    model = fit_counts(KB.from_names([*facts, ("a", "z", "c")], valid=facts[:2]))
    div = Enumerate().divergence(model, progress=False)
    assert div.kl[div.index("x"), div.index("y")] == pytest.approx(0, abs=1e-12)
    assert div.kl[div.index("x"), div.index("z")] > 0.1
