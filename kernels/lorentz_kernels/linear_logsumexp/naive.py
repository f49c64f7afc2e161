"""The specification of `linear_logsumexp`: the log-partition of a score over a table, and the mean of the table."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.score import Score, logits, time


def logsumexp(score: Score) -> Tensor:
    """Return Z_i = log sum_e exp(score_ie), shape (N,)."""
    return torch.logsumexp(logits(score), dim=-1)


def moments(score: Score) -> tuple[Tensor, Tensor]:
    """Return Z as above, (N,), and the mean of the table under the softmax, (N, k): its rows, then their times."""
    scores = logits(score)
    statistics = score.table.to(scores.dtype)
    if score.squared_radius is not None:
        statistics = torch.cat([statistics, time(statistics, score.squared_radius)], dim=1)
    return torch.logsumexp(scores, dim=-1), torch.softmax(scores, dim=-1) @ statistics
