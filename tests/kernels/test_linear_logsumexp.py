"""`linear_logsumexp`: value, gradients and mean against the specification and mpmath, at any scale of the scores."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz_kernels.linear_logsumexp import chunked, linear_logsumexp, linear_logsumexp_mean, naive, op

SHAPES = [(1, 1, 1), (5, 123, 7), (3, 384, 16), (17, 385, 33), (1030, 1000, 5), (0, 9, 4)]


def problem(n: int, e: int, d: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + 31 * e + 1009 * d)
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((n, d), (e, d), (e,))]
    return [(part * s).to(dtype).requires_grad_() for part, s in zip(parts, (scale, 1.0, 1.0), strict=True)]


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4], ids=lambda s: f"scale{s:g}")
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))
def test_value_and_gradients_are_those_of_the_specification(
    shape: tuple[int, int, int], biased: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, table, bias = problem(*shape, scale)
    arguments = [query, table, bias] if biased else [query, table]
    weight = torch.linspace(-1, 2, shape[0], dtype=torch.float64)
    expected = naive.linear_logsumexp(*arguments)
    wanted = torch.autograd.grad(expected @ weight, arguments)
    for keep in (op.KEEP, 0):  # exponentials kept for the backward, and made anew in it
        monkeypatch.setattr(op, "KEEP", keep)
        value = linear_logsumexp(*arguments)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        for got, want in zip(torch.autograd.grad(value @ weight, arguments), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))
@pytest.mark.parametrize("scale", [1.0, 200.0], ids=lambda s: f"scale{s:g}")
def test_mean_is_the_gradient_in_the_query(shape: tuple[int, int, int], scale: float) -> None:
    query, table, bias = problem(*shape, scale)
    lse, mean = linear_logsumexp_mean(query, table, bias)
    expected = naive.linear_logsumexp(query, table, bias)
    torch.testing.assert_close(lse, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mean, torch.autograd.grad(expected.sum(), query)[0], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 20.0, 300.0], ids=lambda s: f"scale{s:g}")
def test_agrees_with_mpmath(dtype: torch.dtype, scale: float) -> None:
    query, table, bias = (part.detach() for part in problem(2, 400, 6, scale, dtype))
    value = linear_logsumexp(query, table, bias)
    with mpmath.workdps(50):
        for row, got in zip(query.tolist(), value.tolist(), strict=True):
            scores = [
                mpmath.fdot(zip(row, entry, strict=True)) + b
                for entry, b in zip(table.tolist(), bias.tolist(), strict=True)
            ]
            truth = mpmath.log(mpmath.fsum(map(mpmath.exp, scores)))
            assert abs(got - truth) <= 8 * torch.finfo(dtype).eps * max(1, abs(truth))


def test_scores_beyond_the_range_of_exp_stay_exact() -> None:
    """One row peaks far above its Cauchy-Schwarz shift's reach, one far below: both fall back to the true maximum."""
    query = torch.tensor([[400.0, 0.0], [0.0, -400.0], [1.0, 0.0]])
    table = torch.tensor([[1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
    expected = naive.linear_logsumexp(query.double(), table.double())
    torch.testing.assert_close(linear_logsumexp(query, table).double(), expected, rtol=1e-6, atol=0)


def test_gradcheck_and_second_derivatives() -> None:
    arguments = problem(3, 11, 4)
    assert torch.autograd.gradcheck(linear_logsumexp, arguments)
    assert torch.autograd.gradgradcheck(linear_logsumexp, arguments)


@given(st.integers(1, 40), st.integers(1, 900), st.floats(-50, 50), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_adding_a_constant_to_the_bias_adds_it_to_the_result(n: int, e: int, constant: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, table, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, 8), (e, 8), (e,)))
    shifted = linear_logsumexp(query, table, bias + constant)
    torch.testing.assert_close(shifted, linear_logsumexp(query, table, bias) + constant, rtol=1e-12, atol=1e-10)


def test_scores_are_never_stored_without_a_gradient() -> None:
    """The largest tensor made is a tile: counted by the sizes of all outputs."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    query, table, bias = (part.detach() for part in problem(2048, 5000, 4))
    with torch.no_grad(), Watch():
        linear_logsumexp(query, table, bias)
        linear_logsumexp_mean(query, table, bias)
    assert max(sizes) <= max(chunked.ROWS * chunked.ENTRIES, 5000 * 6)


@pytest.mark.parametrize(
    ("query", "table", "bias"),
    [((2, 3), (4, 5), None), ((2, 3), (0, 3), None), ((3,), (4, 3), None), ((2, 3), (4, 3), (3,))],
)
def test_shapes_that_do_not_fit_are_refused(
    query: tuple[int, ...], table: tuple[int, ...], bias: tuple[int, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"expected query \(N, d\), table \(E, d\)"):
        linear_logsumexp(torch.zeros(query), torch.zeros(table), None if bias is None else torch.zeros(bias))
