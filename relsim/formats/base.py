"""The one interface that every format keeps to: recognise a path, read it as batches of named facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa


@dataclass(frozen=True)
class Batch:
    """Some statements of one split: equally long columns of non-empty names, strings or dictionaries of strings.

    The names of a dictionary are declared: they enter the KB even where no statement mentions them. `skipped` counts
    the statements left out since the last batch, by reason.
    """

    head: pa.Array
    relation: pa.Array
    tail: pa.Array
    split: str = "train"
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A family of files.

    Attributes:
        name: what `ingest(format=)` takes.
        description: what it looks like, for the message that lists what would be recognised.
        recognise: whether a path looks like this format, judged by names alone; nothing is opened.
        read: yields the batches of a path; its second argument is the order of columns, which only tables heed.
            Raises RelsimError with file and line where the content is at fault.
    """

    name: str
    description: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, str], Iterator[Batch]]
