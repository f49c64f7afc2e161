"""Pooling: torch's on the space part, and the centroids of windows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.nn.centroid_pool import adaptive_windows, sliding_windows
from tests import oracles

several = settings(max_examples=60, deadline=None)
TWINS: list[tuple[str, dict[str, Any]]] = [
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ("AvgPool1d", {"kernel_size": (2,)}),
    ("AvgPool2d", {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "divisor_override": 5}),
    ("AvgPool2d", {"kernel_size": 2, "ceil_mode": True, "padding": 1, "count_include_pad": False}),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
    ("MaxPool2d", {"kernel_size": (3, 2), "stride": 1, "padding": (1, 0), "dilation": (1, 2)}),
    ("AdaptiveAvgPool1d", {"output_size": 3}),
    ("AdaptiveAvgPool2d", {"output_size": (2, None)}),
    ("Flatten", {"start_dim": 0, "end_dim": 1}),
]
every_twin = pytest.mark.parametrize(("name", "arguments"), TWINS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image(name: str) -> Tensor:
    return normal(2, 4, *((7,) if name.endswith("1d") else (7, 6)))


def centroids(x: Tensor, windows: list[list[range]], c: float) -> Tensor:
    """The definition in ambient coordinates: x (N, n, *size), the windows along each dimension."""
    out = torch.full((*x.shape[:2], *map(len, windows)), torch.nan, dtype=torch.float64)
    for o in itertools.product(*(range(len(each)) for each in windows)):
        pixels = itertools.product(*(each[i] for each, i in zip(windows, o, strict=True)))
        points = torch.stack([x[(slice(None), slice(None), *pixel)] for pixel in pixels], dim=1)  # (N, window, n)
        weights = torch.ones(1, points.shape[1], dtype=torch.float64)
        out[(slice(None), slice(None), *o)] = oracles.ambient_centroid(oracles.ambient(points, c), weights, c)[:, 0, 1:]
    return out


def sliding(size: int, out: int, kernel: int, stride: int, padding: int) -> list[range]:
    return [range(max(0, o * stride - padding), min(size, o * stride - padding + kernel)) for o in range(out)]


@every_twin
def test_the_space_part_is_that_of_the_twin_with_the_same_gradients(name: str, arguments: dict[str, Any]) -> None:
    results = []
    for module in (getattr(lnn, name)(**arguments, manifold=Lorentz(4.0)), getattr(nn, name)(**arguments)):
        x = image(name).requires_grad_()
        out = module(x)
        results.append((out, *torch.autograd.grad(out.pow(3).sum(), x)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert issubclass(getattr(lnn, name), getattr(nn, name))


def test_max_pool_returns_the_indices_that_torch_returns() -> None:
    x = normal(2, 4, 6, 5)
    out, indices = lnn.MaxPool2d(2, return_indices=True)(x)
    assert torch.equal(out, x.flatten(2).gather(2, indices.flatten(2)).view_as(out))


def test_flatten_joins_the_points_of_an_image_to_one() -> None:
    x = normal(3, 4, 2, 5)
    times = LF.time(x.movedim(1, -1), 0.5)
    # The time of a join (Bdeir et al.): t^2 is the sum of the squared times, less (N - 1) / c for N points.
    expected = (times.square().sum((1, 2)) - (10 - 1) / 0.5).sqrt()
    torch.testing.assert_close(LF.time(lnn.Flatten(manifold=Lorentz(0.5))(x), 0.5), expected)


@several
@given(st.data())
@pytest.mark.parametrize("dims", [1, 2])
def test_centroid_pool_has_the_windows_of_avg_pool(dims: int, data: st.DataObject) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, size = each(1, 4), each(1, 4), each(1, 7)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode, c = data.draw(st.booleans()), data.draw(st.sampled_from([0.25, 1.0, 4.0]))
    over = [s - 1 if ceil_mode else 0 for s in stride]
    assume(all(n + 2 * p + o >= k for n, p, o, k in zip(size, padding, over, kernel, strict=True)))
    arguments = (kernel, stride, padding, ceil_mode)
    x = normal(2, 3, *size)
    got = getattr(lnn, f"CentroidPool{dims}d")(*arguments, manifold=Lorentz(c))(x)
    out = getattr(nn, f"AvgPool{dims}d")(*arguments)(x).shape[2:]
    assert got.shape[2:] == out
    windows = [sliding(*along) for along in zip(size, out, kernel, stride, padding, strict=True)]
    torch.testing.assert_close(got, centroids(x, windows, c))


@several
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_sliding_windows_have_the_means_of_avg_pool(
    size: int, kernel: int, stride: int, padding: int, ceil_mode: bool
) -> None:
    assume(2 * padding <= kernel <= size + 2 * padding)
    x, (positions, exist) = normal(1, size), sliding_windows(size, kernel, stride, padding, ceil_mode)
    expected = F.avg_pool1d(x, kernel, stride, padding, ceil_mode, count_include_pad=False)
    torch.testing.assert_close((x[0, positions] * exist).sum(-1) / exist.sum(-1), expected[0])


@several
@given(st.integers(1, 20), st.integers(1, 20))
def test_adaptive_windows_have_the_means_of_adaptive_avg_pool(size: int, count: int) -> None:
    x, (positions, exist) = normal(1, size), adaptive_windows(size, count)
    expected = F.adaptive_avg_pool1d(x, count)
    torch.testing.assert_close((x[0, positions] * exist).sum(-1) / exist.sum(-1), expected[0])


@pytest.mark.parametrize("output_size", [1, (3, 2), (None, 4), (9, None)])
def test_adaptive_centroid_pool_is_the_centroid_of_each_window(output_size: Any) -> None:
    x, c = normal(2, 3, 7, 6), 0.7
    outs = output_size if isinstance(output_size, tuple) else (output_size,) * 2
    sizes = [(size, size if out is None else out) for size, out in zip((7, 6), outs, strict=True)]
    windows = [[range(i * size // out, -(-(i + 1) * size // out)) for i in range(out)] for size, out in sizes]
    got = lnn.AdaptiveCentroidPool2d(output_size, manifold=Lorentz(c))(x)
    torch.testing.assert_close(got, centroids(x, windows, c))
    row = lnn.AdaptiveCentroidPool1d(outs[1], manifold=Lorentz(c))(x[:, :, 0])
    torch.testing.assert_close(row, centroids(x[:, :, 0], windows[1:], c))


def test_one_adaptive_window_is_the_centroid_of_the_image() -> None:
    x = normal(2, 3, 7, 6)
    got = lnn.AdaptiveCentroidPool2d(1, manifold=Lorentz(2.0))(x)
    torch.testing.assert_close(got[..., 0, 0], LF.centroid(x.flatten(2).mT, None, 2.0))


POOLS = [
    (lnn.CentroidPool1d, (3, 2, 1)),
    (lnn.CentroidPool2d, ((2, 3), (1, 2), (1, 0), True)),
    (lnn.AdaptiveCentroidPool1d, (3,)),
    (lnn.AdaptiveCentroidPool2d, ((3, 4),)),
]
every_pool = pytest.mark.parametrize(("pool", "arguments"), POOLS)


@every_pool
@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_centroid_pooling_commutes_with_isometries(pool: Any, arguments: tuple[Any, ...], c: float) -> None:
    x, u = image(pool.__name__), 0.8 * F.normalize(normal(4, seed=2), dim=0)
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q

    def moved(x: Tensor) -> Tensor:
        return LF.boost(LF.rotate(x.movedim(1, -1), rotation), u, c).movedim(-1, 1)

    layer = pool(*arguments, manifold=Lorentz(c))
    torch.testing.assert_close(layer(moved(x)), moved(layer(x)))


def test_the_mean_of_space_parts_does_not_commute_with_boosts() -> None:
    x, u = image("AvgPool2d").movedim(1, -1), torch.tensor([0.8, 0.0, 0.0, 0.0]).double()
    mean = lnn.AdaptiveAvgPool2d(1)
    before = mean(LF.boost(x, u).movedim(-1, 1)).flatten(1)
    assert LF.dist(before, LF.boost(mean(x.movedim(-1, 1)).flatten(1), u)).min() > 0.1


@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_windows_of_neighbours_at_radius_5_lose_no_digits(spread: float) -> None:
    centers = oracles.points_at(5.0, 6, 3, seed=0)
    pixels = torch.stack([oracles.neighbours_at(centers, spread, seed) for seed in range(1, 5)], dim=1).float()
    x = pixels.view(6, 2, 2, 3).movedim(-1, 1)  # six images of one window
    got = lnn.CentroidPool2d(2)(x)[..., 0, 0]
    truth = [oracles.centroid(oracles.rows(window), [1.0] * 4, 1.0) for window in pixels]
    assert oracles.relative_gaps(got, truth).max() < 3e-7
    distances = [oracles.dist(a, b, 1.0) for a, b in zip(oracles.rows(got), truth, strict=True)]
    assert max(distances) < 2e-5  # a last digit of a coordinate, 74 * 2^-24


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_low_precision_is_float32_on_rounded_points(dtype: torch.dtype, tolerance: float) -> None:
    x, pool = (30 * normal(2, 4, 6, 5)).to(dtype), lnn.CentroidPool2d(3, 2, 1)
    got = pool(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), pool(x.float()), rtol=tolerance, atol=tolerance)


def test_arguments_are_read_as_avg_pool_reads_them() -> None:
    x = normal(2, 3, 7, 6)
    expected = lnn.CentroidPool2d((2, 3), (2, 3), (0, 0), False)(x)
    torch.testing.assert_close(lnn.CentroidPool2d([2, 3])(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(lnn.AdaptiveCentroidPool2d([7, None])(x), x)


def test_pixels_of_the_padding_are_no_points() -> None:
    point = normal(4)[:, None, None]
    same = point.expand(4, 5, 6)
    got = lnn.CentroidPool2d(3, 2, 1, ceil_mode=True)(same)
    torch.testing.assert_close(got, point.expand_as(got))


@every_pool
def test_leading_dimensions_are_batches(pool: Any, arguments: tuple[Any, ...]) -> None:
    layer, x = pool(*arguments), image(pool.__name__)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    torch.testing.assert_close(layer(torch.stack([x, 2 * x])), torch.stack([layer(x), layer(2 * x)]))
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


@every_pool
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_gradients_are_finite_where_points_coincide(pool: Any, arguments: tuple[Any, ...], value: float) -> None:
    x = torch.full_like(image(pool.__name__), value).requires_grad_()
    (grad,) = torch.autograd.grad(pool(*arguments)(x).square().sum(), x)
    assert grad.isfinite().all()


@every_pool
def test_too_few_dimensions_are_refused(pool: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected points \(..., n, .*\), got \(5,\)"):
        pool(*arguments)(torch.zeros(5))


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"padding of at most half of \(2, 3\), got \(1, 2\)"):
        lnn.CentroidPool2d((2, 3), padding=(1, 2))
    with pytest.raises(ValueError, match=r"expected one number or 2, got \(2, 2, 2\)"):
        lnn.CentroidPool2d((2, 2, 2))
    with pytest.raises(ValueError, match="expected at least 2 pixels along a dimension, got 1"):
        lnn.CentroidPool1d(4, padding=1)(torch.zeros(3, 1))
