"""Recall when only some of the pairs can be judged: pairs are drawn by their score, and weigh the inverse of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """Pairs drawn with replacement, and what the judge said of them.

    Attributes:
        drawn: (n,) int64, the numbers of the pairs.
        positive: (n,) the judge's word.
        weight: (n,) 1 / (n q), the inverse of the expected number of draws, so that sums over draws estimate sums over
            all pairs without bias.
    """

    drawn: NDArray[np.int64]
    positive: NDArray[np.bool_]
    weight: Floats

    def recall(self, taken: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the share of positive pairs that a choice of pairs (all,) takes, and its standard error.

        recall = sum_{drawn, positive, taken} w / sum_{drawn, positive} w, a ratio of two unbiased sums. The standard
        error is that of the ratio to first order. NaN where no positive pair was drawn.

        Source: after the estimate of recall in arXiv:1907.08937; the error, Cochran, Sampling techniques, 1977, ch. 6.
        """
        weight = np.where(self.positive, self.weight, 0.0)
        total = weight.sum()
        if total == 0:
            return float("nan"), float("nan")
        recall = (weight * taken[self.drawn]).sum() / total
        residual = weight * (taken[self.drawn] - recall)
        return float(recall), float(np.sqrt((residual**2).sum()) / total)


def judge_some(
    score: Floats, judge: Callable[[NDArray[np.int64]], NDArray[np.bool_]], judgements: int, *, seed: int = 0
) -> Judgement:
    """Draw `judgements` of the pairs (n,) with probabilities proportional to `score`, with replacement, and judge them.

    Args:
        score: (n,) positive; what is large where positives are expected, the similarity of a pair itself, say.
        judge: returns for numbers of pairs whether each is positive.

    Raises:
        ValueError: a score is not positive: a pair that cannot be drawn biases the estimate.
    """
    if not (np.isfinite(score).all() and (score > 0).all()):
        raise ValueError("expected positive scores: a pair that is never drawn biases the estimate")
    chance = score / score.sum()
    drawn = np.random.default_rng(seed).choice(len(score), judgements, p=chance).astype(np.int64)
    return Judgement(drawn, judge(drawn), 1 / (judgements * chance[drawn]))
