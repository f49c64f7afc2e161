"""Parquet tables whose columns are named like those of a table: head, relation, tail, or subject, predicate, object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relsim.errors import RelsimError
from relsim.formats.base import BadLine, Batch, Format, suffixed
from relsim.formats.columns import HEADINGS, KGTK, ROLES
from relsim.formats.narrow import compact
from relsim.formats.stream import empty, on_disk, reading

BATCH = 1 << 17  # rows at a time


def read(path: Path, columns: str = "hrt") -> Iterator[Batch]:
    """Yield the facts of a table, numbers as their digits; a row with an empty cell is a bad line.

    Columns are found by name. Where none has such a name and there are as many as `columns` says, that is their order.

    Raises:
        RelsimError: the columns cannot be told; the file is empty, or is not Parquet.
    """
    with reading(path), on_disk(path) as file:
        try:
            with pq.ParquetFile(file) as table:
                chosen = _chosen(path, table.schema_arrow.names, columns)
                if not table.metadata.num_rows:
                    raise empty(path)
                first = 1
                for record in table.iter_batches(BATCH, columns=chosen):
                    yield _batch([record[name] for name in chosen], first)
                    first += len(record)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise RelsimError(
                f"{path}: {str(error).splitlines()[0]}: is it a Parquet file with a table of facts?"
            ) from None


def _chosen(path: Path, names: list[str], columns: str) -> list[str]:
    for headings in (HEADINGS, KGTK):
        found = {headings[name.lower()]: name for name in names if name.lower() in headings}
        if len(found) == len(ROLES):
            return [found[role] for role in ROLES]
    if len(names) == len(columns):
        return [names[columns.index(role)] for role in ROLES]
    raise RelsimError(
        f"{path}: has the columns {', '.join(names)}: call three of them head, relation and tail, or say the order of "
        "all with --columns"
    )


def _batch(columns: list[pa.Array], first: int) -> Batch:
    names = [pc.fill_null(column.cast(pa.string()), "") for column in columns]
    full = [pc.not_equal(column, "").to_numpy(zero_copy_only=False) for column in names]
    kept = np.logical_and.reduce(full)
    bad = []
    for row in np.flatnonzero(~kept).tolist():
        word = next(word for word, mask in zip(ROLES.values(), full, strict=True) if not mask[row])
        bad.append(BadLine(first + row, f"the {word} is empty: give it a name, or remove the row"))
    head, relation, tail = (compact(column, kept) for column in names)
    return Batch(head, relation, tail, lines=len(kept), bad=bad)


FORMAT = Format("parquet", "a Parquet table (.parquet)", suffixed(".parquet"), read)
