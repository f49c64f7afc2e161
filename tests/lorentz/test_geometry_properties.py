"""What makes it hyperbolic space: metric axioms, isometries, inverse maps, transport, the centroid."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from tests import oracles

seeds = st.integers(0, 2**32 - 1)
radii = st.one_of(st.just(0.0), st.floats(1e-8, 6.0))
widths = st.integers(1, 9)
curvatures = st.floats(1e-3, 1e3)
several = settings(max_examples=60, deadline=None)


def points(seed: int, radius: float, n: int, c: float, count: int = 4) -> Tensor:
    """Points at most `radius` (in units of the radius of curvature) from the origin, float64."""
    shrink = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = oracles.points_at(radius / c**0.5, count, n, seed, c)
    return LF.expmap0(shrink * LF.logmap0(x, c), c)


def isometry(seed: int, rapidity: float, n: int) -> tuple[Tensor, Tensor]:
    """A velocity and a rotation."""
    normal = oracles.points_at(1.0, n, n, seed)
    return np.tanh(rapidity) * normal[0] / normal[0].norm(), torch.linalg.qr(normal).Q


def assert_same_points(x: Tensor, y: Tensor, c: float, within: float) -> None:
    assert (c**0.5 * LF.dist(x, y, c)).max() < within


@several
@given(seeds, radii, widths, curvatures)
def test_distance_is_symmetric_and_satisfies_the_triangle_inequality(
    seed: int, radius: float, n: int, c: float
) -> None:
    x, y, z = (points(seed + k, radius, n, c) for k in range(3))
    assert torch.equal(LF.dist(x, y, c), LF.dist(y, x, c))
    assert (LF.dist(x, z, c) <= (LF.dist(x, y, c) + LF.dist(y, z, c)) * (1 + 1e-12)).all()
    assert torch.equal(LF.dist(x, x, c), torch.zeros(4, dtype=torch.float64))


@several
@given(seeds, radii, widths, curvatures)
def test_triangle_inequality_is_tight_on_a_geodesic(seed: int, radius: float, n: int, c: float) -> None:
    x, z = points(seed, radius, n, c), points(seed + 1, radius, n, c)
    y = LF.geodesic(0.3, x, z, c)
    torch.testing.assert_close(LF.dist(x, y, c) + LF.dist(y, z, c), LF.dist(x, z, c), rtol=1e-9, atol=1e-12)


@several
@given(seeds, radii, widths, curvatures, st.floats(0.0, 3.0))
def test_isometries_preserve_distances(seed: int, radius: float, n: int, c: float, rapidity: float) -> None:
    x, y = points(seed, radius, n, c), points(seed + 1, radius, n, c)
    u, r = isometry(seed, rapidity, n)
    before = LF.dist(x, y, c)
    torch.testing.assert_close(LF.dist(LF.boost(x, u, c), LF.boost(y, u, c), c), before, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(LF.dist(LF.rotate(x, r), LF.rotate(y, r), c), before, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(LF.time(LF.rotate(x, r), c), LF.time(x, c))


@several
@given(seeds, radii, widths, curvatures, st.floats(0.0, 3.0))
def test_an_isometry_and_its_inverse_cancel(seed: int, radius: float, n: int, c: float, rapidity: float) -> None:
    x = points(seed, radius, n, c)
    u, r = isometry(seed, rapidity, n)
    assert_same_points(LF.boost(LF.boost(x, u, c), -u, c), x, c, within=1e-7)
    y = LF.boost(LF.rotate(x, r), u, c)
    back_u, back_r = LF.isometry_inverse(u, r)
    assert_same_points(LF.boost(LF.rotate(y, back_r), back_u, c), x, c, within=1e-7)
    again_u, again_r = LF.isometry_inverse(back_u, back_r)
    torch.testing.assert_close((again_u, again_r), (u, r))


@several
@given(seeds, radii, widths, curvatures)
def test_exponential_and_logarithm_are_inverse(seed: int, radius: float, n: int, c: float) -> None:
    x, y = points(seed, radius, n, c), points(seed + 1, radius, n, c)
    v = LF.logmap(x, y, c)
    torch.testing.assert_close(LF.norm(x, v, c), LF.dist(x, y, c), rtol=1e-9, atol=1e-12)
    assert_same_points(LF.expmap(x, v, c), y, c, within=1e-6)
    v = LF.logmap0(x, c)
    torch.testing.assert_close(LF.expmap0(v, c), x, rtol=1e-12, atol=0)
    torch.testing.assert_close(LF.expmap(torch.zeros_like(x), v, c), x, rtol=1e-12, atol=0)
    torch.testing.assert_close(LF.logmap(torch.zeros_like(x), x, c), v, rtol=1e-12, atol=0)


@several
@given(seeds, radii, widths, curvatures)
def test_transport_preserves_inner_products_and_comes_back(seed: int, radius: float, n: int, c: float) -> None:
    x, y = points(seed, radius, n, c), points(seed + 1, radius, n, c)
    u, v = (oracles.vectors_at(x, 1 / c**0.5, seed + k, c) for k in (2, 3))
    moved_u, moved_v = LF.transp(x, y, u, c), LF.transp(x, y, v, c)
    close = {"rtol": 1e-8, "atol": 1e-8 / c}
    for first, second, moved, other in ((u, u, moved_u, moved_u), (u, v, moved_u, moved_v)):
        # Inner products by polarisation, from the norm alone.
        before = LF.norm(x, first + second, c).square() - LF.norm(x, first - second, c).square()
        after = LF.norm(y, moved + other, c).square() - LF.norm(y, moved - other, c).square()
        torch.testing.assert_close(after, before, **close)
    gap = LF.norm(x, LF.transp(y, x, moved_u, c) - u, c)
    assert (gap * c**0.5).max() < 1e-8
    # A geodesic transports its own direction.
    arrival = LF.transp(x, y, LF.logmap(x, y, c), c)
    assert (LF.norm(y, arrival + LF.logmap(y, x, c), c) * c**0.5).max() < 1e-8


@several
@given(seeds, radii, widths, curvatures)
def test_transport_from_the_origin_is_the_general_one(seed: int, radius: float, n: int, c: float) -> None:
    y = points(seed, radius, n, c)
    v = oracles.vectors_at(torch.zeros_like(y), 1 / c**0.5, seed)
    gap = LF.transp0(y, v, c) - LF.transp(torch.zeros_like(y), y, v, c)
    assert (LF.norm(y, gap, c) * c**0.5).max() < 1e-9


@several
@given(seeds, st.floats(1e-3, 5.0), widths, curvatures)
def test_charts_come_back(seed: int, radius: float, n: int, c: float) -> None:
    x = points(seed, radius, n, c)
    for there, back in ((LF.to_poincare, LF.from_poincare), (LF.to_klein, LF.from_klein)):
        ball = there(x, c)
        assert (c**0.5 * ball.norm(dim=-1) < 1).all()
        torch.testing.assert_close(back(ball, c), x, rtol=1e-6, atol=0)
    assert torch.equal(LF.from_ambient(LF.to_ambient(x, c), c), x)


@several
@given(seeds, st.floats(1e-3, 4.0), widths, curvatures, st.floats(0.0, 2.0))
def test_centroid_commutes_with_isometries(seed: int, radius: float, n: int, c: float, rapidity: float) -> None:
    x = points(seed, radius, n, c)
    weights = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, r = isometry(seed, rapidity, n)
    moved = LF.centroid(LF.boost(LF.rotate(x, r), u, c), weights, c)
    assert_same_points(moved, LF.boost(LF.rotate(LF.centroid(x, weights, c), r), u, c), c, within=1e-7)


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_centroid_minimises_the_weighted_squared_distance(seed: int, c: float) -> None:
    x = oracles.points_at(2.0, 6, 3, seed).numpy()
    weights = np.random.default_rng(seed).random(6)

    def cost(p: np.ndarray) -> float:
        times = np.sqrt(1 / c + (x**2).sum(-1)) * np.sqrt(1 / c + (p**2).sum())
        return float(weights @ (-2 / c - 2 * (x @ p - times)))

    best = scipy.optimize.minimize(cost, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    found = LF.centroid(torch.from_numpy(x), torch.from_numpy(weights), c)
    np.testing.assert_allclose(found.numpy(), best, rtol=1e-6, atol=1e-6)


def test_centroid_of_two_points_is_the_midpoint() -> None:
    x, y = oracles.points_at(2.0, 2, 3, seed=0)
    torch.testing.assert_close(LF.centroid(torch.stack([x, y])), LF.geodesic(0.5, x, y))
