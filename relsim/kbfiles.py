"""The files of a KB folder: names and facts as Parquet, and a manifest with their hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relsim.errors import RelsimError
from relsim.storage import read_json, refuse_links, sha256, write_json

MANIFEST = "manifest.json"
FORMAT = 1
COLUMNS = ("head", "relation", "tail", "count")
_NAMES = pa.schema({"name": pa.string()})
_FACTS = pa.schema({**dict.fromkeys(COLUMNS, pa.int64()), "split": pa.dictionary(pa.int8(), pa.string())})
_TABLES = {"entities": _NAMES, "relations": _NAMES, "triples": _FACTS}
_FIELDS = {"source": str, "skipped": dict, "splits": list, "sha256": dict}
_ROWS = 1 << 20  # in a row group


def write_names(file: Path, parts: Iterable[pa.Array]) -> int:
    """Write names, part by part; return how many there are."""
    size = 0
    with pq.ParquetWriter(file, _NAMES, compression="zstd", use_dictionary=False) as writer:
        for names in parts:
            writer.write_table(pa.table({"name": names}, schema=_NAMES), row_group_size=_ROWS)
            size += len(names)
    return size


def write_facts(file: Path, parts: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write facts, columns by name under their split, part by part."""
    writer = pq.ParquetWriter(
        file,
        _FACTS,
        compression="zstd",
        use_dictionary=["relation", "count", "split"],
        # sorted and small numbers: a third less to write, in half the time
        column_encoding={"head": "DELTA_BINARY_PACKED", "tail": "DELTA_BINARY_PACKED"},
    )
    with writer:
        for split, columns in parts:
            all_first = pa.array(np.zeros(len(columns["head"]), np.int8))
            splits = pa.DictionaryArray.from_arrays(all_first, pa.array([split], pa.string()))
            table = pa.table({**columns, "split": splits}, schema=_FACTS)
            writer.write_table(table, row_group_size=_ROWS)


def write_manifest(folder: Path, source: str, skipped: Mapping[str, int], splits: Sequence[str]) -> None:
    """Write the manifest of a folder whose tables are there."""
    hashes = {name: sha256(folder / f"{name}.parquet") for name in _TABLES}
    manifest = {"kind": "relsim-kb", "format": FORMAT, "source": source, "skipped": dict(skipped)}
    write_json(folder / MANIFEST, {**manifest, "splits": list(splits), "sha256": hashes})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a KB folder.

    Raises:
        RelsimError: the folder is not a KB, was written by a later version, or its manifest is damaged.
    """
    manifest = read_json(folder / MANIFEST, "KB")
    if manifest.get("kind") != "relsim-kb":
        raise RelsimError(f"{folder}: not a KB folder: make one with `relsim ingest`")
    if manifest.get("format") != FORMAT:
        raise RelsimError(f"{folder}: KB format {manifest.get('format')}, this version reads {FORMAT}: ingest again")
    if missing := {name for name, kind in _FIELDS.items() if not isinstance(manifest.get(name), kind)}:
        raise RelsimError(f"{folder / MANIFEST}: damaged (no {min(missing)}): run `relsim ingest` again")
    return manifest


def read_table(folder: Path, name: str, digest: object) -> pa.Table:
    """Return one of the tables of a KB folder.

    Raises:
        RelsimError: it is missing, is not what the manifest says, or has other columns.
    """
    file = folder / f"{name}.parquet"
    refuse_links(file)
    if not file.is_file() or sha256(file) != digest:
        raise RelsimError(f"{file}: missing, or not as its manifest says: run `relsim ingest` again")
    try:
        return pq.read_table(file).select(_TABLES[name].names).cast(_TABLES[name])
    except (pa.ArrowException, KeyError, OSError) as error:
        raise RelsimError(f"{file}: damaged ({str(error).splitlines()[0]}): run `relsim ingest` again") from None
