"""Losses against sums over candidates, one fact at a time in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lorentz.evaluation import KnownTails, all_scores
from lorentz.models import (
    EuclideanHyboNet,
    HyboNet,
    LinkScorer,
    contrastive_loss,
    draw_negatives,
    negative_sampling_loss,
    softmax_loss,
)

E, R, N = 13, 2, 5
FACTS = torch.tensor([[0, 0, 1], [0, 0, 2], [3, 1, 3], [3, 1, 4], [5, 0, 6], [7, 3, 8], [7, 3, 7], [7, 3, 9]])


def model_and_known(cls: type[LinkScorer] = HyboNet, sparse: bool = True) -> tuple[LinkScorer, KnownTails]:
    model = cls(E, R, N, std=0.8, sparse=sparse).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.4 * torch.randn_like(p)
    return model, KnownTails(FACTS, E)


def scores_of(model: LinkScorer, known: KnownTails) -> dict[tuple[int, int], Tensor]:
    scores = all_scores(model, known.head, known.relation)
    return dict(zip(zip(known.head.tolist(), known.relation.tolist(), strict=True), scores, strict=True))


@pytest.mark.parametrize("cls", [HyboNet, EuclideanHyboNet])
def test_softmax_over_all_entities(cls: type[LinkScorer]) -> None:
    model, known = model_and_known(cls)
    scores = scores_of(model, known)
    expected = torch.stack([scores[h, r].logsumexp(0) - scores[h, r][t] for h, r, t in FACTS.tolist()]).mean()
    index = torch.randperm(len(known))
    loss = softmax_loss(model, known.head[index], known.relation[index], known.at(index))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    gradients(model, loss, expected)


def gradients(model: LinkScorer, loss: Tensor, expected: Tensor) -> None:
    """Assert that two losses have equal gradients in all parameters."""
    parameters = list(model.parameters())
    ours, truth = (torch.autograd.grad(value, parameters, allow_unused=True) for value in (loss, expected))
    for a, b in zip(ours, truth, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a.to_dense(), b.to_dense(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("candidates", [torch.arange(E), torch.tensor([8, 1, 3, 7, 11]), torch.tensor([12])])
def test_contrastive_loss_is_a_sum_over_facts_and_candidates(candidates: Tensor) -> None:
    model, known = model_and_known()
    scores = scores_of(model, known)
    facts = {tuple(fact) for fact in FACTS.tolist()}
    terms = []
    for h, r, t in FACTS.tolist():
        s = scores[h, r]
        others = [e for e in candidates.tolist() if (h, r, e) not in facts]
        alone = -s[t].sigmoid().log() - 7 / len(candidates) * sum((1 - s[e].sigmoid()).log() for e in others)
        rest = E / len(candidates) * s[others].exp().sum()
        terms.append(alone + 0.6 * ((rest + s[t].exp()).log() - s[t]))
    loss = contrastive_loss(model, FACTS.flip(0), known, candidates, weight=7, competition=0.6)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-9, atol=1e-9)
    gradients(model, loss, torch.stack(terms).mean())


def test_facts_all_of_whose_candidates_are_known_have_finite_gradients() -> None:
    model, known = model_and_known()
    loss = contrastive_loss(model, FACTS, known, torch.tensor([3]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in model.parameters())


def test_negative_sampling_is_the_papers_sum() -> None:
    model, _ = model_and_known()
    negatives = torch.randint(E, (len(FACTS), 4))
    terms = []
    for (h, r, t), others in zip(FACTS.tolist(), negatives.tolist(), strict=True):
        s = all_scores(model, torch.tensor([h]), torch.tensor([r]))[0]
        terms.append(-s[t].sigmoid().log() - sum((-s[e]).sigmoid().log() for e in others) / 4)
    loss = negative_sampling_loss(model, FACTS, negatives)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-9, atol=1e-9)


def test_negatives_are_uniform_over_what_training_does_not_know() -> None:
    known = KnownTails(FACTS, E)
    facts = FACTS[[0, 5]]
    drawn = draw_negatives(facts, 30_000, known)
    for row, unknown in zip(
        drawn, ([e for e in range(E) if e not in (1, 2)], [*range(7), *range(10, 13)]), strict=True
    ):
        count = row.bincount(minlength=E)
        assert count.nonzero().flatten().tolist() == unknown
        expected = len(row) / len(unknown)
        assert (count[unknown] - expected).abs().max() < 5 * math.sqrt(expected)


def test_negatives_from_a_pool_stay_in_it() -> None:
    drawn = draw_negatives(FACTS[:1], 6000, KnownTails(FACTS, E), pool=torch.tensor([2, 3, 9]), rounds=40)
    count = drawn.flatten().bincount(minlength=E)
    assert count.nonzero().flatten().tolist() == [3, 9]  # 2 is known
    assert abs(count[3].item() - 3000) < 5 * math.sqrt(1500)


def test_an_entity_with_every_tail_known_still_gets_negatives() -> None:
    facts = torch.tensor([[0, 0, t] for t in range(E)])
    assert draw_negatives(facts, 3, KnownTails(facts, E)).shape == (E, 3)


def test_held_out_facts_can_be_negatives() -> None:
    drawn = draw_negatives(FACTS[:1], 2000, KnownTails(FACTS[1:], E))
    assert (drawn == 1).any()
