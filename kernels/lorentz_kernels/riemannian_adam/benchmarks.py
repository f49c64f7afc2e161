"""`riemannian_adam` on a GPU: a step beside a copy, the same step by torch's operators, and geoopt's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from lorentz_kernels.measure import Benchmark, Call, Check, Work
from lorentz_kernels.riemannian_adam import adam_step, adam_step_

SIZES = ((1_000_000, 128), (40_000, 32), (112_946, 100))


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    dense = [Benchmark(f"step {count}x{width} fp32", partial(_step, count, width)) for count, width in SIZES]
    return [*dense, Benchmark("step of 16384 rows of 1000000x128 fp32", partial(_sparse, 1_000_000, 128, 16384))]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    return [Check(f"{n}x{d}", partial(_compare, n, d), {torch.float32: 1e-5}) for n, d in ((1000, 33), (5000, 128))]


def _state(count: int, width: int, device: torch.device, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Points, a gradient, and moments after one step from rest."""
    generator = torch.Generator(device).manual_seed(0)
    x, grad, next_grad = (torch.randn(count, width, device=device, dtype=dtype, generator=generator) for _ in range(3))
    zero = torch.zeros_like(x)
    x, w, v = adam_step(x, grad, zero, torch.zeros(count, 1, device=device, dtype=dtype), 1)
    return [x, next_grad, w, v]


def _compare(count: int, width: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    exact = _state(count, width, device, torch.float64)
    x, grad, w, v = exact
    expected = adam_step(x, grad, w, v, 2, lr=0.1)
    x, grad, w, v = (part.to(dtype) for part in exact)
    adam_step_(x, grad, w, v, 2, lr=0.1)
    yield from zip(("x", "w", "v"), expected, (x, w, v), strict=True)


def _step(count: int, width: int, device: torch.device) -> Work:
    x, grad, w, v = _state(count, width, device)
    calls: dict[str, Call] = {
        "ours": lambda: adam_step_(x, grad, w, v, 2.0),
        "eager": lambda: adam_step_(x, grad, w, v, 2.0, backend="torch"),
        "geoopt": _geoopt(count, width, device),
    }
    large = count * width > 10**8
    if large:
        compiled, step = torch.compile(partial(adam_step_, backend="torch")), torch.full((), 2.0, device=device)
        calls["compile"] = lambda: compiled(x, grad, w, v, step)
    goals = {"geoopt": 25.0, "compile": 1.1} if large else {}
    return Work(calls, bytes=4 * (5 * x.numel() + 2 * v.numel()), goals=goals, share=0.8 if large else 0.0)


def _geoopt(count: int, width: int, device: torch.device) -> Call:
    """Return a step of geoopt's optimiser, made when it is first called."""

    @cache
    def optimiser() -> torch.optim.Optimizer:
        import geoopt

        manifold = geoopt.Lorentz().to(device)
        points = manifold.random_normal(count, width + 1, device=device, dtype=torch.float32)
        parameter = geoopt.ManifoldParameter(points, manifold=manifold)
        parameter.grad = torch.randn_like(points)
        made: torch.optim.Optimizer = geoopt.optim.RiemannianAdam([parameter])
        return made

    return lambda: optimiser().step()


def _sparse(count: int, width: int, touched: int, device: torch.device) -> Work:
    x, grad, w, v = _state(count, width, device)
    rows = (torch.randperm(count, device=device).narrow(0, 0, touched),)
    part = grad.narrow(0, 0, touched)
    calls = {
        "ours": lambda: adam_step_(x, part, w, v, 2.0, rows=rows),
        "eager": lambda: adam_step_(x, part, w, v, 2.0, rows=rows, backend="torch"),
    }
    return Work(calls, bytes=4 * touched * (5 * width + 2))
