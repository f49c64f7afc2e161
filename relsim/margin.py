"""A softmax loss that asks for a larger margin against relations that are similar to the right one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SimilarityMarginLoss(nn.Module):
    """Cross-entropy with margins that grow with similarity (after arXiv:1907.08937).

        loss = -log exp(z_y) / ( exp(z_y) + sum_{j != y} exp(z_j + strength S_yj) )

    A wrong class j has to score `strength S_yj` below the right class y before it counts as little as it does without
    a margin (Gimpel and Smith, 2010). The margins add to the logits as they are: nothing rescales them, so the strength
    acts. strength 0 is `nn.CrossEntropyLoss`.

    Args:
        similarity: S, (C, C), in [0, 1]; `relsim.similarity` or a scale of `relsim.scale`. Its diagonal is not used.
        strength: at least 0, in units of logits.
        weight, ignore_index, reduction, label_smoothing: as of `nn.CrossEntropyLoss`.
    """

    margin: Tensor
    weight: Tensor | None

    def __init__(
        self,
        similarity: Tensor,
        strength: float = 1.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
            raise ValueError(f"expected similarity (C, C), got shape {tuple(similarity.shape)}")
        if not strength >= 0:
            raise ValueError(f"expected strength >= 0, got {strength}")
        self.strength = strength
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
        without_diagonal = similarity.detach().to(torch.get_default_dtype()).clone().fill_diagonal_(0.0)
        self.register_buffer("margin", without_diagonal)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C) and classes (N,): a scalar, or (N,) without reduction."""
        row = target.clamp(min=0, max=len(self.margin) - 1)  # ignored targets are outside; any row will do
        logits = input + self.strength * self.margin[row].to(input.dtype)
        return F.cross_entropy(
            logits,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        return f"classes={len(self.margin)}, strength={self.strength}"
