"""Products by group, of chosen pairs and in blocks against plain tensors, values and gradients."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorentz.models._grouped import grouped_linear
from lorentz.models._partition import block_sums
from lorentz.models._products import chosen_products

sizes = st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_a_product_per_group_is_a_gathered_matrix_per_row(size: tuple[int, ...]) -> None:
    rows, groups, n, m, seed = size
    torch.manual_seed(seed)
    x = torch.randn(rows, n, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(groups, m, n, dtype=torch.float64, requires_grad=True)
    group, incoming = torch.randint(groups, (rows,)), torch.randn(rows, m, dtype=torch.float64)
    ours, truth = grouped_linear(x, weight, group), torch.einsum("nij,nj->ni", weight[group], x)
    torch.testing.assert_close(ours, truth)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), incoming) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_chosen_products_are_those_of_gathered_rows(size: tuple[int, ...]) -> None:
    rows, entities, m, k, seed = size
    torch.manual_seed(seed)
    query = torch.randn(rows, m, dtype=torch.float64, requires_grad=True)
    table = torch.randn(entities, m, dtype=torch.float64, requires_grad=True)
    index, incoming = torch.randint(entities, (rows, k)), torch.randn(rows, k, dtype=torch.float64)
    ours, truth = chosen_products(query, table, index), torch.einsum("nm,nkm->nk", query, table[index])
    torch.testing.assert_close(ours, truth)
    for a, b in zip(*(torch.autograd.grad(y, (query, table), incoming) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_sums_of_changed_scores_are_those_of_the_whole_matrix(size: tuple[int, ...]) -> None:
    rows, entries, m, places, seed = size
    torch.manual_seed(seed)
    query = torch.randn(rows, m, dtype=torch.float64, requires_grad=True)
    table = torch.randn(entries, m, dtype=torch.float64, requires_grad=True)
    places = places if rows else 0
    added = torch.randn(places, dtype=torch.float64, requires_grad=True)
    row, column = torch.randint(max(rows, 1), (places,)), torch.randint(entries, (places,))
    change = torch.zeros(rows, entries, dtype=torch.float64).index_put((row, column), added, accumulate=True)
    with torch.no_grad():
        query *= 10.0 ** torch.randint(-2, 4, (rows, 1))  # rows with all scores far above and far below 0, too
    score = query @ table.mT + change
    ours = block_sums(query, table, row, column, added)
    truth = score.logsumexp(1), torch.logaddexp(score, score.new_zeros(())).sum(1)
    incoming = torch.randn(2, rows, dtype=torch.float64).unbind()
    torch.testing.assert_close(ours, truth)
    inputs = (query, table, added)
    for a, b in zip(*(torch.autograd.grad(y, inputs, incoming) for y in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b)
