"""The specification of `linear_rank`: all scores at once, compared with that of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.score import Score, logits


def counts(
    score: Score, target: Tensor, offsets: Tensor | None = None, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Count for each query how many entries score above its target, and how many others equal it: not the excluded."""
    return compare(logits(score), target, offsets, excluded)


def compare(scores: Tensor, target: Tensor, offsets: Tensor | None, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same from the scores (N, E). A target without a score, NaN, is last; an entry without one is never above."""
    column = target[:, None]
    of_target = scores.gather(1, column)
    if offsets is not None and excluded is not None:
        out = torch.zeros_like(scores, dtype=torch.bool)
        out[torch.repeat_interleave(offsets.diff()), excluded] = True
        scores = torch.where(out.scatter(1, column, False), torch.nan, scores)  # the target itself always stays
    above, equal = (scores > of_target).sum(dim=1), (scores == of_target).sum(dim=1) - 1
    lost = of_target.squeeze(1).isnan()
    return torch.where(lost, scores.shape[1] - 1, above), torch.where(lost, 0, equal)
