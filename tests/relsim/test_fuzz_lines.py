"""The line readers against pyoxigraph and Python, on text that hypothesis makes up; `RELSIM_FUZZ=10000` runs longer."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyoxigraph
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relsim.formats import Batch, ntriples, tsv
from relsim.formats import lines as line_blocks

Fact = tuple[str, str, str]
FUZZ = settings(
    max_examples=int(os.environ.get("RELSIM_FUZZ", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Found(NamedTuple):
    facts: list[Fact]
    skipped: Counter[str]
    bad: list[int]


def collected(batches: list[Batch]) -> Found:
    """Everything that batches hold, in order, with the numbers of the bad lines."""
    facts: list[Fact] = []
    skipped: Counter[str] = Counter()
    bad = []
    for batch in batches:
        columns = (batch.head.to_pylist(), batch.relation.to_pylist(), batch.tail.to_pylist())
        facts += zip(*columns, strict=True)
        skipped.update({reason: n for reason, n in batch.skipped.items() if n})
        bad += [line.number for line in batch.bad]
    return Found(facts, skipped, sorted(bad))


def by_oracle(data: bytes, syntax: pyoxigraph.RdfFormat) -> Found:
    """What pyoxigraph says of each line by itself; lines end in LF or CR LF, and a mark may stand before the first."""
    facts: list[Fact] = []
    skipped: Counter[str] = Counter()
    bad = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            statements = list(pyoxigraph.parse(line.removesuffix(b"\r"), format=syntax))
        except SyntaxError:
            bad.append(number)
            continue
        for s, p, o, _ in statements:
            if isinstance(o, pyoxigraph.Literal):
                skipped["literal"] += 1
            elif isinstance(o, pyoxigraph.Triple):
                skipped["triple term"] += 1
            else:
                names = [x.value if isinstance(x, pyoxigraph.NamedNode) else f"_:{x.value}" for x in (s, o)]
                facts.append((names[0], p.value, names[1]))
    return Found(facts, skipped, bad)


# terms that are nearly right, in every way that dumps get them wrong

SCHEME = st.sampled_from(["http:", "https:", "urn:x:", "x:", "1x:", "", "mailto:", "a+b-c.d:", "é:"])
HOST = st.sampled_from(
    ["//e.org", "//e.org:80", "//e.org:x", "//u@e.org", "//[::1]", "//", "", "/", "//é.org", "//%41"]
)
PIECE = st.one_of(
    st.sampled_from(["a", "/", "?", "#", "%41", "%4", "%zz", ":", "//", "@", "é", "東", "\U0001d54f", "\U000e0001"]),
    st.sampled_from(
        ["\u00a0", "\ue000", "\ufffe", "\ufdd0", "\u200f", "\\u0041", "\\U0001F600", "\\n", "[", "]", "{", "|"]
    ),
    st.sampled_from(["^", "`", '"', "'", "\\", " ", "\t", "\x00", "\x7f", "\x85", "<", ">", "(", "!$&*+,;=", "~", "_"]),
    st.text(max_size=2),
)
IRI = st.builds(lambda *parts: "<" + "".join(parts) + ">", SCHEME, HOST, st.lists(PIECE, max_size=4).map("".join))
PLAIN = st.sampled_from(["<http://e.org/a>", "<http://e.org/b>", "<x:y>", "<http://e.org/p#q>"])
BLANK = st.sampled_from(["_:b", "_:b0", "_:1", "_:a.b", "_:a.", "_:", "_:é", "_:-"])
LANGUAGE = st.sampled_from(
    ["", "@en", "@en-GB", "@EN", "@e", "@zh-Hant", "@de-x-y", "@en--ltr", "@123", "@", "^^<x:int>"]
)
TEXT = st.lists(
    st.one_of(
        st.sampled_from(["a", " ", "\\n", '\\"', "\\\\", "\\x", "\\u00e9", "\\uD800", "\\", "\r", "\t", "<", " ."]),
        st.text(max_size=3),
    ),
    max_size=4,
).map("".join)
LITERAL = st.builds(lambda text, kind: f'"{text}"{kind}', TEXT, LANGUAGE)
TERM = st.one_of(PLAIN, PLAIN, IRI, BLANK, LITERAL)
SPACE = st.sampled_from([" ", " ", " ", "\t", "  ", "", "\u00a0", "\x0b"])
END = st.sampled_from([" .", " .", " .", ".", "", " . # note", ". .", " ;", "  .  "])
STATEMENT = st.builds(lambda *parts: "".join(parts), TERM, SPACE, TERM, SPACE, TERM, END)
QUAD = st.builds(lambda *parts: "".join(parts), TERM, SPACE, TERM, SPACE, TERM, SPACE, TERM, END)
GOOD = st.builds("{} {} {} .".format, PLAIN, PLAIN, PLAIN)
LINE = st.one_of(GOOD, STATEMENT, QUAD, st.just(""), st.just("# comment"), st.text(max_size=10)).map(
    lambda text: text.replace("\n", "").encode("utf-8", "surrogatepass")
)
BROKEN = st.one_of(LINE, LINE, LINE, st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")))
FILE = st.tuples(
    st.sampled_from([b"", b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(BROKEN, st.sampled_from([b"\n", b"\n", b"\r\n"])), max_size=12).map(
        lambda lines: b"".join(line + end for line, end in lines)
    ),
    st.sampled_from([b"", b"<http://e.org/a> <http://e.org/p> <http://e.org/b> ."]),
).map(b"".join)


@pytest.mark.parametrize("name", ["nt", "nq"])
@FUZZ
@given(data=FILE, size=st.sampled_from([1, 7, 64, 1 << 16]))
@example(data=b'<x:a> <x:b> "" <x:c> .\n', size=64)
@example(data=b"<x:a> <x:b>\x0b<x:c> .\n", size=64)
@example(data=b"\xef\xbb\xbf\xef\xbb\xbf<x:a> <x:b> <x:c> .\n", size=1)
@example(data=b"<x:a> <x:b> <x:c> .\r<x:a> <x:b> <x:d> .\r\n", size=64)
def test_statements_are_what_pyoxigraph_says_they_are(tmp_path: Path, name: str, data: bytes, size: int) -> None:
    path = tmp_path / f"dump.{name}"
    path.write_bytes(b"<x:first> <x:p> <x:o> .\n" * (not data.startswith(b"\xef")) + data + b"\n<x:last> <x:p> <x:o> .")
    syntax, separators = {
        "nt": (pyoxigraph.RdfFormat.N_TRIPLES, ntriples.TRIPLE),
        "nq": (pyoxigraph.RdfFormat.N_QUADS, ntriples.QUAD),
    }[name]
    before = line_blocks.BLOCK
    line_blocks.BLOCK = size
    try:
        found = collected(list(ntriples.read(path, separators=separators)))
    finally:
        line_blocks.BLOCK = before
    assert found == by_oracle(path.read_bytes(), syntax)


CELL = st.one_of(st.sampled_from(["a", "b", "", " ", '"', "é", "\u200f", "x" * 40]), st.text(max_size=4))
ROW = st.one_of(
    st.lists(CELL, min_size=3, max_size=3).map("\t".join),
    st.lists(CELL, max_size=5).map("\t".join),
).map(lambda text: text.replace("\n", "").encode("utf-8", "surrogatepass"))
TABLE = st.lists(
    st.tuples(st.one_of(ROW, ROW, st.binary(max_size=9).map(lambda data: data.replace(b"\n", b""))), st.booleans()),
    max_size=12,
).map(lambda rows: b"".join(row + (b"\r\n" if cr else b"\n") for row, cr in rows))


@FUZZ
@given(data=TABLE, size=st.sampled_from([1, 7, 64, 1 << 16]), columns=st.sampled_from(["hrt", "trh"]))
def test_rows_are_what_python_splits(tmp_path: Path, data: bytes, size: int, columns: str) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(b"x\ty\tz\n" + data)
    facts, bad = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        row = line.removesuffix(b"\r")
        if not row:
            continue
        try:
            cells = row.decode().split("\t")
        except UnicodeDecodeError:
            cells = []
        if len(cells) == 3 and all(cells) and "\r" not in row.decode():
            named = dict(zip(columns, cells, strict=True))
            facts.append((named["h"], named["r"], named["t"]))
        else:
            bad.append(number)
    before = line_blocks.BLOCK
    line_blocks.BLOCK = size
    try:
        found = collected(list(tsv.read(path, columns)))
    finally:
        line_blocks.BLOCK = before
    assert found == Found(facts, Counter(), bad)


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.tuples(st.binary(max_size=70).map(lambda b: b.replace(b"\n", b"")), st.booleans()), max_size=20),
    last=st.booleans(),
    size=st.integers(1, 100),
    longest=st.integers(20, 90),
)
def test_blocks_hold_every_line_with_its_number(
    lines: list[tuple[bytes, bool]], last: bool, size: int, longest: int
) -> None:
    data = b"".join(line + (b"\r\n" if cr else b"\n") for line, cr in lines)
    data = data if last or not data else data.rstrip(b"\n")
    before = line_blocks.LONGEST
    line_blocks.LONGEST = longest
    try:
        found: dict[int, bytes | None] = {}
        for block in line_blocks.blocks(io.BytesIO(data), size):  # type: ignore[arg-type]
            found |= {block.first + i: block.line(i) for i in range(len(block.start))}
            found |= dict.fromkeys(block.overlong)
    finally:
        line_blocks.LONGEST = before
    pieces = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [piece.removesuffix(b"\r") for piece in (pieces if pieces[-1] else pieces[:-1])]
    assert list(found) == list(range(1, len(expected) + 1))
    for line, wanted in zip(found.values(), expected, strict=True):
        assert line == wanted or (line is None and len(wanted) + 2 > longest)
        assert line is None or len(line) <= 2 * max(longest, size) + 3
