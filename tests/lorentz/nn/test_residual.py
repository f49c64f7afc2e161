"""`Residual`: the weighted sum of ambient coordinates, scaled back to the hyperboloid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@curvatures
@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.0])
def test_it_is_the_normalised_sum_in_ambient_coordinates(c: float, ratio: float) -> None:
    x, y = normal(2, 5, 4), normal(2, 5, 4, seed=1)
    module = lnn.Residual(ratio, manifold=Lorentz(c), dtype=torch.float64)
    total = oracles.ambient(x, c) + ratio * oracles.ambient(y, c)
    expected = total / (c**0.5 * (-oracles.ambient_inner(total, total)).sqrt().unsqueeze(-1))
    torch.testing.assert_close(LF.to_ambient(module(x, y), c), expected)


@curvatures
def test_it_commutes_with_isometries(c: float) -> None:
    module, x, y = lnn.Residual(0.7, manifold=Lorentz(c)).double(), normal(5, 4), normal(5, 4, seed=1)
    isometry = lnn.Isometry(4, manifold=Lorentz(c), dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate(isometry.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    torch.testing.assert_close(module(isometry(x), isometry(y)), isometry(module(x, y)))


def test_it_lies_on_the_geodesic_and_equal_weights_give_the_middle() -> None:
    x, y = normal(5, 4), normal(5, 4, seed=1)
    torch.testing.assert_close(lnn.Residual().double()(x, y), LF.geodesic(0.5, x, y))
    z = lnn.Residual(0.2).double()(x, y)
    torch.testing.assert_close(LF.dist(x, z) + LF.dist(z, y), LF.dist(x, y))


@pytest.mark.parametrize("log_ratio", [-200.0, 200.0])
def test_extreme_ratios_choose_one_of_the_points(log_ratio: float) -> None:
    module, x, y = lnn.Residual(), normal(5, 4).float(), normal(5, 4, seed=1).float()
    with torch.no_grad():
        module.log_ratio.fill_(log_ratio)
    torch.testing.assert_close(module(x, y), x if log_ratio < 0 else y)


def test_the_ratio_learns_which_point_to_prefer() -> None:
    module, x, y = lnn.Residual(), normal(5, 4).float(), normal(5, 4, seed=1).float()
    LF.sqdist(module(x, y), x).sum().backward()
    assert module.log_ratio.grad > 0


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_is_not_positive_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="expected ratio > 0, got"):
        lnn.Residual(ratio)
