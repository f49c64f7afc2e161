"""The one interface that every format keeps to: recognise a path, read it as batches of named facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from relsim.formats.stream import bare_name


class BadLine(NamedTuple):
    """A line that says no fact, and is no comment either: its number, and the fault with its remedy."""

    number: int
    fault: str


@dataclass(frozen=True)
class Batch:
    """Some statements of one split: equally long columns of non-empty names, strings or dictionaries of strings.

    The names of a dictionary are declared: they enter the KB even where no statement mentions them. `skipped` counts
    the statements left out since the last batch, by reason; `lines` counts the lines read since then, of which `bad`
    could not be read.
    """

    head: pa.Array
    relation: pa.Array
    tail: pa.Array
    split: str = "train"
    skipped: Mapping[str, int] = field(default_factory=dict)
    lines: int = 0
    bad: Sequence[BadLine] = ()


@dataclass(frozen=True)
class Format:
    """A family of files.

    Attributes:
        name: what `ingest(format=)` takes.
        description: what it looks like, for the message that lists what would be recognised.
        recognise: whether a path looks like this format, judged by names alone; nothing is opened.
        read: yields the batches of a path; its second argument is the order of columns, which only tables heed.
            Raises RelsimError with file and line where reading cannot go on.
    """

    name: str
    description: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, str], Iterator[Batch]]


def suffixed(*suffixes: str) -> Callable[[Path], bool]:
    """Return whether a path ends in one of `suffixes`, that of its compression left aside."""
    return lambda path: bare_name(path).suffix.lower() in suffixes
