"""What to look at before training, and when it goes wrong: hyperbolicity of the data, radii, what a dtype can hold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz._precision import Curvature


class RadiusWarning(UserWarning):
    """Points lie so far from the origin that their dtype cannot tell neighbours apart."""


def radius_histogram(
    x: Tensor, c: Curvature = 1.0, bins: int = 50, *, range: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the counts (bins,) and the edges (bins + 1,) of the histogram of `LF.dist0`, as `torch.histogram` does.

    Args:
        x: points, (..., n).
        c: the curvature is -c.
        bins: number of bins.
        range: lowest and highest radius; by default those of the points.
    """
    radii = LF.dist0(x.detach(), c).detach().cpu().flatten()
    counts, edges = torch.histogram(radii, bins, range=range)
    return counts, edges


def max_radius(dtype: torch.dtype, c: float = 1.0, *, resolution: float = 0.1) -> float:
    r"""Return the radius up to which coordinates stored in `dtype` hold a point to a distance `resolution`.

    .. math:: \operatorname{asinh}(resolution / \epsilon) / \sqrt c

    A point at radius r has coordinates of size :math:`\sinh(\sqrt c\,r) / \sqrt c`, and their rounding, by eps / 2 of
    that at most, moves it across the ray by as much. Where two points are rounded, their distance is off by twice
    that: bfloat16 holds distances to 0.1 up to radius 3.2, float16 5.3, float32 14.3, float64 34.4; float32 holds them
    to 0.01 up to 12.0. Each digit more costs log(10) = 2.3 of radius, in every chart of hyperbolic space.

    Args:
        dtype: of the coordinates, a floating one.
        c: the curvature is -c.
        resolution: in radii of curvature.
    """
    return math.asinh(resolution / torch.finfo(dtype).eps) / c**0.5


def warn_radius(x: Tensor, c: Curvature = 1.0, *, resolution: float = 0.1, name: str = "x") -> None:
    """Issue a `RadiusWarning` if points (..., n) are not finite or lie beyond `max_radius` of their dtype.

    Args:
        x: points, (..., n).
        c: the curvature is -c.
        resolution: as in `max_radius`.
        name: how the warning calls the points.
    """
    radii, root = LF.dist0(x.detach(), c).detach().flatten(), torch.as_tensor(c).detach() ** 0.5
    if root.numel() != 1:
        raise ValueError(f"expected one curvature, got c of shape {tuple(root.shape)}")
    limit = max_radius(x.dtype, root.item() ** 2, resolution=resolution)
    far = ~(radii <= limit)  # NaN is far
    if not far.any():
        return
    finite = radii[radii.isfinite()]
    largest = f"the largest radius is {finite.max():.3g}" if len(finite) else "none is finite"
    wider = "float64" if x.dtype.itemsize >= 4 else "float32"
    remedy = "" if x.dtype == torch.float64 else f"keep them in {wider}, or "
    warnings.warn(
        f"{far.sum()} of {len(radii)} points of {name} are not within {limit:.3g} of the origin, where {x.dtype} holds "
        f"distances to {resolution / root.item():.2g} ({largest}, {len(radii) - len(finite)} are not finite): "
        f"{remedy}lower the learning rate or the scale of the distances that are fitted",
        RadiusWarning,
        stacklevel=2,
    )


def delta_hyperbolicity(distances: Tensor, base: int | None = 0) -> Tensor:
    r"""Return how far a metric is from that of a tree, Gromov's delta at a base point w: (..., N, N) to (...).

    .. math::
        \delta_w = \max_{x, y, z} \min\bigl((x|y)_w, (y|z)_w\bigr) - (x|z)_w, \quad
        (x|y)_w = \tfrac12 \bigl(d(x, w) + d(y, w) - d(x, y)\bigr).

    The largest over all w is Gromov's delta, half the gap between the two largest of the three sums of opposite
    distances of four points, and :math:`\delta_w \le \delta \le 2 \delta_w`. Zero for trees, :math:`\log 2 / \sqrt c`
    at most for points of hyperbolic space, half of the diameter at most for any metric. Time N^3 per base point,
    memory N^2. A part of the points gives a lower bound.

    Args:
        distances: symmetric, of any scale.
        base: the row of w, or None for the exact delta, the largest over all N base points.

    Raises:
        ValueError: `distances` is not square, or empty.

    Source: Gromov, Hyperbolic groups, 1987; Fournier, Ismail and Vigneron, Computing the Gromov hyperbolicity of a
    discrete metric space, 2015, for the product and the bound.
    """
    _check_square(distances)
    bases = range(distances.shape[-1]) if base is None else [base]
    return torch.stack([_delta_at(distances, w) for w in bases]).amax(0)


def relative_delta(distances: Tensor, base: int | None = 0) -> Tensor:
    r"""Return :math:`2 \delta / diameter`, between 0 for a tree and 1: (..., N, N) to (...).

    Arguments and errors are those of `delta_hyperbolicity`. A space of one point has 0.

    Source: Khrulkov et al., Hyperbolic Image Embeddings, CVPR 2020, with the first point as the base.
    """
    delta, diameter = delta_hyperbolicity(distances, base), distances.amax((-2, -1))
    return torch.where(diameter > 0, 2 * delta / diameter, 0.0)


def sampled_deltas(
    x: Tensor,
    dist: Callable[[Tensor, Tensor], Tensor] = LF.dist,
    samples: int = 100_000,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the four-point delta of random quadruples of points, (samples,), where N is too large for all of them.

    The delta of four points is half the gap between the two largest of d(a, b) + d(c, d), d(a, c) + d(b, d) and
    d(a, d) + d(b, c). The largest of the sample is a lower bound of Gromov's delta; the mean estimates the average
    delta, over quadruples with repetition.

    Args:
        x: points, (N, ...); for a matrix of distances D, `torch.arange(N)` and `dist=lambda i, j: D[i, j]`.
        dist: from two batches (samples, ...) to distances (samples,).
        samples: number of quadruples.
        generator: source of randomness.

    Source: Gromov, Hyperbolic groups, 1987.
    """
    device = x.device if generator is None else generator.device
    p, q, r, s = x[torch.randint(len(x), (4, samples), generator=generator, device=device).to(x.device)]
    sums = torch.stack([dist(p, q) + dist(r, s), dist(p, r) + dist(q, s), dist(p, s) + dist(q, r)])
    _, second, first = sums.sort(dim=0).values
    return (first - second) / 2


def _delta_at(distances: Tensor, w: int) -> Tensor:
    to_base = distances[..., w]
    products = (to_base.unsqueeze(-1) + to_base.unsqueeze(-2) - distances) / 2
    best = products  # y = x gives (x|z) itself
    for y in range(distances.shape[-1]):
        best = torch.maximum(best, torch.minimum(products[..., y, None], products[..., y, None, :]))
    return (best - products).amax((-2, -1))


def _check_square(distances: Tensor) -> None:
    if distances.ndim < 2 or distances.shape[-1] != distances.shape[-2] or not distances.shape[-1]:
        raise ValueError(f"expected a matrix of distances (..., N, N), got {tuple(distances.shape)}")
