"""Distances to hyperplanes: what they have in common, and the linear layer whose outputs they are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._direction import unit
from lorentz._precision import curvature, reach, sqrt0
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule, check_width


class Hyperplanes(LorentzModule):
    """Base of the modules that measure distances to hyperplanes, one per row of `weight`, with offsets `bias`."""

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.manifold = manifold or Lorentz()
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        offset = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", offset)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight as `torch.nn.Linear` does; put the hyperplanes through the origin."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def distances(self, x: Tensor) -> tuple[Tensor, torch.dtype]:
        r"""Return :math:`\sqrt c\,v`, (..., out), in float32 or better, and the dtype that a linear layer returns."""
        check_width(x, self.in_features)
        height = F.linear(x, unit(self.weight).to(x.dtype))  # of x over the hyperplanes, (..., out)
        dtype, x0 = height.dtype, LF.time(x, self.manifold.c, keepdim=True)
        root = curvature(self.manifold.c, x0) ** 0.5
        if self.bias is not None:
            # A hyperplane beyond the largest points of the dtype stops there, or its cosh would overflow.
            edge = math.log(torch.finfo(x0.dtype).max) / 2
            shift = (root * self.bias.to(x0.dtype)).clamp(-edge, edge)
            height = shift.cosh() * height + shift.sinh() * x0
        weight = self.weight.to(x0.dtype)
        length = sqrt0((weight * weight).sum(-1))
        return length * (root * height.to(x0.dtype)).asinh(), dtype

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class HyperplaneLinear(Hyperplanes):
    r"""Linear layer whose outputs are signed distances to hyperplanes, one per row l n of the weight, n a unit vector.

    .. math::
        v_k = \frac{l_k}{\sqrt c} \operatorname{asinh}\bigl(\sqrt c\,(\cosh(\sqrt c\,b_k)\,n_k \cdot x +
              \sinh(\sqrt c\,b_k)\,x_0)\bigr), \qquad y_k = \frac{1}{\sqrt c} \sinh(\sqrt c\,v_k).

    v_k is l_k times the signed distance from x to the hyperplane with normal n_k that has the origin at signed
    distance b_k, and y is the point whose signed distances to the coordinate hyperplanes are v. So the distance of
    y from the origin grows linearly with the weight, where that of `Linear` grows with its logarithm. Near the origin
    it is W x + l b. An output that would leave the range of the dtype stops at its edge.

    Args:
        in_features: width of the input.
        out_features: number of hyperplanes, the width of the output.
        bias: learn b; otherwise all hyperplanes pass through the origin.
        manifold: space of input and output; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., in_features) to points (..., out_features).

    Parameters: `weight` (out, in), drawn as in `torch.nn.Linear`; `bias` (out), zero at the start.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Shimizu et al., Hyperbolic Neural Networks++, ICLR 2021; in the Lorentz model Bdeir et al., Fully Hyperbolic
    Convolutional Neural Networks, ICLR 2024; the growth: van der Klis et al., arXiv:2601.21529.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., in_features) to points (..., out_features)."""
        distances, dtype = self.distances(input)
        c, origin = self.manifold.c, input[..., :0]
        # One coordinate at the edge of the range would leave no room for the squares of the others.
        limit = reach(LF.time(origin, c, keepdim=True), dtype) - math.log(self.out_features) / 2
        heights = torch.minimum(torch.maximum(distances, -limit), limit).sinh()
        return (heights / curvature(c, heights) ** 0.5).to(dtype)
