"""Every format of RDF, tables and JSON says the facts that were written into it, and counts what is no fact."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rdflib

from relsim.errors import RelsimError
from relsim.formats import FILES, FORMATS, recognise
from relsim.ingest import ingest
from relsim.kb import KB

Fact = tuple[str, str, str]
E = "http://e.org/"
FACTS: list[Fact] = [
    (E + "anna", E + "knows", E + "björn"),
    (E + "björn", E + "likes", E + "%E6%9D%B1%E4%BA%AC"),
    (E + "anna", E + "knows", E + "anna"),
    (E + "x#y", E + "likes", "urn:isbn:123"),
]


def named(kb: KB, split: str = "train") -> Counter[Fact]:
    part = kb.splits[split]
    rows = zip(part.head, part.relation, part.tail, part.count, strict=True)
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): int(n) for h, r, t, n in rows})


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# RDF


def rdf(syntax: str) -> bytes:
    """The facts and three literals as rdflib writes them."""
    graph = rdflib.Dataset().graph(rdflib.URIRef(E + "graph"))
    for fact in FACTS:
        graph.add(tuple(map(rdflib.URIRef, fact)))  # type: ignore[arg-type]
    for literal in (rdflib.Literal('a\n"b" \\ <c>'), rdflib.Literal("b", lang="de-AT"), rdflib.Literal(3)):
        graph.add((rdflib.URIRef(FACTS[0][0]), rdflib.URIRef(E + "says"), literal))
    whole = graph.store if syntax in ("nquads", "trig") else None
    source = rdflib.Dataset(store=whole) if whole is not None else graph
    return source.serialize(format=syntax, encoding="utf-8")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("suffix", "syntax"),
    [
        ("nt", "nt11"),
        ("nq", "nquads"),
        ("ttl", "turtle"),
        ("trig", "trig"),
        ("rdf", "xml"),
        ("owl", "pretty-xml"),
        ("jsonld", "json-ld"),
    ],
)
@pytest.mark.filterwarnings("ignore:Dataset.* is deprecated:DeprecationWarning")  # rdflib warns of itself
@pytest.mark.parametrize("compress", [None, gzip.compress], ids=["plain", "gz"])
def test_every_syntax_of_rdf_says_the_same(
    tmp_path: Path, suffix: str, syntax: str, compress: Callable[[bytes], bytes] | None
) -> None:
    data = rdf(syntax)
    path = write(tmp_path / f"dump.{suffix}{'.gz' if compress else ''}", compress(data) if compress else data)
    kb = ingest(path)
    assert named(kb) == Counter(FACTS)
    assert kb.skipped == {"literal": 3}


def test_unnamed_blank_nodes_are_named_by_appearance_and_named_ones_keep_their_names(tmp_path: Path) -> None:
    text = "@prefix : <http://e.org/> . :a :p [ :q :b ] . _:x :p :a . :c :p [] ."
    kb = ingest(write(tmp_path / "dump.ttl", text))
    assert named(kb) == {
        (E + "a", E + "p", "_:anonymous-1"): 1,
        ("_:anonymous-1", E + "q", E + "b"): 1,
        ("_:x", E + "p", E + "a"): 1,
        (E + "c", E + "p", "_:anonymous-2"): 1,
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.ttl", "@prefix : <http://e.org/> .\n:a :p :b .\n:a :p .\n", ":3: . is not a valid RDF object: correct"),
        ("x.trig", "<http://e.org/a> <x:p> <relative> .", ":1: No scheme found in an absolute IRI: correct"),
        ("x.rdf", "<a><b></a>", ": XML namespaces are required in RDF/XML: correct"),
        ("x.jsonld", '{"@id": ', ":1: Unexpected end of file, a value was expected: correct"),
        ("x.ttl", "# nothing\n", ": the file is empty"),
    ],
)
def test_a_fault_in_rdf_names_the_place(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(RelsimError) as caught:
        ingest(path)
    assert str(caught.value).startswith(f"{path}{expected}")
    assert "\n" not in str(caught.value)


# the great dumps

WD, WDT = "http://www.wikidata.org/entity/", "http://www.wikidata.org/prop/direct/"


def nt(*rows: tuple[str, str, str]) -> str:
    return "".join(f"<{h}> <{r}> {t if t.startswith(chr(34)) else f'<{t}>'} .\n" for h, r, t in rows)


DUMPS = {
    "latest-truthy.nt.bz2": (
        nt(
            (WD + "Q42", WDT + "P27", WD + "Q145"),
            (WD + "Q42", WDT + "P31", WD + "Q5"),
            (WD + "Q42", WDT + "P569", '"1952-03-11"^^<http://www.w3.org/2001/XMLSchema#date>'),
            (WD + "Q42", "http://schema.org/description", '"British writer"@en'),
            (WD + "Q42", "http://www.wikidata.org/prop/direct-normalized/P214", "http://viaf.org/viaf/113230702"),
            (WD + "Q42", WDT + "P856", "http://douglasadams.com/"),
            (WD + "P27", WDT + "P1647", WD + "P31"),
        ),
        [("Q42", "P27", "Q145"), ("Q42", "P31", "Q5"), ("P27", "P1647", "P31")],
        {"literal": 2, "another property": 1, "not an entity": 1},
    ),
    "mappingbased-objects_lang=en.ttl.bz2": (
        "# started 2022-12-01\n"
        + nt(
            (
                "http://dbpedia.org/resource/Björk",
                "http://dbpedia.org/ontology/birthPlace",
                "http://dbpedia.org/resource/Reykjavík",
            ),
            ("http://dbpedia.org/resource/Björk", "http://dbpedia.org/property/name", "http://dbpedia.org/resource/X"),
            (
                "http://dbpedia.org/resource/Björk",
                "http://dbpedia.org/ontology/wikiPageExternalLink",
                "http://bjork.com/",
            ),
        ),
        [("Björk", "birthPlace", "Reykjavík")],
        {"another property": 1, "not an entity": 1},
    ),
    "freebase-rdf-latest.gz": (
        nt(
            (
                "http://rdf.freebase.com/ns/m.0282x",
                "http://rdf.freebase.com/ns/people.person.gender",
                "http://rdf.freebase.com/ns/m.05zppz",
            ),
            ("http://rdf.freebase.com/ns/m.0282x", "http://rdf.freebase.com/ns/type.object.name", '"Douglas Adams"@en'),
            (
                "http://rdf.freebase.com/ns/m.0282x",
                "http://rdf.freebase.com/ns/type.object.type",
                "http://rdf.freebase.com/ns/people.person",
            ),
            (
                "http://rdf.freebase.com/ns/g.1",
                "http://www.w3.org/1999/02/22-rdf-syntax-ns#type",
                "http://rdf.freebase.com/ns/m.1",
            ),
        )
        .replace("> <", ">\t<")
        .replace('> "', '>\t"')
        .replace(" .\n", "\t.\n"),
        [("m.0282x", "people.person.gender", "m.05zppz")],
        {"literal": 1, "not an entity": 1, "another property": 1},
    ),
}


@pytest.mark.parametrize("name", DUMPS)
def test_a_great_dump_is_recognised_and_read_as_entities_and_their_relations(tmp_path: Path, name: str) -> None:
    text, facts, skipped = DUMPS[name]
    compress = bz2.compress if name.endswith("bz2") else gzip.compress
    kb = ingest(write(tmp_path / name, compress(text.encode())))
    assert named(kb) == Counter(facts)
    assert kb.skipped == skipped
    assert set(kb.entities) == {name for h, _, t in facts for name in (h, t)}


def test_a_great_dump_can_be_read_whole(tmp_path: Path) -> None:
    kb = ingest(
        write(tmp_path / "latest-truthy.nt.bz2", bz2.compress(DUMPS["latest-truthy.nt.bz2"][0].encode())), format="nt"
    )
    assert kb.skipped == {"literal": 2}
    assert len(kb.train) == 5


def snak(value: Any, kind: str = "wikibase-entityid", datatype: str = "wikibase-item") -> dict[str, Any]:
    return {"snaktype": "value", "datatype": datatype, "datavalue": {"type": kind, "value": value}}


def test_wikidata_json_keeps_the_best_statements(tmp_path: Path) -> None:
    def statement(main: dict[str, Any], rank: str = "normal") -> dict[str, Any]:
        return {"mainsnak": main, "rank": rank}

    claims = {
        "P27": [statement(snak({"id": "Q145"})), statement(snak({"entity-type": "item", "numeric-id": 30}))],
        "P31": [statement(snak({"id": "Q1"})), statement(snak({"id": "Q5"}), "preferred")],
        "P26": [statement(snak({"id": "Q9"}), "deprecated"), statement({"snaktype": "novalue"})],
        "P569": [statement(snak({"time": "+1952"}, "time", "time"))],
        "P214": [statement(snak("113230702", "string", "external-id"))],
    }
    entities = [{"id": "Q42", "claims": claims}, {"id": "Q1", "claims": []}]
    text = "[\n" + ",\n".join(map(json.dumps, entities)) + "\n]\n"
    kb = ingest(write(tmp_path / "latest-all.json.gz", gzip.compress(text.encode())))
    assert named(kb) == Counter([("Q42", "P27", "Q145"), ("Q42", "P27", "Q30"), ("Q42", "P31", "Q5")])
    assert kb.skipped == {"no value": 1, "literal": 1, "external id": 1}


# KGTK, Parquet, Open IE


def test_kgtk_edges_in_any_order_of_columns(tmp_path: Path) -> None:
    rows = [
        "id\tnode2\tlabel\tnode1\trank",
        "e1\tQ145\tP27\tQ42\tnormal",
        "e2\t'Douglas Adams'@en\tlabel\tQ42\t",
        "e3\t^1952-03-11T00:00:00Z/11\tP569\tQ42\t",
        "e4\t+185cm\tP2048\tQ42\t",
        'e5\t"text"\tP1\tQ42\t',
        "e6\t@52.2/0.1\tP625\tQ42\t",
        "e7\tTrue\tP2\tQ42\t",
        "e8\tQ5\tP31\tQ42\t",
    ]
    kb = ingest(write(tmp_path / "edges.kgtk", "\n".join(rows) + "\n"))
    assert named(kb) == Counter([("Q42", "P27", "Q145"), ("Q42", "P31", "Q5")])
    assert kb.skipped == {"literal": 6}
    path = write(tmp_path / "edges.tsv", "\n".join(rows) + "\n")
    with pytest.raises(RelsimError, match=f"{path}:1: the heading is that of KGTK edges: pass --format kgtk"):
        ingest(path)
    assert named(ingest(path, format="kgtk")) == named(kb)
    path = write(tmp_path / "no.kgtk", "a\tb\tc\n")
    with pytest.raises(RelsimError, match=f"{path}:1: expected a heading with node1, label and node2"):
        ingest(path)


@pytest.mark.parametrize(
    ("names", "order", "columns"),
    [
        (("Object", "Subject", "Predicate"), "thr", "hrt"),
        (("node2", "node1", "label"), "thr", "hrt"),
        (("score", "a", "b", "c"), "-trh", "-trh"),
    ],
)
def test_parquet_columns_are_found_by_name_or_told(
    tmp_path: Path, names: tuple[str, ...], order: str, columns: str
) -> None:
    heads, relations, tails = zip(*FACTS, strict=True)
    roles = {"h": heads, "r": pa.array(relations).dictionary_encode(), "t": tails, "-": [0.5] * len(FACTS)}
    table = pa.table({name: roles[role] for name, role in zip(names, order, strict=True)})
    pq.write_table(table, tmp_path / "facts.parquet")
    assert named(ingest(tmp_path / "facts.parquet", columns=columns)) == Counter(FACTS)


def test_parquet_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), path)
    with pytest.raises(RelsimError, match=f"{path}: has the columns a, b: call three of them head, relation and tail"):
        ingest(path)
    pq.write_table(pa.table({"head": ["x", None], "relation": ["r", "r"], "tail": ["y", "z"]}), path)
    with pytest.raises(RelsimError, match=f"{path}:2: the head is empty: give it a name"):
        ingest(path)
    assert named(ingest(path, bad_lines=0.5)) == {("x", "r", "y"): 1}
    pq.write_table(pa.table({"head": [1], "relation": [2], "tail": [3]}), path)
    assert named(ingest(path)) == {("1", "2", "3"): 1}
    write(path, "head,relation,tail\n")
    with pytest.raises(RelsimError, match=f"{path}: .*is it a Parquet file"):
        ingest(path)


def test_open_ie_extractions_in_their_many_forms(tmp_path: Path) -> None:
    values: list[Any] = [
        {"subject": "Obama", "relation": "was born in", "object": "Hawaii", "confidence": 0.9},
        {"arg1": "Obama", "rel": "is", "arg2": "president"},
        {"arg1": "It", "rel": "rains", "arg2": ""},
        {"h": {"id": "Q1", "name": ["steven", "doane"]}, "r": {"name": ["professor", "of"]}, "t": {"name": ["cello"]}},
    ]
    text = "\n".join(map(json.dumps, values)) + "\n\n"
    kb = ingest(write(tmp_path / "extractions.jsonl", text))
    facts = [
        ("Obama", "was born in", "Hawaii"),
        ("Obama", "is", "president"),
        ("steven doane", "professor of", "cello"),
    ]
    assert named(kb) == Counter(facts)
    assert kb.skipped == {"no second argument": 1}
    whole = ingest(write(tmp_path / "extractions.json", json.dumps(values)), format="openie")
    assert named(whole) == named(kb)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "not JSON ("),
        (b'{"head": "a"}', "not the JSON that was expected ('none of relation, predicate, rel, r')"),
        (b'{"head": 3, "relation": "r", "tail": "b"}', "not the JSON that was expected (head is not a text)"),
        (b'"text"', "not the JSON that was expected ("),
        (b'{"head": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["cut", "keys", "number", "text", "utf-8", "deep"],
)
def test_a_bad_line_of_json_is_named(tmp_path: Path, line: bytes, fault: str) -> None:
    path = write(tmp_path / "x.jsonl", b'{"head": "a", "relation": "r", "tail": "b"}\n\n' + line + b"\n")
    with pytest.raises(RelsimError) as caught:
        ingest(path)
    assert str(caught.value).startswith(f"{path}:3: {fault}")


@pytest.mark.data
def test_the_extractions_of_the_combo_data_are_those_in_the_file(shared_data: Path) -> None:
    path = shared_data / "combo" / "revised.val.json"
    values = json.loads(path.read_text())
    expected = Counter(tuple(" ".join(v[key]["name"]) for key in "hrt") for v in values)
    kb = ingest(path, format="openie")
    assert len(values) == 3465
    assert named(kb) + Counter() == Counter({fact: n for fact, n in expected.items() if all(fact)})


# standard input, and what is recognised


@pytest.mark.parametrize("name", ["facts.tsv", "facts.csv", "facts.nt", "facts.ttl", "facts.parquet", "facts.jsonl"])
@pytest.mark.parametrize("compress", [None, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
def test_standard_input_is_read_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, compress: Callable[[bytes], bytes] | None
) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(("head", "relation", "tail"), zip(*FACTS, strict=True), strict=True))), path)
    else:
        keys = ("head", "relation", "tail")
        texts = {
            ".tsv": "".join("\t".join(fact) + "\n" for fact in FACTS),
            ".csv": "".join(",".join(fact) + "\n" for fact in FACTS),
            ".jsonl": "".join(json.dumps(dict(zip(keys, fact, strict=True))) + "\n" for fact in FACTS),
        }
        write(path, texts.get(path.suffix, nt(*FACTS)))
    known = recognise(path)
    assert known is not None
    data = path.read_bytes()
    stdin = io.TextIOWrapper(io.BytesIO(compress(data) if compress else data))
    monkeypatch.setattr(sys, "stdin", stdin)
    kb = ingest("-", format=known.name)
    assert named(kb) == named(ingest(path)) == Counter(FACTS)
    assert kb.source == "-"


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.nt", nt(*FACTS) * 20_000)  # more than a pipe holds
    script = "import sys; from relsim.ingest import ingest; print(ingest('-', format='nt').train.total)"
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=cat.stdout, capture_output=True, text=True, check=True
        )
    assert done.stdout == "80000\n"


def test_standard_input_without_a_format_is_refused() -> None:
    with pytest.raises(
        RelsimError, match="-: standard input has no name that tells its format: pass --format, one of tsv"
    ):
        ingest("-")


def test_every_format_has_a_name_of_its_own_and_recognises_no_other_file() -> None:
    assert len(FORMATS) == len({known.description for known in FORMATS.values()})
    for name, expected in {
        "a.tsv": "tsv",
        "a.txt.gz": "tsv",
        "a.nt.zst": "nt",
        "latest-truthy.nt.bz2": "wikidata",
        "latest-all.json.gz": "wikidata-json",
        "infobox_lang=de.ttl": "dbpedia",
        "a.ttl": "turtle",
        "freebase-rdf-latest.gz": "freebase",
        "a.ndjson": "openie",
    }.items():
        found = recognise(Path(name))
        assert found is not None
        assert found.name == expected
    assert recognise(Path("a.json")) is None
    assert all(known.name in FORMATS for known in FILES)
