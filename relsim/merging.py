"""Equal facts merged and counted, in the order of their ids, whatever memory all of them would take.

A fact is one number, and numbers are sorted in place. Facts beyond what is sorted at once are dealt by ranges of
(relation, head) to parts that are sorted one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.kb import Triples
from relsim.spool import Scratch, Spool

PART = 32 << 20  # facts sorted at a time, eight bytes each
_PARTS = 256
_SAMPLE = 64  # every so many facts, one says where the ranges end
_BLOCK = 4 << 20  # facts yielded at a time

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class Facts(NamedTuple):
    """Heads, relations and tails: `chunks(step)` gives every `step`-th row of each chunk; ids are below the sizes."""

    chunks: Callable[[int], Iterable[Columns]]
    rows: int
    entities: int
    relations: int


def merged(facts: Facts, scratch: Scratch) -> Iterator[Triples]:
    """Yield facts merged and counted, in blocks that are sorted by relation, head, tail throughout."""
    if facts.rows <= PART:
        yield from _sorted(facts)
        return
    for part in _parts(facts, scratch):
        yield from _sorted(part)


def _parts(facts: Facts, scratch: Scratch) -> Iterator[Facts]:
    """Deal facts by ranges of (relation, head), which a sample makes about equally full."""
    count = min(-(-facts.rows // PART), _PARTS)
    sample = np.sort(np.concatenate([r * facts.entities + h for h, r, _ in facts.chunks(_SAMPLE)]))
    edges = np.unique(sample[np.arange(1, count) * len(sample) // count])
    spools = [Spool(scratch, 0) for _ in range(len(edges) + 1)]
    for chunk in facts.chunks(1):
        part = np.searchsorted(edges, chunk[1] * facts.entities + chunk[0], side="right").astype(np.uint16)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(spools) + 1))
        for spool, start, end in zip(spools, ends[:-1], ends[1:], strict=True):
            columns = (pa.array(column[order[start:end]].astype(np.int32)) for column in chunk)
            spool.append(**dict(zip("hrt", columns, strict=True)))
    for spool in spools:
        yield Facts(_read(spool), spool.rows, facts.entities, facts.relations)
        spool.drop()


def _read(spool: Spool) -> Callable[[int], Iterator[Columns]]:
    def chunks(step: int) -> Iterator[Columns]:
        for batch in spool:
            head, relation, tail = (batch[name].to_numpy()[::step].astype(np.int64) for name in "hrt")
            yield head, relation, tail

    return chunks


def _sorted(facts: Facts) -> Iterator[Triples]:
    if facts.relations * facts.entities**2 > np.iinfo(np.int64).max:
        columns = [np.concatenate(column) for column in zip(*facts.chunks(1), strict=True)] or [np.zeros(0, int)] * 3
        yield Triples.from_columns(*columns)
        return
    key, start = np.empty(facts.rows, np.int64), 0
    for head, relation, tail in facts.chunks(1):
        end = start + len(head)
        key[start:end] = (relation * facts.entities + head) * facts.entities + tail
        start = end
    key.sort()
    start = 0
    while start < len(key):
        end = int(np.searchsorted(key, key[min(start + _BLOCK, len(key)) - 1], side="right"))
        yield Triples.from_keys(key[start:end], facts.entities, facts.entities)
        start = end
