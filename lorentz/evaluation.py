r"""Filtered ranking of tails: the place of each true tail among all entities, other true tails left out.

The standard protocol, and the default everywhere: both directions (`both_directions`), every entity a candidate, the
head too, filtered by the facts of all splits, ties at the middle of their places ("realistic"; Sun et al., ACL 2020;
Berrendorf et al., 2020). Other protocols stand beside it under their names: `optimistic`, `pessimistic`, and
`head_excluded`, where the head of the query is no candidate (Chen et al., ACL 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

SCORES = 1 << 20
"""Scores that a chunk of queries may hold at once: 4 MiB in float32, measured best of 2**18 to 2**24."""


class Scorer(Protocol):
    """What ranking asks of a model: scores of all entities as a matrix product, and what the head gets on top."""

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return the queries (N, m)."""
        ...

    def table(self) -> Tensor:
        """Return the entities (E, m), whose products with the queries are the scores."""
        ...

    def loop(self, relation: Tensor) -> Tensor:
        """Return what is added to the score of a head as its own tail, (N,)."""
        ...


class Pairs(NamedTuple):
    """Known tails of a batch of queries: `row` numbers the query in the batch; both (P,)."""

    row: Tensor
    tail: Tensor


class KnownTails:
    """The tails t of each (h, r) among facts (F, 3) of heads, relations and tails; lookups are by binary search."""

    def __init__(self, facts: Tensor, entities: int) -> None:
        """Sort the facts; `entities` is their number E, above every head and tail.

        Raises:
            ValueError: facts are not (F, 3), or name an entity that is not there.
        """
        check_facts(facts, entities)
        self.entities = entities
        key = self._key(facts[:, 0], facts[:, 1])
        self.facts = (key * entities + facts[:, 2]).unique()
        self.keys, sizes = (self.facts // entities).unique_consecutive(return_counts=True)
        self.tail = self.facts % entities
        self.start = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

    def __len__(self) -> int:
        """Return the number of distinct queries (h, r)."""
        return len(self.keys)

    @property
    def head(self) -> Tensor:
        """The head of each distinct query."""
        return self.keys % self.entities

    @property
    def relation(self) -> Tensor:
        """The relation of each distinct query."""
        return self.keys // self.entities

    def of(self, head: Tensor, relation: Tensor) -> Pairs:
        """Return the known tails of queries (N,), none for a query that no fact has."""
        key = self._key(head, relation)
        place = torch.searchsorted(self.keys, key).clamp_max(max(len(self.keys) - 1, 0))
        found = self.keys[place] == key if len(self.keys) else torch.zeros_like(key, dtype=torch.bool)
        return self._members(place, found)

    def at(self, index: Tensor) -> Pairs:
        """Return the known tails of the distinct queries of these numbers, (N,)."""
        return self._members(index, torch.ones_like(index, dtype=torch.bool))

    def holds(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Return whether each (h, r, t) is known, for tensors of one shape."""
        if not len(self.facts):
            return torch.zeros_like(tail, dtype=torch.bool)
        key = self._key(head, relation) * self.entities + tail
        return self.facts[torch.searchsorted(self.facts, key).clamp_max(len(self.facts) - 1)] == key

    def take(self, index: Tensor) -> Tensor:
        """Return the facts (N, 3) of these numbers, (N,), in order of relation, head and tail."""
        key = self.facts[index] // self.entities
        return torch.stack([key % self.entities, key // self.entities, self.tail[index]], dim=1)

    def _key(self, head: Tensor, relation: Tensor) -> Tensor:
        return relation * self.entities + head

    def _members(self, place: Tensor, found: Tensor) -> Pairs:
        sizes = torch.where(found, self.start[place + 1] - self.start[place], 0) if len(self.keys) else place * 0
        row = torch.repeat_interleave(torch.arange(len(place), device=place.device), sizes)
        within = torch.arange(len(row), device=place.device) - (sizes.cumsum(0) - sizes)[row]
        return Pairs(row, self.tail[self.start[place[row]] + within])


def check_facts(facts: Tensor, entities: int) -> None:
    """Raise ValueError unless facts are (F, 3) integers whose heads and tails are below `entities`."""
    if facts.ndim != 2 or facts.shape[1] != 3 or facts.dtype != torch.int64:
        raise ValueError(
            f"expected facts (F, 3) of int64 (head, relation, tail), got {tuple(facts.shape)} {facts.dtype}"
        )
    ends = facts[:, ::2]
    if len(facts) and not 0 <= int(ends.min()) <= int(ends.max()) < entities:
        raise ValueError(
            f"expected heads and tails from 0 to {entities - 1}, got {int(ends.min())} to {int(ends.max())}"
        )


def both_directions(facts: Tensor, relations: int) -> Tensor:
    """Return the facts (F, 3) and below them their inverses (t, r + relations, h): (2 F, 3)."""
    head, relation, tail = facts.unbind(1)
    return torch.cat([facts, torch.stack([tail, relation + relations, head], dim=1)])


@dataclass(frozen=True)
class Ranking:
    """Where the tails of facts (F, 3) stand: how many candidates score above each and how many as much, (F,).

    `head_above` is 1 where the head of the fact is one of those above, 1/2 where it ties, else 0.
    """

    facts: Tensor
    above: Tensor
    ties: Tensor
    head_above: Tensor

    @property
    def optimistic(self) -> Tensor:
        """Ranks (F,) with ties resolved for the tail."""
        return 1.0 + self.above

    @property
    def pessimistic(self) -> Tensor:
        """Ranks (F,) with ties resolved against the tail."""
        return 1.0 + self.above + self.ties

    @cached_property
    def realistic(self) -> Tensor:
        """Ranks (F,) in the middle of ties, in float64: the standard."""
        return 1.0 + self.above + self.ties.double() / 2

    @property
    def head_excluded(self) -> Tensor:
        """Realistic ranks (F,) where the head is no candidate: the protocol of Chen et al., ACL 2022."""
        return self.realistic - self.head_above

    def take(self, rows: Tensor) -> Ranking:
        """Return the part at `rows`, indices or a mask."""
        return Ranking(self.facts[rows], self.above[rows], self.ties[rows], self.head_above[rows])

    def by_relation(self, names: Sequence[str] | None = None) -> dict[str | int, Ranking]:
        """Return the part of each relation, under its name or number; numbers past the names are inverses."""
        groups: dict[str | int, Ranking] = {}
        for r in self.facts[:, 1].unique().tolist():
            name = r if names is None else names[r] if r < len(names) else f"{names[r - len(names)]} (inverse)"
            groups[name] = self.take(self.facts[:, 1] == r)
        return groups

    def by_degree(self, degree: Tensor, bounds: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> dict[str, Ranking]:
        """Return the part whose tail has each range of degrees, given those of all entities (E,); the first is below 1.

        The ranges are [0, b0), [b0, b1), ... and [b_last, inf); empty ones are left out.
        """
        place = torch.bucketize(degree[self.facts[:, 2]], torch.tensor(bounds, device=degree.device), right=True)
        ends = [0, *bounds, None]
        groups = {}
        for k in place.unique().tolist():
            low, high = ends[k], ends[k + 1]
            name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
            groups[name] = self.take(place == k)
        return groups


def metrics(ranks: Tensor, hits: Sequence[int] = (1, 3, 10)) -> dict[str, float]:
    """Return the mean reciprocal rank and the shares of ranks of at most k, of ranks (F,); NaN where there are none."""
    ranks = ranks.double()
    return {"mrr": ranks.reciprocal().mean().item()} | {f"hits@{k}": (ranks <= k).double().mean().item() for k in hits}


def protocols(ranking: Ranking) -> dict[str, dict[str, float]]:
    """Return the metrics under every protocol, the standard one, `realistic`, first."""
    names = ("realistic", "optimistic", "pessimistic", "head_excluded")
    return {name: metrics(getattr(ranking, name)) for name in names}


@torch.no_grad()
def rank_tails(model: Scorer, facts: Tensor, known: KnownTails, *, scores: int = SCORES) -> Ranking:
    r"""Rank the tail of each fact among all entities but the other known tails of its (h, r).

    .. math:: above_i = |\{e \notin known(h_i, r_i) : s(h_i, r_i, e) > s(h_i, r_i, t_i)\}|

    and ties likewise. Facts that share (h, r) share a row of the product. A score that is not a number is placed above
    every tail, so that a broken model ranks last.

    Args:
        model: see `Scorer`.
        facts: (F, 3); for both directions pass `both_directions(facts, R)`.
        known: the facts of all splits, in the directions that are asked for.
        scores: numbers held at once at most, if one query's fit.

    Raises:
        ValueError: facts are not (F, 3), or name an entity that is not there.
    """
    table = model.table()
    check_facts(facts, len(table))
    queries = KnownTails(facts, len(table))
    key, order = (facts[:, 1] * len(table) + facts[:, 0]).sort(stable=True)
    group = torch.searchsorted(queries.keys, key)
    counts = torch.empty(3, len(facts), dtype=torch.float64, device=facts.device)
    step = max(1, scores // len(table))
    for first in range(0, len(queries), step):
        chunk = slice(first, first + step)
        head, relation = queries.head[chunk], queries.relation[chunk]
        score = all_scores(model, head, relation, table)
        least, most = torch.finfo(score.dtype).min, torch.finfo(score.dtype).max
        low, high = torch.searchsorted(group, torch.tensor([first, first + step], device=group.device)).tolist()
        rows = torch.arange(low, high, device=facts.device).split(step)
        places = [(group[r] - first, facts[order[r]]) for r in rows]
        true = [score[row, fact[:, 2]].nan_to_num(least / 2, most, least / 2) for row, fact in places]
        score.nan_to_num_(most, most, least / 2)
        score[known.of(head, relation)] = least
        for r, (row, fact), s in zip(rows, places, true, strict=True):
            score[row, fact[:, 2]] = least  # the tail itself, should `known` lack it
            sign = score[row].sub_(s[:, None]).sign_()
            own = (sign.gather(1, fact[:, :1])[:, 0] + 1) / 2
            counts[:, order[r]] = torch.stack([*_above_and_ties(sign), own]).double()
    above, ties, head_above = counts
    return Ranking(facts, above.long(), ties.long(), head_above)


def _above_and_ties(sign: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many signs (N, E) are 1 and how many 0, (N,): sums of floats take a fifth of the time of comparisons.

    They are exact up to 2**24 entities in float32.
    """
    exact = torch.float32 if sign.shape[1] < 1 << 24 else torch.float64
    difference, unequal = sign.sum(1, dtype=exact), torch.linalg.vecdot(sign.to(exact), sign.to(exact))
    return (unequal + difference) / 2, sign.shape[1] - unequal


def all_scores(model: Scorer, head: Tensor, relation: Tensor, table: Tensor | None = None) -> Tensor:
    """Return the scores (N, E) of every entity as the tail of queries (N,), given the table where it is at hand."""
    score = model.query(head, relation) @ (model.table() if table is None else table).mT
    score[torch.arange(len(head), device=head.device), head] += model.loop(relation)
    return score
