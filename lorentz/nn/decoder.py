"""The decoder of graphs: distances to probabilities of edges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz._precision import Curvature
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule

Distance = Callable[[Tensor, Tensor, Curvature], Tensor]


class FermiDiracDecoder(LorentzModule):
    r"""Probability that two points are joined, by the Fermi-Dirac distribution of a distance d.

    .. math:: p(x, y) = \frac{1}{e^{(d(x, y) - r) / t} + 1}.

    Args:
        r: the distance at which p is 1/2.
        t: temperature > 0, the width of the step.
        distance: a function of x, y and c. The default is the squared Lorentzian distance; `LF.dist` is the geodesic
            one of Krioukov et al. and of Nickel and Kiela, and `LF.pairwise_dist` decodes all pairs at once. A
            function that pickle can name.
        manifold: space of the points; by default curvature -1, fixed.

    Shapes: as the distance has them; by default points (..., n) and (..., n) to probabilities (...), in the dtype of x.

    Raises:
        ValueError: t is not positive.

    Source: Krioukov et al., Hyperbolic geometry of complex networks, 2010; Nickel and Kiela, NeurIPS 2017; the default
    distance, r and t: Chen et al., ACL 2022, after Chami et al., NeurIPS 2019.
    """

    def __init__(
        self, r: float = 2.0, t: float = 1.0, *, distance: Distance = LF.sqdist, manifold: Lorentz | None = None
    ) -> None:
        super().__init__()
        if not t > 0:
            raise ValueError(f"expected t > 0, got {t}")
        self.r, self.t = r, t
        self.distance = distance
        self.manifold = manifold or Lorentz()

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (r - d) / t, in float32 or better, for `torch.nn.BCEWithLogitsLoss`: it keeps small probabilities."""
        return (self.r - self.distance(x, y, self.manifold.c)) / self.t

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the probabilities (...) that points (..., n) and (..., n) are joined."""
        return torch.sigmoid(self.logits(x, y)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return r and t, and the distance where it is not the default."""
        name = getattr(self.distance, "__name__", repr(self.distance))
        return f"r={self.r:g}, t={self.t:g}" + ("" if self.distance is LF.sqdist else f", distance={name}")
