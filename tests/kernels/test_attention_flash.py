"""Attention on a CPU by blocks of heads: results, gradients and memory against the specification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention, flash, short
from tests.kernels.attention_cases import Case, Problem, problem, truth
from tests.kernels.compare import assert_close

CASES = [
    Case(),
    Case(batch=3, causal=True, queries=64, keys=64),
    Case(causal=True, diagonal=37),
    Case(batch=2, heads=4, kv_heads=2, mask="keys", scale=(1, 4, 1), c=0.5, c_tensor=True),
    Case(batch=2, heads=4, kv_heads=1, mask="bool", scale=(2, 4, 33), c_tensor=True),
    Case(mask="added", causal=True, c=2.0, scale=(1, 1, 1)),
    Case(radius=8.0, clustered=True),
    Case(queries=1, keys=1),
    Case(qk_norm=True, scale=(1, 2, 1)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _no_sequence_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short, "WEIGHTS", 0)


def by_flash(p: Problem) -> dict[str, Tensor]:
    names = {"dq": p.q, "dk": p.k, "dv": p.v, "dscale": p.scale, "dc": p.c}
    leaves = {name: x.detach().requires_grad_() for name, x in names.items() if x is not None}
    scale = leaves.get("dscale")
    points = attention(
        leaves["dq"], leaves["dk"], leaves["dv"], p.mask, is_causal=p.case.causal, diagonal=p.case.diagonal,
        enable_gqa=True, c=leaves.get("dc", p.case.c), qk_norm=p.case.qk_norm,
        scale=p.slope / 2 if scale is None else p.slope / 2 * scale[..., None],
    )  # fmt: skip
    return {"points": points.detach()} | dict(
        zip(leaves, torch.autograd.grad(points, list(leaves.values()), p.grad), strict=True)
    )


@cases
@pytest.mark.parametrize("block", [1, 1 << 18], ids=["a head each", "few blocks"])
def test_every_block_agrees_with_the_specification(case: Case, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "BLOCK", block)
    p = problem(case, torch.float32)
    expected = truth(p)
    for name, found in by_flash(p).items():
        sums = name in ("dscale", "dc")  # of all rows, of either sign
        limit = 5e-6 if case.radius == 1 and not sums else 5e-5  # scores of far points carry eps s q0 k0
        assert_close(name, expected[name].view(found.shape), found, limit)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_tensors_lose_their_last_rounding_only(dtype: torch.dtype) -> None:
    p = problem(Case(batch=2, mask="bool"), dtype)
    expected = truth(p)
    for name, found in by_flash(p).items():
        assert found.dtype == dtype
        assert_close(name, expected[name], found, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_autocast_gives_its_dtype_whatever_runs(dropout: float) -> None:
    p = problem(Case(), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(p.q, p.k, p.v, dropout_p=dropout).dtype == torch.bfloat16
        assert attention(p.q.double(), p.k.double(), p.v.double(), dropout_p=dropout).dtype == torch.float64
        assert torch.compile(attention, backend="eager")(p.q, p.k, p.v, dropout_p=dropout).dtype == torch.bfloat16


def test_packed_heads_give_results_and_gradients_in_their_own_order() -> None:
    p = problem(Case(batch=2, queries=70), torch.float32)
    packed = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in (p.q, p.k, p.v)]
    out = attention(*packed)
    torch.testing.assert_close(out, attention(p.q, p.k, p.v), rtol=1e-6, atol=1e-6)
    assert out.stride() == packed[0].stride()
    grads = torch.autograd.grad(out.square().sum(), packed)
    assert [grad.stride() for grad in grads] == [x.stride() for x in packed]


def test_nothing_of_the_size_of_the_columns_is_kept() -> None:
    q, k, v = (torch.randn(4, 8, 512, 32, requires_grad=True) for _ in range(3))
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = attention(q, k, v, scale=torch.tensor(0.1, requires_grad=True))
    inputs_and_result = sum(x.numel() for x in (q, k, v, out)) * 4
    means_and_numbers = (33 + 9) * out.numel() // 32 * 4  # the sums of weights, and eight columns
    assert sum(kept.values()) <= 1.01 * (inputs_and_result + means_and_numbers)


def test_torchs_private_operators_are_taken_with_the_arguments_that_are_known_only() -> None:
    name = "_scaled_dot_product_flash_attention_for_cpu"
    assert flash.OFFERED
    assert flash.offers(name, "query key value dropout_p is_causal attn_mask scale")
    assert not flash.offers(name, "query key value dropout_p is_causal scale")
    assert not flash.offers(f"{name}_of_another_version", "query key value")


@cases
def test_without_the_private_operators_torchs_public_ones_agree(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(flash, "OFFERED", False)
    monkeypatch.setattr(flash, "attention", refuse)
    p = problem(case, torch.float32)
    expected = truth(p)
    for name, found in by_flash(p).items():
        sums = name in ("dscale", "dc")
        limit = 5e-6 if case.radius == 1 and not sums else 5e-5
        assert_close(name, expected[name].view(found.shape), found, limit)
