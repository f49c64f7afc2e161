"""The general linear layer: a linear map of ambient coordinates, the output's time derived."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import Curvature, curvature, widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule, check_width
from lorentz_kernels.linear.activation import ACTIVATIONS


class Linear(LorentzModule, nn.Linear):
    r"""Linear map of points, :math:`y = \sqrt{c_{in} / c_{out}}\,(W x + w_t x_0 + b)`, time :math:`y_0` following.

    It contains every isometry: a boost by velocity u and then a rotation R is
    :math:`W = R (I + \frac{\gamma^2}{1 + \gamma} u u^T)`, :math:`w_t = -\gamma R u`.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: add b.
        manifold: space of the input; by default curvature -1, fixed.
        out_manifold: space of the output; by default that of the input.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., in_features) to points (..., out_features).

    Parameters: `weight` (out, in) and `bias` (out), drawn as in `torch.nn.Linear`; `time_weight` (out), w_t, which
    starts at zero, and becomes zero when a state_dict of `torch.nn.Linear` is loaded: such a layer agrees with its
    twin on the space part.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Chen et al., ACL 2022, Eq. 2, without the row of M that gives the output's time.
    """

    absent_in_twin: ClassVar[tuple[str, ...]] = ("time_weight",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.manifold = manifold or Lorentz()
        self.out_manifold = out_manifold
        self.time_weight = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draw `weight` and `bias` as `torch.nn.Linear` does; set `time_weight` to zero."""
        super().reset_parameters()
        if "time_weight" in self._parameters:  # torch's constructor draws before it exists
            nn.init.zeros_(self.time_weight)

    def forward(self, input: Tensor, activation: str | None = None) -> Tensor:
        """Map points (..., in_features) to (..., out_features); an `activation` of `LF.linear` precedes a rescaling."""
        check_width(input, self.in_features)
        c = self.manifold.c
        space = LF.linear(input, self.weight, self.time_weight, self.bias, c, activation=activation)
        return space if self.out_manifold is None else rescale(space, c, self.out_manifold.c)


def activated(layer: nn.Module, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return activation(layer(x)), computed together where the kernels know both and nobody listens in between."""
    name = next((name for name, function in ACTIVATIONS.items() if function is activation), None)
    return layer(x, name) if name is not None and plain(layer) else activation(layer(x))


def plain(layer: nn.Module) -> bool:
    """Whether a layer is a `Linear` of one space that nobody listens to: its formula may be part of a larger one."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is Linear and layer.out_manifold is None and not watched


def rescale(x: Tensor, c: Curvature, new_c: Curvature) -> Tensor:
    r"""Carry points from curvature -c to -new_c, :math:`\sqrt{c / c_{new}}\,x`: distances scale by the same factor."""
    wide = widen(x)
    ratio = curvature(c, wide) / curvature(new_c, wide)
    return (ratio**0.5 * wide).to(x.dtype)
