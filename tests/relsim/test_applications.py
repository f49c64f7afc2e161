"""What comparisons are for: inverses, kinds, exports, readable scales, baselines; each against an independent truth."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import relsim
from relsim import baselines
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.estimators import Enumerate
from relsim.evidence import mirrored, shared
from relsim.exporting import FORMATS, export, graph
from relsim.inverse import inverses
from relsim.kb import KB
from relsim.kinds import hierarchy, kinds, reduced, render_tree
from relsim.report import RULE
from relsim.scale import centred, quantile, tempered, typical
from relsim.search import covered_pairs
from relsim.similar import nearest_pairs, pair_record, symmetric_kl
from tests.relsim.conftest import random_model
from tests.relsim.test_estimators import brute_force
from tests.relsim.test_similar import ODD_NAMES, made_up

# inverses


@torch.no_grad()
def backwards(model: relsim.FactDistribution) -> np.ndarray:
    """KL between p(h, t | a) and p(t, h | b) as the plain sum over all facts."""
    size, relations = len(model.entities), len(model.relations)
    heads, tails = (index.reshape(-1) for index in torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij"))
    joint = torch.stack([model.log_prob(heads, torch.tensor(r), tails) for r in range(relations)])
    mirrored_ = joint.reshape(-1, size, size).mT.reshape(relations, -1)
    return np.array([[float((a.exp() * (a - b)).sum()) for b in mirrored_] for a in joint])


def test_inverses_agree_with_the_sum_over_all_facts_within_their_errors() -> None:
    model = random_model(12, 4, seed=3, scale=0.5)
    exact, inside = backwards(model), []
    for seed in range(10):
        for record in inverses(model, candidates=4, samples=400, seed=seed):
            a, b = (model.relations.index(record[key]) for key in ("a", "b"))
            inside += [
                abs(record["kl_ab"] - exact[a, b]) < 1.96 * record["stderr_ab"],
                abs(record["kl_ba"] - exact[b, a]) < 1.96 * record["stderr_ba"],
            ]
    assert len(inside) == 10 * 20
    assert 0.88 <= np.mean(inside) <= 0.99


def test_a_symmetric_relation_is_its_own_inverse_and_inverses_are_found() -> None:
    rng = np.random.default_rng(0)
    parent = {(f"p{i}", f"c{j}") for i, j in rng.integers(0, 40, (300, 2))}
    married = {(f"p{i}", f"p{j}") for i, j in rng.integers(0, 20, (80, 2))}
    facts = [(h, "parent", t) for h, t in parent] + [(t, "child", h) for h, t in parent]
    facts += [fact for h, t in married for fact in ((h, "spouse", t), (t, "spouse", h))]
    facts += [(h, "other", f"x{i % 7}") for i, (h, _) in enumerate(parent)]
    model = relsim.fit_counts(KB.from_names(facts))
    first = inverses(model, candidates=2)[:2]
    assert {frozenset((r["a"], r["b"])) for r in first} == {frozenset(["parent", "child"]), frozenset(["spouse"])}
    only = inverses(model, ["parent"], candidates=1)
    assert [{r["a"], r["b"]} for r in only] == [{"parent", "child"}]


def test_the_draws_of_a_relation_do_not_depend_on_what_else_is_asked() -> None:
    model = random_model(30, 5)
    alone = inverses(model, ["r2"], candidates=5)
    everything = {(r["a"], r["b"]): r for r in inverses(model, candidates=5)}
    assert all(everything[r["a"], r["b"]] == r for r in alone)


# evidence


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("abc")), max_size=25))
def test_evidence_is_the_intersection_as_stated_and_backwards(facts: list[tuple[str, str, str]]) -> None:
    kb = KB.from_names([*facts, ("a", "x", "a"), ("a", "y", "b")])
    pairs = {name: {(h, t) for h, r, t in [*facts, ("a", "x", "a"), ("a", "y", "b")] if r == name} for name in "xy"}
    same = shared(kb, [("x", "y")], examples=99)["x", "y"]
    assert set(same.examples) == pairs["x"] & pairs["y"]
    other = mirrored(kb, [("x", "y")], examples=99)["x", "y"]
    assert {tuple(sorted(fact)) for fact in other.examples} == {
        tuple(sorted(fact)) for fact in pairs["x"] & {(t, h) for h, t in pairs["y"]}
    }
    assert other.shared == len(pairs["x"] & {(t, h) for h, t in pairs["y"]})


# kinds


def nested() -> Divergence:
    """c is a kind of b, b of a, by the logarithms of the shares of facts; d is apart."""
    kl = np.full((4, 4), 30.0)
    kl[2, 1], kl[1, 0], kl[2, 0] = 1.0, 0.8, 1.8
    np.fill_diagonal(kl, 0)
    return Divergence(list("abcd"), kl, *np.zeros((3, 4, 4)), np.array([100, 40, 10, 5]))


def test_the_hierarchy_has_an_edge_for_each_kind_and_reduces_to_the_tree() -> None:
    found = hierarchy(nested())
    assert set(found.edges) == {("c", "b"), ("b", "a"), ("c", "a")}
    assert found.edges["c", "b"] == {"kl": 1.0, "stderr": 0.0, "kl_back": 30.0, "stderr_back": 0.0}
    assert found.nodes["a"]["support"] == 100
    assert set(found) == set("abcd")
    least = reduced(found)
    assert set(least.edges) == {("c", "b"), ("b", "a")}
    assert least.edges["c", "b"]["kl"] == 1.0
    assert render_tree(least) == "a\n  b\n    c"


def test_a_cycle_is_left_as_it_is() -> None:
    cycle = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a")])
    assert reduced(cycle) is cycle


@pytest.mark.parametrize("limit", [0.5, 2.0, 5.0])
def test_covered_pairs_are_those_of_the_full_matrix(limit: float) -> None:
    model = random_model(100, 20, seed=5)
    div = Enumerate().divergence(model, progress=False)
    found, effort = covered_pairs(model, limit, estimator=Enumerate())
    expected = [(int(a), int(b)) for a, b in np.argwhere(div.kl <= limit) if a != b]
    assert {(r["a"], r["b"]) for r in found} == {(f"r{a}", f"r{b}") for a, b in expected}
    for r in found:
        a, b = div.index(r["a"]), div.index(r["b"])
        assert (r["kl_ab"], r["kl_ba"]) == pytest.approx((div.kl[a, b], div.kl[b, a]), rel=1e-9)
    assert effort.pairs == 380
    assert effort.excluded <= 380 - len(found)


def test_kinds_found_by_search_are_those_of_the_matrix() -> None:
    model = random_model(100, 20, seed=5)
    div = Enumerate().divergence(model, progress=False)
    rule = replace(RULE, kind_of=1.0, gap=0.5)
    found, _ = covered_pairs(model, rule.kind_of, estimator=Enumerate())
    assert set(kinds(found, rule).edges) == set(hierarchy(div, rule).edges)
    assert len(hierarchy(div, rule).edges) > 0


# scales


def test_the_quantile_is_the_share_of_pairs_further_apart() -> None:
    div = made_up(9)
    distance = symmetric_kl(div)
    every = [distance[i, j] for i in range(9) for j in range(i)]
    found = quantile(div)
    for a in range(9):
        for b in range(9):
            if a != b:
                further = sum(d > distance[a, b] for d in every) + 0.5 * sum(d == distance[a, b] for d in every)
                assert found[a, b] == pytest.approx(further / len(every))
    assert (np.diag(found) == 1).all()
    assert np.median(found[np.triu_indices(9, 1)]) == pytest.approx(0.5)


def test_centring_is_its_formula_and_lowers_hubs() -> None:
    rng = np.random.default_rng(0)
    distance = rng.uniform(4, 6, (8, 8))
    distance = (distance + distance.T) / 2
    distance[0] = distance[:, 0] = 3.5  # a hub: nearer to all than anything else is
    distance[5, 6] = distance[6, 5] = 3.6
    np.fill_diagonal(distance, 0.0)
    result = centred(distance)
    mean = [np.delete(distance[a], a).mean() for a in range(8)]
    expected = [[distance[a, b] - (mean[a] + mean[b]) / 2 if a != b else 0 for b in range(8)] for a in range(8)]
    np.testing.assert_allclose(result, expected)
    assert distance[5, 6] > distance[5, 0]
    assert result[5, 6] == result.min() < result[5, 0]


def test_the_tempered_scale_halves_at_the_median_pair() -> None:
    div = made_up(9)
    found, distance = tempered(div), symmetric_kl(div)
    np.testing.assert_allclose(found, np.exp(-distance) ** (math.log(2) / typical(div)), rtol=1e-12)
    assert np.median(found[np.triu_indices(9, 1)]) == pytest.approx(0.5)
    equal = Divergence(["a", "b"], *np.zeros((4, 2, 2)), np.ones(2, np.int64))
    assert (tempered(equal) == 1).all()


# exports


@pytest.mark.parametrize("ending", FORMATS)
def test_exports_read_back(ending: str, tmp_path: Path) -> None:
    div = made_up(names=ODD_NAMES)
    path = tmp_path / f"out.{ending}"
    assert export(div, path) == 28
    expected = {(a, b): pair_record(div, a, b) for a, b in nearest_pairs(div)}
    names = {name: i for i, name in enumerate(ODD_NAMES)}
    if ending in ("graphml", "gexf"):
        read = (nx.read_graphml if ending == "graphml" else nx.read_gexf)(path)
        assert len(read) == 8
        edges = {tuple(sorted((int(a), int(b)))): data for a, b, data in read.edges(data=True)}
        assert edges.keys() == expected.keys()
        for key, data in edges.items():
            assert data["kl_ab"] == pytest.approx(expected[key]["kl_ab"])
        labels = [read.nodes[str(i)]["label"] for i in range(8)]
        assert labels[0] == "plain"
        assert labels[4] == "東京 😀"
        return
    if ending == "json":
        rows = json.loads(path.read_text())["pairs"]
    elif ending == "parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="," if ending == "csv" else "\t"))
    assert [(names[row["a"]], names[row["b"]]) for row in rows] == list(expected)
    for row, record in zip(rows, expected.values(), strict=True):
        for key, value in record.items():
            assert str(row[key]) == str(value)


def test_an_export_keeps_the_pairs_above_a_quantile(tmp_path: Path) -> None:
    div = made_up(20)
    assert export(div, tmp_path / "some.csv", threshold=0.9) == 19
    assert graph(div, 0.9).number_of_edges() == 19


def test_names_that_xml_cannot_say_are_marked(tmp_path: Path) -> None:
    div = made_up(2, names=["a\x00b", "c\ud800"])
    export(div, tmp_path / "x.graphml")
    assert sorted(d["label"] for _, d in nx.read_graphml(tmp_path / "x.graphml").nodes(data=True)) == ["a�b", "c�"]


def test_an_unknown_ending_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=r"x\.doc: its ending names no known format: end it with \.csv, \.tsv"):
        export(made_up(), tmp_path / "x.doc")
    assert list(tmp_path.iterdir()) == []


def test_infinite_divergences_are_null_in_json(tmp_path: Path) -> None:
    kl = np.array([[0.0, np.inf], [1.0, 0.0]])
    export(Divergence(["a", "b"], kl, *np.zeros((3, 2, 2)), np.ones(2, np.int64)), tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["pairs"][0]["kl_ab"] is None


# baselines

FACTS = [("a", "x", "b"), ("a", "x", "c"), ("b", "x", "c"), ("a", "y", "b"), ("d", "y", "c"), ("d", "z", "e")]


def test_baselines_are_their_formulas() -> None:
    kb = KB.from_names([*FACTS, ("a", "x", "b")])
    heads, tails, pairs = {}, {}, {}
    for name in "xyz":
        heads[name] = {h for h, r, _ in FACTS if r == name}
        tails[name] = {t for _, r, t in FACTS if r == name}
        pairs[name] = {(h, t) for h, r, t in FACTS if r == name}
    for function, sets in (
        (baselines.head_jaccard, heads),
        (baselines.tail_jaccard, tails),
        (baselines.pair_jaccard, pairs),
    ):
        expected = [[len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for b in "xyz"] for a in "xyz"]
        np.testing.assert_allclose(function(kb), expected)
    tails_x, tails_y = np.array([2, 2, 0]), np.array([1, 1, 0])  # b, c, e; a x b was stated twice
    cosine = tails_x @ tails_y / np.linalg.norm(tails_x) / np.linalg.norm(tails_y)
    assert baselines.tail_cosine(kb)[0, 1] == pytest.approx(cosine)
    assert baselines.head_cosine(kb)[0, 1] == pytest.approx(3 / math.sqrt(10 * 2))
    assert baselines.pair_cosine(kb)[0, 1] == pytest.approx(2 / math.sqrt(6 * 2))
    for function in (baselines.tail_cosine, baselines.head_cosine, baselines.pair_cosine):
        np.testing.assert_allclose(np.diag(function(kb)), 1)


def test_transe_puts_equal_relations_together_and_inverses_opposite() -> None:
    rng = np.random.default_rng(0)
    place = rng.permutation(60)
    next_ = [(f"e{place[i]}", f"e{place[i + 1]}") for i in range(59)]
    facts = [fact for h, t in next_ for fact in ((h, "next", t), (h, "after", t), (t, "before", h))]
    kb = KB.from_names(facts)
    cosine = baselines.vector_cosine(baselines.transe_vectors(kb, dim=20, epochs=150, seed=0))
    assert cosine[0, 1] > 0.5
    assert cosine[0, 2] < -0.5


def test_brute_force_of_the_forward_direction_differs_from_the_backward_one() -> None:
    """The oracle of the inverses is not that of the plain divergence."""
    model = random_model(10, 3)
    assert np.abs(backwards(model) - brute_force(model)).max() > 0.1
