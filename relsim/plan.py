"""What a dump is, what it holds to judge by a sample, and what each step on it will take, before any of them starts."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relsim import costs
from relsim.errors import RelsimError
from relsim.formats import FOLDERS, FORMATS, Batch, Format
from relsim.formats.narrow import as_dictionary
from relsim.formats.stream import COMPRESSION, STANDARD_INPUT, bare_name
from relsim.ingest import files_of
from relsim.terminal import table

SAMPLE = 32 << 20  # bytes of text
_ROWS = 400_000
_STEP = 20_000  # facts between two looks at the number of names
_KINDS = ("entities", "relations", "groups")


@dataclass
class _Sample:
    """The facts of a sample: distinct names by kind, and how many there were after so many facts."""

    facts: int = 0
    lines: int = 0
    names: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in _KINDS})
    growth: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    skipped: Counter[str] = field(default_factory=Counter)
    bad: int = 0

    def add(self, batch: Batch) -> None:
        columns = [as_dictionary(c).dictionary_decode().to_pylist() for c in (batch.head, batch.relation, batch.tail)]
        for start in range(0, len(columns[0]), _STEP):
            head, relation, tail = (column[start : start + _STEP] for column in columns)
            self.facts += len(head)
            self.names["entities"].update(head, tail)
            self.names["relations"].update(relation)
            self.names["groups"].update(f"{r}\t{h}" for h, r in zip(head, relation, strict=True))
            for kind in _KINDS:
                self.growth[kind].append((self.facts, len(self.names[kind])))
        self.skipped.update({reason: n for reason, n in batch.skipped.items() if n})
        self.bad += len(batch.bad)
        self.lines += batch.lines


def plan(path: Path, columns: str = "hrt", format: str | None = None) -> dict[str, Any]:
    """Read the beginning of each file of a dump; return what it seems to be and to hold, and the costs of each step.

    Counts beyond the sample are extrapolations: facts in proportion to the bytes read, names by Heaps' law.

    Raises:
        RelsimError: as `relsim.ingest.ingest`; or nothing can be read, or `path` is standard input, which is read once.
    """
    if path == STANDARD_INPUT:
        raise RelsimError("-: standard input can be read once only: name a file to plan")
    if format is not None and format not in FORMATS:
        raise RelsimError(f"unknown format {format!r}: it is one of {', '.join(FORMATS)}")
    files = files_of(path, FORMATS[format] if format else None)
    sample, facts = _Sample(), 0.0
    told: list[dict[str, Any]] = []
    for _, file, known in files:
        before, lines = sample.facts, sample.lines
        share = _read(file, known, columns, sample)
        facts += (sample.facts - before) / share
        size = sum(f.stat().st_size for f in file.iterdir()) if file.is_dir() else file.stat().st_size
        statements = (sample.lines - lines) / share
        told.append({"file": str(file), "format": known.name, "bytes": size, "share": share, "statements": statements})
    if not sample.facts:
        raise RelsimError(f"{path}: no fact in the sample: is it {files[0][2].description}?")
    sizes = costs.Sizes(round(facts), *(extrapolated(sample.growth[kind], facts) for kind in _KINDS))
    steps = {"ingest": _ingestion(told, sizes), "fit": costs.fitting(sizes), "compare": costs.comparing(sizes)}
    return {
        "files": [{**entry, "statements": round(entry["statements"])} for entry in told],
        "sample": {"facts": sample.facts, "skipped": dict(sample.skipped), "bad lines": sample.bad},
        "expected": {"facts": sizes.facts, **{kind: getattr(sizes, kind) for kind in _KINDS}},
        "steps": {name: {"seconds": cost.seconds, "bytes": cost.bytes} for name, cost in steps.items()},
    }


def extrapolated(growth: list[tuple[int, int]], facts: float) -> int:
    """Return how many distinct names so many facts will have, by Heaps' law V = k n^b through two points of a sample.

    `growth` has pairs (facts so far, distinct names so far).
    """
    last, names = growth[-1]
    middle, fewer = min(growth, key=lambda point: abs(point[0] - last / 2))
    exponent = math.log(names / fewer) / math.log(last / middle) if middle < last else 1.0
    return max(names, round(names * (max(facts, last) / last) ** min(exponent, 1.0)))


def render(told: dict[str, Any]) -> str:
    """Return what `plan` found as text for a terminal."""
    rows = [
        (
            entry["file"],
            entry["format"],
            f"{entry['bytes'] / 1e6:,.1f}",
            f"{entry['share']:.1%}",
            f"{entry['statements']:,}",
        )
        for entry in told["files"]
    ]
    sample, expected = told["sample"], told["expected"]
    lines = [
        table(("file", "format", "MB", "sampled", "statements"), rows),
        "",
        f"in the sample: {sample['facts']:,} facts, {sample['bad lines']:,} bad lines",
        *(f"  skipped {count:,} statements: {reason}" for reason, count in sample["skipped"].items()),
        f"expected in all: {expected['facts']:,} facts, {expected['entities']:,} entities, "
        f"{expected['relations']:,} relations",
        "",
    ]
    steps = [
        (name, _duration(cost["seconds"]), f"{cost['bytes'] / 2**30:,.1f} GiB") for name, cost in told["steps"].items()
    ]
    return "\n".join([*lines, table(("step", "one core", "memory"), steps)])


def _read(file: Path, known: Format, columns: str, sample: _Sample) -> float:
    """Add the beginning of a file to the sample; return the share of the file that was read."""
    if known in FOLDERS or known.name == "parquet":
        read = sum(_add(known.read(file, columns), sample))
        return read / pq.ParquetFile(file).metadata.num_rows if known.name == "parquet" and read else 1.0
    with tempfile.TemporaryDirectory(prefix="relsim-") as folder:
        beginning = Path(folder) / bare_name(file)
        share = _beginning(file, beginning)
        before = sample.facts
        try:
            list(_add(known.read(beginning, columns), sample))
        except RelsimError as error:
            if share == 1 or sample.facts == before:  # else it is where the sample was cut off
                raise RelsimError(str(error).replace(str(beginning), str(file))) from None
    return share


def _add(batches: Iterator[Batch], sample: _Sample) -> Iterator[int]:
    rows = 0
    for batch in batches:
        sample.add(batch)
        rows += len(batch.head)
        yield len(batch.head)
        if rows >= _ROWS:
            return


def _beginning(file: Path, copy: Path) -> float:
    """Copy the beginning of the text of a file, up to a line's end; return the share of the file's bytes behind it."""
    with file.open("rb") as raw, copy.open("wb") as out:
        stream = pa.input_stream(pa.PythonFile(raw, "r"), compression=COMPRESSION.get(file.suffix.lower()))
        try:
            text = stream.read(SAMPLE)
            more = bool(stream.read(1))
        except OSError:  # cut off: reading it will say so, with its name
            text, more = b"", False
        used = raw.tell()
        cut = text.rfind(b"\n") + 1 if more else 0
        out.write(text[: cut or len(text)])
        return min(1.0, used / max(file.stat().st_size, 1)) if more else 1.0


def _ingestion(files: list[dict[str, Any]], sizes: costs.Sizes) -> costs.Cost:
    parts = [costs.ingestion(f["format"], f["statements"], f["bytes"], Path(f["file"]).suffix.lower()) for f in files]
    return costs.Cost(sum(part.seconds for part in parts), costs.ingestion_bytes(sizes))


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"
