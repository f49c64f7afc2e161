"""How well a similarity of relations agrees with pairs that people call similar: ranking statistics, with intervals.

Pairs that share a relation are not independent. So both resampling and permuting act on relations, not on pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)
HELD = 1 << 23  # weights of pairs held at once, 64 MiB
Statistic: TypeAlias = Callable[..., Floats]
"""`auc` or `average_precision`."""


def auc(positive: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return the area under the ROC curve: the probability that a positive scores above a negative, ties half.

    Args:
        positive: (n,) or (draws, n), whether each item is positive.
        score: (n,) higher is more positive.
        weight: (n,) or (draws, n), at least 0; how often each item counts, by default once.

    Returns:
        A 0-d array, or (draws,); NaN where positives or negatives have no weight.
    """
    _, true, false = _by_score(positive, score, weight)
    below = np.cumsum(false, axis=-1) - false / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((true * below).sum(-1) / (true.sum(-1) * false.sum(-1)))


def average_precision(positive: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Return sum_k (recall_k - recall_{k-1}) precision_k over the distinct scores as thresholds, from above.

    Arguments and result as of `auc`. Its value for random scores is the share of positives.
    """
    true, false = (part[..., ::-1] for part in _by_score(positive, score, weight)[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((true * _precision(true, false)).sum(-1) / true.sum(-1))


class Curve(NamedTuple):
    """Precision and recall of taking what scores at least `threshold` (k,), descending; (k,) or (draws, k) each."""

    threshold: Floats
    precision: Floats
    recall: Floats

    @property
    def f1(self) -> Floats:
        """The harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-300)


def precision_recall(positive: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Curve:
    """Return precision and recall at every distinct score; arguments as of `auc`."""
    distinct, *parts = (part[..., ::-1] for part in _by_score(positive, score, weight))
    true, false = parts
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.cumsum(true, axis=-1) / true.sum(-1, keepdims=True)
    return Curve(distinct, _precision(true, false), recall)


def _precision(true: Floats, false: Floats) -> Floats:
    found = np.cumsum(true, axis=-1)
    return np.asarray(found / np.maximum(found + np.cumsum(false, axis=-1), 1e-300))


def _by_score(positive: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Return the distinct scores, ascending, (k,), and the weights of positives and negatives there, (..., k) each."""
    labels, values = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if values.ndim != 1 or labels.shape[-1:] != values.shape:
        raise ValueError(f"expected labels (..., n) and scores (n,), got shapes {labels.shape} and {values.shape}")
    if np.isnan(values).any():
        raise ValueError("expected scores that can be ordered, got NaN")
    weights = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    parts = (weights * chosen for chosen in (labels, ~labels))
    true, false = (np.add.reduceat(part[..., order], first, axis=-1) for part in parts)
    return ordered[first], true, false


def gold_matrix(relations: Sequence[str], pairs: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    """Return whether two relations are a judged pair, either way, (R, R); unknown names and self-pairs do not count."""
    index = {name: i for i, name in enumerate(relations)}
    gold = np.zeros((len(relations), len(relations)), dtype=bool)
    for a, b in pairs:
        if a in index and b in index and a != b:
            gold[index[a], index[b]] = gold[index[b], index[a]] = True
    return gold


def above(matrix: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return the entries of (..., R, R) above the diagonal, one for each pair, (..., R (R - 1) / 2)."""
    a, b = np.triu_indices(matrix.shape[-1], 1)
    return matrix[..., a, b]


def bootstrap(
    gold: NDArray[np.bool_],
    scores: Mapping[str, Floats],
    statistic: Statistic = auc,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return the statistic of each score (R, R) on `draws` resamples of the relations, the same for all scores.

    A resample takes R relations with replacement; a pair of distinct relations then counts as often as both of its
    relations were drawn, the product of the two numbers. Resamples without positives are left out.

    Source: Snijders and Borgatti, Non-parametric standard errors and tests for network statistics, 1999.
    """
    size = len(gold)
    times = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=draws)
    a, b = np.triu_indices(size, 1)
    positive = above(gold)
    found: dict[str, list[Floats]] = {name: [] for name in scores}
    for part in _slabs(times, len(positive)):
        weight = (part[:, a] * part[:, b]).astype(np.float64)
        weight = weight[(weight[:, positive].sum(1) > 0) & (weight[:, ~positive].sum(1) > 0)]
        for name, score in scores.items():
            found[name].append(statistic(positive, above(score), weight))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _slabs(rows: NDArray[Scalar], pairs: int) -> list[NDArray[Scalar]]:
    """Cut rows, each of which becomes one for `pairs` pairs, into parts that fit in memory."""
    return np.array_split(rows, -(-len(rows) * pairs // HELD))


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval of resampled values."""
    low, high = np.quantile(np.asarray(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_test(
    gold: NDArray[np.bool_],
    scores: Mapping[str, Floats],
    statistic: Statistic = auc,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Return for each score (R, R) the p-value of the hypothesis that the judged pairs have nothing to do with it.

    Under it, the names of the relations in the judgement can be exchanged: p is the share of renamings, the identity
    counted among them, whose statistic is at least the observed one (the quadratic assignment procedure).

    Source: Hubert and Schultz, Quadratic assignment as a general data analysis strategy, 1976.
    """
    rng = np.random.default_rng(seed)
    renamings = np.stack([np.arange(len(gold)), *(rng.permutation(len(gold)) for _ in range(draws))])
    found: dict[str, list[Floats]] = {name: [] for name in scores}
    for part in _slabs(renamings, len(above(gold))):
        labels = np.stack([above(gold[np.ix_(p, p)]) for p in part])
        for name, score in scores.items():
            found[name].append(statistic(labels, above(score)))
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: float((v >= v[0] - 1e-12).mean()) for name, v in values.items()}
