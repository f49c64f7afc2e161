"""The two linear layers of the paper that bound the output by a gate: its Eq. 3, and what its experiments ran."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule, check_width
from lorentz_kernels.gated_linear import Map, Radius, gated_linear
from lorentz_kernels.scaled_direction import scaled_direction

Activation = Callable[[Tensor], Tensor]
Ambient = tuple[Tensor, Tensor | None]
"""Space coordinates (..., n) and the time coordinate (..., 1); none where it is the time of the point."""


class _GatedLinear(LorentzModule):
    """A direction W x + w_t x0 + b and a gate lambda sigmoid(v.x + w x0 + b'), both linear in ambient coordinates."""

    bias: nn.Parameter | None
    gate_bias: nn.Parameter | None
    log_scale: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        scale: float = 10.0,
        learnable_scale: bool = True,
        activation: Activation | None = None,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"expected scale > 0, got {scale}")

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.in_features, self.out_features = in_features, out_features
        self._scale, self.learnable_scale = float(scale), learnable_scale
        self.activation = activation
        self.manifold = manifold or Lorentz()
        self.weight, self.time_weight = parameter(out_features, in_features), parameter(out_features)
        self.gate_weight, self.gate_time_weight = parameter(1, in_features), parameter(1)
        self.register_parameter("bias", parameter(out_features) if bias else None)
        self.register_parameter("gate_bias", parameter(1) if bias else None)
        self.register_parameter("log_scale", parameter(1) if learnable_scale else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias as `torch.nn.Linear` does; set the time weights and the gate's bias to zero."""
        with torch.no_grad():
            for weight in (self.weight, self.gate_weight):
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            for time_weight in (self.time_weight, self.gate_time_weight):
                nn.init.zeros_(time_weight)
            if self.bias is not None:
                bound = self.in_features**-0.5
                nn.init.uniform_(self.bias, -bound, bound)
            if self.gate_bias is not None:
                nn.init.zeros_(self.gate_bias)
            if self.log_scale is not None:
                self.log_scale.fill_(math.log(self._scale))

    @property
    def scale(self) -> float | Tensor:
        """The largest value lambda of the gate: a float, or a positive tensor of shape (1,) when learnable."""
        return self._scale if self.log_scale is None else widen(self.log_scale).exp()

    def activated(self, x: Tensor) -> Ambient:
        """Return h of the ambient coordinates of x."""
        if self.activation is None:
            return x, None
        return self.activation(x), self.activation(LF.time(x, self.manifold.c, keepdim=True))

    def direction(self, p: Ambient) -> Tensor:
        """Return W p + w_t p0 + b: (..., out)."""
        return self._map(p, self.weight, self.time_weight, self.bias)

    def gate(self, p: Ambient) -> Tensor:
        """Return lambda sigmoid(v.p + w p0 + b'): (..., 1), float32 or better."""
        return gate_value(self.logit(p), self.manifold.c, self.scale)

    def logit(self, p: Ambient) -> Tensor:
        """Return v.p + w p0 + b': (..., 1), float32 or better."""
        return widen(self._map(p, self.gate_weight, self.gate_time_weight, self.gate_bias))

    def gated(self, x: Tensor, radius: Radius) -> Tensor:
        """Return the direction of x scaled to the radius, a function of the logit, c and lambda."""
        direction = Map(self.weight, self.time_weight, self.bias)
        gate = Map(self.gate_weight, self.gate_time_weight, self.gate_bias)
        return gated_linear(x, direction, gate, radius, self.manifold.c, self.scale).to(output_dtype(x))

    def _map(self, p: Ambient, weight: Tensor, time_weight: Tensor, bias: Tensor | None) -> Tensor:
        space, time = p
        if time is None:
            return LF.linear(space, weight, time_weight, bias, self.manifold.c)
        return F.linear(space, weight, bias) + time * time_weight

    def extra_repr(self) -> str:
        """Return the arguments of the constructor, lambda at its present value."""
        s = self.log_scale
        scale = self._scale if s is None or s.is_meta else float(s.detach().exp())
        name = getattr(self.activation, "__name__", None)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"scale={scale:g}, learnable_scale={self.learnable_scale}" + (f", activation={name}" if name else "")
        )


class NormalizedLinear(_GatedLinear):
    r"""Linear layer whose output has the space norm of a gate.

    .. math::
        y = \lambda\,\sigma(v \cdot x + w x_0 + b')\,
            \frac{W h(x) + w_t h(x_0) + b}{|W h(x) + w_t h(x_0) + b|}.

    The norm lies between 0 and lambda. Where the direction is zero, y is the origin. The backward needs y as it is:
    torch raises if it was changed in place.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: learn b and b'.
        scale: lambda > 0, at the start if it is learned.
        learnable_scale: learn lambda, as exp(`log_scale`).
        activation: h, applied to each ambient coordinate of the input, the time too; by default none. A module, or a
            function that pickle can name.
        manifold: space of input and output; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., in_features) to points (..., out_features).

    Parameters: `weight` W (out, in), `time_weight` w_t (out), `bias` b (out), `gate_weight` v (1, in),
    `gate_time_weight` w (1), `gate_bias` b' (1), `log_scale` (1).

    Raises:
        ValueError: scale is not positive; in forward, the input has another width.

    Source: Chen et al., ACL 2022, Eq. 3.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., in_features) to points (..., out_features)."""
        check_width(input, self.in_features)
        if self.activation is None:
            return self.gated(input, gate_value)
        direction, gate = self.direction(self.activated(input)), self.gate((input, None))
        return scaled_direction(direction, gate).to(output_dtype(input))


class HyboLinear(_GatedLinear):
    r"""Linear layer whose output has the time of a gate, the form that the paper's experiments ran.

    .. math::
        g = \lambda\,\sigma(v \cdot h(x) + w h(x_0) + b'), \quad y_0 = g + 1/\sqrt c + 0.1, \quad
        y = \sqrt{y_0^2 - 1/c}\;\frac{W h(x) + w_t h(x_0) + b}{|W h(x) + w_t h(x_0) + b|}.

    So no output lies within a time of 0.1 of the origin, except where the direction is zero: there y is the origin.

    Args, shapes, parameters and errors as in `NormalizedLinear`; here h comes before the gate as well.

    Source: Chen et al., ACL 2022, its experiments.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., in_features) to points (..., out_features)."""
        check_width(input, self.in_features)
        if self.activation is None:
            return self.gated(input, gated_time_radius)
        p = self.activated(input)
        radius = gated_time_radius(self.logit(p), self.manifold.c, self.scale)
        return scaled_direction(self.direction(p), radius).to(output_dtype(input))


def gate_value(logit: Tensor, c: float | Tensor, scale: float | Tensor) -> Tensor:
    """Return the gate, which is the radius of `NormalizedLinear`."""
    return scale * torch.sigmoid(logit)


def gated_time_radius(logit: Tensor, c: float | Tensor, scale: float | Tensor) -> Tensor:
    """Return the space norm of points whose time is the gate + 1 / sqrt(c) + 0.1."""
    above = gate_value(logit, c, scale) + 0.1  # y0 less 1 / sqrt(c), the time of the origin
    origin0 = LF.time(above[..., :0], c, keepdim=True)
    return (above * (above + 2 * origin0)).sqrt()


def output_dtype(input: Tensor) -> torch.dtype:
    """Return the dtype in which `torch.nn.functional.linear` would answer."""
    if input.dtype != torch.float64 and torch.is_autocast_enabled(input.device.type):
        return torch.get_autocast_dtype(input.device.type)
    return input.dtype
