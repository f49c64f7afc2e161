"""The columns of attention: heights against mpmath, gradients in closed form against autograd's of the plain form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.attention.closed import CLOSED
from lorentz_kernels.attention.columns import PLAIN
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
    got = PLAIN.with_height(x, reference, c)
    plane = oracles.row(reference[0])
    truth = [oracles.sqdist(row, plane, c) / (2 * oracles.lift(plane, c)[0]) for row in oracles.rows(x)]
    # The gap is rounded where it is formed: eps of a coordinate, which is eps * x0 of a distance.
    tolerance = 4 * float(LF.time(x, c).max()) * c**0.5 * torch.finfo(torch.float32).eps
    assert max(abs(mp.mpf(float(h)) / t - 1) for h, t in zip(got[:, -1], truth, strict=True)) < tolerance


def gradients(function: Callable[..., Tensor], *operands: Any) -> list[Tensor]:
    leaves = [each.detach().clone().requires_grad_() if isinstance(each, Tensor) else each for each in operands]
    out = function(*leaves)
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    grads = torch.autograd.grad((out * normal(*out.shape, seed=9)).sum(), wanted, allow_unused=True)
    return [out.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_of_rows_with_times(sign: int) -> None:
    operands = normal(2, 3, 5, 4), sign, torch.tensor([0.7], dtype=torch.float64)
    torch.testing.assert_close(gradients(CLOSED.with_time, *operands), gradients(PLAIN.with_time, *operands))


def attended(columns: Any, x: Tensor, c: Tensor, weights: Tensor) -> Tensor:
    """Means of values under given weights: gradients with respect to a plane that both functions share cancel."""
    reference = x.detach().mean(-2, keepdim=True) + 0.1
    return columns.mean_to_point(weights @ columns.with_height(x, reference, c), reference, c)


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_gradients_of_values_and_means(radius: float) -> None:
    x = oracles.points_at(radius, 14, 4, seed=3).view(2, 7, 4)
    weights, c = normal(2, 5, 7, seed=4).softmax(-1), torch.tensor([0.7], dtype=torch.float64)
    closed = gradients(lambda *leaves: attended(CLOSED, *leaves), x, c, weights)
    plain = gradients(lambda *leaves: attended(PLAIN, *leaves), x, c, weights)
    torch.testing.assert_close(closed[:3], plain[:3], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(closed[0], LF.centroid(x[:, None], weights, c))


def test_the_gradient_in_the_weights_is_that_of_the_centroid() -> None:
    x, weights = normal(2, 7, 4), normal(2, 5, 7, seed=4).softmax(-1).requires_grad_()
    c = torch.tensor([0.7], dtype=torch.float64)
    got = gradients(lambda w: attended(CLOSED, x, c, w.softmax(-1)), weights.log())
    expected = gradients(lambda w: LF.centroid(x[:, None], w.softmax(-1), c), weights.log())
    torch.testing.assert_close(got, expected)


def test_one_value_passes_its_gradient_on_unchanged() -> None:
    x, ones = normal(1, 1, 4), torch.ones(1, 3, 1, dtype=torch.float64)
    out, grad, *_ = gradients(lambda x: attended(CLOSED, x, torch.tensor([1.0], dtype=torch.float64), ones), x)
    torch.testing.assert_close(out, x.expand(1, 3, 4))
    torch.testing.assert_close(grad, normal(1, 3, 4, seed=9).sum(1, keepdim=True))


def test_second_derivatives_of_the_closed_form_are_refused() -> None:
    x = normal(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(CLOSED.with_time(x, 1, 1.0).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
