"""`scaled_direction`: the length asked for at any length of the vector, derivatives of any order, every transform."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels.scaled_direction import naive, scaled_direction
from tests.kernels.compare import assert_close, expanded, padded, strided

shapes = pytest.mark.parametrize("shape", [(5, 3), (2, 3, 33), (7,), (0, 4), (300, 2)], ids=str)


def problem(*shape: int, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A vector, a radius and an upstream gradient, in float64."""
    generator = torch.Generator().manual_seed(sum(shape))
    v, slope = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return size * v, torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64) + 0.1, slope


def gradients(function: Callable[..., Tensor], v: Tensor, radius: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    leaves = [v.detach().requires_grad_(), radius.detach().requires_grad_()]
    y = function(*leaves)
    return (y.detach(), *torch.autograd.grad(y, leaves, slope))


@pytest.mark.parametrize("size", [1e-16, 1e-5, 1.0, 1e10, 1e18])
@shapes
def test_float32_is_the_specification_at_any_length(shape: tuple[int, ...], size: float) -> None:
    single = [part.float() for part in problem(*shape, size=size)]
    wanted = gradients(naive.scaled_direction, *(part.double() for part in single))
    for name, truth, got in zip(("y", "dv", "dradius"), wanted, gradients(scaled_direction, *single), strict=True):
        assert_close(name, truth, got, 1e-6)


def test_a_vector_of_one_number_is_a_sign() -> None:
    v, radius = torch.tensor([[3.0], [-0.1]]), torch.tensor([[0.5], [2.0]])
    y, of_v, of_radius = gradients(scaled_direction, v, radius, torch.ones(2, 1))
    torch.testing.assert_close(y, torch.tensor([[0.5], [-2.0]]))
    torch.testing.assert_close(of_v, torch.zeros(2, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(of_radius, torch.tensor([[1.0], [-1.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_rounded_once(dtype: torch.dtype) -> None:
    v, radius, slope = problem(40, 33)
    low = v.to(dtype), radius.float(), slope.to(dtype)
    found, wanted = gradients(scaled_direction, *low), gradients(naive.scaled_direction, *(p.double() for p in low))
    assert [each.dtype for each in found] == [dtype, dtype, torch.float32]
    for name, truth, got in zip(("y", "dv", "dradius"), wanted, found, strict=True):
        assert_close(name, truth, got, 1e-6 if name == "dradius" else torch.finfo(dtype).eps / 2)


def test_a_zero_vector_stays_zero_with_the_radius_as_its_gradient() -> None:
    v, radius, slope = torch.zeros(2, 3), torch.tensor([[0.5], [2.0]]), torch.randn(2, 3)
    y, of_v, of_radius = gradients(scaled_direction, v, radius, slope)
    assert torch.equal(y, v)
    torch.testing.assert_close(of_v, radius * slope)
    assert torch.equal(of_radius, torch.zeros(2, 1))


def test_a_radius_of_zero_has_a_gradient() -> None:
    v, _, slope = (part.float() for part in problem(4, 3))
    found = gradients(scaled_direction, v, torch.zeros(4, 1), slope)
    for got, wanted in zip(found, gradients(naive.scaled_direction, v, torch.zeros(4, 1), slope), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("layout", [strided, padded, expanded], ids=lambda layout: layout.__name__)
def test_memory_layout_does_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    v, radius, slope = (layout(part.float()) for part in problem(5, 4))
    wanted = gradients(naive.scaled_direction, *(part.double().contiguous() for part in (v, radius, slope)))
    for name, truth, got in zip(
        ("y", "dv", "dradius"), wanted, gradients(scaled_direction, v, radius, slope), strict=True
    ):
        assert_close(name, truth, got, 1e-6)


def test_second_derivatives_are_those_of_the_specification() -> None:
    """A gradient penalty in float32, where the gradient is in closed form."""

    def penalty(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        v, radius, slope = (part.float() for part in problem(5, 4))
        leaves = v.requires_grad_(), radius.requires_grad_()
        first = torch.autograd.grad((function(*leaves) * slope).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), leaves)

    torch.testing.assert_close(penalty(scaled_direction), penalty(naive.scaled_direction), rtol=1e-5, atol=1e-5)


def test_gradcheck_and_second_derivatives_in_float64() -> None:
    v, radius, _ = problem(3, 4)
    arguments = v.requires_grad_(), radius.requires_grad_()
    assert torch.autograd.gradcheck(scaled_direction, arguments)
    assert torch.autograd.gradgradcheck(scaled_direction, arguments)


def test_transforms_of_torch() -> None:
    v, radius, slope = (part.float() for part in problem(5, 4))
    expected = naive.scaled_direction(v, radius)
    for dynamic in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(scaled_direction, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        torch.testing.assert_close(compiled(v, radius), expected)
        torch.testing.assert_close(gradients(compiled, v, radius, slope), gradients(scaled_direction, v, radius, slope))
    torch.testing.assert_close(torch.vmap(scaled_direction)(v, radius), expected)
    tangents = torch.ones_like(v), torch.ones_like(radius)
    got = torch.func.jvp(scaled_direction, (v, radius), tangents)
    torch.testing.assert_close(got, torch.func.jvp(naive.scaled_direction, (v, radius), tangents))
    with FakeTensorMode():
        assert scaled_direction(torch.empty(5, 4), torch.empty(5, 1)).shape == (5, 4)


@pytest.mark.parametrize("permuted", [True, False], ids=["permuted", "plain"])
def test_the_operators_keep_their_contract_with_torch(permuted: bool) -> None:
    v, radius, slope = (part.float() for part in problem(5, 4))
    if permuted:  # dense, in an order that `empty_like` would keep
        v, slope = (part.mT.contiguous().mT for part in (v, slope))
    torch.library.opcheck(torch.ops.lorentz_kernels.scaled_direction.default, (v if permuted else padded(v), radius))
    backward = torch.ops.lorentz_kernels.scaled_direction_backward.default
    torch.library.opcheck(backward, (slope, v, radius, v.norm(dim=1, keepdim=True)))


def test_a_radius_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected radius \(5, 1\), got \(5,\)"):
        scaled_direction(torch.ones(5, 4), torch.ones(5))
