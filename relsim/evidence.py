"""The facts that show what two relations have in common: those that both state, or that one states backwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.kb import KB


@dataclass(frozen=True)
class Evidence:
    """What a pair of relations shares in the KB: the number of (head, tail) that both state, and a few by name."""

    shared: int
    examples: Sequence[tuple[str, str]] = ()


def shared(kb: KB, pairs: Iterable[tuple[str, str]], examples: int = 5) -> dict[tuple[str, str], Evidence]:
    """Return for each pair of relations (a, b) the facts a(h, t) with b(h, t).

    `examples` of the (h, t) are named, spread evenly over all. One search of the smaller relation's sorted facts in the
    larger's per pair.

    Raises:
        RelsimError: `kb` has no relation of that name.
    """
    facts, size = kb.facts, len(kb.entities)
    keys = facts.head * size + facts.tail  # ascending within a relation: Triples are sorted
    return {(a, b): _evidence(kb, _of(kb, keys, a), _of(kb, keys, b), examples) for a, b in pairs}


def mirrored(kb: KB, pairs: Iterable[tuple[str, str]], examples: int = 5) -> dict[tuple[str, str], Evidence]:
    """Return for each pair of relations (a, b) the facts a(h, t) with b(t, h), as `shared` does.

    Raises:
        RelsimError: `kb` has no relation of that name.
    """
    facts, size = kb.facts, len(kb.entities)
    keys, backwards = facts.head * size + facts.tail, facts.tail * size + facts.head
    return {(a, b): _evidence(kb, _of(kb, keys, a), np.sort(_of(kb, backwards, b)), examples) for a, b in pairs}


def _of(kb: KB, keys: NDArray[np.int64], relation: str) -> NDArray[np.int64]:
    index = kb.relation_id(relation)
    return keys[slice(*np.searchsorted(kb.facts.relation, [index, index + 1]))]


def _evidence(kb: KB, first: NDArray[np.int64], second: NDArray[np.int64], examples: int) -> Evidence:
    few, many = sorted((first, second), key=len)
    both = few[many.take(np.searchsorted(many, few), mode="clip") == few] if len(few) else few
    chosen = np.unique(np.linspace(0, len(both) - 1, min(examples, len(both))).astype(np.int64))
    size = len(kb.entities)
    return Evidence(len(both), [(kb.entities[key // size], kb.entities[key % size]) for key in both[chosen].tolist()])
