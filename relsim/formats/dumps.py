"""The great public dumps in N-Triples: of all that they state, the relations between their entities, by short names.

Wikidata truthy: `Q42 P27 Q145`; DBpedia: `Douglas_Adams birthPlace Cambridge`; Freebase: `m.0282x people.person.gender
m.05zppz`. Whoever wants more of one of them reads it as `nt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from relsim.formats import ntriples
from relsim.formats.base import Batch, Format
from relsim.formats.narrow import renamed, without
from relsim.formats.stream import bare_name

OTHER_PROPERTY, NO_ENTITY = "another property", "not an entity"


def read(path: Path, columns: str = "hrt", *, entity: str, relation: str) -> Iterator[Batch]:
    """Yield the facts whose names match the patterns `entity` and `relation`, named by their group `name`.

    Raises:
        RelsimError: as `relsim.formats.ntriples.read`.
    """
    for batch in ntriples.read(path, columns):
        head, head_found = renamed(batch.head, entity)
        kind, kind_found = renamed(batch.relation, relation)
        tail, tail_found = renamed(batch.tail, entity)
        left_out = {OTHER_PROPERTY: ~kind_found, NO_ENTITY: ~(head_found & tail_found)}
        named = Batch(head, kind, tail, skipped=batch.skipped, lines=batch.lines, bad=batch.bad)
        yield without(named, left_out)


def _called(*words: str, suffixes: tuple[str, ...] = (".nt",)) -> Callable[[Path], bool]:
    def recognise(path: Path) -> bool:
        name = bare_name(path)
        return name.suffix.lower() in suffixes and any(word in name.name.lower() for word in words)

    return recognise


WIKIDATA = Format(
    "wikidata",
    "a Wikidata truthy dump (*truthy*.nt)",
    _called("truthy"),
    partial(
        read,
        entity=r"^http://www\.wikidata\.org/entity/(?P<name>[A-Z]\d+)$",
        relation=r"^http://www\.wikidata\.org/prop/direct/(?P<name>P\d+)$",
    ),
)
DBPEDIA = Format(
    "dbpedia",
    "a DBpedia dump (*_lang=*.ttl, dbpedia*.nt)",
    _called("_lang=", "dbpedia", suffixes=(".ttl", ".nt")),
    partial(
        read,
        entity=r"^http://dbpedia\.org/resource/(?P<name>.+)$",
        relation=r"^http://dbpedia\.org/ontology/(?P<name>.+)$",
    ),
)
FREEBASE = Format(
    "freebase",
    "a Freebase dump (freebase*)",
    _called("freebase", suffixes=("", ".nt", ".rdf")),
    partial(
        read,
        entity=r"^http://rdf\.freebase\.com/ns/(?P<name>[mg]\..+)$",
        relation=r"^http://rdf\.freebase\.com/ns/(?P<name>.+)$",
    ),
)
FORMATS = (WIKIDATA, DBPEDIA, FREEBASE)
