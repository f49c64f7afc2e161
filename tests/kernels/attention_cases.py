"""Problems for the tests of attention, and their truth: the specification in float64, differentiated by autograd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.attention import naive
from tests.kernels.compare import assert_close

SUMS = "dc", "dscale"  # over rows whose summands cancel


@dataclass(frozen=True)
class Case:
    """Sizes and options of one problem; `radius` is that of the points, `spread` that of values around a centre."""

    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    queries: int = 33
    keys: int = 70
    width: int = 16
    value_width: int = 16
    causal: bool = False
    diagonal: int = 0
    mask: str | None = None
    scale: tuple[int, ...] | None = None
    c: float = 1.0
    c_tensor: bool = False
    radius: float = 1.0
    clustered: bool = False
    qk_norm: bool = False
    seed: int = 0

    def __str__(self) -> str:
        default = Case()
        sizes = (
            f"B{self.batch}-H{self.heads}x{self.kv_heads}-L{self.queries}-S{self.keys}-D{self.width}x{self.value_width}"
        )
        names = ("causal", "diagonal", "mask", "scale", "c", "c_tensor", "radius", "clustered", "qk_norm")
        return "-".join([sizes, *(f"{n}{getattr(self, n)}" for n in names if getattr(self, n) != getattr(default, n))])


@dataclass(frozen=True)
class Problem:
    """The arguments of the operators, the gradient of the points, and what the specification says."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: Tensor | None
    c: Tensor | None
    grad: Tensor
    case: Case
    slope: float = field(default=1.0)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.q, self.k, self.v, self.mask, self.scale, self.c

    def options(self, centred: bool) -> tuple[float, float, bool, int, bool]:
        return self.slope, 1.0 if self.case.c_tensor else self.case.c, self.case.causal, self.case.diagonal, centred


def problem(case: Case, dtype: torch.dtype) -> Problem:
    """Draw a problem; its coordinates are rounded to `dtype`, and the truth is that of the rounded ones."""
    generator = torch.Generator().manual_seed(case.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def points(heads: int, length: int, width: int) -> Tensor:
        x = normal(case.batch, heads, length, width) / width**0.5
        if not case.clustered:
            return case.radius * x
        return x + case.radius * torch.nn.functional.normalize(normal(1, 1, 1, width), dim=-1)

    q, k = points(case.heads, case.queries, case.width), points(case.kv_heads, case.keys, case.width)
    v = points(case.kv_heads, case.keys, case.value_width)
    grad = normal(case.batch, case.heads, case.queries, case.value_width)
    return Problem(
        *(x.to(dtype) for x in (q, k, v)),
        mask=_mask(case, generator, dtype),
        scale=None if case.scale is None else torch.rand(case.scale, generator=generator) + 0.2,
        c=torch.tensor([case.c]) if case.c_tensor else None,
        grad=grad.to(dtype),
        case=case,
        slope=2.0 if case.scale is not None else 1 / (1 + case.radius**2),  # so that no weight takes all
    )


def _mask(case: Case, generator: torch.Generator, dtype: torch.dtype) -> Tensor | None:
    if case.mask is None:
        return None
    if case.mask == "keys":  # padding, as in a batch of sentences
        return torch.rand(case.batch, 1, 1, case.keys, generator=generator) > 0.3
    shape = (case.batch, 1, case.queries, case.keys)
    mask = torch.rand(shape, generator=generator) > 0.3
    mask[:, :, case.queries // 2] = False  # a query that no key may serve
    if case.mask == "bool":
        return mask
    added = torch.randn(1, case.heads, *shape[2:], generator=generator)
    return added.masked_fill(~mask[:1], float("-inf")).to(dtype)


def truth(p: Problem, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return the points and all gradients by the specification, computed in `dtype`."""
    q, k, v = (x.to(dtype).requires_grad_() for x in (p.q, p.k, p.v))
    scale = None if p.scale is None else p.scale.to(dtype).requires_grad_()
    c = torch.tensor(p.case.c, dtype=dtype, requires_grad=True)
    mask = p.mask if p.mask is None or p.mask.dtype == torch.bool else p.mask.to(dtype)
    points = naive.attention(
        q, k, v, mask, is_causal=p.case.causal, diagonal=p.case.diagonal, enable_gqa=True, c=c,
        scale=p.slope / 2 if scale is None else scale[..., None], qk_norm=p.case.qk_norm,
    )  # fmt: skip
    names: dict[str, Any] = {"dq": q, "dk": k, "dv": v, "dc": c} | ({} if scale is None else {"dscale": scale})
    found = torch.autograd.grad(
        points, list(names.values()), p.grad.to(dtype), allow_unused=True, materialize_grads=True
    )
    return {"points": points.detach()} | dict(zip(names, found, strict=True))


def check(found: dict[str, Tensor], expected: dict[str, Tensor], limits: dict[str, float]) -> None:
    """Fail unless what was found is within its limits of what is expected; a sum, within those of its magnitudes."""
    for name, wanted in expected.items():
        if name in SUMS:
            assert (found[name] - wanted).norm() <= limits[name] * found[f"|{name}|"].norm(), name
        else:
            assert_close(name, wanted, found[name], limits[name])
