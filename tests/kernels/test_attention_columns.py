"""The columns of attention: heights against mpmath, gradients in closed form against autograd's of the plain form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.attention import closed, columns
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@curvatures
@pytest.mark.parametrize("radius", [1.0, 5.0, 8.0])
def test_heights_are_exact_near_the_reference(radius: float, c: float) -> None:
    centre = oracles.points_at(radius, 1, 4, seed=1, c=c)
    x = oracles.neighbours_at(centre.expand(20, 4), 0.5, seed=2, c=c).float()
    reference = x.double().mean(0, keepdim=True).float()
    got = columns.with_height(x, reference, c)
    plane = oracles.row(reference[0])
    truth = [oracles.sqdist(row, plane, c) / (2 * oracles.lift(plane, c)[0]) for row in oracles.rows(x)]
    # The gap is rounded where it is formed: eps of a coordinate, which is eps * x0 of a distance.
    tolerance = 4 * float(LF.time(x, c).max()) * c**0.5 * torch.finfo(torch.float32).eps
    assert max(abs(mp.mpf(float(h)) / t - 1) for h, t in zip(got[:, -1], truth, strict=True)) < tolerance


C = torch.tensor([0.7], dtype=torch.float64)


def by_autograd(function: Callable[..., Tensor], *operands: Any) -> list[Tensor]:
    """The result, and its gradients in all tensors among the operands."""
    leaves = [each.detach().clone().requires_grad_() if isinstance(each, Tensor) else each for each in operands]
    out = function(*leaves)
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return [out.detach(), *torch.autograd.grad((out * normal(*out.shape, seed=9)).sum(), wanted)]


@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_of_rows_with_times(sign: int) -> None:
    x, slope = normal(2, 3, 5, 4), normal(1, 3, 5, 1, seed=1).exp()
    out, *expected = by_autograd(columns.with_time, x, sign, C, slope)
    x0 = closed.time(x, C)
    torch.testing.assert_close(closed.time_rows(x, x0, sign, slope), out)
    grad = normal(*out.shape, seed=9)
    to_x, to_c = closed.time_gradient(grad, x, x0, sign, C, slope)
    to_slope = closed.slope_gradient(grad, x, x0, sign).sum_to_size(slope.shape)
    torch.testing.assert_close([to_x, to_c.sum().view(1), to_slope], expected)


def attended(module: Any, x: Tensor, c: Tensor, weights: Tensor, reference: Tensor) -> Tensor:
    return module.mean_to_point(weights @ module.with_height(x, reference, c), reference, c)


def written_down(x: Tensor, c: Tensor, weights: Tensor, reference: Tensor) -> list[Tensor]:
    """`attended` and its gradients, from the closed forms of both ends; the plane that they share moves nothing."""
    heights = closed.heights(x, reference, c)
    rows = closed.height_rows(x, reference, heights)
    mean = weights @ rows
    out, factors = closed.mean_to_point(mean, reference, c)
    grad, c_of_mean = closed.mean_gradient(normal(*mean.shape[:-1], x.shape[-1], seed=9), mean, reference, factors, c)
    to_x, c_of_rows = closed.height_gradient(weights.mT @ grad, x, reference, heights, c)
    return [out, to_x, (c_of_mean.sum() + c_of_rows.sum()).view(1), grad @ rows.mT]


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_gradients_of_values_and_means(radius: float) -> None:
    x = oracles.points_at(radius, 28, 4, seed=3).view(2, 2, 7, 4)
    weights, reference = normal(2, 2, 5, 7, seed=4).softmax(-1), x.mean(-2, keepdim=True) + 0.1
    found = written_down(x, C, weights, reference)
    out, *expected = by_autograd(lambda *leaves: attended(columns, *leaves, reference), x, C, weights)
    torch.testing.assert_close(found[:3], [out, *expected[:2]], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(out, LF.centroid(x[:, :, None], weights, C))


def test_the_gradient_in_the_weights_is_that_of_the_centroid() -> None:
    x, scores = normal(2, 2, 7, 4), normal(2, 2, 5, 7, seed=4)
    reference = x.mean(-2, keepdim=True) + 0.1
    *_, to_weights = written_down(x, C, scores.softmax(-1), reference)
    _, expected = by_autograd(lambda scores: LF.centroid(x[:, :, None], scores.softmax(-1), C), scores)
    torch.testing.assert_close(
        torch.ops.aten._softmax_backward_data(to_weights, scores.softmax(-1), -1, scores.dtype), expected
    )


def test_one_value_passes_its_gradient_on_unchanged() -> None:
    x, ones = normal(1, 1, 1, 4), torch.ones(1, 1, 3, 1, dtype=torch.float64)
    out, grad, *_ = written_down(x, torch.ones(1, dtype=torch.float64), ones, x + 0.1)
    torch.testing.assert_close(out, x.expand(1, 1, 3, 4))
    torch.testing.assert_close(grad, normal(1, 1, 3, 4, seed=9).sum(2, keepdim=True))
