"""The kernels of `scaled_direction` against the specification in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorentz_kernels.scaled_direction import naive, scaled_direction
from tests.kernels.compare import assert_close, expanded, padded, poisoned, strided

LIMITS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}  # the interpreter truncates to bfloat16


def check(v: Tensor, radius: Tensor, slope: Tensor) -> None:
    exact = [part.detach().double().requires_grad_() for part in (v, radius)]
    truth = naive.scaled_direction(*exact)
    wanted = torch.autograd.grad(truth, exact, slope.double())
    leaves = [v.requires_grad_(), radius.requires_grad_()]
    with poisoned():
        y = scaled_direction(*leaves, backend="triton")
        got = torch.autograd.grad(y, leaves, slope)
    for name, expected, actual in zip(("y", "dv", "dradius"), (truth, *wanted), (y, *got), strict=True):
        assert_close(name, expected, actual, LIMITS[v.dtype])


@pytest.mark.parametrize("dtype", LIMITS, ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("shape", [(5, 3), (17, 16), (2, 3, 33), (7,), (0, 4), (3, 1025)], ids=str)
def test_one_pass_is_the_specification(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    v, slope = (torch.randn(shape).to(dtype) for _ in range(2))
    check(v, torch.rand(*shape[:-1], 1) + 0.1, slope)


@pytest.mark.parametrize("size", [1e-16, 1e-5, 1e10, 1e18])
def test_lengths_far_from_one_keep_their_digits(size: float) -> None:
    check(size * torch.randn(5, 7), torch.rand(5, 1), torch.randn(5, 7))


@pytest.mark.parametrize("layout", [strided, padded, expanded], ids=lambda layout: layout.__name__)
def test_memory_layout_does_not_matter(layout: type[Tensor]) -> None:
    check(*(layout(part) for part in (torch.randn(5, 7), torch.rand(5, 1), torch.randn(5, 7))))


def test_a_zero_vector_stays_zero_with_the_radius_as_its_gradient() -> None:
    v, radius, slope = torch.zeros(3, 5).requires_grad_(), torch.rand(3, 1).requires_grad_(), torch.randn(3, 5)
    y = scaled_direction(v, radius, backend="triton")
    of_v, of_radius = torch.autograd.grad(y, (v, radius), slope)
    assert torch.equal(y, v)
    torch.testing.assert_close(of_v, radius * slope)
    assert torch.equal(of_radius, torch.zeros(3, 1))
