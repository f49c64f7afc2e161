"""Tables of names: TSV, which has no quoting, and CSV, which has. Parsed in bulk; faults are located line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from relsim.errors import RelsimError
from relsim.formats.base import Batch, Format
from relsim.formats.stream import bare_name, empty, invalid_utf8, not_utf8, open_bytes, open_text, reading

BLOCK = 16 << 20  # bytes parsed at a time; a longer line is an error
ROLES = {"h": "head", "r": "relation", "t": "tail"}
_HEADINGS = {"head": "h", "subject": "h", "relation": "r", "predicate": "r", "tail": "t", "object": "t"}
_SEPARATORS = {"\t": "tab", ",": "comma"}


def check_columns(columns: str) -> str:
    """Return `columns`, an order of `h`, `r`, `t` with any number of `-` for columns to ignore.

    Raises:
        RelsimError: it is not such an order.
    """
    if sorted(columns.replace("-", "")) != ["h", "r", "t"]:
        raise RelsimError(
            f"columns {columns!r}: expected h, r and t in the order of the file, with - for a column to ignore: "
            "say hrt, htr or hrt-"
        )
    return columns


def read(path: Path, columns: str, *, delimiter: str) -> Iterator[Batch]:
    """Yield the facts of a table. Blank lines are passed over, and so is a first line that names the columns.

    Raises:
        RelsimError: with file and line, a row of another width, an empty name, a name with a line break, or bytes that
            are not UTF-8; with the file, no row at all.
    """
    rows = 0
    with reading(path):
        try:
            for record in _parse(path, columns, delimiter):
                names = [record[role] for role in ROLES.values()]
                if any(_spoilt(column, delimiter) for column in names):
                    raise _fault(path, columns, delimiter, "an empty name")
                rows += len(record)
                yield Batch(*names)
        except pa.ArrowInvalid as error:
            raise _fault(path, columns, delimiter, str(error).splitlines()[0]) from None
    if not rows:
        raise empty(path)


def _parse(path: Path, columns: str, delimiter: str) -> Iterator[pa.RecordBatch]:
    header = _has_header(path, columns, delimiter)
    if header is None:
        return
    names = [ROLES.get(role, f"ignored{index}") for index, role in enumerate(columns)]
    quoted = delimiter == ","
    # one thread keeps rows in order, and is faster here than handing blocks to several
    read_options = pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK, use_threads=False, skip_rows=header)
    parse_options = pyarrow.csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    roles = list(ROLES.values())
    convert_options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(roles, pa.string()), include_columns=roles, strings_can_be_null=False
    )
    with (
        open_bytes(path) as stream,
        pyarrow.csv.open_csv(stream, read_options, parse_options, convert_options) as reader,
    ):
        yield from reader


def _has_header(path: Path, columns: str, delimiter: str) -> bool | None:
    """Whether the first line names the columns; None where no fact can follow."""
    with open_text(path) as stream:
        line, more = stream.readline(), bool(stream.readline())
    order = "".join(_HEADINGS.get(cell.lower(), "-") for cell in _cells(line, delimiter))
    header = sorted(order.replace("-", "")) == ["h", "r", "t"]
    if header and order != columns:
        raise RelsimError(f"{path}:1: the heading says the columns are {order}, not {columns}: pass --columns {order}")
    return None if not more and (header or not line.strip("\n")) else header


def _cells(line: str, delimiter: str) -> list[str]:
    line = line.removesuffix("\n")
    if delimiter == "\t":
        return line.split(delimiter)
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # no heading, then, whatever it is
        return [line]


def _spoilt(column: pa.Array, delimiter: str) -> bool:
    empty_name = pc.equal(pc.binary_length(column), 0)
    broken = [pc.match_substring_regex(column, r"[\r\n]")] if delimiter == "," else []
    return any(pc.any(mask).as_py() for mask in [empty_name, *broken])


def _fault(path: Path, columns: str, delimiter: str, otherwise: str) -> RelsimError:
    """Find the first line at fault by reading again, slowly; `otherwise` is what to say if every line looks sound."""
    used = [(columns.index(role), word) for role, word in ROLES.items()]
    for line, cells in _rows(path, delimiter):
        if isinstance(cells, csv.Error):
            return RelsimError(f"{path}:{line}: {cells}: look for a quote that is not closed")
        if len(cells) != len(columns):
            return _wrong_width(path, line, cells, columns, delimiter)
        for index, word in used:
            if invalid_utf8(cells[index]):
                return not_utf8(path, line)
            if not cells[index]:
                return RelsimError(f"{path}:{line}: the {word} is empty: give it a name, or remove the line")
            if "\n" in cells[index] or "\r" in cells[index]:
                return RelsimError(f"{path}:{line}: the {word} holds a line break: look for a quote that is not closed")
    return RelsimError(f"{path}: {otherwise}: is it a {_SEPARATORS[delimiter]}-separated text file?")


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield each row that is not blank with the number of its first line."""
    if delimiter == "\t":
        with open_text(path) as stream:
            for number, line in enumerate(stream, 1):
                if line != "\n":
                    yield number, _cells(line, delimiter)
        return
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


def _wrong_width(path: Path, line: int, cells: list[str], columns: str, delimiter: str) -> RelsimError:
    roles = ", ".join(ROLES.get(role, "ignored") for role in columns)
    other = "," if delimiter == "\t" else "\t"
    if any("\n" in cell for cell in cells):
        remedy = "look for a quote that is not closed"
    elif len(cells) == 1 and cells[0].count(other) >= 2:
        remedy = f"it looks {_SEPARATORS[other]}-separated, so let its name end in {'.csv' if other == ',' else '.tsv'}"
    elif len(cells) > len(columns):
        remedy = f"ignore further columns with -, as in --columns {columns + '-' * (len(cells) - len(columns))}"
    else:
        remedy = f"put a {_SEPARATORS[delimiter]} between the names, or remove the line"
    return RelsimError(
        f"{path}:{line}: expected {len(columns)} {_SEPARATORS[delimiter]}-separated columns ({roles}), "
        f"got {len(cells)}: {remedy}"
    )


def _suffixed(path: Path, *suffixes: str) -> bool:
    return bare_name(path).suffix.lower() in suffixes


TSV = Format(
    "tsv",
    "a TSV file (.tsv, .txt)",
    lambda path: _suffixed(path, ".tsv", ".txt"),
    partial(read, delimiter="\t"),
)
CSV = Format("csv", "a CSV file (.csv)", lambda path: _suffixed(path, ".csv"), partial(read, delimiter=","))
