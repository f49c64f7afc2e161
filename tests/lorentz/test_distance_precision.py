"""Distances against mpmath at 50 digits: the numerics contract, near and far, at every radius the dtype can hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from tests import oracles

DTYPES = (torch.float32, torch.float64)
RADII = (1e-6, 1e-3, 0.1, 1.0, 3.0, 5.0, 8.0, 12.0)
GAPS = (0.01, 1.0, 10.0)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def pairs(radius: float, gap: float, dtype: torch.dtype, n: int = 6, count: int = 10, c: float = 1.0) -> list[Tensor]:
    """Points at a radius, and neighbours of theirs; both lengths in units of the radius of curvature."""
    x = oracles.points_at(radius / c**0.5, count, n, seed=1, c=c)
    return [x.to(dtype), oracles.neighbours_at(x, gap / c**0.5, seed=2, c=c).to(dtype)]


# Median and largest relative error in float32, width 16, 40 pairs.
@pytest.mark.parametrize(
    ("gap", "radius", "median", "largest"),
    [
        (0.01, 1.0, 1e-7, 2e-7),
        (0.01, 3.0, 1e-7, 3e-7),
        (0.01, 5.0, 2e-7, 1e-6),
        (1.0, 1.0, 1e-7, 2e-7),
        (1.0, 3.0, 1e-7, 3e-7),
        (1.0, 5.0, 2e-7, 2e-6),
        (1.0, 8.0, 3e-6, 2e-5),
    ],
)
def test_neighbours_keep_their_distance_in_float32(gap: float, radius: float, median: float, largest: float) -> None:
    x, y = pairs(radius, gap, torch.float32, n=16, count=40)
    errors = oracles.relative_errors(LF.dist(x, y), oracles.each(oracles.dist, 1.0, x, y))
    assert errors.median() < median
    assert errors.max() < largest


@dtypes
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("radius", RADII)
def test_distance_error_is_a_fraction_of_the_rounding_of_the_coordinates(
    radius: float, gap: float, dtype: torch.dtype
) -> None:
    x, y = pairs(radius, gap, dtype)
    # A coordinate rounded by eps moves a point by eps * x0: no formula can know the distance of stored points better.
    allowed = torch.finfo(dtype).eps * (4 + 0.15 * LF.time(x).max())
    for name in ("dist", "sqdist", "inner"):
        errors = oracles.relative_errors(getattr(LF, name)(x, y), oracles.each(getattr(oracles, name), 1.0, x, y))
        assert errors.max() < (1 if name == "dist" else 1.5 + min(gap, 1) + gap) * allowed, name


@dtypes
@curvatures
@pytest.mark.parametrize(
    ("radius", "other"), [(1e-6, 8.0), (1e-3, 5.0), (0.5, 8.0), (8.0, 8.0), (20.0, 1e-5), (40.0, 0.1), (40.0, 40.0)]
)
def test_far_pairs_are_exact_at_radii_however_different(
    radius: float, other: float, c: float, dtype: torch.dtype
) -> None:
    x = oracles.points_at(radius / c**0.5, 8, 6, seed=1, c=c).to(dtype)
    y = oracles.points_at(other / c**0.5, 8, 6, seed=2, c=c).to(dtype)
    for first, second in ((x, y), (y, x)):
        errors = oracles.relative_errors(LF.dist(first, second, c), oracles.each(oracles.dist, c, first, second))
        assert errors.max() < 2 * torch.finfo(dtype).eps


@dtypes
@curvatures
@pytest.mark.parametrize("radius", [*RADII, 40.0])
def test_time_and_radius_are_exact(radius: float, c: float, dtype: torch.dtype) -> None:
    x = oracles.points_at(radius / c**0.5, 8, 6, seed=1, c=c).to(dtype)
    times = [oracles.lift(point, c)[0] for point in oracles.rows(x)]
    origin = [oracles.mp.mpf(0)] * 6
    radii = [oracles.dist(point, origin, c) for point in oracles.rows(x)]
    eps = torch.finfo(dtype).eps
    assert oracles.relative_errors(LF.time(x, c), times).max() < 2 * eps
    assert oracles.relative_errors(LF.dist0(x, c), radii).max() < 3 * eps


@pytest.mark.parametrize("radius", [1e-12, 1.0, 20.0, 43.0])
def test_distances_are_finite_to_the_edge_of_float32(radius: float) -> None:
    x, y = (oracles.points_at(radius, 50, 8, seed=seed).float().requires_grad_() for seed in (1, 2))
    for points in (y, -x, x.detach(), 2 * x):
        distance = LF.dist(x, points)
        grads = torch.autograd.grad(distance.sum(), x)
        assert distance.isfinite().all()
        assert grads[0].isfinite().all()


@dtypes
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("radius", RADII)
def test_gradient_of_the_distance_is_the_unit_vector_away(radius: float, gap: float, dtype: torch.dtype) -> None:
    x, y = pairs(radius, gap, dtype, count=6)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(LF.dist(leaf, y).sum(), leaf)
    assert oracles.relative_gaps(grad, oracles.each(oracles.dist_gradient, 1.0, x, y)).max() < torch.finfo(
        dtype
    ).eps * (4 + LF.time(x).max())
    truth = [
        [-w / oracles.dist(a, b, 1.0) for w in oracles.logmap(a, b, 1.0)]
        for a, b in zip(oracles.rows(x), oracles.rows(y), strict=True)
    ]
    riemannian = LF.egrad2rgrad(x.double(), grad.double())
    assert oracles.tangent_gaps(x, riemannian, truth, 1.0).max() < 4 * torch.finfo(dtype).eps * LF.time(x).max()


def test_gradient_is_right_where_the_radii_are_equal() -> None:
    x = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.8, -0.6, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.equal(LF.time(x), LF.time(y))
    for grad, ends in zip(torch.autograd.grad(LF.dist(x, y).sum(), (x, y)), ((x, y), (y, x)), strict=True):
        assert oracles.relative_gaps(grad, oracles.each(oracles.dist_gradient, 1.0, *ends)).max() < 1e-14


@pytest.mark.slow
def test_compiled_distance_keeps_the_contract() -> None:
    compiled = torch.compile(LF.dist, fullgraph=True)
    for radius, gap, largest in ((5.0, 0.01, 1e-6), (5.0, 1.0, 2e-6), (8.0, 1.0, 2e-5)):
        x, y = pairs(radius, gap, torch.float32, n=16, count=40)
        errors = oracles.relative_errors(compiled(x, y), oracles.each(oracles.dist, 1.0, x, y))
        assert errors.max() < largest
