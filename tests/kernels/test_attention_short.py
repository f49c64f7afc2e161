"""Attention on a CPU over short sequences against the specification, and what it leaves to other forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention, naive, short
from lorentz_kernels.attention.closed import square
from lorentz_kernels.attention.op import _Attention
from lorentz_kernels.attention.short import Short
from tests.kernels.attention_cases import Case, Problem, problem, truth
from tests.kernels.compare import assert_close

CASES = [
    Case(),
    Case(queries=1, keys=1, value_width=5),
    Case(batch=3, causal=True, queries=7, keys=7, mask="bool"),
    Case(causal=True, diagonal=37),
    Case(batch=2, heads=4, kv_heads=2, mask="keys", scale=(1, 4, 1), c=0.5, c_tensor=True),
    Case(mask="added", causal=True, c=0.75, scale=(1, 1, 1), value_width=3),
    Case(batch=2, heads=4, kv_heads=1, mask="bool", scale=(2, 4, 33), c_tensor=True),
    Case(qk_norm=True, c=0.5, radius=2.0),
    Case(qk_norm=True, batch=2, heads=4, kv_heads=2, mask="keys", scale=(1, 4, 1), c=0.25, c_tensor=True, radius=2.0),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def operators_of(p: Problem) -> Short:
    return Short(*(square(x.float() if x.dtype.itemsize < 4 else x) for x in (p.q, p.k, p.v)), p.case.qk_norm)


def gradients(p: Problem) -> dict[str, Tensor]:
    """Points and gradients by the operators, whether or not they would be chosen."""
    names = {"dq": p.q, "dk": p.k, "dv": p.v, "dscale": p.scale, "dc": p.c}
    wide = torch.promote_types(p.q.dtype, torch.float32)
    leaves: dict[str, Any] = {
        n: x.detach().to(x.dtype if n in ("dq", "dk", "dv") else wide) for n, x in names.items() if x is not None
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    points = _Attention.apply(
        operators_of(p),
        leaves["dq"],
        leaves["dk"],
        leaves["dv"],
        p.mask,
        leaves.get("dscale"),
        leaves.get("dc"),
        *p.options(True),
    )
    return {"points": points.detach()} | dict(
        zip(leaves, torch.autograd.grad(points, list(leaves.values()), p.grad), strict=True)
    )


@cases
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_results_and_gradients_are_those_of_the_specification(case: Case, dtype: torch.dtype) -> None:
    p = problem(case, dtype)
    expected = truth(p)
    for name, found in gradients(p).items():
        narrow = dtype == torch.bfloat16 and name not in ("dscale", "dc")
        limit = torch.finfo(dtype).eps if narrow else 1e-11 if dtype == torch.float64 else 1e-5
        assert found.dtype == (torch.float32 if not narrow and dtype == torch.bfloat16 else dtype)
        assert_close(name, expected[name].view(found.shape), found, limit)


def test_autocast_rounds_what_comes_in_and_nothing_in_between() -> None:
    p = problem(Case(batch=2, qk_norm=True, c=0.5, radius=2.0), torch.bfloat16)

    def derived(cast: bool) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in (p.q, p.k, p.v)]
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            points = attention(*leaves, c=0.5, scale=0.2, qk_norm=True)
            return [points, *torch.autograd.grad(points, leaves, p.grad)]

    for plain, cast in zip(derived(False), derived(True), strict=True):
        assert torch.equal(plain, cast)


@cases
def test_it_is_what_runs_on_short_sequences(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(case, torch.float32)
    taken = []
    monkeypatch.setattr(Short, "attention", lambda self, *rest: taken.append(self) or (p.grad,))
    attention(
        p.q, p.k, p.v, p.mask, is_causal=case.causal, diagonal=case.diagonal, enable_gqa=True,
        c=case.c if p.c is None else p.c, qk_norm=case.qk_norm,
    )  # fmt: skip
    assert len(taken) == 1


def test_one_head_of_keys_serves_all_queries_without_groups() -> None:
    p = problem(Case(batch=2, heads=3, kv_heads=1), torch.float32)

    def derived(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in (p.q, p.k, p.v)]
        points = function(*leaves)
        return [points, *torch.autograd.grad(points, leaves, p.grad.to(dtype))]

    expected, found = derived(naive.attention, torch.float64), derived(attention, torch.float32)
    for name, *pair in zip(("points", "dq", "dk", "dv"), expected, found, strict=True):
        assert_close(name, *pair, 5e-6)


REFUSED: dict[str, dict[str, Any]] = {
    "longer": {"queries": 65, "keys": 64},
    "values far out": {"radius": 8.0, "clustered": True},
    "in double precision": {"dtype": torch.float64},
    "a key at the origin, which norms leave there": {"qk_norm": True, "radius": 2.0, "c": 0.5, "origin": True},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_what_it_would_not_do_exactly_is_left_to_others(options: dict[str, Any]) -> None:
    options = dict(options)
    dtype, origin = options.pop("dtype", torch.float32), options.pop("origin", False)
    p = problem(Case(**options), dtype)
    if origin:
        p.k[:, :, 3] = 0
    assert Short.of(p.q, p.k, p.v, p.case.c, p.case.qk_norm) is None
    expected = truth(p)["points"]
    found = attention(p.q, p.k, p.v, scale=p.slope / 2, c=p.case.c, qk_norm=p.case.qk_norm)
    assert_close("points", expected, found, 5e-5)


def test_a_chosen_form_of_torchs_attention_is_respected() -> None:
    p = problem(Case(), torch.float32)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert Short.of(p.q, p.k, p.v, 1.0, False) is None


@pytest.mark.parametrize("qk_norm", [False, True])
def test_second_derivatives_agree_with_those_in_double_precision(qk_norm: bool) -> None:
    p = problem(Case(queries=3, keys=5, radius=2.0, c=0.5, qk_norm=qk_norm), torch.float32)

    def second(dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in (p.q, p.k, p.v)]
        points = attention(*leaves, c=0.5, scale=0.2, qk_norm=qk_norm)
        first = torch.autograd.grad(points, leaves, p.grad.to(dtype), create_graph=True)
        return list(torch.autograd.grad([x.square().sum() for x in first], leaves))

    assert short.Short.of(p.q, p.k, p.v, 0.5, qk_norm) is not None
    for name, *pair in zip(("q", "k", "v"), second(torch.float64), second(torch.float32), strict=True):
        assert_close(name, *pair, 2e-5)
