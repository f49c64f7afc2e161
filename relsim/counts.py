"""A fact distribution that needs no training: counts, smoothed by absolute discounting with backoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relsim.distribution import FactDistribution


class _Tables(NamedTuple):
    head: Tensor  # p(h | r), (R, E)
    tail: Tensor  # p(t | r), (R, E)
    keys: Tensor  # h R + r of each pair seen, sorted, (P,)
    starts: Tensor  # first fact of each pair in `tails`, (P + 1,)
    kept: Tensor  # the share of its mass that a pair passes down, (P,)
    tails: Tensor  # tail of each fact, sorted by pair, (F,)
    direct: Tensor  # the probability that each fact keeps for itself, (F,)


class CountsDistribution(FactDistribution):
    """Absolute discounting with backoff (Ney, Essen and Kneser, 1994): each level passes a share of its mass down.

        p(t | h, r) = max(c(h,r,t) - d, 0) / c(h,r) + d n(h,r) / c(h,r) p(t | r)
        p(t | r)    = max(c(r,t) - d, 0) / c(r)     + d n(r) / c(r)     p(t)
        p(t)        = max(c(t) - d, 0) / c          + d n / c           1/E

    where n counts distinct continuations; a pair (h, r) never seen takes p(t | r). Heads back off alike, through p(h).
    As an exponential family its natural parameters are the log-probabilities and its statistic is the indicator, so
    k = E and Z = 0: the closed forms hold, at R^2 E operations a head. Arithmetic is in float64.

    Args:
        facts: (F, 4) int64, the columns head, relation, tail and count.
        discount: d in (0, 1).
    """

    kind = "counts"
    facts: Tensor

    def __init__(
        self,
        entities: Sequence[str],
        relations: Sequence[str],
        support: Tensor | None = None,
        *,
        facts: Tensor | None = None,
        size: int = 0,
        discount: float = 0.8,
    ) -> None:
        super().__init__(entities, relations, support)
        if not 0 < discount < 1:
            raise ValueError(f"expected discount in (0, 1), got {discount}")
        self.discount = discount
        self.register_buffer("facts", torch.zeros(size, 4, dtype=torch.int64) if facts is None else facts)
        self._cache: _Tables | None = None

    def config(self) -> dict[str, Any]:
        return {"size": len(self.facts), "discount": self.discount}

    def head_natural(self, relation: Tensor) -> Tensor:
        return self._tables.head[relation].log()

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        tables = self._tables
        probability = tables.tail[relation]
        key = head * len(self.relations) + relation
        pair = torch.searchsorted(tables.keys, key).clamp_(max=len(tables.keys) - 1)
        rows = (tables.keys[pair] == key).nonzero().squeeze(1)
        pair = pair[rows]
        probability[rows] *= tables.kept[pair, None]
        sizes = tables.starts[pair + 1] - tables.starts[pair]
        shift = torch.repeat_interleave(tables.starts[pair] - (sizes.cumsum(0) - sizes), sizes)
        fact = shift + torch.arange(len(shift), device=shift.device)
        where = torch.repeat_interleave(rows, sizes), tables.tails[fact]
        return probability.index_put_(where, tables.direct[fact], accumulate=True).log_()

    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        natural = self.tail_natural(head.repeat_interleave(len(relation)), relation.repeat(len(head)))
        return natural.reshape(len(head), len(relation), -1)

    def head_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return natural.new_zeros(len(natural)), natural.exp()

    def tail_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return natural.new_zeros(len(natural)), natural.exp()

    def head_logits(self, natural: Tensor, entities: slice = slice(None)) -> Tensor:
        return natural[:, entities].clone()

    def tail_logits(self, natural: Tensor) -> Tensor:
        return natural

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, facts={len(self.facts)}, discount={self.discount}"

    @property
    def _tables(self) -> _Tables:
        if self._cache is None or self._cache.keys.device != self.facts.device:
            self._cache = _build(self.facts, len(self.entities), len(self.relations), self.discount)
        return self._cache


def _build(facts: Tensor, entities: int, relations: int, discount: float) -> _Tables:
    head, relation, tail, count = facts.T
    weight = count.double()
    key = head * relations + relation
    order = torch.argsort(key * entities + tail)
    keys, sizes = torch.unique_consecutive(key[order], return_counts=True)
    total = torch.segment_reduce(weight[order], "sum", lengths=sizes)
    owner = torch.repeat_interleave(torch.arange(len(keys), device=key.device), sizes)
    return _Tables(
        head=_backoff(relation, head, weight, relations, entities, discount),
        tail=_backoff(relation, tail, weight, relations, entities, discount),
        keys=keys,
        starts=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        kept=discount * sizes.double() / total,
        tails=tail[order],
        direct=(weight[order] - discount) / total[owner],
    )


def _backoff(
    relation: Tensor, entity: Tensor, weight: Tensor, relations: int, entities: int, discount: float
) -> Tensor:
    """p(entity | relation) smoothed through p(entity) and the uniform distribution, shape (R, E)."""
    uniform = weight.new_full((entities,), 1 / entities)
    marginal = weight.new_zeros(entities).index_add_(0, entity, weight)
    joint = weight.new_zeros(relations, entities).index_put_((relation, entity), weight, accumulate=True)
    return _discounted(joint, _discounted(marginal, uniform, discount), discount)


def _discounted(count: Tensor, lower: Tensor, discount: float) -> Tensor:
    """Discount each count and give what it frees to `lower`; a row without counts becomes `lower`."""
    total = count.sum(dim=-1, keepdim=True)
    freed = discount * (count > 0).double().sum(dim=-1, keepdim=True)
    smoothed = ((count - discount).clamp(min=0) + freed * lower) / total.clamp(min=1)
    return torch.where(total > 0, smoothed, lower)
