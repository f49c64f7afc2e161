"""Tab-separated tables, which have no quoting: lines with the right number of tabs are taken apart in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relsim.formats.base import BadLine, Batch, Format, suffixed
from relsim.formats.columns import ROLES, is_heading, row_fault
from relsim.formats.lines import Lines, Places, as_text, blocks, overlong, spans
from relsim.formats.stream import empty, open_bytes, reading


def read(path: Path, columns: str) -> Iterator[Batch]:
    """Yield the facts of a table. Blank lines are passed over, and so is a first line that names the columns.

    Raises:
        RelsimError: with the file, there is no row at all; the heading names another order of columns.
    """
    rows = 0
    with reading(path), open_bytes(path) as stream:
        for lines in blocks(stream):
            heading = lines.first == 1 and len(lines.start) > 0 and is_heading(path, cells(lines, 0), columns)
            batch = split(lines, columns, skip=int(heading))
            rows += len(batch.head) + len(batch.bad)
            yield batch
    if not rows:
        raise empty(path)


def split(lines: Lines, columns: str, skip: int = 0) -> Batch:
    """Return the facts of a block without its first `skip` lines, in the order of their lines."""
    chosen = [columns.index(role) for role in ROLES]
    (head, relation, tail), bad = take(lines, len(columns), chosen, skip, lambda row: row_fault(row, columns, "\t"))
    return Batch(head, relation, tail, lines=len(lines), bad=bad)


def take(
    lines: Lines, width: int, chosen: Sequence[int], skip: int, fault: Callable[[list[str]], str | None]
) -> tuple[list[pa.DictionaryArray], list[BadLine]]:
    """Return the chosen columns of the lines that have `width` of them, and the bad lines; blank ones are neither.

    `fault` says what is wrong with the cells of a line that has another width, or a chosen cell that is no name.
    """
    wanted = lines.end > lines.start
    wanted[:skip] = False
    fits, tabs = _tabs(lines, width)
    index = np.flatnonzero(wanted & fits)
    names, sound = [], np.ones(len(index), bool)
    for k in chosen:
        start = lines.start[index] if k == 0 else tabs[index, k - 1] + 1
        end = lines.end[index] if k == width - 1 else tabs[index, k]
        column, good = _names(spans(lines.data, start, end))
        names.append(column)
        sound &= good
    if not sound.all():
        kept = pa.array(sound)
        names = [column.filter(kept).dictionary_decode().dictionary_encode() for column in names]
    wanted[index[sound]] = False
    bad = [BadLine(lines.first + i, fault(cells(lines, i)) or "") for i in np.flatnonzero(wanted).tolist()]
    return names, bad + overlong(lines)


def cells(lines: Lines, index: int) -> list[str]:
    """Return the cells of a line; bytes that are not UTF-8 become surrogates."""
    return lines.line(index).decode(errors="surrogateescape").split("\t")


def _tabs(lines: Lines, width: int) -> tuple[NDArray[np.bool_], Places]:
    """Return which lines have `width` columns, and where the tabs of such lines stand, (lines, width - 1)."""
    where, before, count = lines.separators(lines.byte == ord("\t"))
    padded = np.append(where, [len(lines.data)] * width)
    return count == width - 1, padded[before[:, None] + np.arange(width - 1)]


def _names(column: pa.BinaryArray) -> tuple[pa.DictionaryArray, NDArray[np.bool_]]:
    """Return a column as text, and where it holds names: not empty, UTF-8, no carriage return."""
    encoded = column.dictionary_encode()
    values = as_text(encoded.dictionary)
    good = pc.fill_null(pc.match_substring_regex(values, r"^[^\r]+$"), False).to_numpy(zero_copy_only=False)
    text = pa.DictionaryArray.from_arrays(encoded.indices, pc.fill_null(values, ""))
    return text, good[encoded.indices.to_numpy()]


FORMAT = Format("tsv", "a TSV file (.tsv, .txt)", suffixed(".tsv", ".txt"), read)
