"""`Embedding`: points whose spread is the one asked for, a padding row at the origin, sparse gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.nn.module import PointOwner

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


@curvatures
@pytest.mark.parametrize("std", [1e-3, 0.5, 2.0])
def test_std_is_the_standard_deviation_of_the_tangent_vectors_in_radii_of_curvature(c: float, std: float) -> None:
    torch.manual_seed(0)
    table = lnn.Embedding(20_000, 3, std=std, manifold=Lorentz(c), dtype=torch.float64)
    vectors = LF.logmap0(table.weight.detach(), c) * c**0.5
    assert abs(vectors.std() - std) < 4.5 * std / (2 * 60_000) ** 0.5
    assert abs(vectors.mean()) < 4.5 * std / 60_000**0.5


@pytest.mark.parametrize("n", [2, 16, 256])
def test_by_default_points_lie_at_about_radius_one(n: int) -> None:
    torch.manual_seed(0)
    assert abs(LF.dist0(lnn.Embedding(2000, n).weight.detach()).square().mean().sqrt() - 1) < 0.05


def test_rows_are_looked_up() -> None:
    table = lnn.Embedding(6, 4)
    indices = torch.tensor([[1, 5], [0, 1]])
    assert torch.equal(table(indices), table.weight[indices])
    assert table(indices).shape == (2, 2, 4)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("padding_idx", [2, -1])
def test_the_padding_row_is_the_origin_and_stays_there(sparse: bool, padding_idx: int) -> None:
    table = lnn.Embedding(6, 4, padding_idx=padding_idx, sparse=sparse)
    assert not table.weight[padding_idx].any()
    optimiser = torch.optim.SparseAdam(table.parameters()) if sparse else torch.optim.AdamW(table.parameters())
    start = table.weight.detach().clone()
    for _ in range(5):
        optimiser.zero_grad()
        LF.dist(table(torch.arange(6)), torch.ones(4)).sum().backward()
        optimiser.step()
    assert not table.weight[padding_idx].any()
    assert (table.weight != start).any(-1).sum() == 5
    table.reset_parameters()
    assert not table.weight[padding_idx].any()


def test_sparse_gradients_are_the_dense_ones_and_touch_only_the_rows_that_were_used() -> None:
    sparse, dense = lnn.Embedding(100, 4, sparse=True), lnn.Embedding(100, 4)
    dense.load_state_dict(sparse.state_dict())
    indices = torch.tensor([3, 7, 3])
    for table in (sparse, dense):
        LF.dist0(table(indices)).sum().backward()
    grad = sparse.weight.grad
    assert grad.is_sparse
    assert grad.coalesce().indices().tolist() == [[3, 7]]
    torch.testing.assert_close(grad.to_dense(), dense.weight.grad)


def test_the_table_says_that_its_weight_is_points() -> None:
    manifold = Lorentz(2.0)
    model = nn.Sequential(lnn.Embedding(6, 4, manifold=manifold), lnn.Linear(4, 3), nn.Embedding(6, 4))
    owners = [module for module in model.modules() if isinstance(module, PointOwner)]
    assert owners == [model[0]]
    ((parameter, space),) = owners[0].points()
    assert parameter is model[0].weight
    assert type(parameter) is nn.Parameter
    assert space is manifold


def test_a_table_of_given_points_keeps_them() -> None:
    points = torch.arange(8.0).view(4, 2)
    table = lnn.Embedding.from_pretrained(points, padding_idx=1)
    assert isinstance(table, lnn.Embedding)
    assert torch.equal(table.weight, points)
    assert not table.weight.requires_grad
    assert torch.equal(lnn.Embedding(4, 2, _weight=points.clone()).weight, points)


def test_max_norm_bounds_the_space_part() -> None:
    table = lnn.Embedding(6, 4, max_norm=0.5, std=2.0)
    assert (table(torch.arange(6)).norm(dim=-1) <= 0.5 + 1e-6).all()


def test_points_in_bfloat16_are_drawn_in_float32() -> None:
    torch.manual_seed(0)
    low = lnn.Embedding(50, 4, dtype=torch.bfloat16)
    torch.manual_seed(0)
    assert torch.equal(low.weight, lnn.Embedding(50, 4).weight.bfloat16())
