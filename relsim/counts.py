"""A fact distribution that needs no training: counts, smoothed by absolute discounting with backoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relsim.distribution import FactDistribution


class _Level(NamedTuple):
    """One level of the backoff, rows of probabilities p(entity | row) = direct + kept lower, by what they hold.

    A row is given by the entities `entity` (n,) that have mass `direct` (n,) of their own, from `starts` (rows + 1,)
    on, and by the share `kept` (rows,) of its mass that it passes down to the level below.
    """

    starts: Tensor
    entity: Tensor
    direct: Tensor
    kept: Tensor

    def rows(self, row: Tensor, lower: Tensor) -> Tensor:
        """Return rows (n,) in full, (n, E), given p of the level below, (E,) or (n, E)."""
        probability = self.kept[row, None] * lower
        sizes = self.starts[row + 1] - self.starts[row]
        shift = torch.repeat_interleave(self.starts[row] - (sizes.cumsum(0) - sizes), sizes)
        entry = shift + torch.arange(len(shift), device=shift.device)
        which = torch.repeat_interleave(torch.arange(len(row), device=row.device), sizes)
        return probability.index_put_((which, self.entity[entry]), self.direct[entry], accumulate=True)


class _Tables(NamedTuple):
    keys: Tensor  # h R + r of each pair seen, sorted, (P,)
    of_pair: _Level  # p(t | h, r), a row for each key
    head: _Level  # p(h | r), a row for each relation
    tail: _Level  # p(t | r)
    any_head: Tensor  # p(h), (E,)
    any_tail: Tensor  # p(t), (E,)


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
        return self._tables.head.rows(relation, self._tables.any_head).log_()

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        tables = self._tables
        probability = tables.tail.rows(relation, tables.any_tail)
        key = head * len(self.relations) + relation
        pair = torch.searchsorted(tables.keys, key).clamp_(max=len(tables.keys) - 1)
        seen = (tables.keys[pair] == key).nonzero().squeeze(1)
        probability[seen] = tables.of_pair.rows(pair[seen], probability[seen])
        return probability.log_()

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
    keys, pair = key.unique(return_inverse=True)
    return _Tables(
        keys=keys,
        of_pair=_level(pair, tail, weight, len(keys), entities, discount),
        head=_level(relation, head, weight, relations, entities, discount),
        tail=_level(relation, tail, weight, relations, entities, discount),
        any_head=_marginal(head, weight, entities, discount),
        any_tail=_marginal(tail, weight, entities, discount),
    )


def _level(row: Tensor, entity: Tensor, weight: Tensor, rows: int, entities: int, discount: float) -> _Level:
    """Discount the counts c(row, entity); a row without counts passes all of its mass down."""
    cells, cell = (row * entities + entity).unique(return_inverse=True)
    count = weight.new_zeros(len(cells)).index_add_(0, cell, weight)
    owner = cells // entities
    total = weight.new_zeros(rows).index_add_(0, owner, count)
    sizes = owner.bincount(minlength=rows)
    return _Level(
        starts=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        entity=cells % entities,
        direct=(count - discount) / total[owner],
        kept=torch.where(total > 0, discount * sizes.double() / total.clamp(min=1), 1.0),
    )


def _marginal(entity: Tensor, weight: Tensor, entities: int, discount: float) -> Tensor:
    """p(entity) smoothed by the uniform distribution, (E,)."""
    level = _level(torch.zeros_like(entity), entity, weight, 1, entities, discount)
    return level.rows(
        torch.zeros(1, dtype=torch.int64, device=entity.device), weight.new_full((entities,), 1 / entities)
    )[0]
