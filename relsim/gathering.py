"""Facts by name, as they come from a dump, to facts by number: what ingestion does once the dump is parsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.formats import Batch
from relsim.formats.narrow import as_dictionary, compact
from relsim.kb import SPLITS, Triples
from relsim.labels import Labels
from relsim.merging import Columns, Facts, merged
from relsim.numbering import Numbering
from relsim.spool import Scratch, Spool
from relsim.vocabulary import Vocabulary, vocabulary

_NEVER = 1 << 40
OTHER_PREDICATE = "another predicate"


class _Run(NamedTuple):
    """Where the names of a batch begin among all runs of names, and the split of its facts."""

    entity: int
    relation: int
    split: int


class Gathering:
    """Takes batches with `add`; `vocabularies` and `facts` then give what they hold, numbered and merged."""

    def __init__(self, scratch: Scratch, predicates: Sequence[str] = ()) -> None:
        self._scratch, self._predicates = scratch, tuple(predicates)
        self._admitted: dict[str, bool] = {}
        self._entities, self._relations = Numbering(scratch), Numbering(scratch)
        self._facts = Spool(scratch)
        self._runs: list[_Run] = []
        self._unused: tuple[list[pa.StringArray], list[pa.StringArray]] = [], []
        self._present: set[int] = set()
        self.skipped: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Take the facts of a batch whose relations are admitted."""
        self.skipped.update({reason: n for reason, n in batch.skipped.items() if n})
        self._present.add(SPLITS.index(batch.split))
        head, relation, tail = (as_dictionary(column) for column in (batch.head, batch.relation, batch.tail))
        if self._predicates:
            kept = self._admits(relation)
            self.skipped.update({OTHER_PREDICATE: n} if (n := int(np.count_nonzero(~kept))) else {})
            head, relation, tail = (compact(column, kept) for column in (head, relation, tail))
        entities, (heads, tails) = _first_first(head, tail)
        relations, (kinds,) = _first_first(relation)
        for names, unused in zip((entities, relations), self._unused, strict=True):
            if len(names.unused):  # an empty slice would keep all names of the batch in memory
                unused.append(names.unused)
        if len(heads):
            places = self._entities.add(entities.used), self._relations.add(relations.used)
            self._runs.append(_Run(*places, SPLITS.index(batch.split)))
            self._facts.append(head=pa.array(heads), relation=pa.array(kinds), tail=pa.array(tails))

    def vocabularies(self, labels: Labels | None = None) -> tuple[Vocabulary, Vocabulary]:
        """Return the entities and the relations. Names that were declared and never used are numbered last.

        Raises:
            RelsimError: there are more than 2^31 - 1 of them.
        """
        for numbering, unused in zip((self._entities, self._relations), self._unused, strict=True):
            for names in unused:
                numbering.add(names)
        return vocabulary(self._entities, labels), vocabulary(self._relations, labels)

    def facts(self, entities: Vocabulary, relations: Vocabulary) -> Iterator[tuple[str, Triples]]:
        """Yield blocks of merged facts with their splits, which come one after another, each sorted throughout."""
        kinds = len(relations)

        def numbered(step: int) -> Iterator[Columns]:
            for run, batch in zip(self._runs, self._facts, strict=True):
                head, relation, tail = (batch[name].to_numpy()[::step] for name in ("head", "relation", "tail"))
                # facts of one split stand together where it is a part of the number that is sorted first
                kind = relations.number[run.relation + relation].astype(np.int64) + run.split * kinds
                heads, tails = (entities.number[run.entity + column].astype(np.int64) for column in (head, tail))
                yield heads, kind, tails

        facts = Facts(numbered, self._facts.rows, len(entities), kinds * len(SPLITS))
        for block in merged(facts, self._scratch):
            for index, split in enumerate(SPLITS):
                start, end = np.searchsorted(block.relation, [index * kinds, (index + 1) * kinds])
                if end > start:
                    part = block.take(np.arange(start, end))
                    yield split, Triples(part.head, part.relation - index * kinds, part.tail, part.count)

    @property
    def splits(self) -> list[str]:
        """The splits of which there was a batch, empty or not."""
        return [SPLITS[index] for index in sorted(self._present)]

    def _admits(self, relation: pa.DictionaryArray) -> NDArray[np.bool_]:
        names = relation.dictionary.to_pylist()
        for name in names:
            if name not in self._admitted:
                self._admitted[name] = any(fnmatchcase(name, pattern) for pattern in self._predicates)
        admitted = np.array([self._admitted[name] for name in names], bool)
        return admitted[relation.indices.to_numpy()] if len(names) else np.zeros(0, bool)


class _Names(NamedTuple):
    used: pa.StringArray
    unused: pa.StringArray


def _first_first(*columns: pa.DictionaryArray) -> tuple[_Names, list[NDArray[np.int32]]]:
    """Order the names of parallel columns by first appearance, row by row and left to right.

    Returns the names that rows use, and those that none does, and the columns as indices into the former. A name that
    two columns share is there twice; hashing it once more would only find out what `Numbering` finds anyway.
    """
    codes = [column.indices.to_numpy() for column in columns]
    sizes = [len(column.dictionary) for column in columns]
    first = np.concatenate(
        [_first_rows(*pair) * len(columns) + k for k, pair in enumerate(zip(codes, sizes, strict=True))]
    )
    order = np.argsort(first, kind="stable")
    number = np.empty(len(first), np.int32)
    number[order] = np.arange(len(first), dtype=np.int32)
    names = pa.concat_arrays([column.dictionary for column in columns]).take(pa.array(order))
    used = int(np.count_nonzero(first < _NEVER))
    starts = np.cumsum([0, *sizes])
    return _Names(names[:used], names[used:]), [
        number[start + code] for start, code in zip(starts, codes, strict=False)
    ]


def _first_rows(codes: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Return the first row of each code below `size`, or `_NEVER`."""
    highest = np.maximum.accumulate(codes)
    rows = np.flatnonzero(np.diff(highest, prepend=-1))
    if np.array_equal(codes[rows], np.arange(size)):  # numbered by first appearance, as they mostly are
        return rows
    first = np.full(size, _NEVER)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of several assignments the last stands
    return first
