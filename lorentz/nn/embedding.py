"""A table of points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule


class Embedding(LorentzModule, nn.Embedding):
    r"""Table of points, (*) of integers to (*, embedding_dim).

    The arguments are those of `torch.nn.Embedding`, `sparse=True` and `from_pretrained` included; `max_norm` bounds
    the space part. The weight is a plain parameter, and `points` tells the optimiser that its rows are points.

    Args:
        num_embeddings: number of points.
        embedding_dim: space coordinates of each.
        padding_idx: a row that lies at the origin and gets no gradient.
        max_norm: as in torch, of the space part.
        norm_type: as in torch.
        scale_grad_by_freq: as in torch.
        sparse: gradients of the weight are sparse.
        _weight: as in torch.
        _freeze: as in torch.
        device: as in torch.
        dtype: as in torch.
        std: standard deviation of each coordinate of `LF.logmap0(weight)` at the start, in units of the radius of
            curvature :math:`1/\sqrt c`; by default 1 / sqrt(embedding_dim), at which points lie at about one radius of
            curvature from the origin.
        manifold: space of the points; by default curvature -1, fixed.

    Source: Nagano et al., ICML 2019, for the distribution at the start, a wrapped normal around the origin.
    """

    weight: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        std: float | None = None,
        manifold: Lorentz | None = None,
    ) -> None:
        given = _weight is not None
        weight = _weight if given else torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight=weight,
            _freeze=_freeze,
        )
        self.std = embedding_dim**-0.5 if std is None else std
        self.manifold = manifold or Lorentz()
        if not given:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw points around the origin; put the padding row at the origin."""
        c = self.manifold._c  # not the parameter, which may not have been set yet after `to_empty`
        with torch.no_grad():
            v = widen(torch.empty_like(self.weight)).normal_(std=self.std)
            self.weight.copy_(LF.expmap0(v / c**0.5, c))
        self._fill_padding_idx_with_zero()

    def points(self) -> Iterator[tuple[nn.Parameter, Lorentz]]:
        """Yield the weight and the manifold that its rows lie on."""
        yield self.weight, self.manifold
