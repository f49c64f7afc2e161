"""The facts of a batch that a format means, under shorter names; the others are counted by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relsim.formats.base import Batch

Mask = NDArray[np.bool_]


def renamed(column: pa.Array, pattern: str) -> tuple[pa.DictionaryArray, Mask]:
    """Rename each name to the group `name` of a pattern, and say where it matches; elsewhere the result is void."""
    encoded = as_dictionary(column)
    names = pc.struct_field(pc.extract_regex(encoded.dictionary, pattern), "name")
    found = names.is_valid().to_numpy(zero_copy_only=False)
    return pa.DictionaryArray.from_arrays(encoded.indices, pc.fill_null(names, "")), _rows(encoded, found)


def matching(column: pa.Array, pattern: str) -> Mask:
    """Return where a column matches a pattern."""
    encoded = as_dictionary(column)
    found = pc.match_substring_regex(encoded.dictionary, pattern).to_numpy(zero_copy_only=False)
    return _rows(encoded, found)


def without(batch: Batch, reasons: dict[str, Mask]) -> Batch:
    """Leave out the rows of these masks, and count each under the first reason that holds of it."""
    skipped, kept = Counter(batch.skipped), np.ones(len(batch.head), bool)
    for reason, mask in reasons.items():
        skipped[reason] += int(np.count_nonzero(kept & mask))
        kept &= ~mask
    head, relation, tail = (compact(column, kept) for column in (batch.head, batch.relation, batch.tail))
    return replace(batch, head=head, relation=relation, tail=tail, skipped=skipped)


def as_dictionary(column: pa.Array) -> pa.DictionaryArray:
    """Return a column of names as a dictionary and its indices."""
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def compact(column: pa.Array, kept: Mask) -> pa.DictionaryArray:
    """Return the rows that are kept, and no name in the dictionary that none of them has."""
    if kept.all():
        return column
    rows = column.filter(pa.array(kept))
    return (rows.dictionary_decode() if pa.types.is_dictionary(rows.type) else rows).dictionary_encode()


def _rows(column: pa.DictionaryArray, of_names: Mask) -> Mask:
    return of_names[column.indices.to_numpy()] if len(column) else np.zeros(0, bool)
