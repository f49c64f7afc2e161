"""A smaller KB: the entities and relations with the most facts, and the facts between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.kb import Triples
from relsim.kbfiles import COLUMNS
from relsim.spool import Scratch, Spool

Block = tuple[str, Triples]


@dataclass(frozen=True)
class Choice:
    """What to keep of a dump.

    Attributes:
        predicates: patterns of `fnmatch`, of which a relation must match one; none admits all.
        max_entities: keep so many entities, those with the most facts (ties: the first to appear).
        min_triples: then keep the relations with at least so many distinct facts.
    """

    predicates: tuple[str, ...] = ()
    max_entities: int | None = None
    min_triples: int = 1

    def __post_init__(self) -> None:
        for name, value in (("max_entities", self.max_entities), ("min_triples", self.min_triples)):
            if value is not None and value < 1:
                raise RelsimError(f"{name} {value}: expected 1 or more: leave it out to keep all")

    @property
    def by_count(self) -> bool:
        """Whether facts have to be counted before it is known which to keep."""
        return self.max_entities is not None or self.min_triples > 1


@dataclass(frozen=True)
class Selection:
    """The facts that are left, in their old order under new numbers, and masks of the names that are left.

    `left_out` counts the statements that are not.
    """

    entities: NDArray[np.bool_]
    relations: NDArray[np.bool_]
    blocks: Iterator[Block]
    left_out: int


def select(blocks: Iterable[Block], entities: int, relations: int, choice: Choice, scratch: Scratch) -> Selection:
    """Keep what `choice` says of facts over so many entities and relations.

    Numbers move up where others fall out, so that order is kept. Entities without a fact fall out.
    """
    stored = _Blocks(scratch)
    degree = np.zeros(entities, np.int64)
    for split, block in blocks:
        stored.append(split, block)
        degree += np.bincount(block.head, minlength=entities) + np.bincount(block.tail, minlength=entities)
    frequent = _largest(degree, choice.max_entities)
    support = np.zeros(relations, np.int64)
    for _, block in stored:
        kept = frequent[block.head] & frequent[block.tail]
        support += np.bincount(block.relation[kept], minlength=relations)
    supported = support >= choice.min_triples
    used, left_out = np.zeros(entities, bool), 0
    for _, block in stored:
        rows = _rows(block, frequent, supported)
        used[block.head[rows]] = True
        used[block.tail[rows]] = True
        left_out += int(block.count[~rows].sum())
    return Selection(used, supported, _renumbered(stored, used, supported), left_out)


class _Blocks:
    """Blocks of facts with their splits, on disk where they are many."""

    def __init__(self, scratch: Scratch) -> None:
        self._spool = Spool(scratch)
        self._splits: list[str] = []

    def append(self, split: str, block: Triples) -> None:
        self._splits.append(split)
        self._spool.append(**{name: pa.array(getattr(block, name)) for name in COLUMNS})

    def __iter__(self) -> Iterator[Block]:
        for split, batch in zip(self._splits, self._spool, strict=True):
            yield split, Triples(*(batch[name].to_numpy() for name in COLUMNS))


def _largest(degree: NDArray[np.int64], most: int | None) -> NDArray[np.bool_]:
    if most is None or most >= len(degree):
        return np.ones(len(degree), bool)
    chosen = np.zeros(len(degree), bool)
    chosen[np.argsort(-degree, kind="stable")[:most]] = True
    return chosen


def _rows(block: Triples, entities: NDArray[np.bool_], relations: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return entities[block.head] & entities[block.tail] & relations[block.relation]


def _renumbered(blocks: _Blocks, entities: NDArray[np.bool_], relations: NDArray[np.bool_]) -> Iterator[Block]:
    entity, relation = (np.cumsum(mask) - 1 for mask in (entities, relations))
    for split, block in blocks:
        part = block.take(_rows(block, entities, relations))
        yield split, Triples(entity[part.head], relation[part.relation], entity[part.tail], part.count)
