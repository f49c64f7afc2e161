"""Products by group and of chosen pairs against gathered copies, values and gradients."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorentz.models._grouped import grouped_linear
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
