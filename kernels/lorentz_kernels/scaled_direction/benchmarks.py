"""`scaled_direction` on a GPU: beside a copy, and the formula as it reads, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from lorentz_kernels.measure import Benchmark, Call, Check, Work
from lorentz_kernels.scaled_direction import naive, scaled_direction


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    return [Benchmark(f"fwd+bwd 32768x{width} bf16", partial(_work, 32768, width)) for width in (128, 512, 2048)]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    limits = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
    return [Check(f"{n}x{d}", partial(_compare, n, d), limits) for n, d in ((37, 33), (1000, 512))]


def _compare(n: int, d: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    v, slope = (torch.randn(n, d, device=device, generator=generator).to(dtype) for _ in range(2))
    leaves = [v.requires_grad_(), torch.rand(n, 1, device=device, generator=generator).requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y, truth = scaled_direction(leaves[0], leaves[1]), naive.scaled_direction(exact[0], exact[1])
    yield "y", truth, y
    wanted, got = torch.autograd.grad(truth, exact, slope.double()), torch.autograd.grad(y, leaves, slope)
    yield from zip(("dv", "dradius"), wanted, got, strict=True)


def _work(n: int, d: int, device: torch.device) -> Work:
    v, slope = (torch.randn(n, d, device=device, dtype=torch.bfloat16) for _ in range(2))
    leaves = [v.requires_grad_(), torch.rand(n, 1, device=device).requires_grad_()]

    def step(function: Callable[..., Tensor]) -> Call:
        return lambda: torch.autograd.grad(function(*leaves), leaves, slope)

    calls = {"ours": step(scaled_direction), "eager": step(naive.scaled_direction)}
    if d == 512:
        calls["compile"] = step(torch.compile(naive.scaled_direction, dynamic=False))
    return Work(calls, bytes=2 * 5 * n * d, share=0.8)
