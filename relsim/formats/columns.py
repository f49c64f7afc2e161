"""The columns of a table: their order, the headings that name them, and what to say of a row that does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from relsim.errors import RelsimError
from relsim.formats.stream import NOT_UTF8, invalid_utf8

ROLES = {"h": "head", "r": "relation", "t": "tail"}
HEADINGS = {"head": "h", "subject": "h", "relation": "r", "predicate": "r", "tail": "t", "object": "t"}
KGTK = {"node1": "h", "label": "r", "node2": "t"}
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


def order_of(cells: Sequence[str], headings: dict[str, str] = HEADINGS) -> str | None:
    """Return the order of columns that a heading names, or None where the row is no heading."""
    order = "".join(headings.get(cell.lower(), "-") for cell in cells)
    return order if sorted(order.replace("-", "")) == ["h", "r", "t"] else None


def is_heading(path: object, cells: Sequence[str], columns: str) -> bool:
    """Whether the first row names the columns.

    Raises:
        RelsimError: it names them in another order than `columns`, or as KGTK does.
    """
    if order_of(cells, KGTK):
        raise RelsimError(f"{path}:1: the heading is that of KGTK edges: pass --format kgtk")
    order = order_of(cells)
    if order is not None and order != columns:
        raise RelsimError(f"{path}:1: the heading says the columns are {order}, not {columns}: pass --columns {order}")
    return order is not None


def row_fault(cells: Sequence[str], columns: str, delimiter: str) -> str | None:
    """Return what is wrong with a row, and the remedy; None where nothing is."""
    if len(cells) != len(columns):
        return _wrong_width(cells, columns, delimiter)
    for role, word in ROLES.items():
        cell = cells[columns.index(role)]
        if invalid_utf8(cell):
            return NOT_UTF8
        if not cell:
            return f"the {word} is empty: give it a name, or remove the line"
        if "\n" in cell or "\r" in cell:
            remedy = "remove it" if delimiter == "\t" else "look for a quote that is not closed"
            return f"the {word} holds a line break: {remedy}"
    return None


def _wrong_width(cells: Sequence[str], columns: str, delimiter: str) -> str:
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
    return f"expected {len(columns)} {_SEPARATORS[delimiter]}-separated columns ({roles}), got {len(cells)}: {remedy}"
