r"""Losses of `LinkScorer` models: softmax over all or some tails, contrast with some, the paper's sampled negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from lorentz.evaluation import KnownTails, Pairs
from lorentz.models._partition import block_sums
from lorentz.models._products import chosen_products
from lorentz.models.link_scorer import LinkScorer
from lorentz_kernels.linear_logsumexp import linear_logsumexp

EXCLUDED = -1e30
"""Score of what does not compete: no part of any sum, and finite, so that a row of nothing else has a gradient."""


def softmax_loss(model: LinkScorer, head: Tensor, relation: Tensor, answers: Pairs) -> Tensor:
    r"""Return the mean over facts of :math:`\log \sum_e e^{s(h, r, e)} - s(h, r, t)`, over all entities.

    Facts that share (h, r) share a row, and the scores are never held all at once, if they are many.

    Args:
        model: the scorer.
        head, relation: queries (N,).
        answers: their tails in training, `KnownTails.at`.
    """
    query, table = model.query(head, relation), model.table()
    norm = linear_logsumexp(query, table)
    loop = model.loop(relation)
    own = (query * table[head]).sum(1)
    norm = norm + torch.log1p(torch.expm1(loop) * (own - norm).exp().clamp_max(1 - torch.finfo(norm.dtype).eps))
    score = (query[answers.row] * table[answers.tail]).sum(1)
    score = score + torch.where(head[answers.row] == answers.tail, loop[answers.row], 0)
    return (norm[answers.row] - score).mean()


def contrastive_loss(
    model: LinkScorer,
    facts: Tensor,
    known: KnownTails,
    candidates: Tensor,
    *,
    weight: float = 50.0,
    competition: float = 0.3,
) -> Tensor:
    r"""Return the mean over facts of what tells their tails from others, each by itself and all together.

    .. math::
        -\log \sigma(s_t) - \frac{weight}{S} \sum_{e \in C \setminus K} \log \sigma(-s_e)
        + competition \cdot \log \frac{e^{s_t} + \frac ES \sum_{e \in C \setminus K} e^{s_e}}{e^{s_t}}

    C are S candidates that the batch shares, K the known tails of (h, r). A softmax does not see how far a moved head
    is from all tails, so it learns the facts by heart with heads that are moved far out. The logistic part does: f_r(h)
    must come near to t. It leaves the order of the nearest tails open, which the softmax part settles. Both come from
    one block of scores.

    Args:
        model: the scorer.
        facts: (N, 3), drawn one by one: an entity of many facts then moves often.
        known: the facts of training.
        candidates: distinct entities, (S,), drawn uniformly.
        weight: of the mean over candidates: how many negatives a fact has.
        competition: weight of the softmax part.

    Source: the first line is Chen et al., ACL 2022, Section 4.1, with negatives that a batch shares; the second, Bengio
    and Senecal, Quick training of probabilistic neural nets by importance sampling, AISTATS 2003.
    """
    head, relation, tail = facts.unbind(1)
    query, loop, answers = model.query(head, relation), model.loop(relation), known.of(head, relation)
    true = (query * model.table(tail)).sum(1) + torch.where(head == tail, loop, 0)
    place = torch.full((model.entities,), -1, device=head.device)
    place[candidates] = torch.arange(len(candidates), device=head.device)
    row = torch.cat([torch.arange(len(head), device=head.device), answers.row])
    column = place[torch.cat([head, answers.tail])]
    added = torch.cat([loop, loop.new_full((len(answers.tail),), EXCLUDED)])
    drawn = column >= 0
    others, positive = block_sums(query, model.table(candidates), row[drawn], column[drawn], added[drawn])
    competing = softplus(others + math.log(model.entities / len(candidates)) - true)
    return (softplus(-true) + weight / len(candidates) * positive + competition * competing).mean()


def negative_sampling_loss(model: LinkScorer, facts: Tensor, negatives: Tensor) -> Tensor:
    r"""Return the mean over facts of :math:`-\log \sigma(s(h, r, t)) - \frac 1K \sum_k \log \sigma(-s(h, r, t_k))`.

    Args:
        model: the scorer.
        facts: (N, 3).
        negatives: tails (N, K), `draw_negatives`.

    Source: Chen et al., Fully Hyperbolic Neural Networks, ACL 2022, Section 4.1.
    """
    head, relation, tail = facts.unbind(1)
    score = candidate_scores(model, head, relation, torch.cat([tail[:, None], negatives], dim=1))
    target = torch.zeros_like(score)
    target[:, 0] = 1
    weight = torch.full_like(score, 1 / negatives.shape[1])
    weight[:, 0] = 1
    return binary_cross_entropy_with_logits(score, target, weight, reduction="sum") / len(facts)


def candidate_scores(model: LinkScorer, head: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
    """Return the scores (N, K) of tails (N, K), by products of rows; the model's forward is the exact form."""
    entities, place = tails.unique(return_inverse=True)
    score = chosen_products(model.query(head, relation), model.table(entities), place)
    return score + torch.where(tails == head[:, None], model.loop(relation)[:, None], 0)


def draw_negatives(
    facts: Tensor, count: int, known: KnownTails, *, pool: Tensor | None = None, rounds: int = 8
) -> Tensor:
    """Return tails (N, count) drawn uniformly from those that are not known for the (h, r) of each fact (N, 3).

    A tail that is known is drawn again, `rounds` times at most: what an entity of too many facts is then left with is
    kept. Give the facts of training only: those of validation and test would tell the model where they are.

    Args:
        facts: (N, 3).
        count: negatives of each.
        known: the facts of training.
        pool: entities to draw from, by default all. One drawn anew for each batch leaves a step fewer rows to touch.
        rounds: see above.
    """
    head, relation = (facts[:, k, None].expand(-1, count) for k in (0, 1))
    size = known.entities if pool is None else len(pool)

    def draw(*shape: int) -> Tensor:
        place = torch.randint(size, shape, device=facts.device)
        return place if pool is None else pool[place]

    tails = draw(*head.shape)
    wrong = known.holds(head, relation, tails)
    for _ in range(rounds):
        if not bool(wrong.any()):
            break
        tails[wrong] = draw(int(wrong.sum()))
        wrong[wrong.clone()] = known.holds(head[wrong], relation[wrong], tails[wrong])
    return tails
