"""A scale that a person can read: exp(-KL) is 0 to three digits for nearly all pairs of relations.

`quantile` and `tempered` put the typical pair of the comparison at 0.5, and equal relations at 1. They order pairs as
the divergence does, `centred` does not. What they say depends on the other relations, so they compare pairs of one
comparison only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.divergence import Divergence
from relsim.similar import symmetric_kl


def quantile(div: Divergence) -> NDArray[np.float64]:
    """Return, for every pair, the share of pairs of relations that are further apart, (R, R); ties count half.

    That is the p-value, from the other side, of the null hypothesis that b was drawn from all relations at random,
    whatever a is. 0.5: half of all pairs are more similar. 0.99: one pair in a hundred is. The diagonal is 1.
    """
    distance = symmetric_kl(div)
    null = np.sort(distance[np.triu_indices(len(distance), 1)])
    below, upto = (np.searchsorted(null, distance, side) for side in ("left", "right"))
    result = 1 - (below + upto) / (2 * max(len(null), 1))
    np.fill_diagonal(result, 1.0)
    return result


def tempered(div: Divergence) -> NDArray[np.float64]:
    """Return S^(1 / T) = exp(-max(KL) / T), (R, R), with T such that the median pair comes to 0.5.

    0.5: as far apart as the median pair. 0.25: twice as far. The diagonal is 1.
    """
    distance = np.maximum(symmetric_kl(div), 0.0)
    np.fill_diagonal(distance, 0.0)
    return np.exp2(-distance / typical(div))


def typical(div: Divergence) -> float:
    """Return the median over pairs of max(KL(a || b), KL(b || a)), in nats; 1 where all relations are equal."""
    pairs = symmetric_kl(div)[np.triu_indices(len(div.relations), 1)]
    pairs = pairs[np.isfinite(pairs)]
    median = float(np.median(pairs)) if len(pairs) else 1.0
    return median if median > 0 else 1.0


def centred(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return D_ab - (m_a + m_b) / 2, (R, R), where m_a is the mean distance of a from the others; the diagonal is 0.

    A relation of many facts or of broad types is near to all others, and its neighbours are near to it for that reason:
    it is a hub. What counts here is how much nearer a pair is than its relations are to others (Conneau et al., Word
    translation without parallel data, ICLR 2018, eq. 3, with all others as the neighbourhood).
    """
    size = len(distance)
    mean = (distance.sum(axis=1) - np.diag(distance)) / max(size - 1, 1)
    result = distance - (mean[:, None] + mean[None, :]) / 2
    np.fill_diagonal(result, 0.0)
    return result
