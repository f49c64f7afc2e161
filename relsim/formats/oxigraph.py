"""RDF in every syntax that pyoxigraph reads (the extra `rdf`): Turtle, TriG, RDF/XML and JSON-LD, as a stream."""

from __future__ import annotations

import io
import re
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
_RANDOM = re.compile("[0-9a-f]{24,32}")


def read(path: Path, columns: str = "hrt", *, syntax: str) -> Iterator[Batch]:
    """Yield the facts between resources, named as in N-Triples; `columns` is fixed by the format.

    A relative IRI has nothing to be relative to, so it is an error. Blank nodes that the file leaves unnamed are called
    `_:anonymous-1` and so on, in the order of their first appearance.

    Raises:
        RelsimError: with file and line, a syntax error; the file is empty; pyoxigraph is not installed.
    """
    rdf = pyoxigraph()
    statements, anonymous = 0, _Anonymous()
    with reading(path), io.BufferedReader(open_bytes(path)) as stream:
        if stream.peek(len(MARK)).startswith(MARK):
            stream.read(len(MARK))
        quads = iter(rdf.parse(stream, format=getattr(rdf.RdfFormat, syntax)))
        try:
            while block := list(islice(quads, BATCH)):
                statements += len(block)
                yield _batch(block, anonymous)
        except SyntaxError as error:
            place = f"{path}:{error.lineno}" if error.lineno else str(path)
            raise RelsimError(f"{place}: {reason(error)}: correct the line, or remove it") from None
    if not statements:
        raise empty(path)


class _Anonymous(dict[str, str]):
    """Names for the random labels that pyoxigraph gives to unnamed blank nodes, so that two runs give the same KB."""

    def __missing__(self, label: str) -> str:
        self[label] = f"anonymous-{len(self) + 1}"
        return self[label]

    def name_of(self, term: Any) -> str:
        name = name_of(term)
        label = name.removeprefix("_:")
        return f"_:{self[label]}" if label != name and _RANDOM.fullmatch(label) else name


def _batch(block: list[Any], anonymous: _Anonymous) -> Batch:
    skipped: Counter[str] = Counter()
    facts = []
    for quad in block:
        if left_out := skip_reason(quad):
            skipped[left_out] += 1
        else:
            head, tail = anonymous.name_of(quad.subject), anonymous.name_of(quad.object)
            facts.append((head, quad.predicate.value, tail))
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
