"""Search instead of the full matrix: the nearest relations of one, or all pairs above a similarity.

The head part is an exact lower bound of KL for all pairs at the price of a matrix product, and heads added one by one
raise it (`relsim.race`); only pairs that it does not exclude are evaluated to the end. The estimates are those of the
full matrix of the same estimator and seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relsim.design import Design
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.estimators import DesignEstimator, RaoBlackwell
from relsim.heads import moderated
from relsim.race import FIRST, Race, one
from relsim.rows import LazyRows
from relsim.similar import Neighbour
from relsim.tails import blocks

GUESSES = 4  # pairs looked at per pair asked for, before the bound is known


@dataclass(frozen=True)
class Effort:
    """What a search did of what the full matrix takes.

    Attributes:
        pairs: unordered pairs that were in question.
        excluded: those that the head part alone excluded: their tail part was never evaluated.
        rows: (head, relation) rows that took a pass over the entities.
        all_rows: the rows of the full matrix.
    """

    pairs: int
    excluded: int
    rows: int
    all_rows: int

    def __str__(self) -> str:
        return (
            f"{self.excluded / max(self.pairs, 1):.1%} of {self.pairs:,} pairs excluded by the head part; "
            f"{self.rows / max(self.all_rows, 1):.2%} of the full matrix's {self.all_rows:,} rows evaluated"
        )


@torch.no_grad()
def nearest(
    model: FactDistribution, name: str, k: int = 10, *, estimator: DesignEstimator | None = None
) -> tuple[list[Neighbour], Effort]:
    """Return the `k` relations most similar to `name`, nearest first, as the full matrix has them, and the effort.

    Standard errors are moderated (`relsim.heads.moderated`) among the pairs that were evaluated.

    Raises:
        RelsimError: no relation has that name, or the model has no other.
    """
    with _ready(model, estimator) as (design, rows):
        row = int(model.relation_index(name))
        others = torch.tensor([b for b in range(len(model.relations)) if b != row])
        away = design.head_part(one(row))[0, others]
        back = design.head_part(targets=one(row))[others, 0]
        race = _both_ways(design, rows, others.new_full((len(others),), row), others, away, back)
        order = torch.maximum(away, back).argsort(stable=True)
        bundles = torch.stack([2 * order, 2 * order + 1], dim=1)
        race.advance(bundles[: GUESSES * k].flatten(), FIRST)
        kept = race.best(bundles, min(k, len(others)))
        records = [_record(model, design, found) for found in _estimates(design, race, kept)]
        effort = _effort(design, rows, race, len(others))
    found = [_neighbour(record) for record in records]
    return sorted(found, key=lambda n: max(n.kl_from, n.kl_to))[:k], effort


@torch.no_grad()
def similar_pairs(
    model: FactDistribution, threshold: float, *, estimator: DesignEstimator | None = None
) -> tuple[list[dict[str, Any]], Effort]:
    """Return all pairs with similarity exp(-max(KL(a || b), KL(b || a))) at least `threshold`, and the effort.

    The records are those of `relsim.similar.pair_record`, most similar first. Standard errors as in `nearest`.

    Raises:
        RelsimError: the model has one relation.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected threshold in (0, 1], got {threshold}")
    limit = -math.log(threshold)
    with _ready(model, estimator) as (design, rows):
        a, b, away, back = (torch.cat(parts) for parts in zip(*_candidates(design, limit), strict=True))
        race = _both_ways(design, rows, a, b, away, back)
        kept = race.within(torch.arange(2 * len(a)).reshape(-1, 2), limit)
        records = [_record(model, design, found) for found in _estimates(design, race, kept)]
        size = len(model.relations)
        effort = _effort(design, rows, race, size * (size - 1) // 2)
    records = [r for r in records if r["similarity"] >= threshold]
    return sorted(records, key=lambda r: max(r["kl_ab"], r["kl_ba"])), effort


@torch.no_grad()
def covered_pairs(
    model: FactDistribution, limit: float, *, estimator: DesignEstimator | None = None
) -> tuple[list[dict[str, Any]], Effort]:
    """Return all ordered pairs with KL(a || b) at most `limit` nats, b covers the facts of a, and the effort.

    The records are those of `relsim.similar.pair_record`, least KL(a || b) first; KL(b || a) is in them too.

    Raises:
        RelsimError: the model has one relation.
    """
    with _ready(model, estimator) as (design, rows):
        a, b, away, back = (torch.cat(parts) for parts in zip(*_one_way(design, limit), strict=True))
        race = _both_ways(design, rows, a, b, away, back)
        covered = race.within(2 * torch.arange(len(a))[:, None], limit)
        size, started = len(model.relations), int(race.started().sum())
        finished = race.within(torch.cat([covered, covered + 1], dim=1), math.inf)
        records = [_record(model, design, found) for found in _estimates(design, race, finished)]
        pairs = size * (size - 1)
        effort = Effort(pairs, pairs - started, rows.evaluated, len(design.sample.heads) * size)
    return sorted((r for r in records if r["kl_ab"] <= limit), key=lambda r: float(r["kl_ab"])), effort


@contextmanager
def _ready(model: FactDistribution, estimator: DesignEstimator | None) -> Iterator[tuple[Design, LazyRows]]:
    """The design and the rows of all relations of a model, which is in evaluation mode meanwhile."""
    size = len(model.relations)
    if size < 2:
        raise RelsimError(f"{size} relation: a search needs two or more")
    training = model.training
    model.eval()
    try:
        design = (estimator or RaoBlackwell()).design(model, torch.arange(size, device=model.support.device))
        yield design, LazyRows(model, design)
    finally:
        model.train(training)


def _both_ways(design: Design, rows: LazyRows, a: Tensor, b: Tensor, away: Tensor, back: Tensor) -> Race:
    """A race in which pair i runs from a to b as number 2 i and back as number 2 i + 1."""
    return Race(
        design,
        rows,
        torch.stack([a, b], dim=1).flatten(),
        torch.stack([b, a], dim=1).flatten(),
        torch.stack([away, back], dim=1).flatten(),
    )


def _candidates(design: Design, limit: float) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pairs a < b whose head parts, both ways, do not exceed `limit`, and these; a block of the matrix at a time."""
    size = len(design.relations)
    for sources in blocks(size, 1024):
        for targets in blocks(size, 1024):
            if targets.start < sources.start:
                continue
            away, back = design.head_part(sources, targets), design.head_part(targets, sources).T
            near = torch.maximum(away, back) <= limit
            if targets.start == sources.start:
                near = near.triu(1)
            a, b = near.nonzero(as_tuple=True)
            yield a + sources.start, b + targets.start, away[a, b], back[a, b]


def _one_way(design: Design, limit: float) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Ordered pairs whose head part does not exceed `limit`, that part, and the one back."""
    size = len(design.relations)
    for sources in blocks(size, 1024):
        for targets in blocks(size, 1024):
            away, back = design.head_part(sources, targets), design.head_part(targets, sources).T
            a, b = (away <= limit).nonzero(as_tuple=True)
            a, b = a[a + sources.start != b + targets.start], b[a + sources.start != b + targets.start]
            yield a + sources.start, b + targets.start, away[a, b], back[a, b]


def _estimates(design: Design, race: Race, pairs: Tensor) -> Iterator[dict[str, Any]]:
    """What the full matrix holds for finished pairs (m, 2): indices, parts and standard errors both ways."""
    flat = pairs.flatten()
    source, target = race.source[flat], race.target[flat]
    tail, stderr = torch.zeros_like(race.low[flat]), torch.zeros_like(race.low[flat])
    for a in source.unique().tolist():
        mine = (source == a).nonzero().squeeze(1)
        mean, variance = race.sums(a, target[mine])
        tail[mine] = mean
        freedom = design.sample.freedom[one(a)]
        stderr[mine] = moderated(variance[None], mean[None], freedom)[0].sqrt()
    for i in range(0, len(flat), 2):
        a, b = int(source[i]), int(target[i])
        head = float(design.head_part(one(a), one(b))), float(design.head_part(one(b), one(a)))
        yield {
            "a": a,
            "b": b,
            "head": head,
            "tail": (float(tail[i]), float(tail[i + 1])),
            "stderr": (float(stderr[i]), float(stderr[i + 1])),
        }


def _record(model: FactDistribution, design: Design, found: dict[str, Any]) -> dict[str, Any]:
    """The same as `relsim.similar.pair_record` makes of a matrix."""
    a, b = (int(design.relations[found[key]]) for key in ("a", "b"))
    (head_ab, head_ba), (tail_ab, tail_ba), (stderr_ab, stderr_ba) = found["head"], found["tail"], found["stderr"]
    kl_ab, kl_ba = head_ab + tail_ab, head_ba + tail_ba
    return {
        "a": model.relations[a],
        "b": model.relations[b],
        "similarity": float(np.exp(-max(kl_ab, kl_ba, 0))),
        "kl_ab": kl_ab,
        "stderr_ab": stderr_ab,
        "kl_ba": kl_ba,
        "stderr_ba": stderr_ba,
        "head_ab": head_ab,
        "head_ba": head_ba,
        "tail_ab": tail_ab,
        "tail_ba": tail_ba,
        "support_a": int(model.support[a]),
        "support_b": int(model.support[b]),
    }


def _neighbour(record: dict[str, Any]) -> Neighbour:
    """What the record of a pair says of b, beside a."""
    keys = ("b", "similarity", "kl_ab", "stderr_ab", "kl_ba", "stderr_ba")
    return Neighbour(*(record[key] for key in keys))


def _effort(design: Design, rows: LazyRows, race: Race, pairs: int) -> Effort:
    size = len(design.relations)
    started = race.started().reshape(-1, 2).any(dim=1)
    return Effort(pairs, pairs - int(started.sum()), rows.evaluated, len(design.sample.heads) * size)
