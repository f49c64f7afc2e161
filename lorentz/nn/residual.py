"""The learnable residual connection."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule


class Residual(LorentzModule):
    r"""Weighted centroid of the input and its update, the sum of ambient coordinates scaled back to the hyperboloid.

    .. math::
        \frac{w_x X + w_y Y}{\sqrt c\,|w_x X + w_y Y|_L}.

    Only the ratio of the weights matters, so it is the one parameter. Unlike the sum of space parts, the result
    commutes with isometries and lies on the geodesic between the two points.

    Args:
        ratio: w_y / w_x > 0 at the start.
        manifold: space of the points; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., n) and (..., n) to points (..., n).

    Parameters: `log_ratio` (1), log(w_y / w_x).

    Raises:
        ValueError: the ratio is not positive.

    Source: He et al., Lorentzian Residual Neural Networks, KDD 2025.
    """

    def __init__(
        self,
        ratio: float = 1.0,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < ratio < math.inf:
            raise ValueError(f"expected ratio > 0, got {ratio}")
        self._ratio = float(ratio)
        self.manifold = manifold or Lorentz()
        self.log_ratio = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the ratio back to the value of the constructor."""
        nn.init.constant_(self.log_ratio, math.log(self._ratio))

    def forward(self, input: Tensor, update: Tensor) -> Tensor:
        """Join points (..., n) and their updates (..., n)."""
        log_ratio = widen(self.log_ratio)
        weights = torch.cat([-log_ratio, log_ratio]).sigmoid()  # (2,), w_x + w_y = 1
        pair = torch.stack(torch.broadcast_tensors(input, update), dim=-2)  # (..., 2, n)
        return LF.centroid(pair, weights, self.manifold.c)

    def extra_repr(self) -> str:
        """Return the present ratio."""
        return f"ratio={self._ratio if self.log_ratio.is_meta else float(self.log_ratio.detach().exp()):g}"
