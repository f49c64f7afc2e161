"""KBs that grow keep their numbers and their secrets; KBs side by side share their entities and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relsim import align, side_by_side, updated
from relsim.cli import main
from relsim.errors import RelsimError
from relsim.evolving import contains
from relsim.kb import KB, Triples
from relsim.similar import neighbours
from relsim.training import fit_counts

Fact = tuple[str, str, str]
OLD: list[Fact] = [("a", "r", "b"), ("a", "r", "b"), ("b", "s", "c")]
NEW: list[Fact] = [("a", "r", "b"), ("d", "r", "a"), ("c", "new", "d"), ("a", "s", "a"), ("a", "r", "e")]


def named(kb: KB, split: str = "train") -> Counter[Fact]:
    part = kb.splits[split]
    rows = zip(part.head, part.relation, part.tail, part.count, strict=True)
    return Counter({(kb.entities[h], kb.relations[r], kb.entities[t]): int(n) for h, r, t, n in rows})


@pytest.fixture
def kb() -> KB:
    return KB.from_names(OLD, valid=[("a", "s", "a")], test=[("a", "r", "e")])


def test_new_facts_are_added_and_held_out_ones_stay_held_out(kb: KB) -> None:
    grown, held_out = updated(kb, KB.from_names(NEW))
    assert held_out == 2
    assert named(grown) == Counter([*OLD, NEW[0], NEW[1], NEW[2]])
    assert named(grown, "valid") == named(kb, "valid")
    assert named(grown, "test") == named(kb, "test")
    assert list(grown.entities) == [*kb.entities, "d"]
    assert list(grown.relations) == ["r", "s", "new"]


def test_distinct_facts_do_not_grow_in_number_when_they_are_told_again(kb: KB) -> None:
    once, _ = updated(kb, KB.from_names(NEW), distinct=True)
    twice, _ = updated(once, KB.from_names(NEW), distinct=True)
    assert named(once) == named(twice) == Counter({OLD[0], OLD[2], NEW[1], NEW[2]})


def test_an_update_with_nothing_changes_nothing(kb: KB) -> None:
    same, held_out = updated(kb, KB([], [], {}))
    assert held_out == 0
    assert {split: named(same, split) for split in same.splits} == {split: named(kb, split) for split in kb.splits}


def test_aligned_kbs_agree_on_every_number() -> None:
    first, second = KB.from_names(OLD), KB.from_names(NEW)
    left, right = align(first, second)
    assert list(left.entities) == list(right.entities) == ["a", "b", "c", "d", "e"]
    assert list(left.relations) == list(right.relations) == ["r", "s", "new"]
    assert named(left) == named(first)
    assert named(right) == named(second)
    assert left.train.head.tolist() == first.train.head.tolist()


def test_relations_of_two_kbs_are_compared_over_the_entities_they_share() -> None:
    rng = np.random.default_rng(0)
    born = [(f"person {i}", f"city {rng.integers(5)}") for i in range(60)]
    likes = [(f"person {rng.integers(60)}", f"person {rng.integers(60)}") for _ in range(60)]
    ours = KB.from_names([(h, "born in", t) for h, t in born] + [(h, "likes", t) for h, t in likes])
    theirs = KB.from_names([(h, "P19", t) for h, t in born[:50]] + [(h, "P1", t) for t, h in likes])
    both = side_by_side(ours=ours, theirs=theirs)
    assert list(both.relations) == ["ours: born in", "ours: likes", "theirs: P19", "theirs: P1"]
    assert len(both.entities) == len(ours.entities)
    assert both.train.total == ours.train.total + theirs.train.total
    from relsim.estimators import Enumerate

    div = Enumerate().divergence(fit_counts(both), progress=False)
    assert neighbours(div, "ours: born in", 1)[0].name == "theirs: P19"


def test_nothing_side_by_side_is_refused() -> None:
    with pytest.raises(RelsimError, match="expected one KB or more"):
        side_by_side()


ROW = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2**62))


@given(facts=st.lists(ROW, max_size=8), candidates=st.lists(ROW, max_size=8))
def test_contains_is_membership(facts: list[tuple[int, int, int]], candidates: list[tuple[int, int, int]]) -> None:
    def triples(rows: list[tuple[int, int, int]]) -> Triples:
        return Triples(*np.array(rows, np.int64).reshape(-1, 3).T, np.ones(len(rows), np.int64))

    assert contains(triples(facts), triples(candidates)).tolist() == [row in facts for row in candidates]


def test_the_command_updates_a_folder_in_place(kb: KB, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kb.save(tmp_path / "kb")
    (tmp_path / "new.tsv").write_text("".join("\t".join(fact) + "\n" for fact in NEW))
    assert main(["update", str(tmp_path / "kb"), str(tmp_path / "new.tsv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "kb": str(tmp_path / "kb"),
        "entities": 5,
        "relations": 3,
        "facts": {"train": 4, "valid": 1, "test": 1},
        "new": 2,
        "held_out": 2,
    }
    expected, _ = updated(kb, KB.from_names(NEW))
    assert named(KB.load(tmp_path / "kb")) == named(expected)


def test_what_is_no_kb_is_not_updated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.tsv").write_text("a\tr\tb\n")
    assert main(["update", str(tmp_path / "new.tsv"), str(tmp_path / "new.tsv")]) == 2
    assert "new.tsv: is a file, not a KB" in capsys.readouterr().err
