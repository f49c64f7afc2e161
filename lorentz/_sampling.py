"""The wrapped normal distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._precision import Curvature, widen
from lorentz._tangent import expmap, transp0


def wrapped_normal(
    mean: Tensor, std: float | Tensor = 1.0, c: Curvature = 1.0, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Draw one point per mean from the wrapped normal distribution, differentiably in `mean` and `std`.

    .. math:: \exp_\mu\bigl(PT_{o \to \mu}(v)\bigr), \quad v \sim N(0, \operatorname{diag}(\sigma^2)).

    Args:
        mean: points, (..., n); expand it to draw more.
        std: standard deviations of v, a float or a tensor that broadcasts to (..., n).
        c: the curvature is -c.
        generator: source of randomness.

    Source: Nagano et al., A Wrapped Normal Distribution on Hyperbolic Space, ICML 2019, Algorithm 1.
    """
    wide = widen(mean)
    noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype, device=wide.device)
    return expmap(wide, transp0(wide, std * noise, c), c).to(mean.dtype)
