"""KGTK edge files: tab-separated, with a heading that has node1, label and node2 among its columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relsim.errors import RelsimError
from relsim.formats import tsv
from relsim.formats.base import Batch, Format, suffixed
from relsim.formats.columns import KGTK, order_of
from relsim.formats.lines import blocks
from relsim.formats.narrow import matching, without
from relsim.formats.stream import empty, open_bytes, reading

# what cannot begin a symbol: strings, dates, places, quantities, lists; and the two words for truth
_LITERAL = r"^(?:[\"'^@!+\-.\d|]|True$|False$)"


def read(path: Path, columns: str = "hrt") -> Iterator[Batch]:
    """Yield the edges between symbols; edges to literals are counted as skipped. `columns` is fixed by the heading.

    Raises:
        RelsimError: the first line is no heading of edges; the file is empty, or cannot be read.
    """
    order, rows = None, 0
    with reading(path), open_bytes(path) as stream:
        for lines in blocks(stream):
            heading = order is None
            order = order or order_of(tsv.cells(lines, 0) if len(lines.start) else [], KGTK)
            if order is None:
                raise RelsimError(f"{path}:1: expected a heading with node1, label and node2: is it a file of edges?")
            batch = tsv.split(lines, order, skip=int(heading))
            rows += len(batch.head) + len(batch.bad)
            yield without(batch, {"literal": matching(batch.tail, _LITERAL)})
    if not rows:
        raise empty(path)


FORMAT = Format("kgtk", "a KGTK edge file (.kgtk)", suffixed(".kgtk"), read)
