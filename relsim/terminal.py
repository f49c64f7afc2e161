"""Text for a terminal: aligned tables, numbers with their errors, names that cannot disturb the line."""

from __future__ import annotations

from collections.abc import Sequence

NAME_WIDTH = 60


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns under a heading; columns of numbers are set to the right."""
    columns = list(zip(heading, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(rows) and all(cell[:1].isdigit() or cell[:1] == "-" for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in (heading, *rows))


def shown(name: str) -> str:
    """Return a name on one line without control or direction marks, cut in the middle where it is long."""
    plain = "".join(c if c.isprintable() else "�" for c in name)
    half = NAME_WIDTH // 2
    return plain if len(plain) <= NAME_WIDTH else f"{plain[: half - 1]}…{plain[-half:]}"


def with_error(value: float, stderr: float) -> str:
    """Return a value with its standard error, `1.23 ±0.04`, or alone where it has none."""
    return f"{value:.2f} ±{stderr:.2f}" if stderr else f"{value:.2f}"
