"""The kernels of attention of which one tile holds a head, against the specification in float64, in the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention, triton
from lorentz_kernels.attention.tile import Tile, attention_tile, attention_tile_backward
from tests.kernels.attention_cases import SUMS, Case, Problem, check, problem, truth
from tests.kernels.compare import assert_close, error_ratio, expanded, padded, poisoned, strided

CASES = [
    Case(queries=31, keys=32),
    Case(heads=1, kv_heads=1, queries=1, keys=1),
    Case(queries=32, keys=32, width=64, value_width=64, causal=True, c=4.0),
    Case(batch=2, heads=4, queries=17, keys=10, width=24, value_width=40, causal=True, diagonal=3, c=0.25),
    Case(batch=2, queries=32, keys=16, mask="keys", c=0.25, c_tensor=True, qk_norm=True, radius=3.0),
    Case(queries=16, keys=31, mask="bool", scale=(1, 2, 1), causal=True, diagonal=9, qk_norm=True, radius=3.0),
    Case(batch=2, kv_heads=1, queries=27, keys=17, mask="added", scale=(2, 1, 27), c=4.0, c_tensor=True),
    Case(heads=4, kv_heads=2, queries=7, keys=9, value_width=5, mask="bool", scale=(1, 1, 1), qk_norm=True, radius=3.0),
]  # so far out the epsilon of norms is no more than a rounding


def run(p: Problem, centred: bool, form: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, Tensor]:
    """Launch on outputs full of NaN; points, gradients by the names of `truth`, and sums of magnitudes."""
    q, k, v, *given = p.tensors
    arguments = (*map(form, (q, k, v)), *given, *p.options(centred), p.case.qk_norm)  # type: ignore[arg-type]
    with poisoned():
        points = triton.tile(*arguments)
        dq, dk, dv, to_scale, *to_c = triton.tile_backward(form(p.grad), *arguments)
    found = {"points": points, "dq": dq, "dk": dk, "dv": dv}
    if p.c is not None:
        found |= {"dc": to_c[0].sum() + to_c[1].sum(), "|dc|": to_c[0].abs().sum() + to_c[1].abs().sum()}
    if p.scale is not None:
        found["dscale"], found["|dscale|"] = (x.sum_to_size(p.scale.shape) for x in (to_scale, to_scale.abs()))
    return found


@pytest.mark.parametrize("centred", [True, False], ids=["centred", "plain"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_agrees_with_the_specification(case: Case, centred: bool) -> None:
    p = problem(case, torch.float32)
    expected = truth(p)
    found = run(p, centred)
    assert ("dc" in found, "dscale" in found) == (case.c_tensor, case.scale is not None)
    check(found, {name: expected[name] for name in expected.keys() & found}, dict.fromkeys(expected, 5e-6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [CASES[3], CASES[5], CASES[6]], ids=str)
def test_16_bits_err_no_more_than_the_specification_in_16_bits(case: Case, dtype: torch.dtype) -> None:
    p = problem(case, dtype)
    expected, spec = truth(p), truth(p, dtype)
    limits = {name: 1.2 * error_ratio(expected[name], spec[name]) + 4 * torch.finfo(dtype).eps for name in expected}
    found = run(p, False)
    limits |= dict.fromkeys(SUMS, 8 * torch.finfo(dtype).eps)
    check(found, {name: expected[name] for name in expected.keys() & found}, limits)


def test_values_near_one_another_keep_their_differences_where_they_are_centred() -> None:
    p = problem(Case(queries=20, keys=20, clustered=True, radius=30.0), torch.float32)
    expected = truth(p)
    centred, plain = (error_ratio(expected["dq"], run(p, each)["dq"]) for each in (True, False))
    assert centred < plain / 50


@pytest.mark.parametrize("form", [strided, padded, expanded], ids=["strided", "padded", "expanded"])
def test_layouts_change_nothing(form: Callable[[Tensor], Tensor]) -> None:
    p = problem(CASES[6], torch.float32)
    same = form if form is not expanded else lambda x: expanded(x[:, :1]).expand_as(x)
    q, k, v = (same(x).contiguous() for x in (p.q, p.k, p.v))
    plain = run(Problem(q, k, v, p.mask, p.scale, p.c, same(p.grad).contiguous(), p.case, p.slope), True)
    for name, found in run(p, True, same).items():
        assert torch.equal(found, plain[name])


def test_results_lie_in_memory_as_heads_are_joined() -> None:
    p = problem(CASES[3], torch.float32)
    found = run(p, True)
    assert all(found[name].transpose(1, 2).is_contiguous() for name in ("points", "dq", "dk", "dv"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_what_runs_on_short_sequences(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    p, taken = problem(case, torch.float32), []
    operator = Tile.attention
    monkeypatch.setattr(Tile, "attention", lambda self, *rest: taken.append(self) or operator(self, *rest))
    leaves: dict[str, Any] = {"dq": p.q, "dk": p.k, "dv": p.v, "dscale": p.scale, "dc": p.c}
    leaves = {name: x.clone().requires_grad_() for name, x in leaves.items() if x is not None}
    factor = leaves["dscale"][..., None] if "dscale" in leaves else p.slope / 2
    points = attention(
        leaves["dq"], leaves["dk"], leaves["dv"], p.mask, is_causal=case.causal, diagonal=case.diagonal, scale=factor,
        enable_gqa=True, c=leaves.get("dc", case.c), qk_norm=case.qk_norm, backend="triton",
    )  # fmt: skip
    assert taken == [Tile(case.qk_norm)]
    expected, wanted = truth(p), run(p, True)
    found = dict(zip(leaves, torch.autograd.grad(points, list(leaves.values()), p.grad), strict=True))
    assert torch.equal(points, wanted["points"])
    for name in leaves:
        torch.testing.assert_close(found[name].view_as(expected[name]), wanted[name].view_as(expected[name]))


def test_second_derivatives_agree_with_those_in_double_precision() -> None:
    p = problem(Case(queries=3, keys=5, radius=3.0, c=0.5, qk_norm=True), torch.float32)

    def penalty(dtype: torch.dtype, backend: str) -> tuple[Tensor, ...]:
        leaves = [x.to(dtype).requires_grad_() for x in (p.q, p.k, p.v)]
        points = attention(*leaves, c=0.5, scale=0.2, qk_norm=True, backend=backend)
        first = torch.autograd.grad(points, leaves, p.grad.to(dtype), create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), leaves)

    for expected, found in zip(penalty(torch.float64, "torch"), penalty(torch.float32, "triton"), strict=True):
        assert_close("second derivative", expected, found, 1e-4)


@pytest.mark.parametrize("case", [CASES[3], CASES[4], CASES[6]], ids=str)
def test_nothing_of_a_batch_without_rows(case: Case) -> None:
    p = problem(case, torch.float32)
    arguments = (*(x[:0] for x in (p.q, p.k, p.v)), None, None, None, *p.options(True), case.qk_norm)
    assert attention_tile(*arguments).shape == (0, *p.grad.shape[1:])
    assert attention_tile_backward(p.grad[:0], *arguments)[0].shape == (0, *p.q.shape[1:])
