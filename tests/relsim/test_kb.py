"""The KB keeps every fact, every count and every name, in memory, on disk and as a graph."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relsim.errors import RelsimError
from relsim.kb import KB, MANIFEST, Triples

Fact = tuple[str, str, str]

FACTS: list[Fact] = [("b", "likes", "a"), ("a", "likes", "b"), ("b", "likes", "a"), ("c", "owns", "c")]
ROW = st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 5), st.integers(1, 4))
LARGE = st.tuples(*[st.sampled_from([0, 1, 2**20, 2**40, 2**62])] * 3, st.just(1))


def rows(triples: Triples) -> list[tuple[int, ...]]:
    columns = (triples.head, triples.relation, triples.tail, triples.count)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def named(kb: KB, split: str = "train") -> Counter[Fact]:
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): n for h, r, t, n in rows(kb.splits[split])})


def same(left: KB, right: KB) -> bool:
    return (
        list(left.entities) == list(right.entities)
        and list(left.relations) == list(right.relations)
        and {name: rows(part) for name, part in left.splits.items()}
        == {name: rows(part) for name, part in right.splits.items()}
        and (left.source, dict(left.skipped)) == (right.source, dict(right.skipped))
    )


@pytest.fixture
def kb() -> KB:
    base = KB.from_names(FACTS, "by hand", valid=[("a", "owns", "d")], test=[("a", "likes", "b")])
    return KB(base.entities, base.relations, base.splits, base.source, {"literal": 3})


# facts with counts


@given(st.lists(st.one_of(ROW, LARGE), max_size=40))
def test_equal_facts_merge_and_their_counts_add(facts: list[tuple[int, int, int, int]]) -> None:
    expected: Counter[tuple[int, int, int]] = Counter()
    for h, r, t, n in facts:
        expected[h, r, t] += n
    merged = Triples.from_columns(*np.array(facts, np.int64).reshape(-1, 4).T)
    assert rows(merged) == sorted(
        ((*fact, n) for fact, n in expected.items()), key=lambda row: (row[1], row[0], row[2])
    )
    assert merged.total == sum(n for *_, n in facts)


@given(st.lists(ROW, max_size=20), st.lists(ROW, max_size=20))
def test_concat_is_merging_all_rows(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> None:
    def triples(facts: list[tuple[int, ...]]) -> Triples:
        return Triples.from_columns(*np.array(facts, np.int64).reshape(-1, 4).T)

    assert rows(Triples.concat([triples(first), triples(second)])) == rows(triples(first + second))


def test_concat_of_nothing_is_empty() -> None:
    assert len(Triples.concat([])) == 0


def test_counts_default_to_one_each() -> None:
    assert rows(Triples.from_columns([1, 0, 1], [0, 0, 0], [2, 2, 2])) == [(0, 0, 2, 1), (1, 0, 2, 2)]


def test_take_selects_facts_with_their_counts() -> None:
    facts = Triples.from_columns([0, 1, 2], [0, 0, 0], [5, 6, 7], [1, 2, 3])
    assert rows(facts.take(np.array([2, 0]))) == [(2, 0, 7, 3), (0, 0, 5, 1)]
    assert rows(facts.take(facts.count > 1)) == [(1, 0, 6, 2), (2, 0, 7, 3)]


# names and splits


def test_names_are_numbered_by_first_appearance() -> None:
    kb = KB.from_names(FACTS, valid=[("z", "new", "a")])
    assert list(kb.entities) == ["b", "a", "c", "z"]
    assert list(kb.relations) == ["likes", "owns", "new"]
    assert named(kb) == Counter(FACTS)
    assert named(kb, "valid") == {("z", "new", "a"): 1}


def test_facts_join_the_splits_and_support_counts_distinct_facts(kb: KB) -> None:
    a, b = kb.entity_id("a"), kb.entity_id("b")
    likes = kb.relation_id("likes")
    assert (a, likes, b, 2) in rows(kb.facts)  # once in train, once in test
    assert kb.facts.total == 6
    assert kb.support.tolist() == [2, 2]


def test_absent_splits_are_empty() -> None:
    kb = KB.from_names(FACTS)
    assert len(kb.valid) == len(kb.test) == 0
    assert list(kb.splits) == ["train"]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="expected splits among"):
        KB.from_names(FACTS, dev=FACTS)


@pytest.mark.parametrize("kind", ["entity", "relation"])
def test_an_unknown_name_suggests_the_nearest(kind: str) -> None:
    kb = KB.from_names([("Germany", "capital of", "Berlin"), ("France", "born in", "Paris")])
    wrong, nearest = {"entity": ("germny", "'Germany'"), "relation": ("capitol of", "'capital of'")}[kind]
    with pytest.raises(RelsimError, match=f"unknown {kind} '{wrong}': did you mean {nearest}"):
        getattr(kb, f"{kind}_id")(wrong)
    with pytest.raises(RelsimError, match="`relsim stats` lists the"):
        getattr(kb, f"{kind}_id")("zzzzzz")


def test_the_nearest_of_many_names_is_found_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    kb = KB.from_names((f"place {i}", "near", f"person {i * 7919 % 99991}") for i in range(50_000))
    compared = []
    nearest = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda w, names, **k: compared.append(len(names)) or nearest(w, names, **k)
    )
    with pytest.raises(RelsimError, match="unknown entity 'Plaace 31415': did you mean 'place 31415'"):
        kb.entity_id("Plaace 31415")
    assert compared[0] <= 1000


def test_facts_of_one_split_are_sorted_even_where_the_split_is_not() -> None:
    apart = Triples(*(np.array(column) for column in ([0, 1, 0], [1, 0, 1], [1, 0, 1], [1, 2, 3])))
    assert rows(KB(["a", "b"], ["r", "s"], {"train": apart}).facts) == [(1, 0, 0, 2), (0, 1, 1, 4)]


def test_repr_says_the_sizes(kb: KB) -> None:
    assert repr(kb) == "KB(entities=4, relations=2, train=3, valid=1, test=1)"


def test_validation_facts_are_held_out_once_and_reproducibly() -> None:
    kb = KB.from_names([(f"e{i}", "r", f"e{i + 1}") for i in range(500)])
    held_out = kb.with_validation(0.2, seed=1)
    assert 50 < len(held_out.valid) < 150
    assert rows(Triples.concat([held_out.train, held_out.valid])) == rows(kb.train)
    assert rows(kb.with_validation(0.2, seed=1).valid) == rows(held_out.valid)
    assert rows(kb.with_validation(0.2, seed=2).valid) != rows(held_out.valid)


def test_a_kb_with_validation_facts_stays_as_it_is(kb: KB) -> None:
    assert kb.with_validation() is kb


# on disk

NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SPLIT = st.lists(st.tuples(NAME, NAME, NAME), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=SPLIT, test=st.none() | SPLIT, source=NAME, skipped=st.dictionaries(NAME, st.integers(0), max_size=2))
def test_any_kb_survives_save_and_load(
    tmp_path: Path, train: list[Fact], test: list[Fact] | None, source: str, skipped: dict[str, int]
) -> None:
    base = KB.from_names(train, source, **({} if test is None else {"test": test}))
    kb = KB(base.entities, base.relations, base.splits, base.source, skipped)
    kb.save(tmp_path / "kb")
    assert same(KB.load(tmp_path / "kb"), kb)


def test_a_kb_without_splits_survives_save_and_load(tmp_path: Path) -> None:
    KB(["a"], ["r"], {}).save(tmp_path / "kb")
    assert KB.load(tmp_path / "kb").splits == {}


def test_a_loaded_kb_is_int64_and_sorted_as_before(tmp_path: Path, kb: KB) -> None:
    kb.save(tmp_path / "kb")
    train = KB.load(tmp_path / "kb").train
    assert {getattr(train, name).dtype for name in ("head", "relation", "tail", "count")} == {np.dtype(np.int64)}


def test_saving_again_replaces_the_kb(tmp_path: Path, kb: KB) -> None:
    kb.save(tmp_path / "kb")
    other = KB.from_names([("x", "y", "z")])
    other.save(tmp_path / "kb")
    assert same(KB.load(tmp_path / "kb"), other)
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


@pytest.mark.parametrize("file", ["entities", "relations", "triples"])
@pytest.mark.parametrize("damage", ["removed", "cut", "flipped"])
def test_a_damaged_file_is_named(tmp_path: Path, kb: KB, file: str, damage: str) -> None:
    kb.save(tmp_path / "kb")
    path = tmp_path / "kb" / f"{file}.parquet"
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if damage == "cut" else data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(RelsimError) as caught:
        KB.load(tmp_path / "kb")
    assert str(caught.value) == f"{path}: missing, or not as its manifest says: run `relsim ingest` again"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "relsim-model"}, "not a KB folder"),
        ({"format": 99}, "KB format 99, this version reads 1: ingest again"),
        ({"sha256": {}}, "not as its manifest says"),
    ],
)
def test_a_manifest_of_something_else_is_refused(
    tmp_path: Path, kb: KB, change: dict[str, object], expected: str
) -> None:
    kb.save(tmp_path / "kb")
    path = tmp_path / "kb" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RelsimError, match=expected):
        KB.load(tmp_path / "kb")


@pytest.mark.parametrize("content", ["", "{", "[]", "\udce9"])
def test_a_manifest_that_is_no_json_object_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RelsimError, match="damaged"):
        KB.load(tmp_path)


@pytest.mark.parametrize("field", ["sha256", "splits", "source", "skipped"])
def test_a_manifest_that_lacks_a_field_is_damaged(tmp_path: Path, kb: KB, field: str) -> None:
    kb.save(tmp_path / "kb")
    path = tmp_path / "kb" / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest[field]
    path.write_text(json.dumps(manifest))
    with pytest.raises(RelsimError, match=rf"{MANIFEST}: damaged \(no {field}\): run `relsim ingest` again"):
        KB.load(tmp_path / "kb")


def test_a_folder_without_a_manifest_is_no_kb(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=f"not a KB folder, it has no {MANIFEST}"):
        KB.load(tmp_path)


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, kb: KB) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RelsimError, match="so it is not overwritten"):
        kb.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# graphs


def test_a_graph_holds_every_fact_with_split_and_count(kb: KB) -> None:
    graph = kb.to_networkx()
    assert set(graph.nodes) == {"a", "b", "c", "d"}
    edges = Counter((h, t, d["relation"], d["split"], d["count"]) for h, t, d in graph.edges(data=True))
    assert edges == Counter(
        [
            ("b", "a", "likes", "train", 2),
            ("a", "b", "likes", "train", 1),
            ("c", "c", "owns", "train", 1),
            ("a", "d", "owns", "valid", 1),
            ("a", "b", "likes", "test", 1),
        ]
    )


def test_a_graph_of_distinct_facts_comes_back() -> None:
    facts = [("a", "r", "b"), ("a", "s", "b"), ("b", "r", "b")]
    assert named(KB.from_networkx(KB.from_names(facts).to_networkx())) == Counter(facts)


def test_relations_may_be_the_keys_of_a_multigraph() -> None:
    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
    graph.add_edge(1, 2, key="likes")
    graph.add_edge(1, 2, key="owns")
    graph.add_edge(2, 3, key="ignored", relation="made")
    facts = [("1", "likes", "2"), ("1", "owns", "2"), ("2", "made", "3")]
    assert named(KB.from_networkx(graph)) == Counter(facts)


def test_the_attribute_of_a_plain_graph_is_named() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_edge("a", "b", kind="r")
    assert named(KB.from_networkx(graph, relation="kind")) == {("a", "r", "b"): 1}


@pytest.mark.parametrize("graph", [nx.DiGraph([("a", "b")]), nx.MultiGraph([("a", "b")])])
def test_an_edge_without_a_relation_is_refused(graph: nx.Graph[str]) -> None:
    with pytest.raises(RelsimError, match="edge 'a' -> 'b' has no attribute 'relation'"):
        KB.from_networkx(graph)
