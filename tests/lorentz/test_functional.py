"""Every function of `lorentz.functional` is what its definition says: shapes, values near the origin, errors."""

from __future__ import annotations

import math

import geoopt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lorentz
import lorentz.functional as LF
from tests import oracles

CURVATURES = (0.25, 1.0, 4.0)
curvatures = pytest.mark.parametrize("c", CURVATURES)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(n: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed)).Q


def test_the_package_exports_what_a_user_starts_from() -> None:
    assert lorentz.to_ambient is LF.to_ambient
    assert lorentz.from_ambient is LF.from_ambient
    assert lorentz.functional is LF
    names = {"Lorentz", "convert", "from_ambient", "functional", "nn", "optim", "to_ambient"}
    assert set(lorentz.__all__) == names


@curvatures
def test_ambient_points_lie_on_the_hyperboloid_time_first(c: float) -> None:
    p = LF.to_ambient(normal(5, 7, 3), c)
    assert p.shape == (5, 7, 4)
    torch.testing.assert_close(oracles.ambient_inner(p, p), torch.full((5, 7), -1 / c, dtype=torch.float64))
    torch.testing.assert_close(p, oracles.ambient(normal(5, 7, 3), c))
    torch.testing.assert_close(LF.from_ambient(p, c), normal(5, 7, 3))


@curvatures
def test_products_and_distances_are_those_of_ambient_points(c: float) -> None:
    x, y = normal(6, 3, seed=1), normal(6, 3, seed=2)
    product = oracles.ambient_inner(oracles.ambient(x, c), oracles.ambient(y, c))
    torch.testing.assert_close(LF.inner(x, y, c), product)
    torch.testing.assert_close(LF.sqdist(x, y, c), -2 / c - 2 * product)
    torch.testing.assert_close(LF.dist(x, y, c), (-c * product).acosh() / c**0.5)
    torch.testing.assert_close(LF.dist0(x, c), LF.dist(x, torch.zeros_like(x), c))


@curvatures
@pytest.mark.parametrize("name", ["inner", "sqdist", "dist"])
def test_pairwise_is_every_pair(name: str, c: float) -> None:
    x, y = normal(2, 5, 3, seed=1), normal(2, 4, 3, seed=2)
    each = torch.stack([getattr(LF, name)(x, y[:, j : j + 1], c) for j in range(4)], dim=-1)
    torch.testing.assert_close(getattr(LF, f"pairwise_{name}")(x, y, c), each)


@curvatures
def test_metric_and_its_inverse_are_the_matrices_of_the_chart(c: float) -> None:
    x, v = normal(6, 3, seed=1), normal(6, 3, seed=2)
    outer = x.unsqueeze(-1) * x.unsqueeze(-2)
    matrix = torch.eye(3, dtype=torch.float64) - outer / LF.time(x, c).square()[:, None, None]
    torch.testing.assert_close(LF.norm(x, v, c).square(), torch.einsum("bi,bij,bj->b", v, matrix, v))
    torch.testing.assert_close(LF.egrad2rgrad(x, v, c), torch.linalg.solve(matrix, v))


@curvatures
def test_models_agree_with_geoopt_and_come_back(c: float) -> None:
    ball = geoopt.PoincareBall(c=torch.tensor(c, dtype=torch.float64))
    x, y = normal(50, 3, seed=1), normal(50, 3, seed=2)
    torch.testing.assert_close(ball.dist(LF.to_poincare(x, c), LF.to_poincare(y, c)), LF.dist(x, y, c))
    torch.testing.assert_close(LF.from_poincare(LF.to_poincare(x, c), c), x)
    torch.testing.assert_close(LF.from_klein(LF.to_klein(x, c), c), x)
    klein = LF.to_klein(x, c)
    torch.testing.assert_close(klein, x / LF.time(x, c)[:, None] / c**0.5)


@curvatures
def test_geodesics_are_straight_in_the_klein_ball(c: float) -> None:
    x, y = normal(3, seed=1), normal(3, seed=2)
    chord = LF.to_klein(LF.geodesic(torch.linspace(0, 1, 9, dtype=torch.float64), x, y, c), c)
    direction = F.normalize(chord - chord[:1], dim=-1)[1:]
    torch.testing.assert_close(direction, direction[:1].expand_as(direction))


@curvatures
def test_geodesic_has_constant_speed_and_its_ends(c: float) -> None:
    x, y, t = normal(4, 3, seed=1), normal(4, 3, seed=2), torch.tensor([-0.5, 0.0, 0.25, 1.0, 2.0], dtype=torch.float64)
    path = LF.geodesic(t[:, None], x, y, c)
    assert path.shape == (5, 4, 3)
    torch.testing.assert_close(LF.dist(x, path, c), t.abs()[:, None] * LF.dist(x, y, c))
    torch.testing.assert_close(path[1], x)
    torch.testing.assert_close(path[3], y)
    torch.testing.assert_close(LF.geodesic(0.25, x, y, c), path[2])


@pytest.mark.parametrize("function", [LF.from_poincare, LF.from_klein])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_points_on_the_boundary_of_a_ball_stay_finite(function: object, dtype: torch.dtype) -> None:
    directions = F.normalize(normal(200, 5), dim=-1)
    boundary = directions.to(dtype).requires_grad_()  # rounding puts some of them outside
    points = function(boundary)  # type: ignore[operator]
    assert points.isfinite().all()
    assert (points * directions).sum(-1).min() > 1
    points.float().sum().backward()
    assert boundary.grad is not None
    assert boundary.grad.isfinite().all()


def test_geoopt_agrees_through_the_ambient_points() -> None:
    for c in CURVATURES:
        there = geoopt.Lorentz(k=torch.tensor(1 / c, dtype=torch.float64))
        x, y = normal(20, 3, seed=1), normal(20, 3, seed=2)
        v = normal(20, 3, seed=3)
        p, q = LF.to_ambient(x, c), LF.to_ambient(y, c)
        w = torch.cat([(x * v).sum(-1, keepdim=True) / p[:, :1], v], dim=-1)
        torch.testing.assert_close(LF.dist(x, y, c), there.dist(p, q))
        torch.testing.assert_close(LF.dist0(x, c), there.dist0(p))
        torch.testing.assert_close(LF.norm(x, v, c), there.norm(w))
        torch.testing.assert_close(LF.to_ambient(LF.expmap(x, v, c), c), there.expmap(p, w))
        torch.testing.assert_close(LF.logmap(x, y, c), there.logmap(p, q)[:, 1:])
        torch.testing.assert_close(LF.transp(x, y, v, c), there.transp(p, q, w)[:, 1:])
        torch.testing.assert_close(LF.transp0(y, v, c), there.transp0(q, F.pad(v, (1, 0)))[:, 1:])
        torch.testing.assert_close(LF.expmap0(v, c), there.expmap0(F.pad(v, (1, 0)))[:, 1:])
        torch.testing.assert_close(LF.logmap0(x, c), there.logmap0(p)[:, 1:])


@curvatures
def test_riemannian_gradient_is_that_of_the_ambient_space(c: float) -> None:
    x, a = normal(6, 3, seed=1).requires_grad_(), normal(6, 4, seed=2)
    (grad,) = torch.autograd.grad((a * LF.to_ambient(x, c)).sum(), x)
    there = geoopt.Lorentz(k=torch.tensor(1 / c, dtype=torch.float64))
    expected = there.egrad2rgrad(LF.to_ambient(x.detach(), c), a)[:, 1:]
    torch.testing.assert_close(LF.egrad2rgrad(x.detach(), grad, c), expected)


@curvatures
def test_linear_is_the_general_form_of_the_paper(c: float) -> None:
    x, weight, time_weight, bias = normal(2, 6, 3), normal(5, 3), normal(5), normal(5, seed=7)
    matrix = torch.cat([time_weight[:, None], weight], dim=-1)
    expected = oracles.ambient_linear(oracles.ambient(x, c), matrix, bias, c)
    torch.testing.assert_close(LF.to_ambient(LF.linear(x, weight, time_weight, bias, c), c), expected)
    torch.testing.assert_close(LF.linear(x, weight, None, bias, c), F.linear(x, weight, bias), rtol=0, atol=0)


@curvatures
def test_linear_contains_every_isometry(c: float) -> None:
    x, u, r = normal(6, 3), torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64), rotation(3)
    gamma = float((1 - u.square().sum()).rsqrt())
    weight = r @ (torch.eye(3, dtype=torch.float64) + gamma**2 / (1 + gamma) * torch.outer(u, u))
    torch.testing.assert_close(LF.linear(x, weight, -gamma * r @ u, None, c), LF.rotate(LF.boost(x, u, c), r))


def test_linear_in_bf16_forms_the_time_in_float32() -> None:
    x = oracles.points_at(3.0, 64, 8, seed=0).bfloat16()
    out = LF.linear(x, torch.zeros(1, 8, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out[:, 0], LF.time(x.double()).bfloat16())


@curvatures
def test_rapidity_of_a_boost_is_the_distance_it_moves_the_origin(c: float) -> None:
    u = torch.tensor([0.0, math.tanh(1.5), 0.0], dtype=torch.float64)
    moved = LF.boost(torch.zeros(3, dtype=torch.float64), u, c)
    torch.testing.assert_close(LF.dist0(moved, c).item(), 1.5 / c**0.5)
    torch.testing.assert_close(moved / moved.norm(), -u / u.norm())


def test_heads_cut_the_space_part_and_join_again() -> None:
    x = normal(2, 5, 12)
    heads = LF.split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4)
    assert torch.equal(heads[:, 1], x[..., 4:8])
    assert torch.equal(LF.merge_heads(heads), x)
    squares = LF.time(heads).square() - 1
    torch.testing.assert_close(squares.sum(1) + 1, LF.time(x).square())


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a width that 5 heads divide, got 12"):
        LF.split_heads(normal(2, 12), 5)


@pytest.mark.parametrize("name", ["inner", "sqdist", "dist", "pairwise_inner", "pairwise_dist", "logmap", "expmap"])
def test_ambient_points_in_place_of_space_coordinates_are_refused(name: str) -> None:
    message = r"expected space coordinates \(\.\.\., 4\), got \(\.\.\., 5\): did you pass ambient points\?"
    with pytest.raises(ValueError, match=message):
        getattr(LF, name)(normal(3, 4), LF.to_ambient(normal(3, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.0, 1.0, 5.0, 12.0])
def test_from_ambient_accepts_what_rounding_leaves(dtype: torch.dtype, radius: float) -> None:
    p = LF.to_ambient(oracles.points_at(radius, 20, 4, seed=0).to(dtype))
    p = p * (1 + 8 * torch.finfo(dtype).eps)
    assert LF.from_ambient(p).shape == (20, 4)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.roll(-1, dims=-1),  # time last
        lambda p: -p,  # the lower sheet
        lambda p: 2 * p,  # another curvature
        lambda p: p.index_fill(0, torch.tensor([3]), math.nan),
    ],
)
def test_from_ambient_refuses_points_off_the_sheet(spoil: object) -> None:
    p = LF.to_ambient(normal(8, 4))
    with pytest.raises(ValueError, match=r"is time the first coordinate, and is c = 1/k\?"):
        LF.from_ambient(spoil(p))  # type: ignore[operator]
    assert LF.from_ambient(spoil(p), check=False).shape == (8, 4)  # type: ignore[operator]


def test_from_ambient_names_the_curvature_that_it_expects() -> None:
    c = torch.tensor([2.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"for c = \[2\.0\]"):
        LF.from_ambient(LF.to_ambient(normal(8, 4), 1.0), c)


def test_from_ambient_refuses_rows_without_space_and_takes_no_rows() -> None:
    with pytest.raises(ValueError, match=r"expected ambient points .* got \(\.\.\., 1\)"):
        LF.from_ambient(torch.ones(3, 1))
    assert LF.from_ambient(torch.empty(0, 5)).shape == (0, 4)


@curvatures
def test_wrapped_normal_has_its_standard_deviations_at_the_mean(c: float) -> None:
    mean = normal(4).expand(40_000, 4)
    std = torch.tensor([0.2, 0.5, 1.0, 1.5], dtype=torch.float64)
    x = LF.wrapped_normal(mean, std, c, generator=torch.Generator().manual_seed(1))
    # Back to the origin: log at the mean, then the inverse of the transport, which is the one from the mean.
    v = LF.transp(mean, torch.zeros_like(mean), LF.logmap(mean, x, c), c)
    standard_error = std / 200
    assert ((v.mean(0) / standard_error).abs() < 4.5).all()
    assert (((v.std(0) - std) / standard_error).abs() < 4.5).all()
    correlation = torch.corrcoef(v.T) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 4.5 / 200


def test_wrapped_normal_is_reparametrised_and_reproducible() -> None:
    mean, std = normal(3, 4).requires_grad_(), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def draw(mean: Tensor, std: Tensor) -> Tensor:
        return LF.wrapped_normal(mean, std, generator=torch.Generator().manual_seed(3))

    assert torch.equal(draw(mean, std), draw(mean, std))
    assert torch.autograd.gradcheck(draw, (mean, std))
    assert LF.wrapped_normal(mean.detach().bfloat16(), 0.5).dtype == torch.bfloat16


def test_centroid_with_no_weight_is_the_origin_with_finite_gradients() -> None:
    x, weights = normal(2, 5, 3).requires_grad_(), torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    out = LF.centroid(x, weights)
    assert torch.equal(out, torch.zeros(2, 3, dtype=torch.float64))
    for grad in torch.autograd.grad(out.sum(), (x, weights)):
        assert grad.isfinite().all()


@curvatures
def test_centroid_is_the_normalised_sum_of_ambient_points(c: float) -> None:
    x, weights = normal(2, 5, 3), normal(2, 5, seed=4).exp()
    expected = oracles.ambient_centroid(oracles.ambient(x, c), weights.unsqueeze(-2), c).squeeze(-2)
    torch.testing.assert_close(LF.to_ambient(LF.centroid(x, weights, c), c), expected)
    torch.testing.assert_close(LF.centroid(x, 1e5 * weights, c), expected[..., 1:])
    torch.testing.assert_close(LF.centroid(x, None, c), LF.centroid(x, torch.ones(5), c))
