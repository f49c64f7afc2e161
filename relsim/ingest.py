"""Dumps to knowledge bases: find the format, read it as a stream, number the names, merge equal facts and count them.

Memory is bounded by the number of names, of which each place in the dump costs a few bytes, not by their text or by
the number of facts: what does not fit goes to scratch files, which are removed in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from relsim.errors import RelsimError
from relsim.formats import FILES, FOLDERS, FORMATS, Batch, Format, recognise
from relsim.formats.columns import check_columns
from relsim.formats.stream import STANDARD_INPUT, bare_name, reading
from relsim.gathering import Gathering
from relsim.kb import KB, SPLITS, Triples
from relsim.kbfiles import COLUMNS, MANIFEST, write_facts, write_manifest, write_names
from relsim.labels import Labels
from relsim.names import Names
from relsim.selecting import Block, Choice, select
from relsim.spool import Scratch
from relsim.storage import atomic_folder
from relsim.tolerance import SHARE, Tolerance

_STEMS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True)
class Dump:
    """A dump, and what is wanted of it.

    Attributes:
        path: a folder of train, valid and test files, an OpenKE folder, or one file; `-` is standard input.
        columns: the order of the columns of a TSV or CSV file: `h`, `r` and `t`, and `-` for a column to ignore. A
            first line that names the columns (head, relation, tail or subject, predicate, object) is not a fact.
        format: one of `relsim.formats.FORMATS`, where the name of the file does not tell.
        choice: the facts to keep.
        distinct: count each fact once, however often it is stated.
        labels: a file `name<TAB>label`; a name that has a label becomes `label (name)`.
        bad_lines: the share of lines that may be bad; they are left out, and counted.
        warn: is told of the first bad lines.
    """

    path: Path
    columns: str = "hrt"
    format: str | None = None
    choice: Choice = field(default_factory=Choice)
    distinct: bool = False
    labels: Path | None = None
    bad_lines: float = SHARE
    warn: Callable[[str], None] | None = None


def open_kb(path: str | Path, *, columns: str = "hrt") -> KB:
    """Return the KB saved in a folder, or else ingest `path`.

    Raises:
        RelsimError: as `KB.load` and `ingest`.
    """
    with reading(Path(path)):
        return KB.load(path) if (Path(path) / MANIFEST).is_file() else ingest(path, columns=columns)


def ingest(path: str | Path | Dump, **wanted: Any) -> KB:
    """Read a dump into memory; `wanted` are the attributes of `Dump`: `columns="htr"`, say.

    Entities and relations are numbered in the order of their first appearance, training facts first; names that an
    OpenKE folder declares and never uses come last. Equal facts of a split are merged and counted. Nothing is dropped
    but what `KB.skipped` counts.

    Raises:
        RelsimError: the path, the format, or a line of the content is at fault.
    """
    dump = path if isinstance(path, Dump) else Dump(Path(path), **wanted)
    with Scratch() as scratch:
        found = _read(dump, scratch)
        parts: dict[str, list[Triples]] = {split: [] for split in found.splits}
        for split, block in found.blocks:
            parts[split].append(block)
        splits = {split: _joined(blocks) for split, blocks in parts.items()}
        _check(splits.get("train", ()), dump, found)
        entities, relations = (
            Names(pa.chunked_array(names(), pa.string())) for names in (found.entities, found.relations)
        )
        return KB(entities, relations, splits, str(dump.path), dict(found.skipped))


def ingest_into(kb: str | Path, path: str | Path | Dump, **wanted: Any) -> dict[str, Any]:
    """Read a dump into the KB folder `kb`, without holding it in memory; `wanted` are the attributes of `Dump`.

    Returns the numbers of entities, relations, and of facts, duplicates and skipped statements.

    Raises:
        RelsimError: as `ingest`; or `kb` exists and is not a KB folder, or cannot be written.
    """
    dump = path if isinstance(path, Dump) else Dump(Path(path), **wanted)
    with atomic_folder(kb, MANIFEST) as folder:
        with Scratch(folder) as scratch:
            found = _read(dump, scratch)
            facts, stated = Counter(dict.fromkeys(found.splits, 0)), Counter(dict.fromkeys(found.splits, 0))

            def counted() -> Iterator[tuple[str, dict[str, Any]]]:
                for split, block in found.blocks:
                    facts[split] += len(block)
                    stated[split] += block.total
                    yield split, {name: getattr(block, name) for name in COLUMNS}

            write_facts(folder / "triples.parquet", counted())
            _check(range(facts["train"]), dump, found)
            sizes = [
                write_names(folder / f"{kind}.parquet", names())
                for kind, names in (("entities", found.entities), ("relations", found.relations))
            ]
        write_manifest(folder, str(dump.path), found.skipped, found.splits)
    return {
        "source": str(dump.path),
        "entities": sizes[0],
        "relations": sizes[1],
        "facts": dict(facts),
        "duplicates": {split: stated[split] - facts[split] for split in facts},
        "skipped": dict(found.skipped),
    }


@dataclass(frozen=True)
class _Found:
    """What a dump holds: `entities` and `relations` give their names when `blocks` has been read to the end."""

    entities: Callable[[], Iterator[pa.StringArray]]
    relations: Callable[[], Iterator[pa.StringArray]]
    blocks: Iterator[Block]
    splits: list[str]
    skipped: Counter[str]


def _read(dump: Dump, scratch: Scratch) -> _Found:
    check_columns(dump.columns)
    if dump.format is not None and dump.format not in FORMATS:
        raise RelsimError(f"unknown format {dump.format!r}: it is one of {', '.join(FORMATS)}")
    tolerance = Tolerance(dump.bad_lines, dump.warn)
    labels = Labels(dump.labels, scratch) if dump.labels is not None else None
    gathering = Gathering(scratch, dump.choice.predicates)
    for file, batch in batches(dump.path, dump.columns, FORMATS[dump.format] if dump.format else None):
        tolerance.note(file, batch)
        gathering.add(batch)
    tolerance.settle()
    skipped = gathering.skipped + Counter({"bad line": tolerance.bad})
    entities, relations = gathering.vocabularies(labels)
    blocks = gathering.facts(entities, relations)
    if dump.distinct:
        blocks = ((split, block.distinct()) for split, block in blocks)
    if not dump.choice.by_count:
        return _Found(entities.names, relations.names, blocks, gathering.splits, skipped)
    chosen = select(blocks, len(entities), len(relations), dump.choice, scratch)
    skipped += Counter({"not among the chosen": chosen.left_out})
    return _Found(
        lambda: entities.names(chosen.entities),
        lambda: relations.names(chosen.relations),
        chosen.blocks,
        gathering.splits,
        skipped,
    )


def batches(path: Path, columns: str, given: Format | None) -> Iterator[tuple[Path, Batch]]:
    """Yield what the files of a dump hold, each batch with its file.

    Raises:
        RelsimError: no format is known that `path` has, or a line of the content is at fault.
    """
    for split, file, known in files_of(path, given):
        for batch in known.read(file, columns):
            yield file, replace(batch, split=split) if split else batch


def files_of(path: Path, given: Format | None) -> list[tuple[str | None, Path, Format]]:
    """Return the files of a dump with their formats, and the splits that their names tell.

    Raises:
        RelsimError: no format is known that `path` has, or it may not be read.
    """
    if path == STANDARD_INPUT:
        if given is None or given in FOLDERS:
            names = ", ".join(known.name for known in FILES)
            raise RelsimError(f"-: standard input has no name that tells its format: pass --format, one of {names}")
        return [(None, path, given)]
    with reading(path):
        path.stat()
        known = given or recognise(path)
        found = _split_files(path, given) if path.is_dir() and known not in FOLDERS else {}
    if found:
        return [(split, file, given or recognise(file) or FILES[0]) for split, file in found.items()]
    if known is None:
        raise _unrecognised(path)
    if known in FOLDERS and not path.is_dir():
        raise RelsimError(f"{path}: not a folder: format {known.name} needs {known.description}")
    return [(None, path, known)]


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


def _joined(blocks: list[Triples]) -> Triples:
    """Put sorted blocks end to end."""
    return blocks[0] if len(blocks) == 1 else Triples.concat(blocks)


def _check(train: Any, dump: Dump, found: _Found) -> None:
    if not len(train):
        left_out = ", ".join(f"{n:,} {reason}" for reason, n in found.skipped.items()) or "nothing"
        raise RelsimError(f"{dump.path}: holds no training facts (skipped: {left_out}): name a dump with facts in it")
