"""Gradients: right everywhere, finite where roots have poles, right in the curvature."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from tests import oracles
from tests.lorentz.operations import OPERATIONS, Operation, operands

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_first_and_second_derivatives_are_right(operation: Operation) -> None:
    c = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    inputs = [value[0].requires_grad_() for value in operands(operation, torch.float64)]
    assert torch.autograd.gradcheck(operation, (*inputs, c))
    assert torch.autograd.gradgradcheck(operation, (*inputs, c), atol=1e-4)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-5, 0.05, 0.0999, 0.1001, 0.3])
@pytest.mark.parametrize("function", [LF.expmap0, LF.logmap0])
def test_maps_at_the_origin_are_twice_differentiable_through_zero(
    function: Callable[[Tensor], Tensor], length: float
) -> None:
    v = (length * torch.tensor([[0.6, 0.0, -0.8]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(function, (v,))
    assert torch.autograd.gradgradcheck(function, (v,))


@pytest.mark.parametrize("function", [LF.expmap0, LF.logmap0])
def test_second_derivatives_near_the_origin_keep_their_digits_in_float32(function: Callable[[Tensor], Tensor]) -> None:
    direction, at = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64), torch.tensor([6e-5, 3e-5, -8e-5]).double()

    def second(dtype: torch.dtype) -> Tensor:
        def along(x: Tensor) -> Tensor:
            return torch.func.jvp(function, (x,), (direction.to(dtype),))[1]

        return torch.func.jvp(along, (at.to(dtype),), (direction.to(dtype),))[1]

    torch.testing.assert_close(second(torch.float32), second(torch.float64).float(), rtol=1e-5, atol=0)


# The gradient of `transp` multiplies three times, so its range ends at a third of the exponents.
@pytest.mark.parametrize("radius", [1e-30, 1e-20, 1e-6, 1.0, 20.0, 27.0, 40.0])
@pytest.mark.parametrize("name", ["dist0", "norm", "logmap0", "logmap", "expmap", "transp", "transp0", "centroid"])
def test_gradients_are_finite_from_the_origin_to_the_edge_of_float32(name: str, radius: float) -> None:
    radius = min(radius, 27.0) if name == "transp" else radius
    x, y = (oracles.points_at(radius, 8, 4, seed=seed).float().requires_grad_() for seed in (1, 2))
    v = oracles.vectors_at(x.detach().double(), 1.0, seed=3).float().requires_grad_()
    inputs = {
        "dist0": (x,),
        "norm": (x, v),
        "logmap0": (x,),
        "logmap": (x, y),
        "expmap": (x, v),
        "transp": (x, y, v),
        "transp0": (y, v),
        "centroid": (x,),
    }[name]
    out = getattr(LF, name)(*inputs)
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.sum(), inputs):
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["sqdist", "logmap", "inner", "transp", "geodesic"])
@pytest.mark.parametrize("where", ["origin", "coincident"])
def test_smooth_functions_are_twice_differentiable_at_the_origin_and_at_coincident_points(
    name: str, where: str
) -> None:
    x = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    y = (torch.zeros_like(x) if where == "origin" else x.detach().clone()).requires_grad_()
    v = torch.tensor([[0.1, 0.7, -0.4]], dtype=torch.float64)

    def function(x: Tensor, y: Tensor) -> Tensor:
        arguments = {"transp": (x, y, v), "geodesic": (0.3, x, y)}.get(name, (x, y))
        return getattr(LF, name)(*arguments)

    for first, second in ((x, y), (y, x)):
        assert torch.autograd.gradcheck(function, (first, second))
        assert torch.autograd.gradgradcheck(function, (first, second))


@dtypes
@pytest.mark.parametrize("name", ["dist", "pairwise_dist"])
@pytest.mark.parametrize("radius", [0.0, 1e-20, 1e-3, 1.0, 1e4])
def test_coincident_points_are_at_distance_zero_with_zero_gradient(
    name: str, radius: float, dtype: torch.dtype
) -> None:
    x = torch.tensor([[0.6, -0.8]], dtype=dtype).mul(radius).requires_grad_()
    y, c = x.detach().clone().requires_grad_(), torch.ones(1, dtype=dtype, requires_grad=True)
    distance = getattr(LF, name)(x, y, c)
    assert not distance.any()
    grads = torch.autograd.grad(distance.sum(), (x, y, c), create_graph=True)
    assert not any(grad.any() for grad in grads)
    second = torch.autograd.grad(sum(grad.sum() for grad in grads), (x, y, c), allow_unused=True)
    assert all(grad is None or grad.isfinite().all() for grad in second)


@dtypes
def test_lengths_at_zero_have_zero_gradient(dtype: torch.dtype) -> None:
    x, v = torch.zeros(2, 3, dtype=dtype, requires_grad=True), torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    for length in (LF.dist0(x), LF.norm(x, v), LF.norm(x + 1, v)):
        assert not length.any()
        for grad in torch.autograd.grad(length.sum(), (x, v), allow_unused=True):
            assert grad is None or not grad.any()


@dtypes
def test_distance_to_the_origin_pulls_towards_the_other_point(dtype: torch.dtype) -> None:
    x, y = torch.zeros(3, dtype=dtype, requires_grad=True), torch.tensor([0.3, 0.0, 0.4], dtype=dtype)
    (grad,) = torch.autograd.grad(LF.dist(x, y), x)
    torch.testing.assert_close(grad, -y / y.norm())


@pytest.mark.parametrize("gap", [1e-15, 1e-10, 1e-5])
def test_gradients_stay_unit_vectors_as_points_meet(gap: float) -> None:
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    y = x.detach() + gap * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    (grad,) = torch.autograd.grad(LF.dist(x, y), x)
    torch.testing.assert_close(LF.norm(x, LF.egrad2rgrad(x, grad)).item(), 1.0)


@pytest.mark.parametrize("c", [1e-3, 1e-2, 1.0, 1e2, 1e3])
def test_nothing_is_nan_at_any_curvature(c: float) -> None:
    curvature = torch.tensor([c], requires_grad=True)
    for operation in OPERATIONS:
        inputs = [value[0].requires_grad_() for value in operands(operation, torch.float32)]
        out = operation(*inputs, curvature)
        grads = torch.autograd.grad(out.sum(), (*inputs, curvature), allow_unused=True)
        assert all(grad is None or grad.isfinite().all() for grad in (out, *grads)), operation


def test_nan_is_not_hidden() -> None:
    broken = torch.tensor([[float("nan"), 1.0]])
    for name in ("dist", "sqdist", "logmap", "inner"):
        assert getattr(LF, name)(broken, torch.ones(1, 2)).isnan().any(), name
    assert LF.expmap0(broken).isnan().any()
    assert LF.logmap0(broken).isnan().any()
    assert LF.dist0(broken).isnan().any()
