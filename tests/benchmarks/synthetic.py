"""A knowledge base of any size with the redundancy of real ones: duplicates, sub-relations, inverses, shared types.

Run as a script to write one: `python -m tests.benchmarks.synthetic fb15k.kb`.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from relsim.kb import KB, Triples
from relsim.mlp import MLPDistribution

TYPES = 40
KINDS = ("base", "duplicate", "sub-relation", "inverse")
SHARES = (0.55, 0.15, 0.15, 0.15)


def synthetic_kb(entities: int = 14_951, relations: int = 1_345, facts: int = 540_000, seed: int = 0) -> KB:
    """Return a KB of the shape of FB15k (by default), split 80 to 10 to 10.

    Every entity has a type, and within it a Zipf frequency and a group. A base relation joins two types and prefers
    tails of the head's group. Of the rest, a duplicate states 85 to 100 % of a base relation's facts and a few of its
    own, a sub-relation those of a quarter of its heads, an inverse most of them the other way round. Supports are
    log-normal: of FB15k's relations half have fewer than 100 facts.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.dirichlet(np.full(TYPES, 0.7))
    kind_of_entity = rng.choice(TYPES, entities, p=sizes)
    members = [np.flatnonzero(kind_of_entity == kind) for kind in range(TYPES)]
    members = [m if len(m) else np.arange(min(20, entities)) for m in members]
    group = rng.integers(0, 12, entities)
    support = rng.lognormal(0.0, 1.8, relations)
    support = np.maximum(5, support / support.sum() * facts * 1.25).astype(int)
    kinds = np.sort(rng.choice(len(KINDS), relations, p=SHARES))
    parts: list[NDArray[np.int64]] = []
    base = np.flatnonzero(kinds == 0)
    for relation in range(relations):
        kind = KINDS[kinds[relation]]
        if kind == "base":
            rows = _base(rng, members, group, int(support[relation]))
        else:
            source = parts[rng.choice(base)]
            rows = _derived(rng, kind, source)
        parts.append(rows)
    relation = np.repeat(np.arange(relations), [len(rows) for rows in parts])
    head, tail = np.concatenate(parts).T
    everything = Triples.from_columns(head, relation, tail)
    draw = rng.random(len(everything))
    splits = {
        name: everything.take(chosen)
        for name, chosen in (("train", draw < 0.8), ("valid", (draw >= 0.8) & (draw < 0.9)), ("test", draw >= 0.9))
    }
    names = [f"{KINDS[kinds[r]]} {r}" for r in range(relations)]
    return KB([f"e{i}" for i in range(entities)], names, splits, f"synthetic-{entities}-{relations}")


def _base(
    rng: np.random.Generator, members: list[NDArray[np.int64]], group: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    heads, tails = (members[i] for i in rng.choice(len(members), 2, p=_popular(members)))
    subset = rng.choice(heads, max(1, min(len(heads), int(size / rng.uniform(1, 4)))), replace=False)
    head = subset[_zipf(rng, len(subset), size, 0.6)]
    tail = tails[_zipf(rng, len(tails), size, 0.9)]
    again = (group[head] != group[tail]) & (rng.random(size) < 0.9)  # most facts stay within a group
    tail[again] = tails[_zipf(rng, len(tails), int(again.sum()), 0.9)]
    return np.unique(np.column_stack([head, tail]), axis=0)


def _derived(rng: np.random.Generator, kind: str, source: NDArray[np.int64]) -> NDArray[np.int64]:
    if kind == "sub-relation":
        heads = np.unique(source[:, 0])
        chosen = rng.choice(heads, max(1, len(heads) // 4), replace=False)
        return source[np.isin(source[:, 0], chosen)]
    kept = source[rng.random(len(source)) < rng.uniform(0.85, 1.0)]
    kept = kept if len(kept) else source
    if kind == "inverse":
        return kept[:, ::-1].copy()
    extra = np.column_stack([rng.permutation(source[:, 0]), source[:, 1]])[: max(1, len(source) // 50)]
    return np.unique(np.concatenate([kept, extra]), axis=0)


def _popular(members: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    size = np.array([len(m) for m in members], dtype=float) ** 0.5
    return size / size.sum()


def _zipf(rng: np.random.Generator, size: int, draws: int, exponent: float) -> NDArray[np.int64]:
    weight = np.arange(1, size + 1) ** -exponent
    return rng.choice(size, draws, p=weight / weight.sum())


def synthetic_model(entities: int = 1_000_000, relations: int = 10_000, seed: int = 0) -> MLPDistribution:
    """Return an untrained model with clusters of relations, and near-duplicates: what search meets at that size.

    Entity vectors have a type; relation vectors are 200 centres with deviations, every tenth a near copy of the one
    before. Scales are such that a head conditional has an effective support of a few thousand entities.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    names = [f"e{i}" for i in range(entities)], [f"r{i}" for i in range(relations)]
    model = MLPDistribution(*names, dim=64, hidden=256).eval()
    with torch.no_grad():
        kinds = normal(200, 64)
        model.entity.copy_(kinds[torch.randint(200, (entities,), generator=generator)] + 0.5 * normal(entities, 64))
        centres = normal(200, 64)
        model.relation.copy_(centres[torch.arange(relations) % 200] + 0.5 * normal(relations, 64))
        model.relation[9::10] = model.relation[8::10][: len(model.relation[9::10])] + 0.02 * normal(relations // 10, 64)
        for mlp in (model.head_mlp, model.tail_mlp):
            for layer in (*mlp.first, mlp.second, mlp.last):
                layer.weight.copy_(normal(*layer.weight.shape) * (2 / layer.weight.shape[1]) ** 0.5)
            mlp.last.weight.mul_(0.25)
    return model


if __name__ == "__main__":
    kb = synthetic_kb()
    kb.save(sys.argv[1])
    sys.stdout.write(f"{sys.argv[1]}: {kb}\n")
