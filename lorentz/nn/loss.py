"""Losses of pairs of points: one entails the other, one belongs to the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule

MIN_TEMPERATURE = 0.01
"""The least temperature that `ContrastiveLoss` learns, that of CLIP."""


class EntailmentConeLoss(LorentzModule):
    r"""Loss of pairs (x, y) of which x entails y, so that y should lie in the entailment cone of x, or should not.

    .. math::
        e = ext(x, y) - \eta\,aper(x), \qquad
        loss = \begin{cases} \max(0, e) & target > 0 \\ \max(0, margin - e) & target \le 0 \end{cases}

    with `LF.exterior_angle` and `LF.half_aperture`. Ganea et al. have max(0, e) for e in the second case too, which
    is the same outside the cone, and has no gradient inside, where a wrong pair needs it.

    Args:
        threshold: eta > 0, the share of the aperture that counts.
        margin: the angle outside the cone at which a wrong pair costs nothing.
        min_radius: K of `LF.half_aperture`.
        reduction: "none", "mean" or "sum".
        manifold: space of the points; by default curvature -1, fixed.

    Shapes: points (..., n) and (..., n), and the target (...) if there is one, to (...), or () when reduced.

    Raises:
        ValueError: an unknown reduction.

    Source: Ganea et al., ICML 2018; Le et al., ACL 2019; Desai et al., ICML 2023; eta: Pal et al., ICLR 2025.
    """

    def __init__(
        self,
        threshold: float = 1.0,
        margin: float = 0.01,
        min_radius: float = 0.1,
        reduction: str = "mean",
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__()
        self.threshold, self.margin, self.min_radius = threshold, margin, min_radius
        self.reduction = _check_reduction(reduction)
        self.manifold = manifold or Lorentz()

    def forward(self, x: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the loss of pairs (..., n) and (..., n); a target (...) is positive where x entails y, as all do."""
        c = self.manifold.c
        excess = LF.exterior_angle(x, y, c) - self.threshold * LF.half_aperture(x, self.min_radius, c)
        loss = excess.relu()
        if target is not None:
            loss = torch.where(target > 0, loss, (self.margin - excess).relu())
        return _reduce(loss, self.reduction).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return (
            f"threshold={self.threshold:g}, margin={self.margin:g}, min_radius={self.min_radius:g}, "
            f"reduction={self.reduction!r}"
        )


class ContrastiveLoss(LorentzModule):
    r"""InfoNCE over the pairs of a batch, in both directions: x_i belongs to y_i, and to no other y_j.

    .. math::
        loss_i = -\frac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} - \frac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
        \qquad s_{ij} = -dist(x_i, y_j) / \tau.

    Distances are exact also for neighbours (`LF.pairwise_dist`).

    Args:
        temperature: tau > 0, at the start if it is learned.
        learnable_temperature: learn tau, as exp(`log_temperature`). It stops at 0.01, as in CLIP.
        reduction: "none", "mean" or "sum".
        manifold: space of the points; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., N, n) and (..., N, n) to (..., N), or () when reduced.

    Parameters: `log_temperature` (1), if it is learned.

    Raises:
        ValueError: an unknown reduction, or a temperature that is out of range; in forward, shapes differ.

    Source: van den Oord et al., arXiv:1807.03748; Radford et al., ICML 2021; with distances Desai et al., ICML 2023.
    """

    log_temperature: nn.Parameter | None

    def __init__(
        self,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
        reduction: str = "mean",
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"expected temperature > 0, got {temperature}")
        if learnable_temperature and temperature < MIN_TEMPERATURE:
            raise ValueError(f"expected a learnable temperature >= {MIN_TEMPERATURE}, got {temperature}")
        self._temperature, self.learnable_temperature = float(temperature), learnable_temperature
        self.reduction = _check_reduction(reduction)
        self.manifold = manifold or Lorentz()
        log = nn.Parameter(torch.empty(1, device=device, dtype=dtype)) if learnable_temperature else None
        self.register_parameter("log_temperature", log)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set a learnable temperature back to the value of the constructor."""
        if self.log_temperature is not None:
            nn.init.constant_(self.log_temperature, math.log(self._temperature))

    @property
    def temperature(self) -> float | Tensor:
        """The temperature tau: a float, or a positive tensor of shape (1,) when learnable."""
        if self.log_temperature is None:
            return self._temperature
        # The cut is invisible to the gradient, which can therefore raise a temperature that is too low.
        log = widen(self.log_temperature)
        return (log.clamp_min(math.log(MIN_TEMPERATURE)).detach() + (log - log.detach())).exp()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the pairs of rows of points (..., N, n) and (..., N, n)."""
        if x.dim() < 2 or x.shape != y.shape:
            raise ValueError(f"expected x and y of one shape (..., N, n), got {tuple(x.shape)} and {tuple(y.shape)}")
        c, tau = self.manifold.c, self.temperature
        scores = -LF.pairwise_dist(x, y, c) / tau  # (..., N, N)
        right = -LF.dist(x, y, c) / tau  # their diagonal, (..., N)
        of_x, of_y = scores - right.unsqueeze(-1), scores - right.unsqueeze(-2)
        return _reduce((of_x.logsumexp(-1) + of_y.logsumexp(-2)) / 2, self.reduction).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor, the temperature at its present value."""
        tau = self.temperature
        temperature = self._temperature if isinstance(tau, float) or tau.is_meta else float(tau.detach())
        return (
            f"temperature={temperature:g}, learnable_temperature={self.learnable_temperature}, "
            f"reduction={self.reduction!r}"
        )


def _check_reduction(reduction: str) -> str:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'expected reduction "none", "mean" or "sum", got {reduction!r}')
    return reduction


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
