"""What each step costs: seconds of one core and bytes of memory, as functions of the sizes of a KB.

The constants are fitted to the measurements in `tests/benchmarks/results` of November 2026 (Intel Xeon with AVX-512,
one thread); a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

# statements per CPU second of ingestion, by what reads them
_LINES = 600_000
_PARSER = 150_000
_JSON = 100_000
_RATES = {
    **dict.fromkeys(("nt", "nq", "tsv", "wikidata", "dbpedia", "freebase", "kgtk", "csv", "parquet", "openke"), _LINES),
    **dict.fromkeys(("turtle", "trig", "rdfxml", "jsonld"), _PARSER),
    **dict.fromkeys(("wikidata-json", "openie"), _JSON),
}
# bytes of compressed input per CPU second
_DECOMPRESSION = {".bz2": 8e6, ".gz": 60e6, ".zst": 200e6}

_FIT_LAYER, _FIT_SOFTMAX = 7.0e-11, 1.7e-10  # seconds per group, unit of the hidden layers squared / entity and width
_FIT_STEP = 1.1e-8  # seconds per step and weight: the optimiser
_COMPARE_LAYER, _COMPARE_SOFTMAX = 1.8e-11, 4.5e-11  # the same per evaluated head and relation
_NAME, _FACT, _FLOAT = 150, 96, 4  # bytes


@dataclass(frozen=True)
class Sizes:
    """How much a KB holds. `groups` are the distinct pairs of a head and a relation."""

    facts: int
    entities: int
    relations: int
    groups: int


@dataclass(frozen=True)
class Cost:
    """Seconds of one core, and bytes of memory."""

    seconds: float
    bytes: float


def ingestion(format: str, statements: float, size: int, suffix: str) -> Cost:
    """Return the cost of reading so many statements from a file of `size` bytes, without what numbering them holds."""
    decompression = size / _DECOMPRESSION[suffix] if suffix in _DECOMPRESSION else 0.0
    return Cost(statements / _RATES.get(format, _PARSER) + decompression, 0.0)


def ingestion_bytes(kb: Sizes) -> float:
    """Return the memory of `relsim ingest`: blocks, parts and buffers, and a few bytes for each mention of a name."""
    mentions = min(2 * kb.facts, 4 * kb.entities)
    return min(0.25e9 + 600 * kb.facts, 0.9e9) + 9 * mentions


def fitting(kb: Sizes, dim: int = 64, hidden: int = 1024, epochs: int = 20) -> Cost:
    """Return the cost of `relsim fit`: each epoch is a softmax over all entities for each group."""
    weights = (kb.entities + kb.relations) * (dim + 2) + 2 * hidden**2
    steps = kb.groups / min(512, max(32, kb.groups // 64))
    epoch = kb.groups * (_FIT_LAYER * hidden**2 + _FIT_SOFTMAX * kb.entities * dim) + _FIT_STEP * steps * weights
    copies = 6  # the weights, their gradient, two moments, the best so far, and what goes to the checkpoint
    return Cost(epochs * epoch, copies * _FLOAT * weights + _FACT * kb.facts + _NAME * kb.entities + 0.4e9)


def comparing(kb: Sizes, dim: int = 64, hidden: int = 1024, heads: int = 1200) -> Cost:
    """Return the cost of `relsim compare`: a softmax over all entities for each relation and evaluated head."""
    pair = _COMPARE_LAYER * hidden**2 + _COMPARE_SOFTMAX * kb.entities * dim
    matrices = 6 * 8 * kb.relations**2
    table = 2 * _FLOAT * kb.entities * (dim + 2)
    return Cost(min(heads, kb.entities) * kb.relations * pair, matrices + table + _NAME * kb.entities + 0.4e9)
