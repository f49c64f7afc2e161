"""Entailment cones against their definition in mpmath, and against the geometry of the triangle origin, x, y."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from tests import oracles

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=lambda dtype: str(dtype)[6:])
curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
several = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def angle(x: oracles.Row, y: oracles.Row, c: float) -> mp.mpf:
    """Desai et al.: acos((y0 + x0 c <X, Y>) / (|x| sqrt((c <X, Y>)^2 - 1)))."""
    product = c * oracles.inner(x, y, c)
    x0, y0 = oracles.lift(x, c)[0], oracles.lift(y, c)[0]
    return mp.acos((y0 + x0 * product) / (mp.sqrt(oracles.dot(x, x)) * mp.sqrt(product**2 - 1)))


def aperture(x: oracles.Row, c: float) -> mp.mpf:
    """Desai et al.: asin(2 K / (sqrt(c) |x|)), K = 0.1."""
    return mp.asin(min(1, 2 * mp.mpf(0.1) / mp.sqrt(c * oracles.dot(x, x))))


def errors(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Absolute errors of the exterior angle."""
    pairs = zip(LF.exterior_angle(x, y, c), oracles.each(angle, c, x, y), strict=True)
    return torch.tensor([float(abs(mp.mpf(float(got)) - truth)) for got, truth in pairs])


def at_angle(x: Tensor, theta: Tensor | float, length: float, c: float, seed: int = 3) -> Tensor:
    """Points at geodesic distance `length` of x, in directions at the angle theta to the ray from the origin."""
    axis = x / x.norm(dim=-1, keepdim=True)
    across = oracles.points_at(1.0, *x.shape, seed=seed)
    across = across - (across * axis).sum(-1, keepdim=True) * axis
    across = across / across.norm(dim=-1, keepdim=True)
    x0 = LF.time(x, c, keepdim=True)
    theta = torch.as_tensor(theta, dtype=torch.float64).unsqueeze(-1)
    return LF.expmap(x, length * (theta.cos() * c**0.5 * x0 * axis + theta.sin() * across), c)


@dtypes
@curvatures
@pytest.mark.parametrize("gap", [1e-3, 0.01, 1.0, 5.0, 10.0])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 3.0, 5.0, 8.0])
def test_the_angle_to_neighbours_is_exact_to_a_fraction_of_the_rounding_of_their_coordinates(
    radius: float, gap: float, c: float, dtype: torch.dtype
) -> None:
    x = oracles.points_at(radius / c**0.5, 20, 6, seed=1, c=c)
    y = oracles.neighbours_at(x, gap / c**0.5, seed=2, c=c)
    x, y = x.to(dtype), y.to(dtype)
    assert errors(x, y, c).max() < torch.finfo(dtype).eps * (4 + 0.4 * math.cosh(radius))


@dtypes
@curvatures
@pytest.mark.parametrize("other", [1e-6, 1e-3, 0.5, 3.0, 8.0, 20.0])
@pytest.mark.parametrize("radius", [1e-6, 1e-3, 1.0, 8.0, 20.0])
def test_the_angle_to_points_in_other_directions_is_exact(
    radius: float, other: float, c: float, dtype: torch.dtype
) -> None:
    x = oracles.points_at(radius / c**0.5, 20, 6, seed=1, c=c).to(dtype)
    y = oracles.points_at(other / c**0.5, 20, 6, seed=2, c=c).to(dtype)
    assert errors(x, y, c).max() < 4 * torch.finfo(dtype).eps


@curvatures
@pytest.mark.parametrize("theta", [0.0, 0.1, 1.5, 3.0, math.pi])
def test_the_angle_is_the_one_that_the_geodesic_leaves_at(theta: float, c: float) -> None:
    x = oracles.points_at(1.5 / c**0.5, 9, 5, seed=1, c=c)
    for length in (1e-3, 0.5, 2.0):
        got = LF.exterior_angle(x, at_angle(x, theta, length / c**0.5, c), c)
        torch.testing.assert_close(got, torch.full_like(got, theta), rtol=0, atol=1e-11)


@dtypes
def test_points_on_the_ray_are_straight_ahead_and_points_towards_the_origin_behind(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, -2.0, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    assert not LF.exterior_angle(x, 3 * x).any()
    for behind in (0.5 * x, 0 * x, -x):
        assert torch.equal(LF.exterior_angle(x, behind), torch.full((2,), math.pi, dtype=dtype))


@several
@given(seeds, st.floats(0.1, 5.0), st.floats(0.1, 5.0), st.integers(2, 7), st.floats(1e-3, 1e3))
def test_the_law_of_sines_holds(seed: int, radius: float, other: float, n: int, c: float) -> None:
    x = oracles.points_at(radius / c**0.5, 4, n, seed, c)
    y = oracles.points_at(other / c**0.5, 4, n, seed + 1, c)
    sides = [a.norm(dim=-1) * LF.exterior_angle(a, b, c).sin() for a, b in ((x, y), (y, x))]
    torch.testing.assert_close(*sides, rtol=1e-9, atol=1e-11 * float(x.norm(dim=-1).max() + y.norm(dim=-1).max()))


@several
@given(seeds, st.floats(0.1, 5.0), st.integers(2, 7), st.floats(1e-3, 1e3))
def test_angles_do_not_change_under_rotation_and_scale(seed: int, radius: float, n: int, c: float) -> None:
    x = oracles.points_at(radius, 4, n, seed)
    y = oracles.neighbours_at(x, 1.0, seed + 1)
    expected = LF.exterior_angle(x, y)
    rotation = torch.linalg.qr(oracles.points_at(1.0, n, n, seed + 2)).Q
    torch.testing.assert_close(LF.exterior_angle(LF.rotate(x, rotation), LF.rotate(y, rotation)), expected)
    torch.testing.assert_close(LF.exterior_angle(x / c**0.5, y / c**0.5, c), expected)
    torch.testing.assert_close(LF.half_aperture(x / c**0.5, c=c), LF.half_aperture(x))


def test_where_the_curvature_vanishes_angles_are_euclidean() -> None:
    x, y = (oracles.points_at(1.0, 9, 5, seed=seed) for seed in (1, 2))
    expected = torch.nn.functional.cosine_similarity(x, y - x).acos()
    torch.testing.assert_close(LF.exterior_angle(x, y, 1e-12), expected, rtol=1e-9, atol=0)


@dtypes
@curvatures
@pytest.mark.parametrize("radius", [0.25, 0.5, 1.0, 3.0, 8.0, 20.0, 40.0])
def test_the_aperture_is_exact_at_every_radius(radius: float, c: float, dtype: torch.dtype) -> None:
    x = oracles.points_at(radius / c**0.5, 20, 6, seed=1, c=c).to(dtype)
    error = oracles.relative_errors(LF.half_aperture(x, c=c), oracles.each(aperture, c, x))
    assert error.max() < 4 * torch.finfo(dtype).eps


@dtypes
def test_inside_the_smallest_radius_the_cone_is_half_of_space(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 1e-3], [0.3, -0.3], [0.0, 0.5]], dtype=dtype, requires_grad=True)
    got = LF.half_aperture(x, min_radius=0.25)
    assert torch.equal(got, torch.full((4,), math.pi / 2, dtype=dtype))
    (grad,) = torch.autograd.grad(got.sum(), x)
    assert not grad.any()


@dtypes
@pytest.mark.parametrize("where", ["coincident", "origin", "both"])
def test_where_there_is_no_angle_it_is_zero_with_zero_gradient(where: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[0.6, -0.8, 0.1], [3.0, 1e4, 0.0]], dtype=dtype)
    y = x.clone() if where == "coincident" else torch.ones_like(x)
    x, y = (x if where == "coincident" else 0 * x).requires_grad_(), (0 * y if where == "both" else y).requires_grad_()
    got = LF.exterior_angle(x, y)
    assert not got.any()
    grads = torch.autograd.grad(got.sum(), (x, y), create_graph=True)
    assert not any(grad.any() for grad in grads)
    second = torch.autograd.grad(sum(grad.sum() for grad in grads), (x, y), allow_unused=True)
    assert all(grad is None or grad.isfinite().all() for grad in second)
    points = x.detach(), y.detach()
    assert not torch.func.jvp(LF.exterior_angle, points, (torch.ones_like(x), torch.randn_like(y)))[1].any()


@pytest.mark.parametrize("radius", [0.0, 1e-38, 1e-30, 1e-20, 1e-18, 1e-6, 0.2, 1.0, 20.0, 40.0])
@pytest.mark.parametrize("gap", [0.0, 1e-38, 1e-30, 1e-18, 1e-3, 1.0, 20.0])
def test_angles_and_gradients_are_finite_from_the_origin_to_the_edge_of_float32(radius: float, gap: float) -> None:
    x = oracles.points_at(radius, 8, 4, seed=1).float().requires_grad_()
    y = (x.detach() + oracles.points_at(gap, 8, 4, seed=2).float()).requires_grad_()
    for first, second in ((x, y), (y, x), (x, -y)):
        out = LF.exterior_angle(first, second), LF.half_aperture(first)
        for value in (*out, *torch.autograd.grad(sum(out).sum(), (first, second))):
            assert value.isfinite().all()


@pytest.mark.parametrize("radius", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("gap", [0.01, 1.0, 5.0])
def test_gradients_in_float32_are_those_of_float64(radius: float, gap: float) -> None:
    x = oracles.points_at(radius, 20, 6, seed=1)
    pair = [x.float(), oracles.neighbours_at(x, gap, seed=2).float()]
    grads = {}
    for dtype in (torch.float32, torch.float64):
        leaves = [point.to(dtype).requires_grad_() for point in pair]
        grads[dtype] = torch.autograd.grad(LF.exterior_angle(*leaves).sum(), leaves)
    for point, low, high in zip(pair, grads[torch.float32], grads[torch.float64], strict=True):
        at = point.double()  # lengths on the manifold: a coordinate rounded by eps moves a point by eps * x0
        error, size = (LF.norm(at, LF.egrad2rgrad(at, grad)) for grad in (low - high, high))
        assert (error / size / LF.time(at)).max() < 4 * torch.finfo(torch.float32).eps


@curvatures
def test_a_point_is_in_the_cone_where_its_direction_is_within_the_aperture(c: float) -> None:
    x = oracles.points_at(1.5 / c**0.5, 9, 5, seed=1, c=c)
    width = torch.tensor([float(value) for value in oracles.each(aperture, c, x)], dtype=torch.float64)
    for share in (0.0, 0.5, 0.999, 1.001, 1.5):
        y = at_angle(x, share * width, 2.0 / c**0.5, c)
        inside = LF.exterior_angle(x, y, c) <= LF.half_aperture(x, c=c)
        assert (inside == (share < 1)).all()


@several
@given(seeds, *[st.floats(0.0, 1.0)] * 2, *[st.floats(0.01, 4.0)] * 3, st.integers(2, 7), st.floats(1e-3, 1e3))
def test_the_cone_of_a_point_in_a_cone_is_a_part_of_it(
    seed: int, share: float, other: float, out: float, step: float, further: float, n: int, c: float
) -> None:
    x = oracles.points_at((math.asinh(0.2) + out) / c**0.5, 4, n, seed, c)
    y = at_angle(x, share * LF.half_aperture(x, c=c), step / c**0.5, c, seed + 1)
    z = at_angle(y, other * LF.half_aperture(y, c=c), further / c**0.5, c, seed + 2)
    assert (LF.exterior_angle(x, z, c) <= LF.half_aperture(x, c=c) + 1e-9).all()


def test_keepdim_keeps_a_last_dimension_of_size_one() -> None:
    x, y, c = oracles.points_at(1.0, 3, 4, 1), oracles.points_at(1.0, 3, 4, 2), torch.tensor([0.7])
    assert torch.equal(LF.exterior_angle(x, y, c, keepdim=True)[:, 0], LF.exterior_angle(x, y, c))
    assert torch.equal(LF.half_aperture(x, c=c, keepdim=True)[:, 0], LF.half_aperture(x, c=c))
    assert LF.exterior_angle(x[0], y[0], c).shape == LF.half_aperture(x[0], c=c).shape == ()


def test_angles_of_all_pairs_come_by_broadcasting() -> None:
    x, y = oracles.points_at(1.0, 3, 4, 1), oracles.points_at(1.0, 5, 4, 2)
    got = LF.exterior_angle(x[:, None], y)
    assert got.shape == (3, 5)
    torch.testing.assert_close(got[1], LF.exterior_angle(x[1].expand(5, 4), y))


def test_nan_is_not_hidden() -> None:
    broken, whole = torch.tensor([[float("nan"), 1.0]]), torch.ones(1, 2)
    for got in (LF.exterior_angle(broken, whole), LF.exterior_angle(whole, broken), LF.half_aperture(broken)):
        assert got.isnan().all()


def test_points_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected space coordinates \(..., 3\), got \(..., 4\): .*from_ambient"):
        LF.exterior_angle(torch.ones(2, 3), torch.ones(2, 4))
