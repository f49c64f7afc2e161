"""What is asked of a divergence matrix, what is said of it, and what a KB is said to hold."""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.kb import KB
from relsim.similar import (
    nearest_pairs,
    neighbours,
    pair_record,
    render_neighbours,
    render_pairs,
    save_comparison,
    similarity,
    symmetric_kl,
    write_pairs,
)
from relsim.stats import describe, render
from relsim.terminal import NAME_WIDTH, shown, table, with_error

ODD_NAMES = ["plain", "tab\there", 'quote " and, comma', "break\nhere", "東京 😀", "‮right to left", "x" * 100, "  "]


def made_up(size: int = 8, seed: int = 0, names: list[str] | None = None) -> Divergence:
    rng = np.random.default_rng(seed)
    head, tail = rng.gamma(1.0, 2.0, (2, size, size))
    stderr = rng.random((size, size))
    for part in (head, tail, stderr):
        np.fill_diagonal(part, 0.0)
    support = rng.integers(1, 1000, size)
    meta = {"estimator": "made up", "seed": seed}
    return Divergence(names or [f"r{i}" for i in range(size)], head + tail, stderr, head, tail, support, meta)


# questions


def test_similarity_is_the_papers_formula_entry_by_entry() -> None:
    div = made_up()
    for a in range(8):
        for b in range(8):
            larger = max(div.kl[a][b], div.kl[b][a])
            assert symmetric_kl(div)[a, b] == larger
            assert similarity(div)[a, b] == pytest.approx(math.exp(-larger), rel=1e-14)


def test_similarity_is_symmetric_and_one_on_the_diagonal() -> None:
    found = similarity(made_up(seed=1))
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1.0)
    assert ((0 < found) & (found <= 1)).all()


def test_similarity_stays_within_one_where_rounding_made_kl_negative() -> None:
    kl = np.array([[0.0, -3e-7], [-2e-7, 0.0]])
    div = Divergence(["a", "b"], kl, *np.zeros((3, 2, 2)), np.ones(2, np.int64))
    assert similarity(div).max() == 1.0
    assert neighbours(div, "a")[0].similarity == 1.0
    assert pair_record(div, 0, 1)["similarity"] == 1.0
    assert render_pairs(div, [(0, 1)]).splitlines()[1].startswith("1.000")


def test_relations_that_exclude_each_other_have_similarity_zero() -> None:
    kl = np.array([[0.0, np.inf], [1.0, 0.0]])
    div = Divergence(["a", "b"], kl, *np.zeros((3, 2, 2)), np.ones(2, np.int64))
    assert similarity(div)[0, 1] == 0.0
    assert render_pairs(div, [(0, 1)]).splitlines()[1].split() == ["0.000", "inf", "1.00", "1", "1", "a", "b"]


@pytest.mark.parametrize("k", [0, 1, 3, 7, 100])
def test_neighbours_are_the_nearest_in_order_without_the_relation_itself(k: int) -> None:
    div = made_up(seed=2)
    for row, name in enumerate(div.relations):
        distance = {other: max(div.kl[row, j], div.kl[j, row]) for j, other in enumerate(div.relations) if j != row}
        found = neighbours(div, name, k)
        assert [n.name for n in found] == sorted(distance, key=distance.__getitem__)[:k]
        for n in found:
            j = div.index(n.name)
            assert n.similarity == pytest.approx(math.exp(-distance[n.name]), rel=1e-14)
            assert (n.kl_from, n.kl_from_stderr) == (div.kl[row, j], div.stderr[row, j])
            assert (n.kl_to, n.kl_to_stderr) == (div.kl[j, row], div.stderr[j, row])


def test_equally_near_neighbours_keep_the_order_of_the_relations() -> None:
    kl = np.ones((5, 5)) - np.eye(5)
    div = Divergence(list("abcde"), kl, *np.zeros((3, 5, 5)), np.ones(5, np.int64))
    assert [n.name for n in neighbours(div, "c")] == ["a", "b", "d", "e"]
    assert nearest_pairs(div) == [(a, b) for a in range(5) for b in range(a + 1, 5)]


@pytest.mark.parametrize("k", [None, 0, 1, 5, 1000])
def test_nearest_pairs_are_all_pairs_once_nearest_first(k: int | None) -> None:
    div = made_up(seed=3)
    distance = {(a, b): max(div.kl[a, b], div.kl[b, a]) for a in range(8) for b in range(a + 1, 8)}
    assert nearest_pairs(div, k) == sorted(distance, key=distance.__getitem__)[:k]


def test_a_single_relation_has_neither_neighbours_nor_pairs() -> None:
    div = made_up(1)
    assert neighbours(div, "r0") == []
    assert nearest_pairs(div) == []
    assert render_neighbours([]) == "S  KL from  KL to  relation"
    assert render_pairs(div, []) == "S  KL(a||b)  KL(b||a)  facts a  facts b  a  b"


def test_results_are_plain_json_values() -> None:
    div = made_up()
    records = [n._asdict() for n in neighbours(div, "r0")] + [pair_record(div, 0, 1)]
    assert json.loads(json.dumps(records)) == records


@pytest.mark.parametrize("name", ["R3", "r33", "r"])
def test_an_unknown_relation_suggests_the_nearest(name: str) -> None:
    with pytest.raises(RelsimError, match=rf"^unknown relation '{name}': did you mean '"):
        neighbours(made_up(), name)


def test_an_unknown_relation_like_no_other_says_where_to_look() -> None:
    with pytest.raises(RelsimError, match=r"^unknown relation 'zzzz': `relsim stats` lists the relations$"):
        neighbours(made_up(), "zzzz")


# the table of all pairs


def test_the_table_of_pairs_reads_back_with_names_as_they_are(tmp_path: Path) -> None:
    div = made_up(names=ODD_NAMES)
    write_pairs(div, tmp_path / "pairs.tsv")
    with (tmp_path / "pairs.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, dialect="excel-tab"))
    pairs = nearest_pairs(div)
    assert len(rows) == len(pairs)
    for row, (a, b) in zip(rows, pairs, strict=True):
        expected = {
            "a": div.relations[a],
            "b": div.relations[b],
            "similarity": math.exp(-max(div.kl[a, b], div.kl[b, a])),
            **{f"{x}_ab": getattr(div, y)[a, b] for x, y in PARTS},
            **{f"{x}_ba": getattr(div, y)[b, a] for x, y in PARTS},
            "support_a": div.support[a],
            "support_b": div.support[b],
        }
        assert set(row) == set(expected)
        for key, value in expected.items():
            if isinstance(value, str):
                assert row[key] == value
            else:
                assert float(row[key]) == pytest.approx(value, rel=1e-5)


PARTS = (("kl", "kl"), ("stderr", "stderr"), ("head", "head"), ("tail", "tail"))


def test_a_comparison_and_its_table_are_written_together(tmp_path: Path) -> None:
    path = tmp_path / "comparison"
    for seed in (0, 1):  # anew, and over the old one
        save_comparison(made_up(seed=seed), path)
        assert sorted(file.name for file in path.iterdir()) == [
            "divergence.json",
            "divergence.safetensors",
            "pairs.tsv",
        ]
        np.testing.assert_array_equal(Divergence.load(path).kl, made_up(seed=seed).kl)
        assert [file.name for file in tmp_path.iterdir()] == ["comparison"]
    write_pairs(made_up(seed=1), tmp_path / "pairs.tsv")
    assert (path / "pairs.tsv").read_bytes() == (tmp_path / "pairs.tsv").read_bytes()


def test_a_table_that_fails_takes_the_comparison_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "comparison"
    save_comparison(made_up(seed=0), path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("relsim.similar.write_pairs", full)
    with pytest.raises(RelsimError, match=f"^{path}: cannot be written .No space left on device.: nothing was changed"):
        save_comparison(made_up(seed=1), path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["comparison"]


def test_a_fault_inside_names_the_place_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("relsim.divergence.save_file", full)
    with pytest.raises(RelsimError, match=f"^{tmp_path / 'comparison'}: cannot be written"):
        save_comparison(made_up(), tmp_path / "comparison")
    assert list(tmp_path.iterdir()) == []


# the result on disk


def test_a_divergence_comes_back_as_it_was(tmp_path: Path) -> None:
    div = made_up(names=ODD_NAMES)
    div.save(tmp_path / "x")
    back = Divergence.load(tmp_path / "x")
    assert list(back.relations) == ODD_NAMES
    assert back.meta == div.meta
    for name in ("kl", "stderr", "head", "tail", "support"):
        np.testing.assert_array_equal(getattr(back, name), getattr(div, name))
        assert getattr(back, name).dtype == getattr(div, name).dtype
    np.testing.assert_array_equal(back.kl, back.head + back.tail)


def test_a_selection_of_rows_and_columns_is_saved_as_it_looks(tmp_path: Path) -> None:
    div = made_up()
    part = slice(None, None, 2)
    views = [getattr(div, name)[part, part].T for name in ("kl", "stderr", "head", "tail")]
    few = Divergence(div.relations[part], *views, div.support[part])
    few.save(tmp_path / "x")
    np.testing.assert_array_equal(Divergence.load(tmp_path / "x").kl, div.kl[::2, ::2].T)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["divergence.json", "divergence.safetensors"])
def test_a_truncated_divergence_is_one_line(tmp_path: Path, name: str, share: float) -> None:
    made_up().save(tmp_path / "x")
    content = (tmp_path / "x" / name).read_bytes()
    (tmp_path / "x" / name).write_bytes(content[: int(len(content) * share)])
    assert_damaged(tmp_path / "x")


def assert_damaged(folder: Path) -> None:
    with pytest.raises(RelsimError) as caught:
        Divergence.load(folder)
    said = str(caught.value)
    assert said.startswith(str(folder))
    assert "damaged (" in said
    assert said.endswith(" again")
    assert "\n" not in said


@pytest.mark.parametrize("change", ["missing file", "fewer arrays", "more arrays", "another size", "fewer names"])
def test_parts_that_do_not_fit_are_damage(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "x"
    made_up().save(folder)
    arrays: dict[str, Any] = load_file(folder / "divergence.safetensors")
    manifest = json.loads((folder / "divergence.json").read_text())
    if change == "fewer arrays":
        del arrays["support"]
    elif change == "more arrays":
        arrays["inverse"] = arrays["kl"].copy()
    elif change == "another size":
        arrays["tail"] = arrays["tail"][:4, :4].copy()
    elif change == "fewer names":
        manifest["relations"].pop()
    save_file(arrays, folder / "divergence.safetensors")
    (folder / "divergence.json").write_text(json.dumps(manifest))
    if change == "missing file":
        (folder / "divergence.safetensors").unlink()
    assert_damaged(folder)


def test_another_kind_of_description_is_no_comparison(tmp_path: Path) -> None:
    made_up().save(tmp_path / "x")
    (tmp_path / "x" / "divergence.json").write_text('{"kind": "speed"}')
    with pytest.raises(RelsimError, match=r"x: not a comparison: make one with `relsim compare`$"):
        Divergence.load(tmp_path / "x")


def test_arrays_of_another_shape_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"expected tail of shape \(2, 2\) for 2 relations, got \(2, 3\)"):
        Divergence(["a", "b"], *np.zeros((3, 2, 2)), np.zeros((2, 3)), np.ones(2, np.int64))


def test_index_finds_every_relation() -> None:
    div = made_up(names=ODD_NAMES)
    assert [div.index(name) for name in ODD_NAMES] == list(range(8))


# text for a terminal

CELLS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=12)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=6)))
def test_every_cell_stands_in_its_column(rows: list[list[str]]) -> None:
    heading, *body = rows
    lines = table(heading, body).split("\n")
    assert len(lines) == len(rows)
    start = 0
    for index, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        cells = [line[start : start + width].strip() for line in lines]
        assert cells == list(column)
        if index:
            assert all(line[start - 2 : start].strip() == "" for line in lines)
        start += width + 2
    assert all(line == line.rstrip() for line in lines)


def test_numbers_are_set_to_the_right_and_names_to_the_left() -> None:
    rows = [("1", "-2.5", "a"), ("100", "3", "2bc")]
    assert table(("n", "value", "name"), rows) == "  n  value  name\n  1   -2.5  a\n100      3  2bc"


@given(st.text(max_size=200))
def test_a_shown_name_is_one_short_line_that_moves_no_cursor(name: str) -> None:
    found = shown(name)
    assert len(found) <= NAME_WIDTH
    assert len(found.splitlines()) <= 1
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in found)
    if name.isprintable() and len(name) <= NAME_WIDTH:
        assert found == name


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\rb", "a\nb", "a\x00b", "\u202ea", "a\u2066b", "\u200bx", "\ud800"])
def test_what_could_disturb_the_terminal_is_replaced(hostile: str) -> None:
    assert "�" in shown(hostile)
    assert shown(hostile).isprintable()


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    name = "http://example.org/ontology/" + "very/" * 30 + "birthPlace"
    found = shown(name)
    assert len(found) == NAME_WIDTH
    assert found.startswith("http://example.org/ontology/")
    assert found.endswith("/birthPlace")
    assert "…" in found


def test_an_error_is_shown_where_there_is_one() -> None:
    assert with_error(1.234, 0.056) == "1.23 ±0.06"
    assert with_error(1.234, 0.0) == "1.23"


def test_tables_show_hostile_names_on_one_line_each() -> None:
    div = made_up(names=ODD_NAMES)
    pairs = nearest_pairs(div)
    assert render_pairs(div, pairs).count("\n") == len(pairs)
    assert render_neighbours(neighbours(div, "plain", 7)).count("\n") == 7


def test_rendered_numbers_are_those_of_the_result() -> None:
    div = made_up()
    (a, b), *_ = nearest_pairs(div)
    line = render_pairs(div, [(a, b)]).splitlines()[1]
    one, other = (f"{div.kl[x, y]:.2f} ±{div.stderr[x, y]:.2f}" for x, y in ((a, b), (b, a)))
    facts = (f"{div.support[x]:>7}" for x in (a, b))
    assert line == "  ".join([f"{similarity(div)[a, b]:.3f}", one, other, *facts, f"r{a}", f"r{b}"])
    (n,) = neighbours(div, f"r{a}", 1)
    line = render_neighbours([n]).splitlines()[1]
    assert line == f"{n.similarity:.3f}  {one}  {other}  r{b}"


# what a KB holds

TRAIN = [("a", "r", "b"), ("a", "r", "b"), ("a", "r", "c"), ("b", "s", "c"), ("a", "r", "b")]
TEST = [("c", "r", "b"), ("a", "r", "b")]


def test_counts_are_those_of_the_statements() -> None:
    found = describe(KB.from_names(TRAIN, source="x", test=TEST), top=5)
    assert found["source"] == "x"
    assert (found["entities"], found["relations"]) == (3, 2)
    assert found["facts"] == {"train": 3, "test": 2}
    assert found["duplicates"] == {"train": 2, "test": 0}
    assert found["few_facts"] == 2
    assert found["top"] == [
        {"relation": "r", "facts": 3, "heads": 2, "tails": 2},
        {"relation": "s", "facts": 1, "heads": 1, "tails": 1},
    ]
    assert json.loads(json.dumps(found)) == found


@given(st.lists(st.tuples(*[st.sampled_from("abcdef")] * 3), min_size=1, max_size=60), st.integers(0, 8))
def test_top_relations_agree_with_plain_counting(facts: list[tuple[str, str, str]], top: int) -> None:
    found = describe(KB.from_names(facts), top)
    distinct = set(facts)
    support = Counter(r for _, r, _ in distinct)
    assert [entry["facts"] for entry in found["top"]] == sorted(support.values(), reverse=True)[:top]
    for entry in found["top"]:
        name = entry["relation"]
        assert entry["facts"] == support[name]
        assert entry["heads"] == len({h for h, r, _ in distinct if r == name})
        assert entry["tails"] == len({t for _, r, t in distinct if r == name})
    assert found["duplicates"]["train"] == len(facts) - len(distinct)


def test_the_text_says_the_same() -> None:
    kb = KB.from_names(TRAIN + [("a", f"t\n{i}", "b") for i in range(20)], test=TEST)
    text = render({**describe(kb, top=2), "skipped": {"literal": 1234}})
    assert text.splitlines() == [
        "3 entities, 22 relations; distinct facts: train 23, test 2",
        "2 statements repeat a fact of their split; the repetitions are counted",
        "22 relations have fewer than 10 facts",
        "skipped 1,234 statements: literal",
        "",
        "facts  heads  tails  relation",
        "    3      2      2  r",
        "    1      1      1  s",
    ]
