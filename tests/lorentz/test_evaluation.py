"""Ranking against a loop over all candidates in float64, written from the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz.evaluation import KnownTails, both_directions, metrics, protocols, rank_tails


class Table:
    """Scores of small integers, exact in float32 and full of ties: a row per (head, relation)."""

    def __init__(self, entities: int, relations: int, seed: int, levels: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.entities = entities
        self.scores = torch.randint(levels, (relations, entities, entities), generator=generator).float()
        self.loops = torch.randint(-2, 3, (relations,), generator=generator).float()

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        return self.scores[relation, head]

    def table(self) -> Tensor:
        return torch.eye(self.entities)

    def loop(self, relation: Tensor) -> Tensor:
        return self.loops[relation]


def by_loop(
    model: Table, fact: list[int], known: set[tuple[int, int, int]], *, head_excluded: bool = False
) -> list[float]:
    """Ranks of one fact with ties for it, in the middle, and against it."""
    h, r, t = fact
    score = [
        model.scores[r, h, e].double().item() + (model.loops[r].item() if e == h else 0) for e in range(model.entities)
    ]
    above = ties = 0
    for e in range(model.entities):
        if e == t or (h, r, e) in known or (head_excluded and e == h):
            continue
        above += score[e] > score[t]
        ties += score[e] == score[t]
    return [1 + above, 1 + above + ties / 2, 1 + above + ties]


@settings(deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 40), st.integers(1, 30), st.sampled_from([1, 30, 10_000])
)
def test_ranks_are_those_of_a_loop_over_candidates(
    seed: int, entities: int, others: int, count: int, scores: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = Table(entities, 3, seed)

    def facts(n: int) -> Tensor:
        return torch.stack([torch.randint(k, (n,), generator=generator) for k in (entities, 3, entities)], dim=1)

    test, rest = facts(count), facts(others)
    known = {(h, r, t) for h, r, t in torch.cat([test, rest]).tolist()}
    ranking = rank_tails(model, test, KnownTails(torch.cat([rest, test]), entities), scores=scores)
    expected = torch.tensor([by_loop(model, fact, known) for fact in test.tolist()], dtype=torch.float64)
    columns = (ranking.optimistic, ranking.realistic, ranking.pessimistic)
    torch.testing.assert_close(torch.stack([c.double() for c in columns], dim=1), expected, rtol=0, atol=0)
    without = [by_loop(model, fact, known, head_excluded=True)[1] for fact in test.tolist()]
    assert ranking.head_excluded.tolist() == without


def test_a_tail_that_is_not_among_the_known_does_not_rank_below_itself() -> None:
    model = Table(5, 1, seed=0, levels=1)
    model.loops[:] = 0
    ranking = rank_tails(model, torch.tensor([[0, 0, 1]]), KnownTails(torch.tensor([[2, 0, 3]]), 5))
    assert (ranking.optimistic.item(), ranking.realistic.item(), ranking.pessimistic.item()) == (1, 3, 5)


def test_scores_that_are_not_numbers_rank_last() -> None:
    model = Table(5, 1, seed=0)
    model.scores[0, 0, 1] = math.nan
    facts = torch.tensor([[0, 0, 1], [0, 0, 2]])
    ranking = rank_tails(model, facts, KnownTails(facts, 5))
    assert ranking.optimistic[0].item() == 4  # of 5 candidates, the tail itself and one known left out
    model.scores[0, 0] = math.nan
    assert rank_tails(model, facts, KnownTails(facts, 5)).optimistic.tolist() == [4, 4]


def test_constant_scores_have_the_mean_rank_whatever_the_optimist_says() -> None:
    model = Table(9, 1, seed=0, levels=1)
    model.loops[:] = 0
    facts = torch.tensor([[0, 0, 1], [3, 0, 4]])
    result = protocols(rank_tails(model, facts, KnownTails(facts, 9)))
    assert list(result) == ["realistic", "optimistic", "pessimistic", "head_excluded"]
    mrr = {name: value["mrr"] for name, value in result.items()}
    assert mrr == pytest.approx({"optimistic": 1, "realistic": 1 / 5, "pessimistic": 1 / 9, "head_excluded": 2 / 9})


def test_metrics_of_four_ranks() -> None:
    result = metrics(torch.tensor([1.0, 2.5, 10.0, 4.0]))
    assert result == pytest.approx({"mrr": (1 + 0.4 + 0.1 + 0.25) / 4, "hits@1": 0.25, "hits@3": 0.5, "hits@10": 1.0})
    assert math.isnan(metrics(torch.zeros(0))["mrr"])


def test_parts_by_relation_and_degree_hold_every_fact_once() -> None:
    model = Table(9, 4, seed=1)
    facts = both_directions(torch.tensor([[0, 0, 1], [3, 1, 4], [5, 1, 6]]), 2)
    ranking = rank_tails(model, facts, KnownTails(facts, 9))
    parts = ranking.by_relation(["is", "has"])
    assert {name: len(part.facts) for name, part in parts.items()} == {
        "is": 1, "has": 2, "is (inverse)": 1, "has (inverse)": 2,
    }  # fmt: skip
    assert torch.equal(parts["has"].realistic, ranking.realistic[1:3])
    degree = torch.tensor([0, 1, 1, 2, 3, 40, 3, 0, 0])
    parts = ranking.by_degree(degree, bounds=(1, 2, 4))
    assert {name: part.facts[:, 2].tolist() for name, part in parts.items()} == {
        "0": [0], "1": [1], "2-3": [4, 6, 3], "4+": [5],
    }  # fmt: skip


def test_known_tails_answers_for_queries_without_facts() -> None:
    facts = torch.tensor([[4, 1, 0], [4, 1, 0], [4, 1, 3], [0, 0, 4]])
    known = KnownTails(facts, 5)
    pairs = known.of(torch.tensor([1, 4, 0, 4]), torch.tensor([0, 1, 0, 0]))
    assert list(zip(pairs.row.tolist(), pairs.tail.tolist(), strict=True)) == [(1, 0), (1, 3), (2, 4)]
    assert len(known) == 2
    assert known.take(torch.tensor([2, 0])).tolist() == [[4, 1, 3], [0, 0, 4]]
    empty = KnownTails(torch.zeros(0, 3, dtype=torch.int64), 5)
    assert empty.of(torch.tensor([1]), torch.tensor([0])).tail.numel() == 0


def test_inverses_swap_head_and_tail_and_shift_the_relation() -> None:
    assert both_directions(torch.tensor([[1, 0, 2]]), 7).tolist() == [[1, 0, 2], [2, 7, 1]]


@pytest.mark.parametrize("facts", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 3), torch.tensor([[0, 0, 5]])])
def test_facts_that_do_not_fit_are_named(facts: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected facts \(F, 3\)|expected heads and tails from 0 to 4, got 0 to 5"):
        KnownTails(facts, 5)
