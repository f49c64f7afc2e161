"""The kernels of attention against the specification in float64, forward and backward, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention, triton
from lorentz_kernels.attention.triton import launch
from tests.kernels.attention_cases import Case, Problem, check, problem, truth
from tests.kernels.compare import assert_close, error_ratio, expanded, padded, poisoned, strided

SMALL = {"BLOCK_Q": 32, "BLOCK_K": 32, "SIDES": False}  # of several tiles even where a problem is small
CASES = [
    Case(),
    Case(heads=1, kv_heads=1, queries=1, keys=1),
    Case(queries=2, keys=128, width=64, value_width=64),
    Case(queries=128, keys=15, causal=True),
    Case(heads=4, queries=17, keys=97, width=24, value_width=40, causal=True, diagonal=80, c=0.25),
    Case(kv_heads=1, queries=64, keys=33, width=80, value_width=5, causal=True, diagonal=-31, c=4.0),
    Case(batch=2, queries=33, keys=16, mask="keys", c=0.25, c_tensor=True),
    Case(queries=33, keys=70, mask="bool", scale=(1, 2, 1), causal=True, diagonal=37),
    Case(batch=2, kv_heads=1, queries=97, keys=17, mask="added", scale=(2, 1, 97), c=4.0, c_tensor=True),
    Case(heads=1, kv_heads=1, queries=16, keys=15, value_width=128, mask="bool", scale=(1, 1, 1)),
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SMALL)


def use(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    monkeypatch.setattr(launch, "pick", lambda *_, **__: config)


def run(p: Problem, centred: bool, grad: Tensor | None = None) -> dict[str, Tensor]:
    """Launch the kernels on outputs full of NaN; points, gradients by the names of `truth`, and sums of magnitudes."""
    options = p.options(centred)
    with poisoned():
        saved = triton.forward(*p.tensors, *options)
        grad = p.grad if grad is None else grad
        dq, dk, dv, to_scale, to_c, to_c_of_keys = triton.backward(grad, *p.tensors, *saved, *options)
    found = {"points": saved[0], "dq": dq, "dk": dk, "dv": dv, "dc": to_c.sum() + to_c_of_keys.sum()}
    found["|dc|"] = to_c.abs().sum() + to_c_of_keys.abs().sum()
    if p.scale is not None:
        found["dscale"], found["|dscale|"] = (x.sum_to_size(p.scale.shape) for x in (to_scale, to_scale.abs()))
    return found


@pytest.mark.parametrize("centred", [True, False], ids=["centred", "plain"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_agrees_with_the_specification(case: Case, centred: bool) -> None:
    p = problem(case, torch.float32)
    expected = truth(p)
    check(run(p, centred), expected, dict.fromkeys(expected, 5e-6))


@pytest.mark.parametrize(
    ("dtype", "sides"),
    [(torch.float16, True), (torch.float16, False), (torch.bfloat16, True)],
    ids=["float16-sides", "float16-rank1", "bfloat16-sides"],
)
@pytest.mark.parametrize("case", [CASES[4], CASES[7], CASES[8]], ids=str)
def test_16_bits_err_no_more_than_the_specification_in_16_bits(
    case: Case, dtype: torch.dtype, sides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, SMALL | {"SIDES": sides})
    p = problem(case, dtype)
    expected, plain = truth(p), truth(p, dtype)
    limits = {name: max(error_ratio(wanted, plain[name]), torch.finfo(dtype).eps) for name, wanted in expected.items()}
    if dtype == torch.bfloat16:  # the interpreter cuts where a GPU rounds, which doubles the error
        limits = {name: 2 * limit for name, limit in limits.items()}
    check(run(p, centred=False), expected, limits)


@pytest.mark.parametrize("radius", [0.0, 1e-3, 10.0, 100.0])
def test_float32_at_any_radius(radius: float) -> None:
    p = problem(Case(queries=17, keys=33, radius=radius), torch.float32)
    expected = truth(p)
    # Values spread over a radius r: the mean is far above the sheet, and its norm loses eps r^2 to cancellation.
    check(run(p, centred=True), expected, dict.fromkeys(expected, 5e-6 * max(1.0, radius)))


@pytest.mark.parametrize("radius", [10.0, 100.0])
def test_values_seen_from_their_mean_keep_the_distances_of_a_far_cluster(radius: float) -> None:
    p = problem(Case(queries=17, keys=33, radius=radius, clustered=True), torch.float32)
    expected = truth(p)
    centred, plain = run(p, centred=True), run(p, centred=False)
    assert_close("points", expected["points"], centred["points"], 1e-7)
    for name in ("dv",):
        assert_close(name, expected[name], centred[name], 5e-6)
        assert error_ratio(expected[name], centred[name]) < 0.1 * error_ratio(expected[name], plain[name])


def test_a_query_without_keys_gets_the_origin_and_moves_nothing() -> None:
    p = problem(CASES[7], torch.float32)
    found = run(p, centred=True)
    dead = p.case.queries // 2
    assert not found["points"].select(2, dead).any()
    assert not found["dq"].select(2, dead).any()
    other = p.grad.clone()
    other[:, :, dead] += 100.0
    again = run(p, centred=True, grad=other)
    assert all(torch.equal(found[name], again[name]) for name in found)  # and two runs agree bit by bit


def heads_outside(x: Tensor) -> Tensor:
    """The same numbers, heads farther apart in memory than batches."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("layout", [strided, padded, expanded, heads_outside])
def test_rows_and_gradients_may_have_any_strides(layout: Callable[[Tensor], Tensor]) -> None:
    p = problem(Case(batch=2, queries=15, keys=17), torch.float32)
    q, k, v, grad = (layout(x) for x in (p.q, p.k, p.v, p.grad))
    p = replace(p, q=q, k=k, v=v, grad=grad)
    expected = truth(p)
    check(run(p, centred=True), expected, dict.fromkeys(expected, 5e-6))


def test_heads_may_be_cut_from_one_packed_tensor() -> None:
    packed = torch.randn(2, 17, 3, 2, 16)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    assert_close("points", attention(q, k, v, backend="torch"), attention(q, k, v, backend="triton"), 5e-7)


@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty_problems(batch: int, queries: int, keys: int) -> None:
    p = problem(Case(batch=batch, queries=queries, keys=keys), torch.float32)
    found = run(p, centred=True)
    for name, wanted in truth(p).items():
        assert torch.equal(found[name], wanted.float()), name


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 48), (torch.float16, 64), (torch.float16, 128)])
def test_shipped_configurations(dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    p = problem(Case(heads=1, kv_heads=1, queries=130, keys=140, width=width, value_width=width, causal=True), dtype)
    expected = truth(p)
    limit = 5e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    check(run(p, centred=dtype == torch.float32), expected, dict.fromkeys(expected, limit))
