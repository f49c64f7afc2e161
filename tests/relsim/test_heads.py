"""The sample of heads: its design, and weights that reproduce what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relsim.heads import (
    HeadProbability,
    HeadSample,
    heads_holding,
    inclusion,
    left_basis,
    moderated,
    proportional,
    sample_heads,
    systematic,
    unit_variance,
)


def head_probability(relations: int = 6, entities: int = 200, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(relations, entities, generator=generator, dtype=torch.float64), dim=1)


def features(probability: Tensor, count: int) -> Tensor:
    log = probability.log().T
    centred = log - log.mean(dim=0)
    vectors = centred @ left_basis(centred.T @ centred, count)
    return torch.cat([vectors.new_ones(len(vectors), 1), vectors * len(vectors) ** 0.5], dim=1)


def test_left_vectors_are_those_of_the_singular_value_decomposition() -> None:
    matrix = head_probability(8, 50).T.log()
    expected = torch.linalg.svd(matrix, full_matrices=False).U[:, :3]
    found = matrix @ left_basis(matrix.T @ matrix, 3)
    torch.testing.assert_close((found * expected).sum(dim=0).abs(), torch.ones(3).double())


def sampled(probability: Tensor, size: int, count: int, seed: int = 0) -> HeadSample:
    known = features(probability, count)
    return sample_heads(HeadProbability.of(probability), size, known, np.random.default_rng(seed))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50), st.data())
@settings(deadline=None)
def test_proportional_sums_to_the_size_and_is_proportional_below_one(measure: list[float], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(measure)))
    tensor = torch.tensor(measure, dtype=torch.float64)
    include = proportional(tensor, size)
    assert include.sum().item() == pytest.approx(size, rel=1e-9)
    assert (include <= 1).all()
    ratio = (include / tensor)[include < 1]
    if len(ratio):
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=0)
        assert (include[tensor * ratio[0] > 1 + 1e-9] == 1).all()


def test_inclusion_minimises_the_sum_of_variances() -> None:
    """No small change of the design that keeps its size does better."""
    probability, size = head_probability(), 60
    include = inclusion(HeadProbability.of(probability), size)
    best = unit_variance(probability, include).sum()
    rng = np.random.default_rng(0)
    free = (include < 0.98).nonzero().squeeze(1).numpy()
    for _ in range(200):
        i, j = rng.choice(free, 2, replace=False)
        moved = include.clone()
        step = 0.01 * float(min(moved[i], moved[j]))
        moved[i] += step
        moved[j] -= step
        assert unit_variance(probability, moved).sum() >= best * (1 - 1e-12)


def test_systematic_sampling_has_fixed_size_and_the_asked_probabilities() -> None:
    include = inclusion(HeadProbability.of(head_probability()), 40).numpy()
    rng = np.random.default_rng(0)
    draws = [systematic(include, rng) for _ in range(3000)]
    assert {len(draw) for draw in draws} == {40}
    assert all(len(np.unique(draw)) == 40 for draw in draws)
    frequency = np.bincount(np.concatenate(draws), minlength=len(include)) / len(draws)
    error = np.sqrt(include * (1 - include) / len(draws)) + 1e-9
    assert np.abs((frequency - include) / error).max() < 4.5


def test_calibrated_weights_reproduce_the_total_mass_and_nearly_the_features() -> None:
    probability = head_probability(entities=2000)
    sample = sampled(probability, 300, 5)
    np.testing.assert_allclose(sample.weight.sum(dim=0), 1.0, atol=1e-6)  # the intercept has no ridge
    known = features(probability, 5)
    raw = torch.zeros_like(sample.weight)
    include = inclusion(HeadProbability.of(probability), 300)[sample.heads, None]
    raw[sample.active] = (probability[:, sample.heads].T / include)[sample.active]
    truth = probability @ known
    before, after = ((w.T @ sample.features - truth)[:, 1:].abs().mean() for w in (raw, sample.weight))
    assert after < 0.25 * before


def test_a_response_linear_in_the_features_has_almost_no_error() -> None:
    probability = head_probability(entities=2000)
    sample = sampled(probability, 300, 5, seed=1)
    known = features(probability, 5)
    response = known @ torch.tensor([3.0, 1.0, -2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    truth, estimate = probability @ response, sample.weight.T @ response[sample.heads]
    residual = response - probability @ response @ torch.ones(6, dtype=torch.float64) / 6
    typical = residual.std() / 300**0.5
    assert (estimate - truth).abs().max() < 0.25 * typical


def test_certain_heads_keep_their_own_weight() -> None:
    probability = head_probability()
    include = inclusion(HeadProbability.of(probability), 120)
    sample = sampled(probability, 120, 2)
    certain = (include[sample.heads, None] == 1) & sample.active
    share = probability[:, sample.heads].T
    unthinned = certain & (share >= 0.02 * unit_variance(probability, include))
    assert unthinned.sum() > 100
    torch.testing.assert_close(sample.weight[unthinned], share[unthinned])
    assert (sample.noise[unthinned] == 0).all()


def test_moderation_leaves_ample_evidence_and_lifts_lucky_zeros() -> None:
    mean, variance = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.0, 4.0, 16.0]])
    few, many = (moderated(variance, mean, torch.tensor([freedom])) for freedom in (2.0, 2e6))
    torch.testing.assert_close(many, variance, rtol=1e-4, atol=1e-4)
    assert few[0, 0] > 0.3


def test_mass_decides_how_many_heads_are_enough() -> None:
    probability = HeadProbability.of(torch.tensor([[0.5, 0.3, 0.1, 0.1, 0.0], [0.0, 0.3, 0.7, 0.0, 0.0]]))
    assert heads_holding(probability, 0.5, 5) == 2  # head 0 of the first, head 2 of the second
    assert heads_holding(probability, 0.75, 5) == 3
    assert heads_holding(probability, 1.0, 5) == 4
    assert heads_holding(probability, 1.0, 3) == 3


@pytest.mark.parametrize(("rows", "entries"), [(1, 1), (4, 100), (256, 1 << 22)])
def test_the_sample_does_not_depend_on_the_tiles(rows: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sampled(head_probability(), 60, 3)
    monkeypatch.setattr("relsim.heads.ROWS", rows)
    monkeypatch.setattr("relsim.heads.ENTRIES", entries)
    found = sampled(head_probability(), 60, 3)
    assert torch.equal(found.heads, expected.heads)
    torch.testing.assert_close(found.weight, expected.weight)


def test_weights_are_never_negative() -> None:
    """Then a sum over some of the heads is below the sum over all, which is what search leans on."""
    for seed in range(20):
        sample = sampled(head_probability(12, 300, seed), 40, 8, seed)
        assert (sample.weight >= 0).all()
        assert (sample.weight.sum(dim=0) - 1).abs().max() < 0.02
