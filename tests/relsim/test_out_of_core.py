"""Names numbered, facts merged and chosen in pieces are what they are when done at once, in plain Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim import gathering, merging, numbering, spool
from relsim.errors import RelsimError
from relsim.formats import lines as line_blocks
from relsim.ingest import Dump, ingest, ingest_into
from relsim.kb import KB, SPLITS
from relsim.merging import Facts, merged
from relsim.names import Names
from relsim.numbering import Numbering
from relsim.selecting import Choice
from relsim.spool import Scratch, Spool

Fact = tuple[str, str, str]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, parts and spools so small that every path to disk is taken."""
    monkeypatch.setattr(line_blocks, "BLOCK", 300)
    monkeypatch.setattr(numbering, "PART", 200)
    monkeypatch.setattr(merging, "PART", 50)
    monkeypatch.setattr(merging, "_BLOCK", 7)
    monkeypatch.setattr(merging, "_SAMPLE", 3)
    monkeypatch.setattr(spool, "BUDGET", 500)


def random_facts(count: int, seed: int = 0) -> list[Fact]:
    rng = random.Random(seed)
    return [
        (f"entity {rng.randrange(40)}", f"r{rng.randrange(6)}", f"{'long ' * rng.randrange(4)}name {rng.randrange(25)}")
        for _ in range(count)
    ]


def write(path: Path, facts: list[Fact]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(fact) + "\n" for fact in facts), encoding="utf-8")
    return path


def named(kb: KB, split: str = "train") -> Counter[Fact]:
    part = kb.splits[split]
    rows = zip(part.head, part.relation, part.tail, part.count, strict=True)
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): int(n) for h, r, t, n in rows})


def same(kb: KB, other: KB) -> None:
    assert list(kb.entities) == list(other.entities)
    assert list(kb.relations) == list(other.relations)
    assert list(kb.splits) == list(other.splits)
    for name, part in kb.splits.items():
        for column in ("head", "relation", "tail", "count"):
            np.testing.assert_array_equal(getattr(part, column), getattr(other.splits[name], column))


# the whole


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("count", [1, 49, 50, 51, 700])
def test_a_dump_read_in_pieces_is_the_kb_of_its_facts(tmp_path: Path, count: int) -> None:
    splits = {"train": random_facts(count), "valid": random_facts(9, 1), "test": random_facts(60, 2)}
    for split, facts in splits.items():
        write(tmp_path / "dump" / f"{split}.tsv", facts)
    expected = KB.from_names(splits["train"], valid=splits["valid"], test=splits["test"])
    same(ingest(tmp_path / "dump"), expected)
    told = ingest_into(tmp_path / "kb", tmp_path / "dump")
    same(KB.load(tmp_path / "kb"), expected)
    assert told["facts"] == {name: len(part) for name, part in expected.splits.items()}
    assert told["duplicates"] == {name: part.total - len(part) for name, part in expected.splits.items()}
    assert (told["entities"], told["relations"]) == (len(expected.entities), len(expected.relations))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "kb"]
    assert sorted(path.name for path in (tmp_path / "kb").iterdir()) == [
        "entities.parquet",
        "manifest.json",
        "relations.parquet",
        "triples.parquet",
    ]


@pytest.mark.usefixtures("tiny")
def test_a_kb_that_cannot_be_told_by_one_number_is_merged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "facts.tsv", random_facts(400))
    expected = ingest(path)
    monkeypatch.setattr(gathering, "Facts", lambda *parts: Facts(*parts)._replace(relations=2**62))
    same(ingest(path), expected)


# names


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(st.lists(NAME, min_size=1, max_size=12), max_size=8), part=st.sampled_from([1, 30, 1 << 20]))
def test_names_are_numbered_by_first_appearance(runs: list[list[str]], part: int) -> None:
    before = numbering.PART
    numbering.PART = part
    try:
        with Scratch() as scratch:
            found = Numbering(scratch)
            for run in runs:
                found.add(pa.array(run, pa.string()))
            first = found.first_places()
            flat = [name for run in runs for name in run]
            assert first.tolist() == [flat.index(name) for name in flat]
            mask = first == np.arange(len(first))
            assert [name for names in found.names(mask) for name in names.to_pylist()] == list(dict.fromkeys(flat))
    finally:
        numbering.PART = before


def test_equal_names_go_to_the_same_part_whatever_stands_around_them() -> None:
    names = ["a", "x" * 7, "b" * 8, "c" * 15, "d" * 16, "e" * 17, "é", "name 1", "name 2"]
    rng = random.Random(0)
    seen: dict[str, int] = {}
    for _ in range(50):
        mixed = rng.sample(names, len(names))
        array = pa.array(["filler", *mixed])[1:]  # an offset into a longer buffer
        for name, part in zip(mixed, numbering._part(array, 7).tolist(), strict=True):
            assert seen.setdefault(name, part) == part
    assert len(set(seen.values())) > 2


def test_parts_are_about_equally_full() -> None:
    names = pa.array([f"http://www.wikidata.org/entity/Q{i}" for i in range(20_000)])
    sizes = np.bincount(numbering._part(names, 16), minlength=16)
    assert sizes.min() > 20_000 / 16 / 1.3
    assert sizes.max() < 20_000 / 16 * 1.3


def test_names_are_a_sequence_of_strings() -> None:
    names = Names(pa.chunked_array([["a", "b"], [], ["東京"]]))
    assert (len(names), names[0], names[-1], list(names)) == (3, "a", "東京", ["a", "b", "東京"])
    assert names == ["a", "b", "東京"]
    assert names != ["a", "b"]
    assert list(names[1:]) == ["b", "東京"]
    assert repr(names) == "Names(['a', 'b', '東京'], 3)"
    with pytest.raises(IndexError):
        names[3]


# facts


ROW = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.lists(ROW, min_size=1, max_size=30), min_size=1, max_size=5), part=st.sampled_from([1, 10, 999])
)
def test_blocks_are_sorted_throughout_and_merge_every_fact(chunks: list[list[tuple[int, int, int]]], part: int) -> None:
    def columns(step: int) -> Iterator[merging.Columns]:
        for chunk in chunks:
            head, relation, tail = np.array(chunk, np.int64)[::step].T
            yield head, relation, tail

    rows = [row for chunk in chunks for row in chunk]
    before = merging.PART
    merging.PART = part
    try:
        with Scratch() as scratch:
            found = [
                (int(r), int(h), int(t), int(n))
                for block in merged(Facts(columns, len(rows), 10, 4), scratch)
                for h, r, t, n in zip(block.head, block.relation, block.tail, block.count, strict=True)
            ]
    finally:
        merging.PART = before
    assert found == sorted((r, h, t, n) for (h, r, t), n in Counter(rows).items())


def test_a_spool_gives_back_what_it_took_as_often_as_asked(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        for budget in (0, 1 << 20):
            taken = Spool(scratch, budget)
            for i in range(5):
                taken.append(x=pa.array([i, i + 1]))
            for _ in range(2):
                assert [batch["x"].to_pylist() for batch in taken] == [[i, i + 1] for i in range(5)]
            assert taken.rows == 10
            assert bool(list(tmp_path.rglob("*.arrow"))) == (budget == 0)
            taken.drop()
            assert not list(tmp_path.rglob("*.arrow"))
    assert list(tmp_path.iterdir()) == []


# the choice


def chosen(facts: list[Fact], choice: Choice) -> Counter[Fact]:
    """What `choice` keeps, written from its description."""
    kept = [f for f in facts if not choice.predicates or any(fnmatchcase(f[1], p) for p in choice.predicates)]
    distinct = dict.fromkeys(kept)
    if choice.max_entities is not None:
        degree = Counter({name: 0 for h, _, t in kept for name in (h, t)})
        for h, _, t in distinct:
            degree.update([h, t])
        frequent = set(sorted(degree, key=lambda name: -degree[name])[: choice.max_entities])  # ties by appearance
        distinct = dict.fromkeys(f for f in distinct if f[0] in frequent and f[2] in frequent)
    support = Counter(r for _, r, _ in distinct)
    return Counter(f for f in kept if f in distinct and support[f[1]] >= choice.min_triples)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "choice",
    [
        Choice(("r[13]",)),
        Choice(("r1", "r2", "nothing*")),
        Choice(max_entities=80),
        Choice(min_triples=100),
        Choice(("r[0-4]",), max_entities=80, min_triples=40),
    ],
    ids=str,
)
def test_a_choice_keeps_what_it_says_in_the_old_order(tmp_path: Path, choice: Choice) -> None:
    facts = random_facts(600)
    path = write(tmp_path / "facts.tsv", facts)
    expected = chosen(facts, choice)
    assert 0 < len(expected) < len(set(facts))
    kb = ingest(path, choice=choice)
    assert named(kb) == expected
    order = list(dict.fromkeys(name for h, r, t in facts if choice_admits(choice, r) for name in (h, t)))
    used = {name for h, _, t in expected for name in (h, t)}
    assert list(kb.entities) == [name for name in order if name in used]
    assert sum(kb.skipped.values()) == len(facts) - expected.total()
    ingest_into(tmp_path / "kb", Dump(path, choice=choice))
    same(KB.load(tmp_path / "kb"), kb)


def choice_admits(choice: Choice, relation: str) -> bool:
    return not choice.predicates or any(fnmatchcase(relation, pattern) for pattern in choice.predicates)


def test_a_choice_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.tsv", random_facts(50))
    for choice, skipped in (
        (Choice(("x*",)), "50 another predicate"),
        (Choice(min_triples=99), "50 not among the chosen"),
    ):
        with pytest.raises(RelsimError, match=f"holds no training facts .skipped: {skipped}"):
            ingest_into(tmp_path / "kb", Dump(path, choice=choice))
    assert [path.name for path in tmp_path.iterdir()] == ["facts.tsv"]


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(RelsimError, match="max_entities 0: expected 1 or more"):
        Choice(max_entities=0)


def test_distinct_counts_each_fact_once(tmp_path: Path) -> None:
    facts = random_facts(300)
    kb = ingest(write(tmp_path / "facts.tsv", facts), distinct=True)
    assert named(kb) == Counter(set(facts))


def test_splits_come_in_their_order(tmp_path: Path) -> None:
    for split in reversed(SPLITS):
        write(tmp_path / f"{split}.tsv", random_facts(20, SPLITS.index(split)))
    assert list(ingest(tmp_path).splits) == list(SPLITS)


# labels


def test_labels_name_what_they_can(tmp_path: Path) -> None:
    facts = [("Q42", "P27", "Q145"), ("Q1", "P27", "Q145"), ("Q42", "P1", "Q7")]
    path = write(tmp_path / "facts.tsv", facts)
    rows = (
        "id\tlabel\nQ42\tDouglas Adams\nP27\t'citizen of'@en\nQ99\tnot here\nQ42\ta second label\nQ1\tDouglas Adams\n"
    )
    (tmp_path / "labels.tsv").write_text(rows)
    kb = ingest(path, labels=tmp_path / "labels.tsv")
    assert list(kb.entities) == ["Douglas Adams (Q42)", "Q145", "Douglas Adams (Q1)", "Q7"]
    assert list(kb.relations) == ["citizen of (P27)", "P1"]
    ingest_into(tmp_path / "kb", Dump(path, labels=tmp_path / "labels.tsv", choice=Choice(min_triples=2)))
    assert list(KB.load(tmp_path / "kb").entities) == ["Douglas Adams (Q42)", "Q145", "Douglas Adams (Q1)"]


@pytest.mark.usefixtures("tiny")
def test_labels_in_pieces_are_the_same_labels(tmp_path: Path) -> None:
    facts = random_facts(400)
    names = sorted({name for fact in facts for name in fact})
    path = write(tmp_path / "facts.tsv", facts)
    (tmp_path / "labels.tsv").write_text("".join(f"{name}\tlabel {i}\n" for i, name in enumerate(names) if i % 3))
    plain, labelled = ingest(path), ingest(path, labels=tmp_path / "labels.tsv")
    for before, after in zip(
        [*plain.entities, *plain.relations], [*labelled.entities, *labelled.relations], strict=True
    ):
        i = names.index(before)
        assert after == (f"label {i} ({before})" if i % 3 else before)
    same(labelled, KB(labelled.entities, labelled.relations, plain.splits))


def test_a_bad_row_of_labels_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.tsv", [("a", "r", "b")])
    (tmp_path / "labels.tsv").write_text("a\tA\nb\n")
    with pytest.raises(RelsimError, match=r"labels.tsv:2: expected a name and its label, separated by a tab, got 1"):
        ingest(path, labels=tmp_path / "labels.tsv")
