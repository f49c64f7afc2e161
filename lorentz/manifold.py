"""The Lorentz model as a geoopt manifold: curvature, and geoopt's interface over `lorentz.functional`."""

from __future__ import annotations

import math

import geoopt
import torch
from geoopt.manifolds.base import ScalingInfo
from geoopt.utils import size2shape
from torch import Tensor

import lorentz.functional as LF
from lorentz._tangent import metric

C_RANGE = (1e-4, 1e4)
"""Where `c` can be: a radius of curvature between 0.01 and 100."""


class Lorentz(geoopt.Manifold):  # type: ignore[misc]
    """Hyperbolic space of curvature -c in the chart of space coordinates: points and tangent vectors are (..., n).

    Every finite tensor is a point and every tensor a tangent vector, so `projx` and `proju` are the identity. Works
    with `geoopt.ManifoldParameter` and geoopt's optimisers.

    Args:
        c: minus the curvature, within `C_RANGE`.
        learnable: learn c. It is then the exponential of the parameter `log_c`, of shape (1,) because FSDP2 shards no
            scalar, cut to `C_RANGE`; otherwise c is a constant and adds nothing to a `state_dict`.

    Raises:
        ValueError: c is out of range.
    """

    name = "Lorentz"
    ndim = 1
    reversible = False
    __scaling__ = geoopt.Manifold.__scaling__.copy()
    __scaling__.update(  # what geoopt does not register itself, for geoopt.Scaled
        dist0=ScalingInfo(1),
        expmap0=ScalingInfo(u=-1),
        logmap0=ScalingInfo(1),
        random=ScalingInfo(std=-1),
        random_normal=ScalingInfo(std=-1),
        sqdist=ScalingInfo.NotCompatible,
    )

    def __init__(self, c: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        low, high = C_RANGE
        if not low <= c <= high:
            raise ValueError(f"expected c in [{low:g}, {high:g}] for curvature -c, got {c}")
        self._c = float(c)
        self.learnable = learnable
        if learnable:
            self.log_c = torch.nn.Parameter(torch.empty(1))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set a learnable c back to the value of the constructor."""
        if self.learnable:
            with torch.no_grad():
                self.log_c.fill_(math.log(self._c))

    @property
    def c(self) -> float | Tensor:
        """Minus the curvature: a float, or a positive tensor of shape (1,) when learnable."""
        if not self.learnable:
            return self._c
        # The cut is invisible to the gradient, which can therefore bring c back from the end of its range.
        low, high = map(math.log, C_RANGE)
        return (self.log_c + (self.log_c.clamp(low, high) - self.log_c).detach()).exp()

    def extra_repr(self) -> str:
        """Return the arguments of the constructor, c at its present value."""
        c = float(self.c.detach()) if isinstance(self.c, Tensor) and not self.log_c.is_meta else self._c
        return f"c={c:g}, learnable={self.learnable}"

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return `LF.dist`."""
        return LF.dist(x, y, self.c, keepdim=keepdim)

    def sqdist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return `LF.sqdist`, the squared Lorentzian distance; `dist2` is the squared geodesic one."""
        return LF.sqdist(x, y, self.c, keepdim=keepdim)

    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return `LF.dist0`."""
        return LF.dist0(x, self.c, keepdim=keepdim)

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """Return the inner product of two tangent vectors at x, or the square of one: (...)."""
        return metric(x, u, u if v is None else v, self.c, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """Return `LF.norm`."""
        return LF.norm(x, u, self.c, keepdim=keepdim)

    def projx(self, x: Tensor) -> Tensor:
        """Return x: every tensor is a point."""
        return x

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return u: every tensor is a tangent vector."""
        return u

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """Return `LF.egrad2rgrad`."""
        return LF.egrad2rgrad(x, u, self.c)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Return `LF.expmap`."""
        return LF.expmap(x, u, self.c)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the exponential map, which is as cheap as any retraction here."""
        return LF.expmap(x, u, self.c)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `LF.logmap`."""
        return LF.logmap(x, y, self.c)

    def expmap0(self, u: Tensor) -> Tensor:
        """Return `LF.expmap0`."""
        return LF.expmap0(u, self.c)

    def logmap0(self, x: Tensor) -> Tensor:
        """Return `LF.logmap0`."""
        return LF.logmap0(x, self.c)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return `LF.transp`."""
        return LF.transp(x, y, v, self.c)

    def transp0(self, y: Tensor, u: Tensor) -> Tensor:
        """Return `LF.transp0`."""
        return LF.transp0(y, u, self.c)

    def geodesic(self, t: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return `LF.geodesic`."""
        return LF.geodesic(t, x, y, self.c)

    def centroid(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return `LF.centroid`."""
        return LF.centroid(x, weights, self.c)

    def random_normal(
        self,
        *size: int | tuple[int, ...],
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> geoopt.ManifoldTensor:
        """Return points of the wrapped normal distribution around `mean`, space coordinates that broadcast."""
        points = self.origin(*size, dtype=dtype, device=device) + mean
        return geoopt.ManifoldTensor(LF.wrapped_normal(points, std, self.c), manifold=self)

    random = random_normal

    def origin(
        self,
        *size: int | tuple[int, ...],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        seed: int | None = 42,
    ) -> geoopt.ManifoldTensor:
        """Return the origin, repeated: zeros. `seed` is geoopt's and has no use here."""
        return geoopt.ManifoldTensor(torch.zeros(size2shape(*size), dtype=dtype, device=device), manifold=self)

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return _finite(x, "x")

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return _finite(u, "u")


def _finite(x: Tensor, name: str) -> tuple[bool, str | None]:
    ok = bool(torch.isfinite(x).all())
    return ok, None if ok else f"'{name}' has coordinates that are not finite"
