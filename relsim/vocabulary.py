"""The names of a dump once all are known: which number each has, and what it is called in the KB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.labels import Labels
from relsim.numbering import Numbering

MOST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of names, `number[place]`, and the first place of each name as a mask.

    `labels` has the label of each number, null where it has none.
    """

    numbering: Numbering
    number: NDArray[np.int32]
    is_first: NDArray[np.bool_]
    labels: pa.Array | None = None

    def __len__(self) -> int:
        return int(np.count_nonzero(self.is_first))

    def names(self, kept: NDArray[np.bool_] | None = None) -> Iterator[pa.StringArray]:
        """Yield the names in the order of their numbers, those alone that are `kept`, as `label (name)` if labelled."""
        chosen, labels = self.is_first, self.labels
        if kept is not None:
            chosen = chosen.copy()
            chosen[chosen] = kept
            labels = labels and labels.filter(pa.array(kept))
        start = 0
        for part in self.numbering.names(chosen):
            yield part if labels is None else _labelled(part, labels.slice(start, len(part)))
            start += len(part)


def vocabulary(numbering: Numbering, labels: Labels | None = None) -> Vocabulary:
    """Return the vocabulary of the names in a numbering.

    Raises:
        RelsimError: there are more than 2^31 - 1 of them.
    """
    size = numbering.size
    if labels is not None:
        for names in labels.names():
            numbering.add(names)
    first = numbering.first_places()
    is_first = first == np.arange(len(first), dtype=first.dtype)
    is_first[size:] = False
    if np.count_nonzero(is_first) > MOST:
        raise RelsimError(f"more than {MOST:,} names: choose fewer facts, with --predicate, say")
    number = np.where(is_first, np.cumsum(is_first, dtype=np.int32) - np.int32(1), np.int32(MOST))[first]
    known = Vocabulary(numbering, number, is_first)
    return known if labels is None else Vocabulary(numbering, number, is_first, _labels(known, labels, number[size:]))


def _labels(vocabulary: Vocabulary, labels: Labels, number: NDArray[np.int32]) -> pa.Array:
    """Return the label of each number of a vocabulary; `number` has those of the rows of the table of labels."""
    numbers, texts, start = [], [], 0
    for text in labels.texts():
        part = number[start : start + len(text)]
        known = part < MOST
        numbers.append(part[known])
        texts.append(text.filter(pa.array(known)))
        start += len(text)
    found = np.concatenate(numbers)
    row = np.full(len(vocabulary), -1)
    row[found[::-1]] = np.arange(len(found))[::-1]  # of several assignments the last stands, so the first label
    return pa.concat_arrays(texts).take(pa.array(row, mask=row < 0))


def _labelled(names: pa.StringArray, labels: pa.StringArray) -> pa.StringArray:
    return pc.coalesce(pc.binary_join_element_wise(labels, " (", names, ")", ""), names)
