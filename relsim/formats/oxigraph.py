"""RDF in every syntax that pyoxigraph reads (the extra `rdf`): Turtle, TriG, RDF/XML and JSON-LD, as a stream."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from relsim.errors import RelsimError
from relsim.formats.base import Batch, Format, suffixed
from relsim.formats.stream import MARK, empty, open_bytes, reading

BATCH = 1 << 16  # statements at a time


def read(path: Path, columns: str = "hrt", *, syntax: str) -> Iterator[Batch]:
    """Yield the facts between resources, named as in N-Triples; `columns` is fixed by the format.

    A relative IRI has nothing to be relative to, so it is an error. Blank nodes that the syntax leaves unnamed get
    names that differ from run to run, since RDF says nothing else of them.

    Raises:
        RelsimError: with file and line, a syntax error; the file is empty; pyoxigraph is not installed.
    """
    rdf = pyoxigraph()
    statements = 0
    with reading(path), io.BufferedReader(open_bytes(path)) as stream:
        if stream.peek(len(MARK)).startswith(MARK):
            stream.read(len(MARK))
        quads = iter(rdf.parse(stream, format=getattr(rdf.RdfFormat, syntax)))
        try:
            while block := list(islice(quads, BATCH)):
                statements += len(block)
                yield _batch(block)
        except SyntaxError as error:
            place = f"{path}:{error.lineno}" if error.lineno else str(path)
            raise RelsimError(f"{place}: {reason(error)}: correct the line, or remove it") from None
    if not statements:
        raise empty(path)


def _batch(block: list[Any]) -> Batch:
    skipped: Counter[str] = Counter()
    facts = []
    for quad in block:
        if left_out := skip_reason(quad):
            skipped[left_out] += 1
        else:
            facts.append((name_of(quad.subject), quad.predicate.value, name_of(quad.object)))
    columns = zip(*facts, strict=True) if facts else ((), (), ())
    head, relation, tail = (pa.array(column, pa.string()) for column in columns)
    return Batch(head, relation, tail, skipped=skipped, lines=len(block))


def pyoxigraph() -> Any:
    """Return the module.

    Raises:
        RelsimError: it is not installed.
    """
    try:
        import pyoxigraph
    except ImportError:
        raise RelsimError("reading RDF needs pyoxigraph: run `pip install 'lorentz-relsim[rdf]'`") from None
    return pyoxigraph


def skip_reason(statement: Any) -> str | None:
    """Return why a statement of pyoxigraph's is no fact between resources, or None where it is one."""
    kinds = {type(statement.subject).__name__, type(statement.object).__name__}
    if "Triple" in kinds:
        return "triple term"
    return "literal" if "Literal" in kinds else None


def name_of(term: Any) -> str:
    """Return the name of an IRI or a blank node."""
    return term.value if type(term).__name__ == "NamedNode" else f"_:{term.value}"


def reason(error: SyntaxError) -> str:
    """Return what pyoxigraph has against a line, without its own words for the place."""
    said = error.msg.split(": ", 1)[-1] if error.msg.startswith("Parser error") else error.msg
    return " ".join(said.split()).removesuffix(".")


def _format(name: str, description: str, syntax: str, *suffixes: str) -> Format:
    return Format(name, description, suffixed(*suffixes), partial(read, syntax=syntax))


FORMATS = (
    _format("turtle", "a Turtle file (.ttl)", "TURTLE", ".ttl"),
    _format("trig", "a TriG file (.trig)", "TRIG", ".trig"),
    _format("rdfxml", "an RDF/XML file (.rdf, .owl)", "RDF_XML", ".rdf", ".owl"),
    _format("jsonld", "a JSON-LD file (.jsonld)", "JSON_LD", ".jsonld"),
)
