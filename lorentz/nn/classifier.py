"""Classifiers, points to logits: by distances to hyperplanes, by distances to class points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import curvature
from lorentz.manifold import Lorentz
from lorentz.nn.hyperplane import Hyperplanes
from lorentz.nn.module import LorentzModule, check_width


class MLR(Hyperplanes):
    r"""Multinomial logistic regression: the logit of a class is the weighted signed distance to its hyperplane.

    .. math::
        v_k = \frac{l_k}{\sqrt c} \operatorname{asinh}\bigl(\sqrt c\,(\cosh(\sqrt c\,b_k)\,n_k \cdot x +
              \sinh(\sqrt c\,b_k)\,x_0)\bigr),

    the v of `HyperplaneLinear`, for rows l n of the weight, n a unit vector: l_k times the signed distance from x to
    the hyperplane with normal n_k that has the origin at signed distance b_k. Near the origin it is W x + l b.

    Args:
        in_features: width of the points.
        num_classes: number of hyperplanes.
        bias: learn b; otherwise all hyperplanes pass through the origin.
        manifold: space of the points; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., in_features) to logits (..., num_classes), in the dtype that `torch.nn.Linear` returns.

    Parameters: `weight` (num_classes, in_features), drawn as in `torch.nn.Linear`; `bias` (num_classes), zero at the
    start. A state_dict of `torch.nn.Linear` loads.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Ganea et al., Hyperbolic Neural Networks, NeurIPS 2018; Shimizu et al., ICLR 2021; in the Lorentz model
    Bdeir et al., Fully Hyperbolic Convolutional Neural Networks, ICLR 2024.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = True,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, bias, manifold=manifold, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., in_features) to logits (..., num_classes)."""
        distances, dtype = self.distances(input)
        return (distances / curvature(self.manifold.c, distances) ** 0.5).to(dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"in_features={self.in_features}, num_classes={self.out_features}, bias={self.bias is not None}"


class CentroidClassifier(LorentzModule):
    r"""Classifier by class points: the logit is minus the squared Lorentzian distance to the point of the class.

    .. math:: 2/c + 2 \langle x, p_k\rangle + b_k = -|x - p_k|_L^2 + b_k.

    One matrix product, in float32 or better also under autocast. Its rounding, a few eps * x0 * p_k0 in a logit, is
    below eps times the largest logits, but not below the logit of a class point very near x; exact distances would
    hold N * num_classes * in_features numbers at once.

    Args:
        in_features: width of the points.
        num_classes: number of class points.
        bias: learn b.
        std: standard deviation of each coordinate of `LF.logmap0(weight)` at the start, in units of the radius of
            curvature :math:`1/\sqrt c`; by default 1 / sqrt(in_features), as in `Embedding`.
        manifold: space of the points; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., in_features) to logits (..., num_classes), in the wider dtype of the input and the weight.

    Parameters: `weight` (num_classes, in_features), the class points; `points` tells the optimiser that its rows are
    points. `bias` (num_classes), zero at the start.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Chen et al., ACL 2022, the classifier of its experiments on graphs.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = True,
        *,
        std: float | None = None,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.std = in_features**-0.5 if std is None else std
        self.manifold = manifold or Lorentz()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        offset = nn.Parameter(torch.empty(num_classes, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", offset)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw class points from a wrapped normal distribution around the origin; set the bias to zero."""
        c = self.manifold._c  # not the parameter, which may not have been set yet after `to_empty`
        with torch.no_grad():
            self.weight.copy_(LF.wrapped_normal(torch.zeros_like(self.weight), self.std / c**0.5, c))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def points(self) -> Iterator[tuple[nn.Parameter, Lorentz]]:
        """Yield the class points and the manifold that they lie on."""
        yield self.weight, self.manifold

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., in_features) to logits (..., num_classes)."""
        check_width(input, self.in_features)
        product = LF.pairwise_inner(input.unsqueeze(-2), self.weight, self.manifold.c).squeeze(-2)
        logits = 2 / curvature(self.manifold.c, product) + 2 * product
        logits = logits if self.bias is None else logits + self.bias
        return logits.to(torch.promote_types(input.dtype, self.weight.dtype))

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={bias}, std={self.std:g}"
