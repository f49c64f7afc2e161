"""Dumps made by a script: N-Triples like Wikidata's, facts of one subject together, tails and relations skewed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RELATIONS = 1000
_BLOCK = 500_000
_LINE = (
    b"<http://www.wikidata.org/entity/Q%d> <http://www.wikidata.org/prop/direct/P%d> "
    b"<http://www.wikidata.org/entity/Q%d> .\n"
)


def write_ntriples(path: Path, triples: int, entities: int, seed: int = 0) -> None:
    """Write so many triples over so many entities, all of them facts between entities, none in need of a parser."""
    rng = np.random.default_rng(seed)
    scatter = 7919  # ids that do not count up, as they do not in a dump
    done = head = 0
    with path.open("wb") as out:
        while done < triples:
            size = min(_BLOCK, triples - done)
            heads = head + np.repeat(np.arange(size), rng.geometric(entities / triples, size))[:size]
            head = int(heads[-1]) + 1
            tails = (entities * rng.random(size) ** 3).astype(np.int64)
            relations = np.minimum(rng.zipf(1.3, size), RELATIONS)
            columns = heads * scatter % entities * 3, relations, tails * scatter % entities * 3
            out.write(b"".join(_LINE % row for row in zip(*(column.tolist() for column in columns), strict=True)))
            done += size
