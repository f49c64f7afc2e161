"""The Chinese restaurant process against its known moments, and the parts of relations against what they came from."""

from __future__ import annotations

import numpy as np
import pytest

from relsim.data import nations
from relsim.errors import RelsimError
from relsim.kb import KB
from relsim.splitting import chinese_restaurant, split_relations


def test_the_number_of_tables_has_its_mean_and_variance() -> None:
    """The k-th customer opens a table with probability a / (k + a), independently of the others."""
    customers, a = 200, 2.0
    rng = np.random.default_rng(0)
    tables = np.array([chinese_restaurant(customers, a, rng).max() + 1 for _ in range(2000)])
    p = a / (np.arange(customers) + a)
    variance = (p * (1 - p)).sum()
    assert tables.mean() == pytest.approx(p.sum(), abs=4 * (variance / 2000) ** 0.5)
    assert tables.var() == pytest.approx(variance, rel=0.2)


def test_two_customers_share_a_table_with_probability_1_over_1_plus_a_wherever_they_come() -> None:
    rng = np.random.default_rng(1)
    seated = np.array([chinese_restaurant(12, 1.5, rng) for _ in range(4000)])
    for i, j in ((0, 1), (3, 9), (10, 11)):
        shared = (seated[:, i] == seated[:, j]).mean()
        assert shared == pytest.approx(1 / 2.5, abs=4 * (0.24 / 4000) ** 0.5)


def test_tables_are_numbered_as_they_open() -> None:
    table = chinese_restaurant(300, 3.0, np.random.default_rng(2))
    first = [np.flatnonzero(table == t)[0] for t in range(table.max() + 1)]
    assert first == sorted(first)
    with pytest.raises(ValueError, match="concentration"):
        chinese_restaurant(3, 0.0, np.random.default_rng(0))


def _keys(kb: KB, relation: int) -> set[tuple[int, int]]:
    facts = kb.facts.take(kb.facts.relation == relation)
    return set(zip(facts.head.tolist(), facts.tail.tolist(), strict=True))


def test_parts_share_no_fact_and_come_from_their_relation() -> None:
    kb = nations()
    cut, origin = split_relations(kb, at_least=60, part=8, seed=3)
    assert len(cut.relations) == len(origin) > len(kb.relations)
    for relation in range(len(kb.relations)):
        parts = [_keys(cut, k) for k in np.flatnonzero(origin == relation)]
        together = set().union(*parts)
        assert sum(map(len, parts)) == len(together)
        assert together <= _keys(kb, relation)
        assert [len(p) for p in parts] == sorted((len(p) for p in parts), reverse=True)
        if kb.support[relation] < 60:
            assert parts == [_keys(kb, relation)]
            assert cut.relations[int(np.flatnonzero(origin == relation)[0])] == kb.relations[relation]
        else:
            assert all(len(p) >= 8 for p in parts)


def test_equal_seeds_cut_equally_and_others_do_not() -> None:
    one, two, other = (split_relations(nations(), at_least=60, part=8, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.facts.relation, two.facts.relation)
    assert len(one.facts) != len(other.facts) or (one.facts.relation != other.facts.relation).any()


def test_a_part_is_a_random_sample_of_its_relation() -> None:
    """Facts are sorted by head, and a process that seated them so would cut heads apart."""
    kb = KB.from_names([(f"h{i:03}", "r", f"t{i}") for i in range(400)])
    means = []
    for seed in range(60):
        try:
            cut, _ = split_relations(kb, at_least=100, part=40, seed=seed)
        except RelsimError:
            continue
        means.append(cut.facts.head[cut.facts.relation == 1].mean())
    assert len(means) > 20
    expected = np.mean(kb.facts.head)
    assert np.mean(means) == pytest.approx(expected, abs=12)


def test_nothing_to_split_is_said() -> None:
    with pytest.raises(RelsimError, match="lower one of the two"):
        split_relations(nations(), at_least=10_000)
