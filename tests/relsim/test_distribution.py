"""The fact distributions: proper probabilities, names, samples, and counts against a plain reading of the formulas."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from relsim.counts import CountsDistribution
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.mlp import MLPDistribution
from relsim.neural import NeuralDistribution
from tests.relsim.conftest import random_model
from tests.relsim.test_factored import random_classes

FACTS = [(0, 0, 1, 2), (0, 0, 2, 1), (1, 0, 2, 1), (1, 1, 3, 5), (3, 1, 3, 1)]  # head, relation, tail, count


def counts_model(discount: float = 0.7) -> CountsDistribution:
    return CountsDistribution(list("abcd"), ["r", "s", "unseen"], facts=torch.tensor(FACTS), discount=discount)


@pytest.mark.parametrize(
    "model", [random_model(9, 4), random_classes(9, 4), counts_model()], ids=["mlp", "classes", "counts"]
)
def test_conditionals_sum_to_one_and_make_the_joint(model: FactDistribution) -> None:
    size = len(model.entities)
    for relation in range(len(model.relations)):
        head, tail = model.head_log_prob(relation), model.tail_log_prob(torch.arange(size), relation)
        torch.testing.assert_close(head.exp().sum().item(), 1.0)
        torch.testing.assert_close(tail.exp().sum(dim=1), torch.ones(size, dtype=tail.dtype))
        joint = model.log_prob(torch.arange(size)[:, None].expand(-1, size), relation, torch.arange(size))
        torch.testing.assert_close(joint, head[:, None] + tail)


@pytest.mark.parametrize(
    "model", [random_model(9, 4), random_classes(9, 4), counts_model()], ids=["mlp", "classes", "counts"]
)
def test_moments_are_those_of_the_softmax(model: FactDistribution) -> None:
    heads, relations = torch.arange(3), torch.arange(len(model.relations))
    grid = model.tail_natural_grid(heads, relations)
    one_by_one = [[model.tail_natural(h[None], r[None])[0] for r in relations] for h in heads]
    torch.testing.assert_close(grid, torch.stack([torch.stack(row) for row in one_by_one]))
    natural = grid.flatten(0, 1).detach().requires_grad_()
    if isinstance(model, NeuralDistribution):
        partition, mean = model.tail_moments(natural)
        torch.testing.assert_close(partition, torch.logsumexp(model.tail_logits(natural), -1).detach())
        gradient = torch.autograd.grad(torch.logsumexp(model.tail_logits(natural), -1).sum(), natural)[0]
        torch.testing.assert_close(mean, gradient)
    torch.testing.assert_close(model.tail_partition(natural), torch.logsumexp(model.tail_logits(natural), -1))


@given(st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_counts_follow_the_backoff_formula(discount: float) -> None:
    model, d, size = counts_model(discount), discount, 4

    def backoff(count: Counter, lower: list[float]) -> list[float]:
        total = sum(count.values())
        if not total:
            return lower
        return [(max(count[e] - d, 0) + d * len(count) * lower[e]) / total for e in range(size)]

    def tally(position: int, **fixed: int) -> Counter:
        where = {"h": 0, "r": 1}
        result: Counter = Counter()
        for fact in FACTS:
            if all(fact[where[key]] == value for key, value in fixed.items()):
                result[fact[position]] += fact[3]
        return result

    uniform = [1 / size] * size
    for r in range(3):
        head = backoff(tally(0, r=r), backoff(tally(0), uniform))
        torch.testing.assert_close(model.head_log_prob(r).exp(), torch.tensor(head, dtype=torch.float64))
        for h in range(size):
            tail = backoff(tally(2, h=h, r=r), backoff(tally(2, r=r), backoff(tally(2), uniform)))
            torch.testing.assert_close(model.tail_log_prob(h, r).exp(), torch.tensor(tail, dtype=torch.float64))


@pytest.mark.parametrize("model", [random_model(6, 2, seed=3), counts_model()], ids=["mlp", "counts"])
def test_samples_follow_the_distribution(model: FactDistribution) -> None:
    n, size = 20_000, len(model.entities)
    heads, tails = model.sample("r0" if "r0" in model.relations else "r", n, torch.Generator().manual_seed(0))
    expected = model.head_log_prob(0)[:, None] + model.tail_log_prob(torch.arange(size), 0)
    expected = expected.detach().exp().flatten().double() * n
    observed = torch.bincount(heads * size + tails, minlength=size**2).double()
    kept = expected >= 5  # what the chi-square approximation asks for
    pooled = (
        torch.cat([expected[kept], expected[~kept].sum()[None]]),
        torch.cat([observed[kept], observed[~kept].sum()[None]]),
    )
    assert chisquare(pooled[1][pooled[0] > 0], pooled[0][pooled[0] > 0], sum_check=False).pvalue > 1e-3


def test_names_indices_and_tensors_mean_the_same() -> None:
    model = random_model(5, 3)
    by_name = model.log_prob("e1", "r2", "e4")
    assert by_name.shape == ()
    torch.testing.assert_close(by_name, model.log_prob(1, 2, 4))
    torch.testing.assert_close(by_name, model.log_prob(torch.tensor([1, 0]), "r2", ["e4", "e4"])[0])
    assert model.head_log_prob(["r0", "r1"]).shape == (2, 5)
    assert model.tail_log_prob(["e0", "e1", "e2"], "r1").shape == (3, 5)


def test_unknown_names_and_indices_are_refused() -> None:
    model = random_model(5, 3)
    with pytest.raises(RelsimError, match="unknown entity 'e9': did you mean"):
        model.log_prob("e9", "r0", "e0")
    with pytest.raises(IndexError, match=r"expected relation indices in \[0, 3\), got 3\.\.3"):
        model.head_log_prob(3)


def test_the_papers_form_has_no_bias() -> None:
    model = MLPDistribution(["a", "b"], ["r"], bias=False, dim=4, hidden=8)
    assert model.head_bias is None
    assert model.tail_bias is None
    assert model.log_prob("a", "r", "b").isfinite()
    assert str(model).startswith(
        "MLPDistribution(\n  entities=2, relations=1, dim=4, hidden=8, bias=False, dropout=0.0"
    )
