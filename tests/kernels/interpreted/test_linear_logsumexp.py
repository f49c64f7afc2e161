"""The kernels of `linear_logsumexp` against the specification in float64, on odd shapes, layouts and scales."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp, naive
from lorentz_kernels.linear_logsumexp.triton import moments, table_gradient
from lorentz_kernels.score import Score, euclidean, lorentzian
from tests.kernels.compare import assert_close, expanded, padded, poisoned, strided

SHAPES = [
    (1, 1, 1), (2, 15, 16), (15, 2, 17), (16, 97, 33), (17, 128, 64), (33, 70, 97), (64, 33, 2), (70, 17, 128),
    (97, 16, 70), (128, 64, 15), (0, 9, 4),
]  # fmt: skip
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d).removeprefix("torch."))
kinds = pytest.mark.parametrize("kind", [euclidean, lorentzian], ids=lambda k: k.__name__)
SINGLE = 5e-6  # the error ratio allowed in float32
HALF = torch.finfo(torch.float16).eps  # and where softmax weights are rounded to float16 before they are multiplied
Kind = Callable[..., Score]


def problem(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[Tensor]:
    """Query, table, bias and scales; products of a query and an entry have a variance of about one."""
    n, e, d = shape
    generator = torch.Generator().manual_seed(n + 31 * e + 1009 * d)
    q, t, b, s = (torch.randn(size, generator=generator) for size in ((n, d), (e, d), (e,), (n,)))
    return [(scale * d**-0.25 * q).to(dtype), (d**-0.25 * t).to(dtype), b, s]


def score(kind: Kind, query: Tensor, table: Tensor, bias: Tensor | None, scale: Tensor) -> Score:
    return kind(query, table, bias, scale, *([2.0] if kind is lorentzian else []))


@kinds
@dtypes
@shapes
def test_log_partition_mean_and_gradient_are_those_of_the_specification(
    shape: tuple[int, int, int], dtype: torch.dtype, kind: Kind
) -> None:
    inputs = problem(shape, dtype)
    wide = [x.double().requires_grad_() for x in inputs]
    expected, mean = naive.moments(score(kind, *wide))
    grad = torch.linspace(-1, 2, shape[0])
    of_table, of_bias = torch.autograd.grad(expected @ grad.double(), wide[1:3])
    given = score(kind, *inputs)
    with poisoned():
        lse, average = moments(given, True, "bf16x3", splits=2)
        alone, none = moments(given, False, "bf16x3", splits=2)
        found, rest = table_gradient(given, lse, grad, "bf16x3", splits=2)
    assert_close("alone", lse.double(), alone, 5e-7)
    assert len(none) == 0
    assert_close("lse", expected, lse, SINGLE)
    assert_close("mean", mean, average, SINGLE if dtype == torch.float32 else HALF)
    assert_close("table", of_table, found, SINGLE if dtype == torch.float32 else HALF)
    assert_close("bias", of_bias, rest[:, -1], SINGLE)


@kinds
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "plain"])
def test_public_functions_differentiate_through_the_kernels(kind: Kind, biased: bool) -> None:
    query, table, bias, scales = problem((17, 97, 33))
    function = lorentz_logsumexp if kind is lorentzian else linear_logsumexp
    target = torch.arange(17) * 5

    def run(dtype: torch.dtype, backend: str) -> list[Tensor]:
        parts = [x.to(dtype).requires_grad_() for x in (query, table, bias, scales.abs())]
        named = {"beta" if kind is lorentzian else "scale": parts[3]}
        if kind is lorentzian:
            parts.append(torch.tensor(2.0, dtype=dtype, requires_grad=True))
            named["c"] = parts[4]
        wanted = parts if biased else [*parts[:2], *parts[3:]]
        lse, at = function(parts[0], parts[1], parts[2] if biased else None, target=target, backend=backend, **named)
        return [lse, at, *torch.autograd.grad((lse * torch.arange(17) - at).sum(), wanted)]

    for index, (got, want) in enumerate(zip(run(torch.float32, "triton"), run(torch.float64, "torch"), strict=True)):
        assert_close(str(index), want, got, SINGLE)


@pytest.mark.parametrize("layout", [strided, padded, expanded])
def test_any_layout_is_read(layout: Callable[[Tensor], Tensor]) -> None:
    query, table, bias, scales = problem((17, 33, 16))
    query, table = layout(query), layout(table)
    given = score(lorentzian, query, table, strided(bias[None])[0], expanded(scales))
    lse, mean = moments(given, True, "bf16x3")
    expected = naive.moments(score(lorentzian, *(x.double() for x in (query, table, bias, expanded(scales)))))
    assert_close("lse", expected[0], lse, SINGLE)
    assert_close("mean", expected[1], mean, SINGLE)
    grad = expanded(torch.ones(17, 1)).squeeze(1)
    assert all(x.isfinite().all() for x in table_gradient(given, lse, grad, "bf16x3"))


@kinds
def test_scores_two_hundred_apart_neither_overflow_nor_vanish(kind: Kind) -> None:
    query, table, bias, _ = problem((33, 97, 16), scale=15.0)
    inputs = [query, table, 200 * bias.sign(), torch.ones(33)]
    expected, mean = naive.moments(score(kind, *(x.double() for x in inputs)))
    lse, average = moments(score(kind, *inputs), True, "bf16x3", splits=3)
    size = 200 * torch.finfo(torch.float32).eps  # of the error of scores of this size, which weights inherit
    assert_close("lse", expected, lse, SINGLE)
    assert_close("mean", mean, average, 4 * size)


@kinds
def test_entries_with_a_bias_of_minus_infinity_do_not_exist(kind: Kind) -> None:
    query, table, bias, scales = problem((17, 70, 16))
    out = torch.arange(70) % 3 > 0
    masked = torch.where(out, -torch.inf, bias)
    grad = torch.ones(17)
    with poisoned():
        lse, mean = moments(score(kind, query, table, masked, scales), True, "bf16x3", splits=3)
        found, rest = table_gradient(score(kind, query, table, masked, scales), lse, grad, "bf16x3")
    wanted = naive.moments(score(kind, *(x.double() for x in (query, table[~out], bias[~out], scales))))
    assert_close("lse", wanted[0], lse, SINGLE)
    assert_close("mean", wanted[1], mean, SINGLE)
    assert found.isfinite().all()
    assert not found[out].any()
    assert not rest[out].any()


@kinds
def test_without_entries_the_value_is_minus_infinity_and_the_gradient_zero(kind: Kind) -> None:
    query, table, bias, scales = problem((17, 33, 16))
    given = score(kind, query, table, torch.full_like(bias, -torch.inf), scales)
    lse, mean = moments(given, True, "bf16x3")
    assert (lse == -torch.inf).all()
    assert not mean.any()
    assert not any(part.any() for part in table_gradient(given, lse, torch.ones(17), "bf16x3"))


@pytest.mark.parametrize("scale", [0.0, 1e-30, -2.0], ids=lambda s: f"scale{s:g}")
def test_scales_may_vanish_or_be_negative(scale: float) -> None:
    query, table, bias, _ = problem((17, 70, 16))
    scales = torch.full((17,), scale)
    for kind in (euclidean, lorentzian):
        given, wide = (
            score(kind, *(x.to(d) for x in (query, table, bias, scales))) for d in (torch.float32, torch.float64)
        )
        lse, mean = moments(given, True, "bf16x3")
        expected = naive.moments(wide)
        assert_close("lse", expected[0], lse, SINGLE)
        assert_close("mean", expected[1], mean, SINGLE)


@kinds
def test_results_repeat_to_the_bit_and_do_not_depend_on_the_splits(kind: Kind) -> None:
    given = score(kind, *problem((33, 128, 16)))
    grad = torch.linspace(-1, 2, 33)
    results = [[*moments(given, True, "bf16x3", splits=n)] for n in (1, 1, 2, 4)]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    gradients = [table_gradient(given, results[0][0], grad, "bf16x3", splits=n) for n in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(gradients[0], gradients[1], strict=True))
    for other in (*results[2:], gradients[2]):
        for a, b in zip(results[0] if other is not gradients[2] else gradients[0], other, strict=True):
            assert_close("split", a.double(), b, 1e-6)


def test_bfloat16_rounds_the_table_and_nothing_else() -> None:
    """The interpreter multiplies no bfloat16: the kernels get the rounded numbers in float32."""
    query, table, bias, scales = problem((17, 70, 33))
    rounded = [query.bfloat16(), table.bfloat16(), bias, scales]
    expected = naive.moments(score(lorentzian, *(x.double() for x in rounded)))
    for got in (moments(score(lorentzian, *rounded), True, "bf16x3"),):
        assert_close("lse", expected[0], got[0], SINGLE)
        assert_close("mean", expected[1], got[1], SINGLE)
