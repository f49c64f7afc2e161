"""`linear_logsumexp` and `lorentz_logsumexp`: values, gradients and means against the specification and mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.linear_logsumexp import (
    chunked,
    linear_logsumexp,
    linear_logsumexp_mean,
    lorentz_logsumexp,
    lorentz_logsumexp_mean,
    naive,
)
from lorentz_kernels.score import euclidean, logits, lorentzian

SHAPES = [(1, 1, 1), (5, 123, 7), (3, 384, 16), (17, 385, 33), (1030, 1000, 5), (0, 9, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))
curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0], ids=lambda c: f"c{c:g}")


def problem(n: int, e: int, d: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + 31 * e + 1009 * d)
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((n, d), (e, d), (e,))]
    return [(part * s).to(dtype).requires_grad_() for part, s in zip(parts, (scale, 1.0, 1.0), strict=True)]


def number(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64, requires_grad=True)


def assert_same_value_and_gradients(
    got: Callable[..., Tensor], expected: Callable[..., Tensor], arguments: list[Tensor]
) -> None:
    value, wanted = got(*arguments), expected(*arguments)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.linspace(-1, 2, len(value), dtype=torch.float64)
    gradients = [torch.autograd.grad(result @ weight, arguments) for result in (value, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4], ids=lambda s: f"scale{s:g}")
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "plain"])
@shapes
def test_value_and_gradients_are_those_of_the_specification(
    shape: tuple[int, int, int], biased: bool, scale: float
) -> None:
    query, table, bias = problem(*shape)

    def expected(query: Tensor, table: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        product = scale * (query @ table.mT)
        return torch.logsumexp(product if bias is None else product + bias, dim=-1)

    def got(query: Tensor, table: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear_logsumexp(query, table, bias, scale=scale)

    arguments = [query, table, number(scale)]
    assert_same_value_and_gradients(got, expected, [*arguments, bias] if biased else arguments)


@pytest.mark.parametrize("beta", [0.0, 0.5, 20.0, -0.5], ids=lambda b: f"beta{b:g}")
@curvatures
@shapes
def test_lorentzian_scores_are_squared_distances(shape: tuple[int, int, int], c: float, beta: float) -> None:
    query, table, bias = problem(*shape)

    def expected(query: Tensor, table: Tensor, bias: Tensor, beta: Tensor, c: Tensor) -> Tensor:
        distances = LF.pairwise_sqdist(query, table, c)
        return torch.logsumexp(bias - beta / 2 * distances, dim=-1) - beta / c

    def got(query: Tensor, table: Tensor, bias: Tensor, beta: Tensor, c: Tensor) -> Tensor:
        return lorentz_logsumexp(query, table, bias, beta=beta, c=c)

    assert_same_value_and_gradients(got, expected, [query, table, bias, number(beta), number(c)])


def test_each_query_may_have_its_own_scale() -> None:
    query, table, bias = problem(17, 385, 33)
    scales = torch.linspace(-1, 3, 17, dtype=torch.float64, requires_grad=True)
    assert_same_value_and_gradients(
        lambda q, t, b, s: linear_logsumexp(q, t, b, scale=s),
        lambda q, t, b, s: torch.logsumexp(s[:, None] * q @ t.mT + b, dim=-1),
        [query, table, bias, scales],
    )


@pytest.mark.parametrize("lorentz", [True, False], ids=["lorentz", "euclid"])
def test_the_score_of_the_target_is_its_column_of_the_scores(lorentz: bool) -> None:
    query, table, bias = problem(17, 385, 33)
    target = torch.arange(17) * 7 % 5  # some twice
    factor, c = number(0.7), number(2.0)

    def got(*arguments: Tensor) -> Tensor:
        q, t, b, f = arguments[:4]
        if lorentz:
            lse, score = lorentz_logsumexp(q, t, b, beta=f, c=arguments[4], target=target)
        else:
            lse, score = linear_logsumexp(q, t, b, scale=f, target=target)
        return 3 * lse - score

    def expected(*arguments: Tensor) -> Tensor:
        scores = logits(lorentzian(*arguments) if lorentz else euclidean(*arguments))
        return 3 * torch.logsumexp(scores, dim=-1) - scores.gather(1, target[:, None]).squeeze(1)

    assert_same_value_and_gradients(got, expected, [query, table, bias, factor, *([c] if lorentz else [])])


@pytest.mark.parametrize("reach", [1.0, 30.0], ids=["near", "far"])
@pytest.mark.parametrize("lorentz", [True, False], ids=["lorentz", "euclid"])
def test_entries_with_a_bias_of_minus_infinity_do_not_exist(lorentz: bool, reach: float) -> None:
    query, table, bias = problem(9, 500, 6, reach)
    out = torch.arange(500) % 3 > 0
    masked = torch.where(out, -torch.inf, bias.detach()).requires_grad_()
    function = lorentz_logsumexp if lorentz else linear_logsumexp
    value = function(query, table, masked)
    torch.testing.assert_close(value, function(query, table[~out], bias[~out]), rtol=1e-12, atol=0)
    grads = torch.autograd.grad(value.sum(), [query, table, masked])
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[1][out].any()
    assert not grads[2][out].any()


@pytest.mark.parametrize("lorentz", [True, False], ids=["lorentz", "euclid"])
def test_without_entries_the_value_is_minus_infinity_and_the_gradient_zero(lorentz: bool) -> None:
    query, table, bias = problem(3, 400, 6)
    nothing = torch.full_like(bias, -torch.inf)
    function, mean = (
        (lorentz_logsumexp, lorentz_logsumexp_mean) if lorentz else (linear_logsumexp, linear_logsumexp_mean)
    )
    value = function(query, table, nothing)
    assert (value == -torch.inf).all()
    assert not any(grad.any() for grad in torch.autograd.grad(value.sum(), [query, table]))
    assert not mean(query, table, nothing)[1].any()


@shapes
@pytest.mark.parametrize("scale", [1.0, 200.0], ids=lambda s: f"scale{s:g}")
def test_mean_is_the_gradient_in_the_query(shape: tuple[int, int, int], scale: float) -> None:
    query, table, bias = problem(*shape, scale)
    lse, mean = linear_logsumexp_mean(query, table, bias)
    expected = naive.logsumexp(euclidean(query, table, bias, 1.0))
    torch.testing.assert_close(lse, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mean, torch.autograd.grad(expected.sum(), query)[0], rtol=1e-10, atol=1e-11)


@curvatures
def test_lorentzian_mean_is_that_of_ambient_points(c: float) -> None:
    query, table, bias = (part.detach() for part in problem(17, 385, 33))
    lse, mean = lorentz_logsumexp_mean(query, table, bias, beta=0.5, c=c)
    ambient, natural = LF.to_ambient(table, c), 0.5 * LF.to_ambient(query, c)
    natural[:, 0] *= -1
    expected = linear_logsumexp_mean(natural, ambient, bias)
    torch.testing.assert_close(lse, expected[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(mean, expected[1], rtol=1e-10, atol=1e-11)


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
    expected = naive.logsumexp(euclidean(query.double(), table.double(), None, 1.0))
    torch.testing.assert_close(linear_logsumexp(query, table).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("radius", [5.0, 12.0], ids=lambda r: f"radius{r:g}")
def test_lorentzian_scores_far_below_their_ceiling_stay_exact(radius: float) -> None:
    """Points at radius 12 are 20 apart: their scores lie beyond what one shift for all rows can reach."""
    query, table = (torch.randn(m, 4, generator=torch.Generator().manual_seed(m)) for m in (5, 50))
    query, table = (radius**2 * points / points.norm(dim=1, keepdim=True) for points in (query, table))
    expected = naive.logsumexp(lorentzian(query.double(), table.double(), None, 1.0, 1.0))
    value = lorentz_logsumexp(query, table)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=2 * 2e-7 * radius**4)


@pytest.mark.parametrize("out", [0.02, 1.0], ids=lambda s: f"table at {s:g}")
@pytest.mark.parametrize("beta", [2.0, -2.0], ids=lambda b: f"beta{b:g}")
def test_one_shift_serves_tables_nearer_to_the_origin_than_the_queries(
    out: float, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries with coordinates of variance 1 at curvature -1/n, as a layer norm leaves them; no row is done twice."""
    query, table = (torch.randn(m, 256, generator=torch.Generator().manual_seed(m)) for m in (5, 50))
    score = lorentzian(query, out * F.normalize(table, dim=1), None, beta, 1 / 256)
    exact = logits(lorentzian(query.double(), score.table.double(), None, beta, 1 / 256))
    shift = chunked._shifts(score)
    assert (exact.amax(dim=1) - shift <= chunked.HEADROOM + 1e-3).all()
    if beta > 0:
        monkeypatch.setattr(chunked, "_sums_with_maximum", None)
    value = lorentz_logsumexp(query, score.table, beta=beta, c=1 / 256)
    torch.testing.assert_close(value.double(), exact.logsumexp(dim=1), rtol=1e-5, atol=1e-3)


@curvatures
def test_gradcheck_and_second_derivatives(c: float) -> None:
    target = torch.tensor([2, 10, 2])

    def euclid(query: Tensor, table: Tensor, bias: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return linear_logsumexp(query, table, bias, scale=scale, target=target)

    def lorentz(query: Tensor, table: Tensor, bias: Tensor, beta: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return lorentz_logsumexp(query, table, bias, beta=beta, c=c, target=target)

    arguments = [*problem(3, 11, 4), number(0.7)]
    for function, inputs in ((euclid, arguments), (lorentz, [*arguments, number(c, 1)])):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_second_derivative_exists_at_the_origin() -> None:
    query, table, bias = problem(2, 5, 3)
    origin = torch.zeros_like(query).requires_grad_()
    assert torch.autograd.gradgradcheck(lorentz_logsumexp, [origin, table, bias])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_tables_of_16_bits_are_summed_in_float32(dtype: torch.dtype) -> None:
    query, table, bias = problem(17, 385, 33, dtype=dtype)
    target = torch.arange(17)
    for function in (linear_logsumexp, lorentz_logsumexp):
        value, score = function(query, table, bias, target=target)
        expected, expected_score = function(query.double(), table.double(), bias.double(), target=target)
        assert value.dtype == score.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(score.double(), expected_score, rtol=1e-6, atol=2e-5)
        grads = torch.autograd.grad((value - score).sum(), [query, table, bias])
        wanted = torch.autograd.grad((expected - expected_score).sum(), [query, table, bias])
        for grad, want in zip(grads, wanted, strict=True):
            assert grad.dtype == dtype
            # Autograd adds the gradients of both results, each rounded once.
            torch.testing.assert_close(grad, want, rtol=0, atol=torch.finfo(dtype).eps * want.abs().max().item())


def test_autocast_does_not_reach_inside() -> None:
    query, table, bias = problem(17, 385, 33, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = lorentz_logsumexp(query, table, bias)
    assert torch.equal(value, lorentz_logsumexp(query, table, bias))


@given(st.integers(1, 40), st.integers(1, 900), st.floats(-50, 50), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_adding_a_constant_to_the_bias_adds_it_to_the_result(n: int, e: int, constant: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, table, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, 8), (e, 8), (e,)))
    shifted = linear_logsumexp(query, table, bias + constant)
    torch.testing.assert_close(shifted, linear_logsumexp(query, table, bias) + constant, rtol=1e-12, atol=1e-10)


def test_scores_are_never_stored() -> None:
    """The largest tensor made, forward and backward, is a tile or as large as the table."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    query, table, bias = problem(2048, 5000, 4)
    with Watch():
        linear_logsumexp(query, table, bias).sum().backward()
        lorentz_logsumexp(query, table, bias).sum().backward()
        linear_logsumexp_mean(query, table, bias)
        assert max(sizes) <= max(math.prod(chunked.ON_CPU), 5000 * 6)


@pytest.mark.parametrize(
    ("query", "table", "bias"),
    [((2, 3), (4, 5), None), ((2, 3), (0, 3), None), ((3,), (4, 3), None), ((2, 3), (4, 3), (3,))],
)
def test_shapes_that_do_not_fit_are_refused(
    query: tuple[int, ...], table: tuple[int, ...], bias: tuple[int, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"expected query \(N, d\), table \(E, d\)"):
        linear_logsumexp(torch.zeros(query), torch.zeros(table), None if bias is None else torch.zeros(bias))


def test_other_arguments_that_do_not_fit_are_refused() -> None:
    query, table = torch.zeros(2, 3), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"expected target \(N,\) = \(2,\), got \(3,\)"):
        linear_logsumexp(query, table, target=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected scale to be one number or \(N,\) = \(2,\), got \(4,\)"):
        linear_logsumexp(query, table, scale=torch.ones(4))
    with pytest.raises(ValueError, match=r"expected c to be one number, got \(4, 1\)"):
        lorentz_logsumexp(query, table, c=torch.ones(4, 1))
    with pytest.raises(ValueError, match="expected precision bf16x3, bf16x6 or bf16, got 'tf32'"):
        linear_logsumexp(query, table, precision="tf32")  # type: ignore[call-overload]
