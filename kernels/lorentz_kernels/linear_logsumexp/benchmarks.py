"""`linear_logsumexp` on a GPU: beside the scores in memory, eager and compiled, and the plain-torch tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from lorentz_kernels.configs import changed
from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp
from lorentz_kernels.measure import Benchmark, Call, Check, Waiting, Work, installed
from lorentz_kernels.score import logits, lorentzian

BF16 = torch.bfloat16


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    forward = [(65536, 112_946, 100, BF16), (65536, 112_946, 100, torch.float32), (2048, 1_000_000, 128, BF16)]
    both = [(2048, 100_000, 100, BF16), (2048, 100_000, 100, torch.float32), (8192, 1_000_000, 256, BF16)]
    return [
        *(Benchmark(_name("fwd", *sizes), partial(_forward, *sizes)) for sizes in forward),
        *(Benchmark(_name("fwd+bwd", *sizes), partial(_both, *sizes)) for sizes in both),
    ]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64, of Lorentzian scores with bias."""
    limits = {torch.float32: 1e-4, torch.float16: 4e-3, BF16: 2e-2}
    return [Check("x".join(map(str, s)), partial(_compare, *s), limits) for s in ((37, 1001, 33), (300, 5000, 100))]


def _name(kind: str, n: int, e: int, d: int, dtype: torch.dtype) -> str:
    return f"{kind} N{n} E{e} d{d} {'bf16' if dtype == BF16 else 'fp32'}"


def _compare(n: int, e: int, d: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    query, table = (torch.randn(size, d, device=device, generator=generator).to(dtype) for size in (n, e))
    leaves = [query, table, torch.randn(e, device=device, generator=generator)]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    for leaf in leaves:
        leaf.requires_grad_()
    z = lorentz_logsumexp(leaves[0], leaves[1], leaves[2], beta=0.2, c=0.7)
    truth = torch.logsumexp(logits(lorentzian(exact[0], exact[1], exact[2], 0.2, 0.7)), dim=1)
    yield "Z", truth, z
    slope = torch.rand(n, device=device, generator=generator)
    wanted, got = torch.autograd.grad(truth, exact, slope.double()), torch.autograd.grad(z, leaves, slope)
    yield from zip(("dquery", "dtable", "dbias"), wanted, got, strict=True)


def _eager(query: Tensor, table: Tensor) -> Tensor:
    return torch.logsumexp(query @ table.mT, dim=1)


def _forward(n: int, e: int, d: int, dtype: torch.dtype, device: torch.device) -> Work:
    query, table = (torch.randn(size, d, device=device, dtype=dtype) for size in (n, e))

    def call(function: Callable[..., object]) -> Call:
        return lambda: function(query, table)

    calls = {"ours": call(linear_logsumexp), "eager": call(_eager)}
    goals = {"eager": 5.5 if dtype == BF16 else 2.6}
    if dtype == BF16:
        calls["ours, 2 stages"] = _changed(calls["ours"], num_stages=2)
    if dtype == BF16 and d < 128:
        calls["compile"], goals["compile"] = call(torch.compile(_eager, dynamic=False)), 2.4
    return Work(calls, flops=2 * n * e * d, goals=goals)


def _both(n: int, e: int, d: int, dtype: torch.dtype, device: torch.device) -> Work:
    leaves = [torch.randn(size, d, device=device, dtype=dtype).requires_grad_() for size in (n, e)]

    def step(function: Callable[..., Tensor]) -> Call:
        return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)

    calls: dict[str, Call] = {
        "ours": step(linear_logsumexp),
        "eager": step(_eager),
        "tiles of torch": Waiting(step(partial(linear_logsumexp, backend="torch"))),
    }
    target = torch.randint(e, (n,), device=device)
    peers = {"CCE": ("cut_cross_entropy", step(partial(_cce, target)))}
    peers["Liger"] = "liger_kernel", step(partial(_liger, target))
    more, absent = installed(peers)
    goals = {"eager": 1.7, "tiles of torch": 2.0} | {n: g for n, g in (("CCE", 0.9), ("Liger", 3.0)) if n in more}
    return Work({**calls, **more}, flops=10 * n * e * d, goals=goals, absent=absent)


def _cce(target: Tensor, query: Tensor, table: Tensor) -> Tensor:
    """Cross-entropy by Cut Cross-Entropy (Wijmans et al., 2025): our work and the targets' scores."""
    from cut_cross_entropy import linear_cross_entropy

    loss: Tensor = linear_cross_entropy(query, table, target)
    return loss


def _liger(target: Tensor, query: Tensor, table: Tensor) -> Tensor:
    """The same by Liger-Kernel, by chunks of rows."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: Tensor = LigerFusedLinearCrossEntropyLoss()(table, query, target)
    return loss


def _changed(call: Call, **values: int) -> Call:
    def run() -> object:
        with changed("linear_logsumexp", "forward", **values):
            return call()

    return run
