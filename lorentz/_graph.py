"""Centroids and softmax over segments, the entries that share an index: the edges into a node of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz._chart import time
from lorentz._distance import sqdist
from lorentz._mean import drop_to_sheet
from lorentz._precision import Curvature, widen


def segment_centroid(
    x: Tensor, index: Tensor, num_segments: int, weights: Tensor | None = None, c: Curvature = 1.0
) -> Tensor:
    r"""Return the centroid of the points of each segment, those that share an index: `centroid` by scatter.

    .. math::
        \frac{m_i}{\sqrt c \sqrt{m_{i0}^2 - |m_i|^2}}, \quad
        (m_{i0}, m_i) = \sum_{j:\,index_j = i} w_j (x_{j0}, x_j),

    evaluated as there, where nothing cancels, in memory linear in m.

    Args:
        x: points, (..., m, n).
        index: the segment of each point, (m), int64, in any order.
        num_segments: how many there are.
        weights: non-negative, (..., m), of any scale in each segment; equal if None.
        c: the curvature is -c: a float, () or (1,).

    Returns:
        The centroids, (..., num_segments, n). The origin, where a segment is empty or all its weights are zero.

    Source: Law et al., ICML 2019; Chen et al., ACL 2022.
    """
    wide = widen(x)
    share = _shares(wide, index, num_segments, weights)
    mean = _segment_sum(share * wide, index, num_segments)
    centre = mean.index_select(-2, index)  # (..., m, n)
    spread = _segment_sum(share * sqdist(wide, centre, c, keepdim=True), index, num_segments)
    # Zero but for the rounding of the sum above, which grows with the size of a segment.
    mean = mean + _segment_sum((share * (wide - centre)).detach(), index, num_segments)
    return drop_to_sheet(mean, spread / (2 * time(mean, c, keepdim=True)), c).to(x.dtype)


def segment_softmax(scores: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Return the softmax over the scores of each segment, those that share an index.

    Args:
        scores: (..., m). Minus infinity gets zero, also where a segment has nothing else.
        index: the segment of each score, (m), int64, in any order.
        num_segments: how many there are.

    Returns:
        Weights, (..., m), in float32 or better, which sum to one over each segment.
    """
    scores = widen(scores)
    lowest = scores.new_full((*scores.shape[:-1], num_segments), float("-inf"))
    largest = lowest.scatter_reduce(-1, index.expand_as(scores), scores.detach(), "amax")
    largest = torch.where(largest == float("-inf"), 0.0, largest)
    powers = (scores - largest.index_select(-1, index)).exp().unsqueeze(-1)
    return (powers / _totals(powers, index, num_segments)).squeeze(-1)


def _segment_sum(x: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Add the rows of each segment: (..., m, n) to (..., num_segments, n)."""
    return x.new_zeros(*x.shape[:-2], num_segments, x.shape[-1]).index_add(-2, index, x)


def _totals(column: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Return for each entry of a column the sum of its segment, or one where that is zero: (..., m, 1)."""
    total = _segment_sum(column, index, num_segments)
    return torch.where(total == 0, 1.0, total).index_select(-2, index)


def _shares(x: Tensor, index: Tensor, num_segments: int, weights: Tensor | None) -> Tensor:
    """Return the weights as a column that sums to one over each segment, or to zero where all of them are zero."""
    column = (x.new_ones(x.shape[-2]) if weights is None else weights.to(x.dtype)).unsqueeze(-1)
    return column / _totals(column, index, num_segments)
