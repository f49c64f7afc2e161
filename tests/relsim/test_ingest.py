"""Every format against an independent reading, and every fault with its file and line."""

from __future__ import annotations

import bz2
import csv
import gzip
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyoxigraph
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relsim.data
from relsim.errors import RelsimError
from relsim.formats import FORMATS, openke, table
from relsim.formats import lines as line_blocks
from relsim.ingest import ingest, open_kb
from relsim.kb import KB

Fact = tuple[str, str, str]

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
FACTS: list[Fact] = [
    ("anna", "knows", "björn"),
    ("björn", "is fond of", "анна"),
    ("anna", "knows", "björn"),
    ("東京", "in", "日本"),
    ("anna", "knows", "anna"),
    ('the "c', "in", "a, b"),
]


def named(kb: KB, split: str = "train") -> Counter[Fact]:
    """The facts of a split by name, with their counts."""
    part = kb.splits[split]
    rows = zip(part.head, part.relation, part.tail, part.count, strict=True)
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): int(n) for h, r, t, n in rows})


def tsv(facts: Sequence[Sequence[str]], end: str = "\n") -> str:
    return "".join("\t".join(fact) + end for fact in facts)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path, **options: str) -> str:
    """The message that ingestion of `path` ends with: one line, and nothing about how it was found."""
    with pytest.raises(RelsimError) as caught:
        ingest(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message


def openke_folder(folder: Path, facts: dict[str, list[Fact]], sep: str = " ", end: str = "\n") -> Path:
    """Write an OpenKE folder with ids in alphabetical order, which is not the order of appearance."""
    everything = [fact for part in facts.values() for fact in part]
    entities = sorted({name for h, _, t in everything for name in (h, t)})
    relations = sorted({r for _, r, _ in everything})
    for file, names in (("entity2id.txt", entities), ("relation2id.txt", relations)):
        rows = [f"{name}\t{index}" for index, name in enumerate(names)]
        write(folder / file, end.join([str(len(rows)), *reversed(rows), ""]))
    for split, part in facts.items():
        rows = [sep.join(map(str, (entities.index(h), entities.index(t), relations.index(r)))) for h, r, t in part]
        write(folder / f"{split}2id.txt", end.join([str(len(rows)), *rows, ""]))
    return folder


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything, so act as nobody; anyone else already may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# TSV and CSV


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_tsv_reads_as_python_splits_it(tmp_path: Path, compression: str, end: str, mark: bytes) -> None:
    text = tsv(FACTS, end)
    path = write(tmp_path / f"facts.tsv{compression}", COMPRESS[compression](mark + text.encode()))
    kb = ingest(path)
    assert named(kb) == Counter(tuple(line.split("\t")) for line in text.split(end)[:-1])
    assert kb.source == str(path)
    assert kb.skipped == {}


@pytest.mark.parametrize("compression", COMPRESS)
def test_csv_reads_as_the_csv_module_does(tmp_path: Path, compression: str) -> None:
    plain = tmp_path / "plain.csv"
    with plain.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(FACTS)
    path = write(tmp_path / f"facts.csv{compression}", COMPRESS[compression](plain.read_bytes()))
    with plain.open(newline="", encoding="utf-8") as stream:
        expected = Counter(map(tuple, csv.reader(stream)))
    assert named(ingest(path)) == expected == Counter(FACTS)


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".zst"])
def test_concatenated_compressed_files_are_read_to_the_end(tmp_path: Path, compression: str) -> None:
    halves = [COMPRESS[compression](tsv(part).encode()) for part in (FACTS[:2], FACTS[2:])]
    assert named(ingest(write(tmp_path / f"facts.tsv{compression}", b"".join(halves)))) == Counter(FACTS)


@pytest.mark.parametrize("columns", ["".join(order) for order in permutations("hrt")])
@pytest.mark.parametrize("name", ["facts.tsv", "facts.csv"])
def test_any_order_of_columns(tmp_path: Path, name: str, columns: str) -> None:
    facts = FACTS[:-1]  # the last needs quoting in a CSV
    rows = [[dict(zip("hrt", fact, strict=True))[role] for role in columns] for fact in facts]
    text = "".join(("\t" if name.endswith("tsv") else ",").join(row) + "\n" for row in rows)
    assert named(ingest(write(tmp_path / name, text), columns=columns)) == Counter(facts)


def test_columns_marked_with_a_dash_are_ignored(tmp_path: Path) -> None:
    rows = [("1", t, h, "", r) for h, r, t in FACTS]
    assert named(ingest(write(tmp_path / "facts.tsv", tsv(rows)), columns="-th-r")) == Counter(FACTS)


@pytest.mark.parametrize("columns", ["", "hr", "hrr", "hrtx", "HRT", "hhrt"])
def test_columns_that_are_no_order_are_refused(tmp_path: Path, columns: str) -> None:
    message = fault(write(tmp_path / "facts.tsv", tsv(FACTS)), columns=columns)
    assert message.startswith(f"columns {columns!r}: expected h, r and t in the order of the file")


@pytest.mark.parametrize("heading", ["head\trelation\ttail", "Subject\tPredicate\tObject"])
def test_a_line_that_names_the_columns_is_no_fact(tmp_path: Path, heading: str) -> None:
    assert named(ingest(write(tmp_path / "facts.tsv", heading + "\n" + tsv(FACTS)))) == Counter(FACTS)


def test_a_heading_in_another_order_names_that_order(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.tsv", "head\ttail\trelation\n" + tsv(FACTS))
    assert fault(path) == f"{path}:1: the heading says the columns are htr, not hrt: pass --columns htr"
    path = write(tmp_path / "facts.csv", "head,relation,tail,score\na,b,c,1\n")
    assert fault(path).endswith(":1: the heading says the columns are hrt-, not hrt: pass --columns hrt-")


def test_duplicates_are_counted_within_and_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK", 64)
    facts = [FACTS[i % len(FACTS)] for i in range(101)]
    kb = ingest(write(tmp_path / "facts.tsv", tsv(facts)))
    assert named(kb) == Counter(facts)
    assert kb.train.total == 101
    assert len(kb.train) == 5


@pytest.mark.parametrize("text", ["a\tr\tb\n\n\r\n\n", "\n\na\tr\tb", "a\tr\tb"], ids=["after", "before", "unended"])
def test_blank_lines_and_a_missing_last_line_end_are_no_fault(tmp_path: Path, text: str) -> None:
    assert named(ingest(write(tmp_path / "facts.tsv", text))) == {("a", "r", "b"): 1}


@pytest.mark.parametrize("name", ["NA", "null", "nan", "", " ", '"', '""', "#", "1e5", "True"])
@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_no_name_is_taken_for_something_else(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"facts.{suffix}"
    if suffix == "tsv":
        write(path, tsv([("a", "r", name)]))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerow(("a", "r", name))
    if name:
        assert named(ingest(path)) == {("a", "r", name): 1}
    else:
        assert fault(path) == f"{path}:1: the tail is empty: give it a name, or remove the line"


ROW_17: dict[str, tuple[str | bytes, str]] = {
    "few": ("a\tb", "expected 3 tab-separated columns (head, relation, tail), got 2: put a tab between the names"),
    "many": ("a\tb\tc\td", "expected 3 tab-separated columns (head, relation, tail), got 4: ignore further columns"),
    "one": ("a b c", "expected 3 tab-separated columns (head, relation, tail), got 1: put a tab between the names"),
    "blanks": ("  ", "expected 3 tab-separated columns (head, relation, tail), got 1: put a tab between the names"),
    "comma": ("a,b,c", "expected 3 tab-separated columns (head, relation, tail), got 1: it looks comma-separated"),
    "head": ("\tb\tc", "the head is empty: give it a name"),
    "relation": ("a\t\tc", "the relation is empty: give it a name"),
    "tail": ("a\tb\t", "the tail is empty: give it a name"),
    "latin-1": (b"a\tb\t\xe9", "not UTF-8: convert the file"),
    "split character": (b"a\xc3\tb\tc", "not UTF-8: convert the file"),
}


@pytest.mark.parametrize("case", ROW_17)
@pytest.mark.parametrize("before", ["ab", "ab\r", "\ufeffab", "a\n"], ids=["lf", "crlf", "bom", "blank lines"])
@pytest.mark.parametrize("compression", ["", ".gz"])
def test_a_bad_row_is_reported_with_its_line(tmp_path: Path, case: str, before: str, compression: str) -> None:
    row, expected = ROW_17[case]
    good = "x\ty\tz" + ("\r\n" if before.endswith("\r") else "\n")
    lines = "\n\r\n" + good * 14 if before.endswith("\n") else good * 16
    bad = row if isinstance(row, bytes) else row.encode()
    content = ("\ufeff" * before.startswith("\ufeff") + lines).encode() + bad + b"\n" + (good * 3).encode() + b"bad\n"
    path = write(tmp_path / f"train.txt{compression}", COMPRESS[compression](content))
    assert fault(path).startswith(f"{path}:17: {expected}")


@pytest.mark.parametrize("block", [32, 64, 1000])
def test_the_line_of_a_fault_does_not_depend_on_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(table, "BLOCK", block)
    path = write(tmp_path / "facts.tsv", "x\ty\tz\n" * 1233 + "x\ty\n" + "x\ty\tz\n" * 10)
    assert fault(path).startswith(f"{path}:1234: ")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,b", "expected 3 comma-separated columns (head, relation, tail), got 2: put a comma between the names"),
        ("a,b,c,d", "expected 3 comma-separated columns (head, relation, tail), got 4: ignore further columns"),
        ("a\tb\tc", "expected 3 comma-separated columns (head, relation, tail), got 1: it looks tab-separated"),
        ('a,"b,c', "expected 3 comma-separated columns (head, relation, tail), got 2: look for a quote that is not"),
        ('a,b,"c', "the tail holds a line break: look for a quote that is not closed"),
        ('a,b,""', "the tail is empty: give it a name, or remove the line"),
        ('a,b,"' + "c" * 200_000, "field larger than field limit (131072): look for a quote that is not closed"),
    ],
    ids=["few", "many", "tabs", "open quote", "open last quote", "empty", "huge"],
)
def test_a_bad_csv_row_is_reported_with_its_first_line(tmp_path: Path, row: str, expected: str) -> None:
    path = write(tmp_path / "facts.csv", '"x, y",r,z\n' * 16 + row + "\nd,e,f\n")
    assert fault(path).startswith(f"{path}:17: {expected}")


NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1, max_size=8)
ANY_FACTS = st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=ANY_FACTS, repeat=st.integers(1, 3), last_end=st.booleans())
def test_any_names_survive_tsv_ingestion_save_and_load(
    tmp_path: Path, facts: list[Fact], repeat: int, last_end: bool
) -> None:
    facts = facts * repeat
    # the mark says that a first U+FEFF is the name's own
    text = "\ufeff" + (tsv(facts) if last_end else tsv(facts)[:-1])
    kb = ingest(write(tmp_path / "facts.tsv", text))
    kb.save(tmp_path / "kb")
    expected = KB.from_names(facts)
    for found in (kb, open_kb(tmp_path / "kb")):
        assert list(found.entities) == list(expected.entities)
        assert list(found.relations) == list(expected.relations)
        assert named(found) == Counter(facts)


CSV_NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=st.lists(st.tuples(*[st.one_of(NAME, NAME, NAME, CSV_NAME)] * 3), min_size=1, max_size=30))
def test_any_names_survive_csv_and_a_line_break_in_a_name_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: list[Fact]
) -> None:
    monkeypatch.setattr(table, "BLOCK", 256)
    path = tmp_path / "facts.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(facts)
    broken = next((line for line, fact in enumerate(facts, 1) if {"\n", "\r"} & set("".join(fact))), None)
    if broken is None:
        assert named(ingest(path)) == Counter(facts)
    else:
        assert f"{path}:{broken}: the " in fault(path)
        assert "holds a line break: look for a quote that is not closed" in fault(path)


# folders of split files


def test_split_files_keep_their_facts_and_share_their_names(tmp_path: Path) -> None:
    parts = {"train": FACTS[:3], "valid": [("new", "knows", "anna")], "test": [("anna", "unseen", "newer")] * 2}
    for split, name in (("test", "test.tsv"), ("valid", "dev.txt.gz"), ("train", "train.txt")):
        write(tmp_path / name, COMPRESS[Path(name).suffix if name.endswith("gz") else ""](tsv(parts[split]).encode()))
    write(tmp_path / "test_negatives.txt", "not read")
    write(tmp_path / "README.md", "not read")
    kb = ingest(tmp_path)
    assert list(kb.splits) == ["train", "valid", "test"]
    for split, facts in parts.items():
        assert named(kb, split) == Counter(facts)
    expected = KB.from_names(parts["train"], valid=parts["valid"], test=parts["test"])
    assert list(kb.entities) == list(expected.entities) == ["anna", "björn", "анна", "new", "newer"]
    assert list(kb.relations) == list(expected.relations)


def test_absent_splits_are_absent(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "a,r,b\n")
    kb = ingest(tmp_path)
    assert list(kb.splits) == ["train"]
    assert len(kb.valid) == 0


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt", "dev.txt"):
        write(tmp_path / name, "a\tr\tb\n")
    assert fault(tmp_path) == f"{tmp_path}: both dev.txt and valid.txt hold valid facts: remove one"


def test_an_empty_split_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "a\tr\tb\n")
    path = write(tmp_path / "valid.txt", "")
    assert fault(tmp_path) == f"{path}: the file is empty: put one fact on each line, or remove the file"


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\n", b"\xef\xbb\xbf", b"head\trelation\ttail\n"])
@pytest.mark.parametrize("name", ["facts.tsv", "facts.csv", "facts.tsv.gz", "facts.nt"])
def test_a_file_without_facts_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith("csv"):
        content = content.replace(b"\t", b",")
    if name.endswith("nt"):
        content = content.replace(b"head", b"# head")
    path = write(tmp_path / name, COMPRESS[".gz" if name.endswith("gz") else ""](content))
    assert fault(path) == f"{path}: the file is empty: put one fact on each line, or remove the file"


# OpenKE


@pytest.mark.parametrize("sep", [" ", "\t"], ids=["space", "tab"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_openke_reads_head_tail_relation(tmp_path: Path, sep: str, end: str) -> None:
    parts = {"train": FACTS[:4], "valid": FACTS[4:5], "test": FACTS[5:]}
    kb = ingest(openke_folder(tmp_path, parts, sep, end))
    for split, facts in parts.items():
        assert named(kb, split) == Counter(facts)
    expected = KB.from_names(parts["train"], valid=parts["valid"], test=parts["test"])
    assert list(kb.entities) == list(expected.entities)
    assert list(kb.relations) == list(expected.relations)


def test_openke_in_small_blocks_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = openke_folder(tmp_path, {"train": FACTS * 20})
    monkeypatch.setattr(openke, "BLOCK", 10)
    assert named(ingest(folder)) == Counter(FACTS * 20)
    write(folder / "train2id.txt", "120\n" + "0 0 0\n" * 99 + "0 0\n" + "0 0 0\n" * 20)
    assert f"{folder / 'train2id.txt'}:101: " in fault(folder)


def test_openke_compressed(tmp_path: Path) -> None:
    folder = openke_folder(tmp_path, {"train": FACTS, "test": []})
    for file in sorted(folder.glob("*.txt")):
        write(file.with_name(file.name + ".gz"), gzip.compress(file.read_bytes()))
        file.unlink()
    kb = ingest(folder)
    assert named(kb) == Counter(FACTS)
    assert len(kb.test) == 0


def test_openke_names_that_no_fact_uses_are_kept_last(tmp_path: Path) -> None:
    folder = openke_folder(tmp_path, {"train": FACTS[:1]})
    write(folder / "entity2id.txt", "4\nunused\t0\nbjörn\t2\nanna\t1\nalso unused\t3\n")
    write(folder / "train2id.txt", "1\n2 1 0\n")
    kb = ingest(folder)
    assert list(kb.entities) == ["björn", "anna", "unused", "also unused"]
    assert named(kb) == {("björn", "knows", "anna"): 1}


def test_openke_names_separated_by_spaces_may_end_in_digits(tmp_path: Path) -> None:
    folder = openke_folder(tmp_path, {"train": FACTS[:1]})
    write(folder / "entity2id.txt", "3\nroom 7 0\n12  1\nlast \t 2\n")
    write(folder / "train2id.txt", "1\n0 2 0\n")
    assert list(ingest(folder).entities) == ["room 7", "last ", "12"]


OPENKE_FAULTS = [
    ("relation2id.txt", "237\nr\t0\n", ":1: says 237 but 1 rows follow: correct the count"),
    ("train2id.txt", "1\n0 1 0\n0 1 0\n", ":1: says 1 but 2 rows follow: correct the count"),
    ("train2id.txt", "2\n0 1 0\n\n", ":1: says 2 but 1 rows follow: correct the count"),
    ("train2id.txt", "0 1 0\n", ":1: expected the number of rows, got '0 1 0': put the count on the first line"),
    ("entity2id.txt", "a\t0\nb\t1\n", ":1: expected the number of rows, got 'a\\t0'"),
    ("train2id.txt", "", ": the file is empty"),
    ("train2id.txt", "2\n0 1 0\n0 1\n", ":3: expected three ids: head tail relation, got '0 1': correct the line"),
    ("train2id.txt", "2\n\n0 1 0\n0 1 0 0\n", ":4: expected three ids: head tail relation, got '0 1 0 0'"),
    ("train2id.txt", "1\n0 b 0\n", ":2: expected three ids: head tail relation, got '0 b 0'"),
    ("train2id.txt", "1\n0 -1 0\n", ":2: expected three ids: head tail relation, got '0 -1 0'"),
    (
        "train2id.txt",
        "2\n0 1 0\n0 2 0\n",
        ":3: id 2 is out of range, entity2id.txt has the ids 0 to 1: check that",
    ),
    (
        "train2id.txt",
        "2\n0 1 0\n0 0 1\n",
        ":3: id 1 is out of range, relation2id.txt has the ids 0 to 0: check that",
    ),
    ("valid2id.txt", "1\n9 0 0\n", ":2: id 9 is out of range, entity2id.txt has the ids 0 to 1: check that"),
    ("entity2id.txt", "2\na\t0\nb\t2\n", ":3: id 2 is out of range, 2 rows leave the ids 0 to 1: correct the id"),
    ("entity2id.txt", "2\na\t1\nb\t1\n", ":3: id 1 was given on line 2 already: give each entity its own id"),
    ("entity2id.txt", "2\na\t0\na\t1\n", ":3: name 'a' was given on line 2 already: give each entity its own name"),
    ("entity2id.txt", "2\na\t0\n\t1\n", ":3: expected a name and its id, got '1': correct the line"),
    ("entity2id.txt", "2\na\t0\nb\n", ":3: expected a name and its id, got 'b': correct the line"),
    ("entity2id.txt", b"2\na\t0\n\xff\t1\n", ":3: not UTF-8: convert the file"),
]


@pytest.mark.parametrize(("file", "content", "expected"), OPENKE_FAULTS)
def test_openke_faults_are_reported_with_file_and_line(
    tmp_path: Path, file: str, content: str | bytes, expected: str
) -> None:
    folder = openke_folder(tmp_path, {"train": [("a", "r", "b")]})
    write(folder / file, content)
    assert fault(folder).startswith(f"{folder / file}{expected}")


@pytest.mark.parametrize("file", ["entity2id.txt", "relation2id.txt"])
def test_openke_folder_without_an_id_file(tmp_path: Path, file: str) -> None:
    folder = openke_folder(tmp_path, {"train": [("a", "r", "b")]})
    (folder / file).unlink()
    assert fault(folder).startswith(f"{folder / file}: no such file: an OpenKE folder has")


def test_openke_without_training_facts_is_refused(tmp_path: Path) -> None:
    folder = openke_folder(tmp_path, {"train": [], "test": [("a", "r", "b")]})
    assert fault(folder).startswith(f"{folder}: holds no training facts")


# N-Triples

NT = """\
<http://e.org/a> <http://e.org/p> <http://e.org/b> .
# a comment
<http://e.org/a>\t<http://e.org/p>   <http://e.org/b>. # another

_:b0 <http://e.org/q> <http://e.org/caf\\u00E9> .
<http://e.org/a> <http://e.org/q> "a \\"literal\\" \\n <http://e.org/b> ."@en .
<http://e.org/a> <http://e.org/q> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .
<http://e.org/\U0001d54f> <http://e.org/q> _:b0 .
<http://e.org/a> <http://e.org/q> <<( <http://e.org/a> <http://e.org/p> <http://e.org/b> )>> .
"""
NT_FACTS = {
    ("http://e.org/a", "http://e.org/p", "http://e.org/b"): 2,
    ("_:b0", "http://e.org/q", "http://e.org/café"): 1,
    ("http://e.org/\U0001d54f", "http://e.org/q", "_:b0"): 1,
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("batch", [1, 100, 1 << 16])
def test_ntriples_names_resources_and_counts_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, mark: bytes, batch: int
) -> None:
    monkeypatch.setattr(line_blocks, "BLOCK", batch)
    kb = ingest(write(tmp_path / f"dump.nt{compression}", COMPRESS[compression](mark + NT.encode())))
    assert named(kb) == NT_FACTS
    assert kb.skipped == {"literal": 2, "triple term": 1}
    assert kb.entities[0] == "http://e.org/a"


def test_skipped_literals_survive_save_and_load(tmp_path: Path) -> None:
    ingest(write(tmp_path / "dump.nt", NT)).save(tmp_path / "kb")
    assert open_kb(tmp_path / "kb").skipped == {"literal": 2, "triple term": 1}


IRI = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"]), max_size=6)
LITERAL = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(IRI, IRI, st.one_of(IRI, LITERAL.map(lambda x: (x,)))), min_size=1, max_size=12))
def test_ntriples_agrees_with_pyoxigraph_term_by_term(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    def iri(name: str) -> str:
        return "<http://e.org/" + "".join(c for c in name if c not in '<>"{}|^`\\[]#%?') + ">"

    def literal(text: str) -> str:
        return '"' + "".join(f"\\U{ord(c):08X}" if c in '"\\\r\n' else c for c in text) + '"'

    text = "".join(
        f"{iri(h)} {iri(r)} {iri(o) if isinstance(o, str) else literal(o[0])} .\n"
        for h, r, o in [("h", "r", "t"), *rows]
    )
    path = write(tmp_path / "dump.nt", text)
    quads, line = [], None
    try:
        quads = list(pyoxigraph.parse(text.encode(), format=pyoxigraph.RdfFormat.N_TRIPLES))
    except SyntaxError as error:
        line = error.lineno
    if line is not None:
        assert fault(path).startswith(f"{path}:{line}: ")
        return
    kept = [(s.value, p.value, o.value) for s, p, o, _ in quads if isinstance(o, pyoxigraph.NamedNode)]
    kb = ingest(path)
    assert named(kb) == Counter(kept)
    assert kb.skipped.get("literal", 0) == len(quads) - len(kept)
    assert list(kb.entities) == list(KB.from_names(kept).entities)


@pytest.mark.parametrize("lines", [16, 70_000], ids=["first batch", "second batch"])
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("nonsense", "The subject of a triple must be an IRI or a blank node: correct the line, or remove it"),
        ("<a> <http://e.org/p> <http://e.org/b> .", "No scheme found in an absolute IRI: correct the line"),
        ("<http://e.org/a> <http://e.org/p> <http://e.org/b>", "Triples must be followed by a dot: correct the line"),
        (b"<http://e.org/\xe9> <http://e.org/p> <http://e.org/b> .", "Invalid UTF-8"),
    ],
)
def test_an_ntriples_syntax_error_is_reported_with_its_line(
    tmp_path: Path, lines: int, bad: str | bytes, expected: str
) -> None:
    good = b"<http://e.org/a> <http://e.org/p> <http://e.org/b> .\n"
    content = good * lines + (bad if isinstance(bad, bytes) else bad.encode()) + b" # " + b"\n" + good
    path = write(tmp_path / "dump.nt", content)
    assert fault(path).startswith(f"{path}:{lines + 1}: {expected}")


def test_a_dump_of_literals_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "dump.nt", '<http://e.org/a> <http://e.org/p> "x" .\n' * 2)
    assert fault(path) == f"{path}: holds no training facts (skipped: 2 literal): name a dump with facts in it"


def test_without_pyoxigraph_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    with pytest.raises(RelsimError, match=r"pip install 'lorentz-relsim\[rdf\]'"):
        ingest(write(tmp_path / "dump.nt", NT))


# paths


@pytest.mark.parametrize("name", ["nothing.tsv", "facts.tsv/nothing.tsv", "nothing/"])
def test_a_missing_path(tmp_path: Path, name: str) -> None:
    write(tmp_path / "facts.tsv", tsv(FACTS))
    assert fault(tmp_path / name) == f"{tmp_path / name}: no such file or folder: check the spelling"


@pytest.mark.parametrize("kind", ["file", "folder", "kb"])
def test_an_unreadable_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "facts.tsv"
    write(path, tsv(FACTS))
    if kind == "kb":
        ingest(path).save(tmp_path / "kb")
    if kind != "file":
        path = tmp_path / "kb"
        path.mkdir(exist_ok=True)
    path.chmod(0)
    with without_privileges(), pytest.raises(RelsimError) as caught:
        open_kb(path)
    path.chmod(0o700)
    assert str(caught.value).startswith(f"{path}: no permission to read it: ")


@pytest.mark.parametrize("name", ["facts.doc", "facts", "facts.gz"])
def test_an_unknown_file_lists_what_is_known(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, tsv(FACTS))
    message = fault(path)
    assert message.startswith(f"{path}: not a knowledge base that relsim reads: expected a TSV file (.tsv, .txt), ")
    for known in ("CSV", "N-Triples", "OpenKE", "train, valid and test", ".gz, .bz2 or .zst"):
        assert known in message


def test_an_unknown_folder_lists_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "facts.tsv", tsv(FACTS))
    write(tmp_path / "test.tsv", tsv(FACTS))
    assert fault(tmp_path).startswith(f"{tmp_path}: not a knowledge base that relsim reads: expected ")


def test_a_named_format_overrides_the_file_name(tmp_path: Path) -> None:
    path = write(tmp_path / "train.dat", tsv(FACTS))
    assert named(ingest(path, format="tsv")) == named(ingest(tmp_path, format="tsv")) == Counter(FACTS)
    assert fault(path, format="rdf") == f"unknown format 'rdf': it is one of {', '.join(FORMATS)}"
    assert fault(path, format="openke").startswith(f"{path}: not a folder: format openke needs an OpenKE folder")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", ["facts.tsv", "facts.csv", "facts.nt", "train2id.txt"])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    content = {"facts.csv": "a,r,b\n", "facts.nt": NT, "train2id.txt": "9\n0 1 0\n"}.get(name, tsv(FACTS))
    folder = openke_folder(tmp_path, {"train": FACTS}) if name == "train2id.txt" else tmp_path
    (folder / "train2id.txt").unlink(missing_ok=True)
    path = folder / (name + suffix)
    for data in (content.encode(), COMPRESS[suffix](content.encode())[:-6]):
        write(path, data)
        assert fault(folder if name == "train2id.txt" else path).startswith(f"{path}: cannot be read (")


def test_a_saved_kb_is_opened_but_not_ingested(tmp_path: Path) -> None:
    kb = ingest(write(tmp_path / "facts.tsv", tsv(FACTS)))
    kb.save(tmp_path / "kb")
    assert named(open_kb(tmp_path / "kb")) == named(open_kb(tmp_path / "facts.tsv")) == Counter(FACTS)
    assert fault(tmp_path / "kb").endswith("a saved KB needs no ingestion")


def test_open_kb_heeds_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.tsv", "a\tb\tr\n")
    assert named(open_kb(path, columns="htr")) == {("a", "r", "b"): 1}


def test_open_kb_of_a_folder_that_is_something_else(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", '{"kind": "relsim-model"}')
    with pytest.raises(RelsimError, match="not a KB folder"):
        open_kb(tmp_path)


# real data


def read_openke(folder: Path, split: str) -> Counter[Fact]:
    def names(file: str) -> dict[str, str]:
        return {row.split("\t")[1]: row.split("\t")[0] for row in (folder / file).read_text().splitlines()[1:]}

    entities, relations = names("entity2id.txt"), names("relation2id.txt")
    rows = [line.split() for line in (folder / f"{split}2id.txt").read_text().splitlines()[1:]]
    return Counter((entities[h], relations[r], entities[t]) for h, t, r in rows)


def read_tsv(folder: Path, split: str) -> Counter[Fact]:
    lines = (folder / f"{split}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return Counter((h, r, t) for h, r, t in (line.split("\t") for line in lines))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "entities", "relations", "train", "valid", "test"),
    [
        ("nations", 14, 55, 1_592, 199, 201),
        ("umls", 135, 46, 5_216, 652, 661),
        ("kinships", 104, 25, 8_544, 1_068, 1_074),
        ("codex-s", 2_034, 42, 32_888, 1_827, 1_828),
        ("fb15k-237", 14_541, 237, 272_115, 17_535, 20_466),
        ("wn18rr", 40_943, 11, 86_835, 3_034, 3_134),
    ],
)
def test_real_folders_have_their_published_sizes_and_facts(
    shared_data: Path, name: str, entities: int, relations: int, train: int, valid: int, test: int
) -> None:
    folder = shared_data / name
    kb = ingest(folder)
    assert (len(kb.entities), len(kb.relations)) == (entities, relations)
    assert (kb.train.total, kb.valid.total, kb.test.total) == (train, valid, test)
    read = read_openke if (folder / "train2id.txt").exists() else read_tsv
    for split in ("train", "valid", "test"):
        assert named(kb, split) == read(folder, split)


def test_the_bundled_nations() -> None:
    kb = relsim.data.nations()
    assert (len(kb.entities), len(kb.relations), len(kb.train), kb.train.total) == (14, 55, 1_992, 1_992)
    assert list(kb.splits) == ["train"]
    assert "Rummel" in kb.source
    assert named(kb)["poland", "dependent", "ussr"] == 1


@pytest.mark.data
def test_the_bundled_nations_are_the_facts_of_the_data_set(shared_data: Path) -> None:
    parts = [read_openke(shared_data / "nations", split) for split in ("train", "valid", "test")]
    assert named(relsim.data.nations()) == sum(parts, Counter())
