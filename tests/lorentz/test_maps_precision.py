"""Exponential and logarithmic maps, transport, norms, centroids against mpmath at 50 digits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from tests import oracles

RADII = (1e-6, 1e-3, 1.0, 5.0, 8.0, 12.0)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=lambda dtype: str(dtype)[6:])
radii = pytest.mark.parametrize("radius", RADII)
lengths = pytest.mark.parametrize("length", [1e-6, 0.01, 1.0, 10.0])
curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def frame(radius: float, length: float, dtype: torch.dtype, c: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points x, neighbours y at the distance `length`, vectors v at x of that length, and what rounding allows.

    A coordinate vector rounded by eps turns by eps * x0, so no map can be more exact than a fraction of that.
    """
    unit = 1 / c**0.5
    x = oracles.points_at(radius * unit, 6, 5, seed=1, c=c)
    y = oracles.neighbours_at(x, length * unit, seed=2, c=c).to(dtype)
    v = oracles.vectors_at(x, length * unit, seed=3, c=c).to(dtype)
    x = x.to(dtype)
    return x, y, v, torch.finfo(dtype).eps * c**0.5 * LF.time(x, c).max()


@dtypes
@lengths
@radii
def test_norm_is_exact(radius: float, length: float, dtype: torch.dtype) -> None:
    x, _, v, rounding = frame(radius, length, dtype)
    errors = oracles.relative_errors(LF.norm(x, v), oracles.each(oracles.norm, 1.0, x, v))
    assert errors.max() < 2 * torch.finfo(dtype).eps + 0.15 * rounding


@dtypes
@lengths
@radii
def test_expmap_is_exact(radius: float, length: float, dtype: torch.dtype) -> None:
    x, _, v, rounding = frame(radius, length, dtype)
    gaps = oracles.relative_gaps(LF.expmap(x, v), oracles.each(oracles.expmap, 1.0, x, v))
    # Where the image is nearer the origin than x, the rounding of x and v is large beside it.
    shrink = (x.norm(dim=-1) / LF.expmap(x, v).norm(dim=-1)).clamp_min(1).max()
    assert gaps.max() < shrink * (2 * (1 + length) * torch.finfo(dtype).eps + 0.15 * length * rounding)


@dtypes
@lengths
@radii
def test_logmap_is_exact(radius: float, length: float, dtype: torch.dtype) -> None:
    x, y, _, rounding = frame(radius, length, dtype)
    if torch.equal(x, y):
        assert not LF.logmap(x, y).any()
        return
    truth = oracles.each(oracles.logmap, 1.0, x, y)
    assert oracles.tangent_gaps(x, LF.logmap(x, y), truth, 1.0).max() < 6 * rounding


@dtypes
@pytest.mark.parametrize("length", [0.01, 1.0, 10.0])
@radii
def test_transport_is_exact(radius: float, length: float, dtype: torch.dtype) -> None:
    x, y, v, rounding = frame(radius, length, dtype)
    allowed = 2 * torch.maximum(rounding, torch.finfo(dtype).eps * LF.time(y).max())
    truth = oracles.each(oracles.transp, 1.0, x, y, v)
    assert oracles.tangent_gaps(y, LF.transp(x, y, v), truth, 1.0).max() < allowed


@dtypes
@pytest.mark.parametrize("length", [0.01, 1.0, 10.0])
@radii
def test_geodesic_is_exact(radius: float, length: float, dtype: torch.dtype) -> None:
    x, y, _, rounding = frame(radius, length, dtype)
    truth = oracles.each(lambda a, b, c: oracles.geodesic(0.3, a, b, c), 1.0, x, y)
    gaps = oracles.relative_gaps(LF.geodesic(0.3, x, y), truth)
    assert gaps.max() < 10 * torch.finfo(dtype).eps + 0.3 * rounding


@curvatures
@pytest.mark.parametrize("radius", [1e-3, 1.0, 5.0])
def test_every_map_is_exact_at_every_curvature(radius: float, c: float) -> None:
    x, y, v, rounding = frame(radius, 1.0, torch.float32, c)
    for name, at, arguments in (
        ("logmap", x, (x, y)),
        ("transp", y, (x, y, v)),
    ):
        truth = oracles.each(getattr(oracles, name), c, *arguments)
        assert oracles.tangent_gaps(at, getattr(LF, name)(*arguments, c), truth, c).max() < 8 * rounding, name
    for name in ("norm", "metric"):
        arguments = (x, v) if name == "norm" else (x, v, v)
        got = LF.norm(x, v, c) if name == "norm" else LF.norm(x, v, c).square()
        assert oracles.relative_errors(got, oracles.each(getattr(oracles, name), c, *arguments)).max() < 4 * rounding
    assert oracles.relative_gaps(LF.expmap(x, v, c), oracles.each(oracles.expmap, c, x, v)).max() < 4 * rounding
    u = 0.9 * torch.nn.functional.normalize(v, dim=-1)
    assert oracles.relative_gaps(LF.boost(x, u, c), oracles.each(oracles.boost, c, x, u)).max() < 40 * rounding


@dtypes
@curvatures
@pytest.mark.parametrize("length", [1e-12, 1e-6, 1e-3, 0.05, 0.1, 0.2, 1.0, 5.0, 12.0, 40.0])
def test_maps_at_the_origin_are_exact_and_inverse(length: float, c: float, dtype: torch.dtype) -> None:
    v = oracles.vectors_at(torch.zeros(8, 5, dtype=torch.float64), length / c**0.5, seed=1).to(dtype)
    eps = torch.finfo(dtype).eps
    origin = torch.zeros_like(v)
    x = LF.expmap0(v, c)
    assert oracles.relative_gaps(x, oracles.each(oracles.expmap, c, origin, v)).max() < 2 * eps * (1 + length)
    assert oracles.relative_gaps(LF.logmap0(x, c), oracles.rows(v)).max() < 3 * eps
    assert oracles.relative_gaps(LF.logmap0(x, c), oracles.each(oracles.logmap, c, origin, x)).max() < 3 * eps
    truth = oracles.each(oracles.transp, c, origin, x, v)
    rounding = eps * c**0.5 * LF.time(x, c).max()
    assert oracles.tangent_gaps(x, LF.transp0(x, v, c), truth, c).max() < 4 * rounding


@pytest.mark.parametrize("length", [1e-6, 1e-3, 1.0, 10.0, 40.0])
def test_round_trip_at_the_origin_holds_the_contract(length: float) -> None:
    v = length * torch.nn.functional.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    gaps = (LF.logmap0(LF.expmap0(v)) - v).norm(dim=-1) / length
    assert gaps.max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_a_step_of_any_length_ends_at_a_finite_point_with_a_finite_time(dtype: torch.dtype, c: float) -> None:
    v = torch.tensor([[1e4, -3e4, 1e4], [30.0, 40.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    x = LF.expmap0(v, c)
    assert LF.time(x, c).isfinite().all()
    again = LF.expmap(x, v, c)
    assert LF.time(again, c).isfinite().all()
    assert LF.dist(x, again, c).isfinite().all()
    if dtype != torch.float16:  # where the gradient itself is out of range
        assert torch.autograd.grad(again.float().sum(), v)[0].isfinite().all()


def test_a_step_outward_from_the_edge_of_the_range_goes_nowhere() -> None:
    edge = torch.tensor([[1e19, 0.0]])  # past the largest radius that a step may reach in float32
    assert torch.equal(LF.expmap(edge, torch.tensor([[1e19, 0.0]])), edge)
    assert torch.equal(LF.expmap(edge, torch.zeros(1, 2)), edge)


def test_steps_are_cut_only_where_the_dtype_ends() -> None:
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    for dtype, radius in ((torch.float16, 9.0), (torch.bfloat16, 42.0), (torch.float32, 42.0), (torch.float64, 350.0)):
        x = LF.expmap0((radius * direction).to(dtype))
        torch.testing.assert_close(LF.dist0(x).item(), radius, rtol=4 * torch.finfo(dtype).eps, atol=0)


@dtypes
@curvatures
@pytest.mark.parametrize("spread", [1e-3, 1.0, 8.0])
@pytest.mark.parametrize("radius", [0.0, 1.0, 5.0, 8.0])
def test_centroid_is_exact(radius: float, spread: float, c: float, dtype: torch.dtype) -> None:
    centre = oracles.points_at(radius / c**0.5, 1, 5, seed=1, c=c).expand(6, 5)
    x = oracles.neighbours_at(centre, spread / c**0.5, seed=2, c=c).to(dtype)
    weights = torch.tensor([0.1, 1.0, 2.0, 0.0, 3.0, 0.5], dtype=dtype)
    truth = oracles.centroid(oracles.rows(x), weights.tolist(), c)
    got = LF.centroid(x, weights, c)
    # A mean of opposite points is as exact as the points are.
    rounding = torch.finfo(dtype).eps * max((x.norm(dim=-1).max() / got.norm()).item(), 1.0)
    assert oracles.relative_gaps(got[None], [truth]).item() < 8 * rounding
    assert oracles.dist(oracles.row(got), truth, c) < 4 * rounding * LF.time(got, c).item()
