"""N-Triples and N-Quads, a line at a time: simple lines are taken apart in bulk, pyoxigraph (extra `rdf`) reads others.

A line is simple where single spaces or tabs stand between IRIs that `relsim.formats.iri` vouches for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relsim.formats.base import BadLine, Batch, Format, suffixed
from relsim.formats.iri import IRI, LITERAL_QUAD, LITERAL_TRIPLE
from relsim.formats.lines import Lines, Places, as_text, blocks, overlong, spans
from relsim.formats.oxigraph import name_of, pyoxigraph, reason, skip_reason
from relsim.formats.stream import empty, open_bytes, reading

TRIPLE, QUAD = 3, 4  # separators of a statement: two or three between its terms, one before its dot
_OPEN, _CLOSE, _QUOTE, _DOT = b'<>".'
_SPACE, _TAB, _LF, _CR = b" \t\n\r"


class _Slow(NamedTuple):
    """What pyoxigraph made of some lines: facts with the indices of their lines, and the rest."""

    line: list[int]
    facts: list[tuple[str, str, str]]
    skipped: Counter[str]
    bad: list[BadLine]


def read(path: Path, columns: str = "hrt", *, separators: int = TRIPLE) -> Iterator[Batch]:
    """Yield the facts between resources: IRIs are named without their angle brackets, blank nodes as `_:label`.

    Statements about literals and triple terms are counted as skipped, and the graph of a quad is ignored. `columns` is
    fixed by the format.

    Raises:
        RelsimError: the file is empty, or cannot be read; pyoxigraph is not installed and a line needs it.
    """
    statements = 0
    with reading(path), open_bytes(path) as stream:
        for lines in blocks(stream):
            batch = _batch(lines, separators)
            statements += len(batch.head) + sum(batch.skipped.values()) + len(batch.bad)
            yield batch
    if not statements:
        raise empty(path)


def _batch(lines: Lines, separators: int) -> Batch:
    """Take a block apart. Facts come out in the order of their lines."""
    first, count = _separators(lines)
    simple, literal = _kinds(lines, first, count, separators)
    index, terms = _simple(lines, first, count, simple)
    literals = _literals(lines, literal, LITERAL_TRIPLE if separators == TRIPLE else LITERAL_QUAD)
    done = lines.end == lines.start
    done[index] = True
    done[literals] = True
    slow = _slow(lines, np.flatnonzero(~done), separators)
    if slow.line:
        order = np.argsort(np.concatenate([index, slow.line]), kind="stable")
        columns = zip(*slow.facts, strict=True)
        terms = [_joined(fast, pa.array(new, pa.string()), order) for fast, new in zip(terms, columns, strict=True)]
    skipped = slow.skipped + Counter({"literal": len(literals)})
    head, relation, tail = terms
    return Batch(head, relation, tail, skipped=skipped, lines=len(lines), bad=slow.bad + overlong(lines))


def _separators(lines: Lines) -> tuple[list[Places], Places]:
    """Return where the first four separators of each line stand (or would, beyond its end), and how many it has."""
    is_separator = (lines.byte == _SPACE) | (lines.byte == _TAB)
    where, before, count = lines.separators(is_separator)
    other = ~is_separator & (lines.byte != _LF) & (lines.byte != _CR)
    if other.any():  # a control character, of which only a parser can judge
        count[lines.separators(other)[2] > 0] = 0
    padded = np.append(where, [len(lines.data)] * QUAD)
    return [padded[before + k] for k in range(QUAD)], count


def _kinds(
    lines: Lines, first: list[Places], count: Places, separators: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which lines look like a simple fact, and which like a statement about a literal."""
    data = np.frombuffer(lines.data or b"\n", np.uint8)
    a, b, c, d = first

    def holds(place: Places, byte: int) -> NDArray[np.bool_]:
        return data.take(place, mode="clip") == byte

    opens = (count >= TRIPLE) & holds(lines.start, _OPEN) & holds(a - 1, _CLOSE) & holds(a + 1, _OPEN)
    opens &= holds(b - 1, _CLOSE)
    last = np.where(count == TRIPLE, c, d)
    dotted = (last == lines.end - 2) & holds(last + 1, _DOT)
    simple = opens & dotted & (count <= separators) & holds(b + 1, _OPEN) & holds(c - 1, _CLOSE)
    if separators == QUAD:
        simple &= (count == TRIPLE) | (holds(c + 1, _OPEN) & holds(d - 1, _CLOSE))
    return simple, opens & holds(b + 1, _QUOTE)


def _simple(
    lines: Lines, first: list[Places], count: Places, simple: NDArray[np.bool_]
) -> tuple[Places, list[pa.DictionaryArray]]:
    """Return the lines that hold simple facts indeed, and the columns of their terms."""
    index = np.flatnonzero(simple)
    a, b, c, d = (place[index] for place in first)
    starts, ends = (lines.start[index] + 1, a + 2, b + 2), (a - 1, b - 1, c - 1)
    terms = [spans(lines.data, start, end).dictionary_encode() for start, end in zip(starts, ends, strict=True)]
    checked = [_vouched(column) for column in terms]
    good = np.logical_and.reduce([ok for _, ok in checked])
    terms = [column for column, _ in checked]
    quad = count[index] == QUAD
    if quad.any():
        good[quad] &= _vouched(spans(lines.data, (c + 2)[quad], (d - 1)[quad]).dictionary_encode())[1]
    if not good.all():
        kept = pa.array(good)
        terms = [column.filter(kept).dictionary_decode().dictionary_encode() for column in terms]
    return index[good], terms


def _vouched(column: pa.DictionaryArray) -> tuple[pa.DictionaryArray, NDArray[np.bool_]]:
    """Return a column as text, and where it holds IRIs that need no parser."""
    values = as_text(column.dictionary)
    good = pc.fill_null(pc.match_substring_regex(values, f"^{IRI}$"), False)
    codes = column.indices.to_numpy()
    text = pa.DictionaryArray.from_arrays(column.indices, pc.fill_null(values, ""))
    return text, good.to_numpy(zero_copy_only=False)[codes]


def _literals(lines: Lines, candidate: NDArray[np.bool_], pattern: str) -> Places:
    """Return the lines that are statements about a literal which need no parser, since they match the pattern."""
    index = np.flatnonzero(candidate)
    text = as_text(spans(lines.data, lines.start[index], lines.end[index]))
    sure = pc.fill_null(pc.match_substring_regex(text, f"^{pattern}$"), False)
    return index[sure.to_numpy(zero_copy_only=False)]


def _slow(lines: Lines, index: Places, separators: int) -> _Slow:
    rdf = pyoxigraph() if len(index) else None
    found = _Slow([], [], Counter(), [])
    for i in index.tolist():
        _parse(rdf, lines, i, separators, found)
    return found


def _parse(rdf: Any, lines: Lines, i: int, separators: int, found: _Slow) -> None:
    known = rdf.RdfFormat.N_TRIPLES if separators == TRIPLE else rdf.RdfFormat.N_QUADS
    try:
        statements = list(rdf.parse(lines.line(i), format=known))
    except SyntaxError as error:
        found.bad.append(BadLine(lines.first + i, f"{reason(error)}: correct the line, or remove it"))
        return
    for statement in statements:
        if left_out := skip_reason(statement):
            found.skipped[left_out] += 1
        else:
            found.line.append(i)
            found.facts.append((name_of(statement.subject), statement.predicate.value, name_of(statement.object)))


def _joined(fast: pa.DictionaryArray, slow: pa.StringArray, order: NDArray[np.int64]) -> pa.DictionaryArray:
    both = pa.chunked_array([fast, slow.dictionary_encode()]).unify_dictionaries().chunks
    indices = np.concatenate([part.indices.to_numpy() for part in both])[order]
    return pa.DictionaryArray.from_arrays(pa.array(indices), both[0].dictionary)


FORMAT = Format("nt", "an N-Triples file (.nt)", suffixed(".nt"), read)
QUADS = Format("nq", "an N-Quads file (.nq)", suffixed(".nq"), partial(read, separators=QUAD))
