"""Problems for the tests of `multihead`, and their truth: the specification in float64, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.multihead import Heads, Map, multihead, plan

NAMES = "query", "memory", "into", "into time", "into bias", "out", "out time", "out bias", "scale", "c"


@dataclass(frozen=True)
class Case:
    """Sizes and options of one problem."""

    heads: Heads = field(default_factory=lambda: Heads(2, 2))
    queries: int = 5
    keys: int | None = None  # of a memory; none: the queries attend to themselves
    bias: bool = True
    mask: str | None = None
    learned: bool = False  # whether the curvature is

    def __str__(self) -> str:
        kind = f"H{self.heads.queries}x{self.heads.keys}-L{self.queries}-S{self.keys or 'self'}"
        flags = "causal" * self.heads.causal, "normed" * self.heads.qk_norm, "bias" * self.bias, "c" * self.learned
        return "-".join(filter(None, [kind, *flags, self.mask]))


CASES = [
    Case(),
    Case(Heads(4, 2, causal=True), bias=False, learned=True),
    Case(Heads(2, 2, qk_norm=True), mask="keys"),
    Case(Heads(4, 1, qk_norm=True), keys=7, bias=False, mask="bool", learned=True),
    Case(Heads(2, 2), keys=3, mask="added"),
    Case(Heads(2, 2, causal=True, qk_norm=True), queries=70, learned=True),
    Case(Heads(4, 2), queries=6, keys=70, mask="keys"),
]


@dataclass(frozen=True)
class Problem:
    """The tensors in the order of `NAMES`, none where there is none, the mask, and the gradient of the result."""

    tensors: Sequence[Tensor | None]
    mask: Tensor | None
    grad: Tensor
    case: Case

    def call(self, function: Callable[..., Tensor], tensors: Sequence[Any]) -> Tensor:
        query, memory, *maps, scale, c = tensors
        into, out = Map(*maps[:3]), Map(*maps[3:])
        c = 0.5 if c is None else c
        if function is not multihead:
            return function(query, memory, into, out, self.case.heads, self.mask, scale, c)
        how = plan(query, memory, into, out, self.case.heads, self.mask, c)
        assert how is not None
        return function(how, query, memory, into, out, self.mask, scale, c)


def problem(case: Case, dtype: torch.dtype = torch.float32, width: int = 4, inputs: int = 8) -> Problem:
    """Draw a problem of two sequences; its numbers are rounded to `dtype`."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    heads, keys = case.heads, case.keys or case.queries
    rows, joined = sum(heads.all) * width, heads.queries * width
    into = [0.7 * inputs**-0.5 * normal(*shape) for shape in ((rows, inputs), (rows,), (rows,))]
    maps = [*into, normal(6, joined) / 3, normal(6), normal(6)]
    if not case.bias:
        maps[2] = maps[5] = None
    memory = None if case.keys is None else normal(2, keys, inputs)
    mask = {
        None: None,
        "keys": torch.rand(2, 1, 1, keys, generator=generator) > 0.3,
        "bool": torch.rand(2, 1, case.queries, keys, generator=generator) > 0.4,
        "added": normal(1, heads.queries, case.queries, keys),
    }[case.mask]
    if case.mask == "bool":
        mask[0, :, 1] = False  # a query that no key may serve
    tensors = [normal(2, case.queries, inputs), memory, *maps, torch.rand(heads.queries, generator=generator) + 0.2]
    tensors.append(torch.tensor([0.7]) if case.learned else None)
    rounded = [None if x is None else x if i > 7 else x.to(dtype) for i, x in enumerate(tensors)]
    return Problem(rounded, mask, normal(2, case.queries, 6).to(dtype), case)


def gradients(
    p: Problem, function: Callable[..., Tensor] = multihead, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Return the result and all gradients, computed in `dtype`, by default as the problem is."""
    leaves = [None if x is None else x.detach().to(dtype or x.dtype).requires_grad_() for x in p.tensors]
    y = p.call(function, leaves)
    wanted = {name: leaf for name, leaf in zip(NAMES, leaves, strict=True) if leaf is not None}
    found = torch.autograd.grad(y, list(wanted.values()), p.grad.to(y.dtype))
    return {"y": y.detach()} | dict(zip(wanted, found, strict=True))
