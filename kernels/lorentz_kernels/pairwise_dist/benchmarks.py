"""`pairwise_dist` on a GPU: beside its formula as it reads, eager and compiled, and the plain-torch tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from lorentz_kernels.measure import Benchmark, Call, Check, Work
from lorentz_kernels.pairwise_dist import naive, pairwise_dist


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    return [
        Benchmark(f"{'fwd+bwd' if backward else 'fwd'} {n}x{n} d{d} fp32", partial(_work, n, d, backward))
        for backward in (False, True)
        for n, d in ((2048, 64), (4096, 16))
    ]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    return [Check("37x53x33", partial(_compare, 37, 53, 33), {torch.float32: 1e-5})]


def _compare(n: int, m: int, d: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    leaves = [torch.randn(size, d, device=device, generator=generator).to(dtype).requires_grad_() for size in (n, m)]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    out, truth = pairwise_dist(leaves[0], leaves[1], 0.7), _formula(exact[0], exact[1], 0.7)
    yield "dist", truth, out
    slope = torch.rand(n, m, device=device, generator=generator)
    wanted, got = torch.autograd.grad(truth, exact, slope.double()), torch.autograd.grad(out, leaves, slope)
    yield from zip(("dx", "dy"), wanted, got, strict=True)


def _formula(x: Tensor, y: Tensor, c: float = 1.0) -> Tensor:
    return naive.dist(x, y, x.new_full((), 1 / c))


def _work(n: int, d: int, backward: bool, device: torch.device) -> Work:
    leaves = [torch.randn(n, d, device=device).requires_grad_(backward) for _ in range(2)]
    slope = torch.rand(n, n, device=device)

    def step(function: Callable[..., Tensor]) -> Call:
        if not backward:
            return lambda: function(*leaves)
        return lambda: torch.autograd.grad(function(*leaves), leaves, slope)

    calls = {
        "ours": step(pairwise_dist),
        "eager": step(_formula),
        "tiles of torch": step(partial(pairwise_dist, backend="torch")),
    }
    if backward and d < 64:
        calls["compile"] = step(torch.compile(_formula, dynamic=False))
    return Work(calls, bytes=4 * n * n * (2 if backward else 1))
