"""Independent truths of the Lorentz model, written from the definitions of the papers in ambient coordinates.

Two kinds. The first half computes one row at a time with mpmath, at a precision where no formula cancels: points and
vectors are lists, space coordinates going in and coming out. The second half transcribes the papers' equations for
whole tensors in float64, time coordinate first: slow, and sound near the origin only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp
import torch
from torch import Tensor

mp.mp.dps = 50
Row = list[mp.mpf]


def row(values: Sequence[float] | Tensor) -> Row:
    """The exact values of a row of floats."""
    return [mp.mpf(float(value)) for value in values]


def rows(x: Tensor) -> list[Row]:
    """The exact values of a (N, n) tensor."""
    return [row(values) for values in x.detach().double().tolist()]


def dot(a: Row, b: Row) -> mp.mpf:
    return mp.fsum(p * q for p, q in zip(a, b, strict=True))


def add(a: Row, b: Row, scale: mp.mpf) -> Row:
    """a + scale * b."""
    return [p + scale * q for p, q in zip(a, b, strict=True)]


def minkowski(a: Row, b: Row) -> mp.mpf:
    """The Minkowski form of ambient vectors, time first."""
    return dot(a[1:], b[1:]) - a[0] * b[0]


def lift(x: Row, c: float) -> Row:
    """The ambient point above x."""
    return [mp.sqrt(1 / mp.mpf(c) + dot(x, x)), *x]


def lift_tangent(x: Row, v: Row, c: float) -> Row:
    """The ambient vector above v, orthogonal to the point: its time solves <X, V> = 0."""
    return [dot(x, v) / lift(x, c)[0], *v]


def inner(x: Row, y: Row, c: float) -> mp.mpf:
    return minkowski(lift(x, c), lift(y, c))


def sqdist(x: Row, y: Row, c: float) -> mp.mpf:
    """The Minkowski square of X - Y."""
    gap = add(lift(x, c), lift(y, c), mp.mpf(-1))
    return minkowski(gap, gap)


def dist(x: Row, y: Row, c: float) -> mp.mpf:
    """arccosh(-c <X, Y>) / sqrt(c)."""
    return mp.acosh(-c * inner(x, y, c)) / mp.sqrt(c)


def norm(x: Row, v: Row, c: float) -> mp.mpf:
    ambient = lift_tangent(x, v, c)
    return mp.sqrt(minkowski(ambient, ambient))


def metric(x: Row, u: Row, v: Row, c: float) -> mp.mpf:
    return minkowski(lift_tangent(x, u, c), lift_tangent(x, v, c))


def expmap(x: Row, v: Row, c: float) -> Row:
    """cosh(t) X + sinh(t) / t V, t = sqrt(c) |V|_L."""
    t = mp.sqrt(c) * norm(x, v, c)
    return [mp.cosh(t) * a + mp.sinh(t) / t * b for a, b in zip(x, v, strict=True)] if t else x


def logmap(x: Row, y: Row, c: float) -> Row:
    """d / |W|_L W with W = Y + c <X, Y> X, the part of Y that is tangent at X."""
    direction = add(y, x, c * inner(x, y, c))
    length = norm(x, direction, c)
    return [dist(x, y, c) / length * w for w in direction] if length else direction


def transp(x: Row, y: Row, v: Row, c: float) -> Row:
    """V - <log_X Y, V> / d^2 (log_X Y + log_Y X)."""
    there, back = logmap(x, y, c), logmap(y, x, c)
    share = metric(x, there, v, c) / dist(x, y, c) ** 2
    return add(v, add(there, back, mp.mpf(1)), -share)


def geodesic(t: float, x: Row, y: Row, c: float) -> Row:
    return expmap(x, [t * w for w in logmap(x, y, c)], c)


def dist_gradient(x: Row, y: Row, c: float) -> Row:
    """The Euclidean gradient of dist(., y) at x: the metric applied to -log_x y / d."""
    unit = [-w / dist(x, y, c) for w in logmap(x, y, c)]
    x0, time_part = lift(x, c)[0], lift_tangent(x, unit, c)[0]
    return add(unit, x, -time_part / x0)


def centroid(points: Sequence[Row], weights: Sequence[float], c: float) -> Row:
    """The weighted sum of the ambient points, scaled back to the hyperboloid."""
    ambient = [lift(point, c) for point in points]
    total = [mp.fsum(w * p[i] for w, p in zip(weights, ambient, strict=True)) for i in range(len(ambient[0]))]
    scale = 1 / mp.sqrt(-c * minkowski(total, total))
    return [scale * value for value in total[1:]]


def boost(x: Row, velocity: Row, c: float) -> Row:
    """The space rows of the Lorentz boost [[g, -g u^T], [-g u, I + g^2 / (1 + g) u u^T]] on the ambient point."""
    gamma = 1 / mp.sqrt(1 - dot(velocity, velocity))
    x0 = lift(x, c)[0]
    return add(x, velocity, gamma**2 / (1 + gamma) * dot(velocity, x) - gamma * x0)


def relative_errors(got: Tensor, truth: Sequence[mp.mpf]) -> Tensor:
    """|got - truth| / |truth| of numbers, formed in mpmath: (N,)."""
    pairs = zip(row(got), truth, strict=True)
    return torch.tensor([float(abs(a - b) / abs(b)) if b else float(abs(a)) for a, b in pairs])


def relative_gaps(got: Tensor, truth: Sequence[Row]) -> Tensor:
    """|got - truth| / |truth| of coordinate vectors, Euclidean lengths: (N,)."""
    gaps = [(add(a, b, mp.mpf(-1)), b) for a, b in zip(rows(got), truth, strict=True)]
    return torch.tensor([float(mp.sqrt(dot(gap, gap) / dot(b, b))) for gap, b in gaps])


def tangent_gaps(at: Tensor, got: Tensor, truth: Sequence[Row], c: float) -> Tensor:
    """|got - truth|_L / |truth|_L of tangent vectors: (N,)."""
    triples = zip(rows(at), rows(got), truth, strict=True)
    return torch.tensor([float(norm(x, add(a, b, mp.mpf(-1)), c) / norm(x, b, c)) for x, a, b in triples])


def each(function: Callable[..., object], c: float, *tensors: Tensor) -> list[Any]:
    """Apply an mpmath function to corresponding rows of (N, n) tensors."""
    return [function(*arguments, c) for arguments in zip(*map(rows, tensors), strict=True)]


# Whole tensors in float64, ambient coordinates, time first.


def ambient(x: Tensor, c: float = 1.0) -> Tensor:
    x = x.double()
    return torch.cat([(1 / c + x.square().sum(-1, keepdim=True)).sqrt(), x], dim=-1)


def ambient_inner(p: Tensor, q: Tensor) -> Tensor:
    return (p[..., 1:] * q[..., 1:]).sum(-1) - p[..., 0] * q[..., 0]


def ambient_linear(p: Tensor, matrix: Tensor, bias: Tensor, c: float = 1.0) -> Tensor:
    """Chen et al., Eq. 2 in its general form: (sqrt(|M p + b|^2 + 1/c), M p + b) with M (out, n + 1)."""
    return ambient(p @ matrix.T + bias, c)


def ambient_centroid(p: Tensor, weights: Tensor, c: float = 1.0) -> Tensor:
    """Chen et al.: sum_j w_ij p_j / (sqrt(c) | |sum_j w_ij p_j|_L |); p (..., S, n + 1), weights (..., L, S)."""
    total = weights @ p
    return total / (c**0.5 * (-ambient_inner(total, total)).sqrt().unsqueeze(-1))


def ambient_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, c: float = 1.0) -> Tensor:
    """Chen et al.: centroids under the softmax of -scale |q_i - k_j|_L^2 + bias_ij; a bias of -inf masks."""
    squares = -2 / c - 2 * ambient_inner(q.unsqueeze(-2), k.unsqueeze(-3))
    return ambient_centroid(v, torch.softmax(bias - scale * squares, dim=-1), c)


# Test points.


def points_at(radius: float, count: int, n: int, seed: int, c: float = 1.0) -> Tensor:
    """`count` points at geodesic distance `radius` from the origin, in random directions, float64."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(count, n, generator=generator, dtype=torch.float64)
    r = float(mp.sinh(mp.sqrt(c) * radius) / mp.sqrt(c))
    return r * u / u.norm(dim=-1, keepdim=True)


def vectors_at(x: Tensor, length: float, seed: int, c: float = 1.0) -> Tensor:
    """Tangent vectors at x of Lorentzian length `length`, isotropic: the images of Gaussian ones under a boost."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    u = length * u / u.norm(dim=-1, keepdim=True)
    x0 = (1 / c + x.square().sum(-1, keepdim=True)).sqrt()
    return u + c * (x * u).sum(-1, keepdim=True) / (1 + c**0.5 * x0) * x


def neighbours_at(x: Tensor, distance: float, seed: int, c: float = 1.0) -> Tensor:
    """Points at geodesic distance `distance` of x (float64), in isotropic directions, to float64."""
    v = vectors_at(x, distance, seed, c)
    t = c**0.5 * distance
    return float(mp.cosh(t)) * x + float(mp.sinh(t) / t) * v
