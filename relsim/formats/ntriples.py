"""N-Triples, plain and compressed, streamed through pyoxigraph (the extra `rdf`)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from relsim.errors import RelsimError
from relsim.formats.base import Batch, Format
from relsim.formats.stream import bare_name, empty, open_bytes, reading

BATCH = 1 << 16  # statements parsed at a time
_BOM = b"\xef\xbb\xbf"


def read(path: Path, columns: str = "hrt") -> Iterator[Batch]:
    """Yield the facts between resources: IRIs are named without their angle brackets, blank nodes as `_:label`.

    Statements about literals and triple terms are counted as skipped. `columns` is fixed by the format.

    Raises:
        RelsimError: with file and line, a syntax error; the file is empty; pyoxigraph is not installed.
    """
    rdf = _pyoxigraph()
    read_any = False
    with reading(path), io.BufferedReader(open_bytes(path)) as stream:
        if stream.peek(3).startswith(_BOM):
            stream.read(3)
        quads = rdf.parse(stream, format=rdf.RdfFormat.N_TRIPLES)
        try:
            # written out again by pyoxigraph, a block can be taken apart in bulk: faster than term by term
            while block := rdf.serialize(islice(quads, BATCH), format=rdf.RdfFormat.N_QUADS):
                read_any = True
                yield _batch(block)
        except SyntaxError as error:
            reason = error.msg.split(": ", 1)[-1]  # after pyoxigraph's own words for the place
            raise RelsimError(f"{path}:{error.lineno}: {reason}: correct the line, or remove it") from None
    if not read_any:
        raise empty(path)


def _batch(canonical: bytes) -> Batch:
    """Take canonical N-Triples apart: one statement a line, single spaces, and a break or a space in literals only."""
    lines = pc.split_pattern(pa.array([canonical.decode().removesuffix("\n")]), "\n").flatten()
    parts = pc.split_pattern(lines, " ", max_splits=2)
    head, relation, tail = (pc.list_element(parts, place) for place in range(3))
    literal, term = pc.starts_with(tail, '"'), pc.starts_with(tail, "<<")
    resource = pc.invert(pc.or_(literal, term))
    tail = pc.utf8_slice_codeunits(tail.filter(resource), 0, -len(" ."))
    skipped = Counter({"literal": pc.sum(literal).as_py(), "triple term": pc.sum(term).as_py()})
    return Batch(_name(head.filter(resource)), _name(relation.filter(resource)), _name(tail), skipped=skipped)


def _name(terms: pa.Array) -> pa.Array:
    return pc.if_else(pc.starts_with(terms, "<"), pc.utf8_slice_codeunits(terms, 1, -1), terms)


def _pyoxigraph() -> Any:
    try:
        import pyoxigraph
    except ImportError:
        raise RelsimError("reading RDF needs pyoxigraph: run `pip install 'lorentz-relsim[rdf]'`") from None
    return pyoxigraph


FORMAT = Format(
    "nt",
    "an N-Triples file (.nt)",
    lambda path: bare_name(path).suffix.lower() == ".nt",
    read,
)
