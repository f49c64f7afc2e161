"""Dumps to knowledge bases: find the format, read it, number the names, merge equal facts and count them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relsim.errors import RelsimError
from relsim.formats import FILES, FOLDERS, FORMATS, Batch, Format, recognise
from relsim.formats.stream import bare_name, reading
from relsim.formats.table import check_columns
from relsim.kb import KB, MANIFEST, SPLITS, Triples

_STEMS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


def open_kb(path: str | Path, *, columns: str = "hrt") -> KB:
    """Return the KB saved in a folder, or else ingest `path`.

    Raises:
        RelsimError: as `KB.load` and `ingest`.
    """
    with reading(Path(path)):
        return KB.load(path) if (Path(path) / MANIFEST).is_file() else ingest(path, columns=columns)


def ingest(path: str | Path, *, columns: str = "hrt", format: str | None = None) -> KB:
    """Read a dump: a folder of train, valid and test files, an OpenKE folder, or one file; plain, .gz, .bz2 or .zst.

    Entities and relations are numbered in the order of their first appearance, training facts first; names that an
    OpenKE folder declares and never uses come last. Equal facts of a split are merged and counted. Nothing is dropped
    but what `KB.skipped` counts.

    Args:
        path: the file or folder.
        columns: the order of the columns of a TSV or CSV file: `h`, `r` and `t`, and `-` for a column to ignore. A
            first line that names the columns (head, relation, tail or subject, predicate, object) is not a fact.
        format: `tsv`, `csv`, `nt` or `openke`, where the name of the file does not tell.

    Raises:
        RelsimError: the path, the format, or a line of the content is at fault.
    """
    path, columns = Path(path), check_columns(columns)
    if format is not None and format not in FORMATS:
        raise RelsimError(f"unknown format {format!r}: it is one of {', '.join(FORMATS)}")
    with reading(path):
        path.stat()
        # each batch is encoded as it comes, so that its text is not held
        batches = [_encoded(batch) for batch in _batches(path, columns, FORMATS[format] if format else None)]
    return _assemble(batches, str(path))


def _batches(path: Path, columns: str, given: Format | None) -> Iterator[Batch]:
    known = given or recognise(path)
    if path.is_dir() and known not in FOLDERS:
        for split, file in _split_files(path, given).items():
            reader = given or recognise(file)
            assert reader is not None  # _split_files lists what some reader takes
            yield from (replace(batch, split=split) for batch in reader.read(file, columns))
    elif known is None:
        raise _unrecognised(path)
    elif known in FOLDERS and not path.is_dir():
        raise RelsimError(f"{path}: not a folder: format {known.name} needs {known.description}")
    else:
        yield from known.read(path, columns)


def _split_files(folder: Path, given: Format | None) -> dict[str, Path]:
    """Return the file of each split in `folder`, training first."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = _STEMS.get(bare_name(file).stem.lower())
        if split is None or not file.is_file() or not (given or recognise(file)):
            continue
        if split in found:
            raise RelsimError(f"{folder}: both {found[split].name} and {file.name} hold {split} facts: remove one")
        found[split] = file
    if "train" not in found:
        raise _unrecognised(folder)
    return {split: found[split] for split in SPLITS if split in found}


def _unrecognised(path: Path) -> RelsimError:
    if (path / MANIFEST).is_file():
        return RelsimError(f"{path}: holds a {MANIFEST}, so it is no dump: a saved KB needs no ingestion")
    known = ", ".join(known.description for known in (*FILES, *FOLDERS))
    return RelsimError(
        f"{path}: not a knowledge base that relsim reads: expected {known}, "
        "or a folder of train, valid and test files; a file may end in .gz, .bz2 or .zst"
    )


def _assemble(batches: Sequence[Batch], source: str) -> KB:
    skipped = sum((Counter(batch.skipped) for batch in batches), Counter())
    entities, (head, tail) = _number([b.head for b in batches], [b.tail for b in batches])
    relations, (relation,) = _number([b.relation for b in batches])
    split = np.repeat([SPLITS.index(b.split) for b in batches], [len(b.head) for b in batches])
    present = {b.split for b in batches}
    splits = {}
    for index, name in enumerate(SPLITS):
        if name in present:
            rows = split == index
            splits[name] = Triples.from_columns(head[rows], relation[rows], tail[rows])
    if not len(splits.get("train", ())):
        left_out = ", ".join(f"{n:,} {reason}" for reason, n in skipped.items()) or "nothing"
        raise RelsimError(f"{source}: holds no training facts (skipped: {left_out}): name a dump with facts in it")
    return KB(entities, relations, splits, source, dict(skipped))


def _number(*columns: Sequence[pa.Array]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Number the names of parallel columns, chunks of dictionaries, by first appearance, row by row and left to right.

    Names that a dictionary holds and no row uses are numbered last. Returns the names and the columns of numbers.
    """
    chunks = pa.chunked_array([chunk for column in columns for chunk in column]).unify_dictionaries().chunks
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks]).reshape(len(columns), -1)
    names = chunks[0].dictionary
    first = np.full(len(names), codes.size)
    first[codes.T.ravel()[::-1]] = np.arange(codes.size)[::-1]  # of several assignments the last stands
    order = np.argsort(first, kind="stable")
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names))
    return names.take(pa.array(order)).to_pylist(), list(number[codes])


def _encoded(batch: Batch) -> Batch:
    return replace(batch, head=_codes(batch.head), relation=_codes(batch.relation), tail=_codes(batch.tail))


def _codes(names: pa.Array) -> pa.DictionaryArray:
    return names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
