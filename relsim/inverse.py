"""Which relation states another's facts backwards? p(h, t | a) against p(t, h | b)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.tails import ROWS


class Draws(NamedTuple):
    """Facts drawn from p(h, t | a): `heads`, `tails` (n,), their log-probability `log` (n,), and `marginal` (E,).

    The marginal is the mean over the drawn heads of p(t | h, a), which estimates that of the tails.
    """

    heads: Tensor
    tails: Tensor
    log: Tensor
    marginal: Tensor


@torch.no_grad()
def inverses(
    model: FactDistribution,
    relations: Sequence[str] | None = None,
    *,
    candidates: int = 10,
    samples: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return pairs of relations with KL between p(h, t | a) and p(t, h | b), both ways, the nearest first.

    From `samples` facts drawn of each relation, with a stream of random numbers of its own:
    KL = mean of log p(h, t | a) - log p(t, h | b), with its standard error. That is done for the `candidates` relations
    b of each a (all, or `relations`) that are nearest by the tails of a against the heads of b, whose divergence is at
    most that of the facts.

    Raises:
        RelsimError: an unknown relation, or fewer than two in the model.
    """
    size = len(model.relations)
    if size < 2:
        raise RelsimError(f"{size} relation: a comparison needs two or more")
    device = model.support.device
    everything = torch.arange(size, device=device)
    asked = everything if relations is None else model.relation_index(list(relations))
    draws: dict[int, Draws] = {}

    def drawn(a: int) -> Draws:
        if a not in draws:
            draws[a] = _draw(model, a, samples, seed)
        return draws[a]

    natural = model.head_natural(everything)
    partition = model.head_partition(natural)
    pairs: set[tuple[int, int]] = set()
    for a in asked.tolist():
        bound = _tails_against_heads(model, drawn(a).marginal, natural, partition)
        near = bound.argsort(stable=True)[:candidates]
        pairs |= {(min(a, b), max(a, b)) for b in near.tolist()}
    records = []
    for a, b in sorted(pairs):
        ab, ba = _divergence(model, drawn(a), b), _divergence(model, drawn(b), a)
        records.append(
            {
                "a": model.relations[a],
                "b": model.relations[b],
                "similarity": float(np.exp(-max(ab[0], ba[0], 0.0))),
                "kl_ab": ab[0],
                "stderr_ab": ab[1],
                "kl_ba": ba[0],
                "stderr_ba": ba[1],
                "support_a": int(model.support[a]),
                "support_b": int(model.support[b]),
            }
        )
    return sorted(records, key=lambda r: max(r["kl_ab"], r["kl_ba"]))


def _draw(model: FactDistribution, a: int, samples: int, seed: int) -> Draws:
    """Draw facts of one relation, from a stream that depends on the seed and the relation only."""
    state = np.random.SeedSequence([seed, a]).generate_state(1, np.uint64)[0]
    generator = torch.Generator(model.support.device).manual_seed(int(state >> np.uint64(1)))
    relation = torch.tensor([a], device=model.support.device)
    log_head = model.head_log_prob(relation)[0]
    heads = torch.multinomial(log_head.exp(), samples, replacement=True, generator=generator)
    distinct, which = heads.unique(return_inverse=True)
    count = which.bincount(minlength=len(distinct)).double()
    tails, log = torch.empty_like(heads), log_head[heads].double()
    marginal = torch.zeros(len(log_head), dtype=torch.float64, device=heads.device)
    for part in torch.arange(len(distinct), device=heads.device).split(64):
        log_tail = model.tail_log_prob(distinct[part], relation)
        marginal += (count[part, None] * log_tail.double().exp()).sum(dim=0)
        for row, index in zip(log_tail, part.tolist(), strict=True):
            mine = (which == index).nonzero().squeeze(1)
            tails[mine] = torch.multinomial(row.exp(), len(mine), replacement=True, generator=generator)
            log[mine] += row[tails[mine]].double()
    return Draws(heads, tails, log, marginal / samples)


def _tails_against_heads(model: FactDistribution, marginal: Tensor, natural: Tensor, partition: Tensor) -> Tensor:
    """KL of the tails of one relation (E,) against p(h | b) of every b, (R,), less a constant."""
    cross = torch.zeros(len(natural), dtype=torch.float64, device=marginal.device)
    for part in torch.arange(len(natural), device=marginal.device).split(256):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        logits = model.head_logits(natural[rows])
        cross[rows] = (partition[rows] - logits @ marginal.to(logits.dtype)).double()
    return cross


def _divergence(model: FactDistribution, facts: Draws, b: int) -> tuple[float, float]:
    """The mean of log p(h, t | a) - log p(t, h | b) over facts drawn of a, and its standard error."""
    relation = torch.tensor([b], device=facts.heads.device)
    log_head = model.head_log_prob(relation)[0]
    log = log_head[facts.tails].double()
    for part in torch.arange(len(facts.heads), device=facts.heads.device).split(ROWS):
        natural = model.tail_natural(facts.tails[part], relation.expand(len(part)))
        log[part] += (model.tail_score(natural, facts.heads[part]) - model.tail_partition(natural)).double()
    ratio = facts.log - log
    return float(ratio.mean()), float(ratio.std() / len(ratio) ** 0.5)
