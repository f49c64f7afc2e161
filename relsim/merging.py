"""Equal facts merged and counted, in the order of their ids, whatever memory all of them would take.

Facts beyond what is sorted at once are dealt by ranges of (relation, head) to parts that are sorted one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.kb import Triples
from relsim.spool import Scratch, Spool

PART = 4 << 20  # facts sorted at a time
_PARTS = 256
_SAMPLE = 64  # every so many facts, one says where the ranges end

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def merged(facts: Callable[[], Iterable[Columns]], rows: int, entities: int, scratch: Scratch) -> Iterator[Triples]:
    """Yield (head, relation, tail) merged and counted, in blocks that are sorted by relation, head, tail throughout.

    Args:
        facts: gives all columns, in chunks; called twice where there are more than `PART`.
        rows: the number of facts.
        entities: heads are less than this.
        scratch: where parts wait.
    """
    if rows <= PART:
        yield _sorted(list(facts()))
        return
    count = min(-(-rows // PART), _PARTS)
    sample = np.sort(np.concatenate([(r * entities + h)[::_SAMPLE] for h, r, _ in facts()]))
    edges = np.unique(sample[np.arange(1, count) * len(sample) // count])
    parts = [Spool(scratch, 0) for _ in range(len(edges) + 1)]
    for chunk in facts():
        part = np.searchsorted(edges, chunk[1] * entities + chunk[0], side="right")
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(parts) + 1))
        for spool, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
            head, relation, tail = (pa.array(column[order[start:end]].astype(np.int32)) for column in chunk)
            spool.append(head=head, relation=relation, tail=tail)
    for spool in parts:
        chunks = [tuple(batch[name].to_numpy() for name in ("head", "relation", "tail")) for batch in spool]
        spool.drop()
        yield _sorted(chunks)


def _sorted(chunks: Sequence[tuple[NDArray[np.int64], ...]]) -> Triples:
    columns = [np.concatenate(column) for column in zip(*chunks, strict=True)] if chunks else [[], [], []]
    return Triples.from_columns(*columns)
