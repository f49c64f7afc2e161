"""OpenKE folders: entity2id.txt, relation2id.txt and the split files, whose rows are `head tail relation`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.formats.base import Batch, Format
from relsim.formats.stream import COMPRESSION, empty, invalid_utf8, not_utf8, open_text, reading

BLOCK = 16 << 20  # characters matched at a time
_ID = r"\d{1,18}"
_NAME_ROW = (rf"^(?P<name>[^\t]+?)(?:\t[ \t]*| +)(?P<id>{_ID})\s*$", "a name and its id")
_FACT_ROW = (rf"^\s*(?P<head>{_ID})\s+(?P<tail>{_ID})\s+(?P<relation>{_ID})\s*$", "three ids: head tail relation")


class _Rows(NamedTuple):
    """The rows under a count line: the number of each row's line, and the columns of the rows as strings."""

    line: NDArray[np.int64]
    columns: list[pa.ChunkedArray]


def read(path: Path, columns: str = "hrt") -> Iterator[Batch]:
    """Yield one batch for each split. Every name of the id files is declared; `columns` is fixed by the format.

    Raises:
        RelsimError: with file and line, a count that lies, a malformed row, an id that is given twice or out of range.
    """
    entities = _names(_need(path, "entity2id.txt"), "entity")
    relations = _names(_need(path, "relation2id.txt"), "relation")
    _need(path, "train2id.txt")
    for split in ("train", "valid", "test"):
        if file := _find(path, f"{split}2id.txt"):
            rows = _rows(file, *_FACT_ROW)
            head, tail = (_encoded(file, rows, column, entities, "entity") for column in (0, 1))
            kind = _encoded(file, rows, 2, relations, "relation")
            yield Batch(head, kind, tail, split, lines=len(rows.line))


def _names(file: Path, kind: str) -> pa.Array:
    """Return the names in the order of their ids, which must be 0 to n - 1."""
    rows = _rows(file, *_NAME_ROW)
    names, ids = rows.columns[0].combine_chunks(), rows.columns[1].cast(pa.int64()).combine_chunks()
    _refuse_outside(file, rows.line, ids.to_numpy(), len(names), f"{len(names)} rows leave the ids")
    _refuse_repeats(file, rows.line, ids, "id", f"give each {kind} its own id")
    _refuse_repeats(file, rows.line, names, "name", f"give each {kind} its own name")
    return names.take(pc.array_sort_indices(ids))


def _encoded(file: Path, rows: _Rows, column: int, names: pa.Array, kind: str) -> pa.DictionaryArray:
    """Return a column of ids as the names behind them."""
    ids = rows.columns[column].cast(pa.int64()).to_numpy()
    says = f"{kind}2id.txt has the ids"
    _refuse_outside(file, rows.line, ids, len(names), says, "check that rows read `head tail relation`")
    return pa.DictionaryArray.from_arrays(pa.array(ids.astype(np.int32)), names)


def _rows(file: Path, pattern: str, expected: str) -> _Rows:
    """Match every line below the count line, and hold the count against the number of rows."""
    with reading(file), open_text(file) as stream:
        heading = stream.readline().strip()
        if not heading:
            raise empty(file)
        if not (heading.isascii() and heading.isdigit()):
            raise RelsimError(
                f"{file}:1: expected the number of rows, got {heading!r}: put the count on the first line"
            )
        numbers, columns, start = [], [], 2
        while lines := stream.readlines(BLOCK):
            matched = _match(file, lines, start, pattern, expected)
            numbers.append(np.flatnonzero(matched.is_valid().to_numpy(zero_copy_only=False)) + start)
            columns.append(matched.drop_null().flatten())
            start += len(lines)
    line = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
    if int(heading) != len(line):
        raise RelsimError(
            f"{file}:1: says {heading} but {len(line)} rows follow: correct the count, or fetch the file again if it "
            "was cut off"
        )
    width = pattern.count("?P<")
    return _Rows(line, [pa.chunked_array([block[i] for block in columns], pa.string()) for i in range(width)])


def _match(file: Path, lines: list[str], start: int, pattern: str, expected: str) -> pa.StructArray:
    """Return the groups of `pattern` for each line, null where the line is blank."""
    try:
        matched = pc.extract_regex(pa.array(lines, pa.string()), pattern)
    except UnicodeEncodeError:
        raise not_utf8(file, start + next(i for i, line in enumerate(lines) if invalid_utf8(line))) from None
    for index in np.flatnonzero(matched.is_null().to_numpy(zero_copy_only=False)):
        if lines[index].strip():
            raise RelsimError(
                f"{file}:{start + index}: expected {expected}, got {lines[index].strip()[:40]!r}: correct the line"
            )
    return matched


def _refuse_outside(
    file: Path, line: NDArray[np.int64], ids: NDArray[np.int64], size: int, says: str, remedy: str = "correct the id"
) -> None:
    bad = np.flatnonzero(ids >= size)
    if len(bad):
        raise RelsimError(f"{file}:{line[bad[0]]}: id {ids[bad[0]]} is out of range, {says} 0 to {size - 1}: {remedy}")


def _refuse_repeats(file: Path, line: NDArray[np.int64], values: pa.Array, word: str, remedy: str) -> None:
    codes = values.dictionary_encode().indices.to_numpy()  # numbered by first appearance, so a repeat is not a new high
    repeats = np.flatnonzero(codes[1:] <= np.maximum.accumulate(codes)[:-1]) + 1
    if len(repeats):
        again, first = repeats[0], np.flatnonzero(codes == codes[repeats[0]])[0]
        raise RelsimError(
            f"{file}:{line[again]}: {word} {values[again].as_py()!r} was given on line {line[first]} already: {remedy}"
        )


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / (name + suffix) for suffix in ("", *COMPRESSION))
    return next((file for file in candidates if file.is_file()), None)


def _need(folder: Path, name: str) -> Path:
    file = _find(folder, name)
    if file is None:
        raise RelsimError(
            f"{folder / name}: no such file: an OpenKE folder has entity2id, relation2id and train2id.txt"
        )
    return file


FORMAT = Format(
    "openke",
    "an OpenKE folder (entity2id.txt, relation2id.txt, train2id.txt, ...)",
    lambda path: _find(path, "train2id.txt") is not None,
    read,
)
