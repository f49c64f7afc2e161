"""The kernels of `linear` against the specification in float64: alone, and in the order that a layer calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.linear import linear, linear_with_time, naive, rows, triton
from tests.kernels.compare import assert_close, error_ratio, expanded, padded, poisoned, strided

SHAPES = [(1, 1, 1), (5, 3, 2), (2, 17, 33), (33, 64, 16), (17, 70, 128), (0, 4, 5), (3, 97, 129)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
PRODUCT = {"BLOCK": 16, "DEPTH": 16, "num_warps": 4, "num_stages": 2}
# Of a rounded result in float32 units of rounding; the interpreter truncates to bfloat16, where a GPU rounds.
LIMITS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}


def problem(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Points, weights, bias and curvature, rounded to the dtype, and an upstream gradient."""
    count, inner, out = shape
    generator = torch.Generator().manual_seed(count + 31 * inner + 1009 * out)
    sizes = ((count, inner), (out, inner), (out,), (out,))
    parts = [torch.randn(size, generator=generator).to(dtype) for size in sizes]
    return [*parts, torch.tensor([0.7]), torch.randn(count, out, generator=generator).to(dtype)]


def truth(parts: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result and the gradients of x, weight, time_weight, bias and c, in float64."""
    *exact, upstream = (part.double() for part in parts)
    for part in exact:
        part.requires_grad_()
    y = naive.linear(*exact)
    return y, torch.autograd.grad(y, exact, upstream)


@dtypes
@shapes
def test_a_layer_is_that_of_the_specification(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    *parts, upstream = problem(shape, dtype)
    expected, wanted = truth([*parts, upstream])
    for part in parts:
        part.requires_grad_()
    with poisoned():
        y = linear(*parts, backend="triton")
        got = torch.autograd.grad(y, parts, upstream)
    # The product is torch's, in 16 bits rounded before the time is added.
    product = error_ratio(parts[0].double() @ parts[1].double().mT, parts[0] @ parts[1].mT)
    assert_close("y", expected, y, LIMITS[dtype] + 2 * product)
    for name, value, grad in zip("xwtbc", wanted, got, strict=True):
        assert_close(name, value, grad, 2 * LIMITS[dtype] + 2 * product)


@dtypes
@shapes
def test_the_fused_product_is_that_of_the_specification(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, weight, time_weight, bias, c, _ = problem(shape, dtype)
    expected, _ = truth(problem(shape, dtype))
    with poisoned():
        x0 = triton.time_of(x, c, 0.0)
        y, *_ = triton.product(x, weight, x0, time_weight, bias, "", False, c, 0.0, PRODUCT.copy())
    assert y.dtype == dtype
    assert_close("y", expected, y, LIMITS[dtype])


def test_few_outputs_of_many_rows_take_the_fused_product(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(rows, "FUSED_ROWS", 17)
    monkeypatch.setattr(rows, "_product", lambda x, *rest: used.append(len(x)) or [torch.zeros(len(x), 2)] * 3)
    for count, dtype in ((16, torch.float16), (17, torch.float16), (17, torch.float32)):
        linear(*problem((count, 3, 2), dtype)[:5], backend="triton")
    assert used == [17]


@pytest.mark.parametrize("layout", [strided, padded, expanded], ids=lambda layout: layout.__name__)
def test_memory_layout_does_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    parts = [layout(part) for part in problem((6, 5, 7))]
    expected, wanted = truth(parts)
    *leaves, upstream = parts
    for leaf in leaves:
        leaf.requires_grad_()
    y = linear(*leaves, backend="triton")
    assert_close("y", expected, y, 1e-6)
    for name, value, grad in zip("xwtbc", wanted, torch.autograd.grad(y, leaves, upstream), strict=True):
        assert_close(name, value, grad, 2e-6)


@pytest.mark.parametrize("radius", [0.0, 1e-3, 1.0, 100.0])
def test_times_are_those_of_the_rounded_points(radius: float) -> None:
    x = torch.randn(37, 65)
    x = (radius * x / x.norm(dim=1, keepdim=True)).bfloat16()
    with poisoned():
        x0 = triton.time_of(x, None, 2.0)
    assert_close("x0", naive.time(x.double(), 2.0), x0, 2e-7)


@dtypes
@pytest.mark.parametrize("radius", [0.0, 1e-3, 1.0, 10.0, 100.0])
def test_a_result_and_its_time_are_a_point_of_the_sheet(radius: float, dtype: torch.dtype) -> None:
    x, weight, time_weight, bias, c, _ = problem((17, 33, 65), dtype)
    x = (radius * x.float() / x.float().norm(dim=1, keepdim=True)).to(dtype)
    with poisoned():
        y, y0 = linear_with_time(x, weight, time_weight, bias, c, backend="triton")
    gap = y.double().square().sum(1) - y0.double().squeeze(1).square() + 1 / c.double()
    assert (gap.abs() <= 1e-6 * y0.double().squeeze(1).square()).all()


def test_many_rows_share_the_programs_of_the_backward() -> None:
    """More blocks of rows than programs, the last of them cut short."""
    _, _, time_weight, _, _, upstream = problem((45, 3, 10))
    x0 = torch.rand(45, 1) + 1
    with poisoned():
        tile = {"TILE": 64, "PROGRAMS": 3, "num_warps": 1}
        ratio, sums, _ = triton.backward(upstream, x0, time_weight, None, None, None, "", tile)
    grad = upstream.double()
    assert_close("ratio", (grad @ time_weight.double())[:, None] / x0.double(), ratio, 1e-6)
    assert_close("sums", torch.stack([(grad * x0).sum(0), grad.sum(0)]), sums, 1e-6)


def test_wide_rows_are_taken_in_pieces() -> None:
    parts = problem((3, 150, 140))
    x, _, time_weight, bias, c, grad = parts
    tile = {"TILE": 64, "num_warps": 1}
    x0 = triton.time_of(x, c, 0.0, tile.copy())
    assert_close("x0", naive.time(x.double(), c.double()), x0, 2e-7)
    y, _, y0 = triton.epilogue(grad, x0, time_weight, bias, "", True, c, 0.0, tile.copy())
    assert_close("y", grad.double() + x0.double() * time_weight + bias, y, 1e-6)
    assert_close("y0", naive.time(y.double(), c.double()), y0, 2e-7)
    total = triton.add_time(x, x, x0, tile.copy())
    assert_close("total", x.double() * (1 + x0.double()), total, 1e-6)


def test_two_backwards_are_equal_to_the_last_bit() -> None:
    *leaves, upstream = problem((40, 5, 7))
    for leaf in leaves:
        leaf.requires_grad_()
    first, second = (torch.autograd.grad(linear(*leaves, backend="triton"), leaves, upstream) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@dtypes
@pytest.mark.parametrize("fused", [True, False], ids=["fused product", "epilogue"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", None])
def test_two_maps_share_the_time_between_them(
    activation: str | None, fused: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activation, its derivative, the time of the result and what comes back through it."""
    if fused:
        monkeypatch.setattr(rows, "FUSED_ROWS", 1)
        monkeypatch.setattr(triton, "pick", lambda op, kernel, *_, **__: dict(PICKED[kernel]))
    x, weight, time_weight, bias, c, upstream = problem((19, 7, 33), dtype)
    second, second_time = torch.randn(5, 33).to(dtype), torch.randn(5).to(dtype)

    def chain(functions: tuple[Callable[..., Any], ...], parts: list[Tensor], **options: Any) -> tuple[Tensor, Tensor]:
        with_time, plain = functions
        x, weight, time_weight, bias, c, second, second_time = parts
        y, y0 = with_time(x, weight, time_weight, bias, c, activation=activation, **options)
        return y, plain(y, second, second_time, None, c, x0=y0, **options)

    parts = [x, weight, time_weight, bias, c, second, second_time]
    exact = [part.double().requires_grad_() for part in parts]
    leaves = [part.requires_grad_() for part in parts]
    wanted = chain((naive.linear_with_time, naive.linear), exact)
    with poisoned():
        got = chain((linear_with_time, linear), leaves, backend="triton")
    slopes = upstream, torch.ones(19, 5).to(dtype)
    with poisoned():
        gradients = torch.autograd.grad(got, leaves, slopes)
    expected = torch.autograd.grad(wanted, exact, [slope.double() for slope in slopes])
    limit = {torch.float32: 3e-6, torch.float16: 5e-3, torch.bfloat16: 8e-2}[dtype]
    for name, truth, value in zip(("y", "z"), wanted, got, strict=True):
        assert_close(name, truth, value, limit)
    for name, truth, value in zip("xwtbcst", expected, gradients, strict=True):
        assert_close(name, truth, value, limit)


PICKED = {
    "rows": {"TILE": 64, "num_warps": 1},
    "product": PRODUCT,
    "backward": {"TILE": 64, "PROGRAMS": 3, "num_warps": 1},
}
