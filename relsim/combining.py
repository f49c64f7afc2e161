"""Several similarities of the same relations in one: by ranks, or by a logistic regression fitted where judgements are.

Ranks make similarities comparable across scales and knowledge bases: what is fitted on one can be used on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from relsim.agreement import above

Floats = NDArray[np.float64]


def rank_average(similarities: Sequence[Floats]) -> Floats:
    """Return the mean over similarities (R, R) of the rank of each pair among all pairs, in (0, 1), (R, R).

    The rank is (k - 1/2) / n for the k-th least similar of n pairs, the mean where pairs are tied. The diagonal is 1.
    """
    return _matrix(np.mean([_ranks(s) for s in similarities], axis=0), len(similarities[0]))


@dataclass(frozen=True)
class Logistic:
    """A judged pair's probability, sigmoid(bias + weights . z), z the normal scores of the ranks of the similarities.

    Attributes:
        weights: (K,), one for each similarity, in the order given to `fit_logistic`.
        bias: of a pair that is typical in all of them.
    """

    weights: Floats
    bias: float

    def __call__(self, similarities: Sequence[Floats]) -> Floats:
        """Return the probability of each pair, (R, R), from K similarities (R, R); the diagonal is 1."""
        z = _normal_scores(similarities)
        return _matrix(expit(self.bias + self.weights @ z), len(similarities[0]))


def fit_logistic(similarities: Sequence[Floats], gold: NDArray[np.bool_], ridge: float = 1.0) -> Logistic:
    """Fit sum over pairs of -log p + ridge |weights|^2 / 2 to judged pairs `gold` (R, R), by L-BFGS.

    Raises:
        ValueError: no pair is judged similar, or all are.
    """
    z, label = _normal_scores(similarities), above(gold)
    if not 0 < label.sum() < len(label):
        raise ValueError(f"expected pairs of both kinds, got {int(label.sum())} of {len(label)} that are similar")

    def loss(parameters: Floats) -> tuple[float, Floats]:
        bias, weights = parameters[0], parameters[1:]
        logit = bias + weights @ z
        residual = expit(logit) - label
        value = np.logaddexp(0, logit).sum() - logit[label].sum() + ridge / 2 * weights @ weights
        return float(value), np.r_[residual.sum(), z @ residual + ridge * weights]

    found = minimize(loss, np.zeros(1 + len(z)), jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-14})
    return Logistic(found.x[1:], float(found.x[0]))


def _ranks(similarity: Floats) -> Floats:
    flat = above(similarity)
    return np.asarray((rankdata(flat) - 0.5) / len(flat))


def _normal_scores(similarities: Sequence[Floats]) -> Floats:
    return np.asarray(ndtri([_ranks(s) for s in similarities]))


def _matrix(values: Floats, size: int) -> Floats:
    result = np.eye(size)
    a, b = np.triu_indices(size, 1)
    result[a, b] = result[b, a] = values
    return result
