"""A table `name<TAB>label` that says what the identifiers of a dump mean: `P27<TAB>country of citizenship`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from relsim.errors import RelsimError
from relsim.formats import tsv
from relsim.formats.lines import blocks
from relsim.formats.stream import empty, open_bytes, reading
from relsim.spool import Scratch, Spool

_HEADINGS = (["id", "label"], ["name", "label"], ["node1", "node2"])
_KGTK = re.compile(r"'(.*)'@[\w-]+", re.DOTALL)  # how KGTK quotes a text and says its language


class Labels:
    """The rows of a table of labels, on disk where they are many."""

    def __init__(self, path: Path, scratch: Scratch) -> None:
        """Read the table; a first line `id label`, `name label` or, as in KGTK, `node1 node2` is no label.

        Raises:
            RelsimError: with file and line, a row that is not a name and its label.
        """
        self._rows = Spool(scratch)
        with reading(path), open_bytes(path) as stream:
            for lines in blocks(stream):
                first = lines.first == 1 and len(lines.start) > 0
                skip = int(first and [cell.lower() for cell in tsv.cells(lines, 0)] in _HEADINGS)
                (names, labels), bad = tsv.take(lines, 2, (0, 1), skip, _fault)
                if bad:
                    raise RelsimError(f"{path}:{bad[0].number}: {bad[0].fault}")
                texts = pa.array([_plain(label) for label in labels.dictionary_decode().to_pylist()], pa.string())
                self._rows.append(name=names.dictionary_decode(), label=texts)
        if not self._rows.rows:
            raise empty(path)

    def names(self) -> Iterator[pa.StringArray]:
        """Yield the names that have a label, in the order of the table."""
        return (batch["name"] for batch in self._rows)

    def texts(self) -> Iterator[pa.StringArray]:
        """Yield their labels."""
        return (batch["label"] for batch in self._rows)


def _plain(label: str) -> str:
    quoted = _KGTK.fullmatch(label)
    return quoted[1] if quoted else label


def _fault(row: list[str]) -> str:
    return f"expected a name and its label, separated by a tab, got {len(row)} columns: correct the line, or remove it"
