"""The Lorentzian centroid."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._chart import time
from lorentz._distance import sqdist
from lorentz._precision import Curvature, curvature, widen


def centroid(x: Tensor, weights: Tensor | None = None, c: Curvature = 1.0) -> Tensor:
    r"""Return the point that minimises the weighted sum of squared Lorentzian distances.

    .. math::
        \frac{m}{\sqrt c \sqrt{m_0^2 - |m|^2}}, \quad (m_0, m) = \sum_j w_j (x_{j0}, x_j).

    Evaluated as :math:`p / \sqrt{1 + c\,e\,(2 p_0 + e)}`, where nothing cancels: p is the weighted mean of the space
    parts, and :math:`e = \sum_j w_j |x_j - p|_L^2 / (2 p_0 \sum_j w_j)` is the mean of the times less the time of p.

    Args:
        x: points, (..., m, n).
        weights: non-negative, (..., m), of any scale; equal if None. All zero gives the origin.
        c: the curvature is -c: a float, () or (1,).

    Returns:
        The centroids, (..., n).

    Source: Law et al., ICML 2019; Chen et al., ACL 2022.
    """
    wide = widen(x)
    share = _shares(wide, weights)
    mean = (share * wide).sum(-2)  # (..., n)
    spread = (share * sqdist(wide, mean.unsqueeze(-2), c, keepdim=True)).sum(-2)  # (..., 1)
    return drop_to_sheet(mean, spread / (2 * time(mean, c, keepdim=True)), c).to(x.dtype)


def drop_to_sheet(mean: Tensor, excess: Tensor, c: Curvature = 1.0) -> Tensor:
    r"""Return the point on the ray through a mean of points, which lies above the sheet by `excess` in time.

    For the ambient vector (mean0 + excess, mean), :math:`m_0^2 - |m|^2 = 1/c + excess\,(2\,mean_0 + excess)`.
    Shapes (..., n), (..., 1) to (..., n).
    """
    mean0 = time(mean, c, keepdim=True)
    return mean / (1 + curvature(c, mean0) * excess * (2 * mean0 + excess)).sqrt()


def _shares(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weights as a column that sums to one over the points, or to zero where all of them are zero."""
    column = (x.new_ones(x.shape[-2]) if weights is None else weights.to(x.dtype)).unsqueeze(-1)
    total = column.sum(-2, keepdim=True)
    return column / torch.where(total == 0, 1.0, total)
