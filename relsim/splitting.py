"""A test with a known answer: relations are cut into parts, and the parts of one relation have to be found again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.kb import KB, Triples


def chinese_restaurant(customers: int, concentration: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the table of each customer: one that n sit at already with probability n / (k + a), a new one a / (k + a).

    k customers are seated before this one, and a is the concentration, positive. Tables are numbered in the order in
    which they are opened (Aldous, Exchangeability and related topics, 1985).
    """
    if not concentration > 0:
        raise ValueError(f"expected concentration > 0, got {concentration}")
    seated = np.arange(customers)
    opens = rng.random(customers) < concentration / (seated + concentration)
    whose = (rng.random(customers) * seated).astype(np.int64)  # else: the table of one of those before, uniformly
    table = np.cumsum(opens) - 1
    for k in np.flatnonzero(~opens):
        table[k] = table[whose[k]]
    return table.astype(np.int64)


def split_relations(
    kb: KB, *, at_least: int = 500, part: int = 50, concentration: float = 1.0, seed: int = 0
) -> tuple[KB, NDArray[np.int64]]:
    """Cut every relation with `at_least` distinct facts into parts by a Chinese restaurant process over its facts.

    The facts come in random order; parts of fewer than `part` facts are dropped. The parts become relations `name#1`,
    `name#2`, the largest first, and share no fact. Other relations stay as they are. All facts become training facts
    (after arXiv:1907.08937).

    Returns:
        The KB, and the relation of `kb` that each of its relations comes from, (R,). Pairs of equal origin are the ones
        to find.

    Raises:
        RelsimError: no relation has two parts.
    """
    facts, rng = kb.facts, np.random.default_rng(seed)
    names: list[str] = []
    origin: list[int] = []
    rows: list[NDArray[np.int64]] = []
    for relation, name in enumerate(kb.relations):
        mine = np.flatnonzero(facts.relation == relation)
        parts = [mine] if len(mine) < at_least else _parts(mine, part, concentration, rng)
        names += [name] if len(parts) == 1 else [f"{name}#{k + 1}" for k in range(len(parts))]
        origin += [relation] * len(parts)
        rows += parts
    source = np.array(origin, dtype=np.int64)
    if len(np.unique(source)) == len(source):
        raise RelsimError(f"no relation of at least {at_least} facts has two parts of {part}: lower one of the two")
    number = np.repeat(np.arange(len(rows)), [len(mine) for mine in rows])
    kept = facts.take(np.concatenate(rows))
    train = Triples.from_columns(kept.head, number, kept.tail, kept.count)
    return KB(kb.entities, names, {"train": train}, f"{kb.source}, relations split"), source


def _parts(
    facts: NDArray[np.int64], at_least: int, concentration: float, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Seat facts in random order; return those of each table of `at_least`, the largest first."""
    table = chinese_restaurant(len(facts), concentration, rng)[rng.permutation(len(facts))]
    size = np.bincount(table)
    return [facts[table == t] for t in np.argsort(-size, kind="stable") if size[t] >= at_least]
