"""Negative samplers and the margin loss: distributions as stated, and a strength that acts."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim.data import nations
from relsim.kb import Triples
from relsim.margin import SimilarityMarginLoss
from relsim.sampling import EntityNegativeSampler, SimilarityNegativeSampler, annealed
from relsim.similar import similarity, symmetric_kl
from tests.relsim.test_similar import made_up

# relations


@given(st.floats(0.05, 50), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_relations_are_drawn_in_proportion_to_a_power_of_their_similarity(alpha: float, seed: int) -> None:
    div = made_up(6, seed)
    weight = np.exp(-symmetric_kl(div) / alpha)
    np.fill_diagonal(weight, 0)
    found = SimilarityNegativeSampler(div, alpha).probability(torch.arange(6))
    np.testing.assert_allclose(found, weight / weight.sum(axis=1, keepdims=True), rtol=1e-8, atol=1e-12)


def test_draws_follow_the_probabilities_and_never_hit_the_positive() -> None:
    sampler = SimilarityNegativeSampler(made_up(5), alpha=3.0)
    relation = torch.tensor([2, 0, 2])
    drawn = sampler.sample(relation, 20_000, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 20_000)
    assert (drawn != relation[:, None]).all()
    frequency = torch.stack([row.bincount(minlength=5) for row in drawn]) / 20_000
    assert (frequency - sampler.probability(relation)).abs().max() < 0.015


def test_alpha_goes_from_uniform_to_the_most_similar() -> None:
    div = made_up(6)
    sampler = SimilarityNegativeSampler(div, alpha=1e6)
    torch.testing.assert_close(
        sampler.probability(torch.tensor([0]))[0, 1:], torch.full((5,), 0.2).double(), atol=1e-4, rtol=0
    )
    sampler.alpha = 1e-3
    nearest = np.argmin(np.where(np.eye(6, dtype=bool), np.inf, symmetric_kl(div)), axis=1)
    assert (sampler.probability(torch.arange(6)).argmax(dim=1).numpy() == nearest).all()


def test_relations_that_exclude_all_others_have_uniform_negatives() -> None:
    distance = np.array([[0, np.inf, np.inf], [np.inf, 0, 1.0], [np.inf, 1.0, 0]])
    probability = SimilarityNegativeSampler(distance).probability(torch.arange(3))
    torch.testing.assert_close(probability[0], torch.tensor([0, 0.5, 0.5]).double())
    torch.testing.assert_close(probability[1], torch.tensor([0, 0, 1.0]).double())


def test_annealing_falls_in_equal_ratios() -> None:
    steps = [annealed(8.0, 0.5, step, 4) for step in range(6)]
    np.testing.assert_allclose(steps, [8, 4, 2, 1, 0.5, 0.5])


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="expected alpha > 0"):
        SimilarityNegativeSampler(made_up(), alpha)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1)])
def test_distances_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected distances \(R, R\)"):
        SimilarityNegativeSampler(np.zeros(shape))


# entities


def test_negatives_are_no_known_facts_and_differ_at_one_end() -> None:
    kb = nations()
    sampler = EntityNegativeSampler(kb.facts, len(kb.entities), len(kb.relations))
    known = set(zip(kb.facts.head, kb.facts.relation, kb.facts.tail, strict=True))
    h, r, t = kb.train.head[:200], kb.train.relation[:200], kb.train.tail[:200]
    heads, tails = sampler.sample(h, r, t, 4, np.random.default_rng(0))
    assert heads.shape == tails.shape == (200, 4)
    rows = np.arange(200)[:, None]
    assert all(
        (a, c, b) not in known
        for a, b, c in zip(heads.flat, tails.flat, np.broadcast_to(r[rows], heads.shape).flat, strict=True)
    )
    assert ((heads == h[rows]) | (tails == t[rows])).all()


def test_the_end_with_more_partners_is_kept() -> None:
    """One head with many tails: replacing the tail would hit facts that are true and missing, so the head goes."""
    facts = Triples.from_columns(np.zeros(50, int), np.zeros(50, int), np.arange(50))
    sampler = EntityNegativeSampler(facts, 1000, 1)
    heads, _ = sampler.sample(
        np.zeros(4000, int), np.zeros(4000, int), np.zeros(4000, int), 1, np.random.default_rng(0)
    )
    assert np.mean(heads != 0) == pytest.approx(50 / 51, abs=0.01)


def test_where_every_fact_is_known_the_sampler_gives_up_in_time() -> None:
    everything = np.array(np.meshgrid(range(3), [0], range(3))).reshape(3, -1)
    sampler = EntityNegativeSampler(Triples.from_columns(*everything), 3, 1)
    heads, tails = sampler.sample([0], [0], [1], 5, np.random.default_rng(0))
    assert heads.shape == tails.shape == (1, 5)


# margin


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (16,), generator=generator)
    return logits, target, torch.from_numpy(similarity(made_up(5)) ** 0.25)


def test_without_strength_it_is_cross_entropy() -> None:
    logits, target, s = batch()
    torch.testing.assert_close(SimilarityMarginLoss(s, 0.0)(logits, target), F.cross_entropy(logits, target))


def test_the_loss_is_its_formula() -> None:
    logits, target, s = batch()
    expected = []
    for z, y in zip(logits, target, strict=True):
        others = [torch.exp(z[j] + 3 * s[y, j]) for j in range(5) if j != y]
        expected.append(-torch.log(torch.exp(z[y]) / (torch.exp(z[y]) + sum(others))))
    found = SimilarityMarginLoss(s.float(), 3.0, reduction="none")(logits, target)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_strength_changes_the_gradient_in_direction_not_only_in_size() -> None:
    logits, target, s = batch()
    gradients = []
    for strength in (0.0, 3.0, 10.0):
        z = logits.clone().requires_grad_()
        SimilarityMarginLoss(s, strength, reduction="none")(z, target)[0].backward()
        gradients.append(z.grad[0] / z.grad[0].norm())
    assert all((a - b).norm() > 0.05 for a, b in itertools.pairwise(gradients))
    wrong = torch.where(torch.arange(5) == target[0], -1.0, s[target[0]])
    nearest = int(wrong.argmax())
    pulls = [float(g[nearest]) for g in gradients]
    assert pulls[0] < pulls[1] < pulls[2]


def test_trained_margins_are_larger_against_similar_classes() -> None:
    """Minimising over free logits of bounded size: the gap to a class grows with its similarity."""
    s = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]])
    z = torch.zeros(1, 3, requires_grad=True)
    optimiser = torch.optim.SGD([z], lr=0.1)
    loss = SimilarityMarginLoss(s, 4.0)
    for _ in range(300):
        optimiser.zero_grad()
        (loss(z, torch.tensor([0])) + 0.02 * z.square().sum()).backward()
        optimiser.step()
    gap = (z[0, 0] - z[0]).detach()
    assert gap[1] > gap[2] + 1.0


def test_options_are_those_of_cross_entropy() -> None:
    logits, target, s = batch()
    target[3] = -100
    weight = torch.rand(5).double()
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            found = SimilarityMarginLoss(s, 0.0, weight=weight, reduction=reduction, label_smoothing=smoothing)(
                logits, target
            )
            expected = F.cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=smoothing)
            torch.testing.assert_close(found, expected)


def test_the_loss_is_a_module_like_any_other() -> None:
    loss = SimilarityMarginLoss(torch.eye(3), 2.0)
    assert str(loss) == "SimilarityMarginLoss(classes=3, strength=2.0)"
    assert set(copy.deepcopy(loss).state_dict()) == {"margin"}
    with pytest.raises(ValueError, match=r"expected similarity \(C, C\)"):
        SimilarityMarginLoss(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="expected strength >= 0"):
        SimilarityMarginLoss(torch.eye(2), -1.0)
