"""Comma-separated tables, which have quoting. Parsed in bulk; faults are located row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from relsim.errors import RelsimError
from relsim.formats.base import Batch, Format, suffixed
from relsim.formats.columns import ROLES, is_heading, row_fault
from relsim.formats.stream import empty, on_disk, open_bytes, open_text, reading

BLOCK = 16 << 20  # bytes parsed at a time; a longer row is an error


def read(path: Path, columns: str) -> Iterator[Batch]:
    """Yield the facts of a table. Blank lines are passed over, and so is a first line that names the columns.

    A quote that is not closed makes all that follows doubtful, so the first bad row ends the reading.

    Raises:
        RelsimError: with file and line, a row of another width, an empty name, a name with a line break, or bytes that
            are not UTF-8; with the file, no row at all.
    """
    rows = 0
    with reading(path), on_disk(path) as file:
        try:
            for record in _parse(file, columns):
                names = [record[role] for role in ROLES.values()]
                if any(_spoilt(column) for column in names):
                    raise _fault(file, path, columns, "an empty name")
                rows += len(record)
                yield Batch(names[0], names[1], names[2], lines=len(record))
        except pa.ArrowInvalid as error:
            raise _fault(file, path, columns, str(error).splitlines()[0]) from None
    if not rows:
        raise empty(path)


def _parse(path: Path, columns: str) -> Iterator[pa.RecordBatch]:
    header = _has_header(path, columns)
    if header is None:
        return
    names = [ROLES.get(role, f"ignored{index}") for index, role in enumerate(columns)]
    # one thread keeps rows in order, and is faster here than handing blocks to several
    read_options = pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK, use_threads=False, skip_rows=header)
    parse_options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    roles = list(ROLES.values())
    convert_options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(roles, pa.string()), include_columns=roles, strings_can_be_null=False
    )
    with (
        open_bytes(path) as stream,
        pyarrow.csv.open_csv(stream, read_options, parse_options, convert_options) as reader,
    ):
        yield from reader


def _has_header(path: Path, columns: str) -> bool | None:
    """Whether the first line names the columns; None where no fact can follow."""
    with open_text(path) as stream:
        line, more = stream.readline(), bool(stream.readline())
    header = is_heading(path, _cells(line), columns)
    return None if not more and (header or not line.strip("\n")) else header


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line.removesuffix("\n")]), [])
    except csv.Error:  # no heading, then, whatever it is
        return [line]


def _spoilt(column: pa.Array) -> bool:
    masks = pc.equal(pc.binary_length(column), 0), pc.match_substring_regex(column, r"[\r\n]")
    return any(pc.any(mask).as_py() for mask in masks)


def _fault(file: Path, path: Path, columns: str, otherwise: str) -> RelsimError:
    """Find the first row at fault by reading again, slowly; `otherwise` is what to say if every row looks sound."""
    for line, cells in _rows(file):
        if isinstance(cells, csv.Error):
            return RelsimError(f"{path}:{line}: {cells}: look for a quote that is not closed")
        if fault := row_fault(cells, columns, ","):
            return RelsimError(f"{path}:{line}: {fault}")
    return RelsimError(f"{path}: {otherwise}: is it a comma-separated text file?")


def _rows(path: Path) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield each row that is not blank with the number of its first line."""
    with open_text(path, newline="") as stream:
        rows = csv.reader(stream)
        while True:
            number = rows.line_num + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, error
                return
            if cells:
                yield number, cells


FORMAT = Format("csv", "a CSV file (.csv)", suffixed(".csv"), read)
