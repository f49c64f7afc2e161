r"""Losses of `LinkScorer` models: a softmax over all tails, over a sample of them, or the paper's sampled negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lorentz.evaluation import KnownTails, Pairs
from lorentz.models._partition import changed_logsumexp
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


def sampled_softmax_loss(
    model: LinkScorer, head: Tensor, relation: Tensor, answers: Pairs, candidates: Tensor
) -> Tensor:
    r"""Return the mean over facts of :math:`\log(e^{s_t} + \frac ES \sum_{e \in C \setminus K} e^{s_e}) - s_t`.

    C are S candidates that the batch shares, K the known tails of the query: as in filtered ranking, one answer does
    not compete with another. With all entities as candidates the softmax is exact.

    Args:
        model: the scorer.
        head, relation: queries (N,).
        answers: all their tails in training, `KnownTails.at`.
        candidates: distinct entities, (S,), drawn uniformly.

    Source: Bengio and Senecal, Quick training of probabilistic neural nets by importance sampling, AISTATS 2003.
    """
    row, tail = answers
    query, loop = model.query(head, relation), model.loop(relation)
    place = torch.full((model.entities,), -1, device=head.device)
    place[candidates] = torch.arange(len(candidates), device=head.device)
    queries, column = torch.cat([torch.arange(len(head), device=head.device), row]), place[torch.cat([head, tail])]
    added = torch.cat([loop, loop.new_full((len(tail),), EXCLUDED)])
    drawn = column >= 0
    others = changed_logsumexp(query, model.table(candidates), queries[drawn], column[drawn], added[drawn])
    others = others + math.log(model.entities / len(candidates))
    true = (query[row] * model.table(tail)).sum(1) + torch.where(head[row] == tail, loop[row], 0)
    return torch.nn.functional.softplus(others[row] - true).mean()


def radius_penalty(model: LinkScorer, head: Tensor, relation: Tensor, answers: Pairs) -> Tensor:
    r"""Return the mean over facts of :math:`\tau_r\,(d(0, f_r(h))^2 + d(0, t)^2)`.

    An entity counts as often as it has facts. Without it a softmax learns the training facts by heart; with it scores
    sharpen late, by a larger tau, when entities have found their places.

    Args:
        model: the scorer.
        head, relation: queries (N,).
        answers: all their tails in training, `KnownTails.at`.

    Source: after Lacroix et al., Canonical Tensor Decomposition for Knowledge Base Completion, ICML 2018, for the
    weighting by facts; in flat space theirs is the cube of a norm, this the fourth power.
    """
    row, tail = answers
    origin = model.entity.weight.new_zeros(1, model.dim)
    of_query = model.distance(model.move(model.entity(head), relation), origin).square()
    of_tail = model.distance(model.entity(tail), origin).square()
    tau = model.log_scale[relation].exp()
    return (tau[row] * (of_query[row] + of_tail)).mean()


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
