"""Normalisation of the space part; the time follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule


class LayerNorm(LorentzModule, nn.LayerNorm):
    """`torch.nn.LayerNorm` of the space part.

    Arguments, shapes and state_dict are torch's. The space part of the output does not depend on `manifold`; its time
    does. Source: Chen et al., ACL 2022, whose normalisations act on the space part.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device=device, dtype=dtype)
        self.manifold = manifold or Lorentz()


class RMSNorm(LorentzModule, nn.RMSNorm):
    """`torch.nn.RMSNorm` of the space part; without weight, every point goes to one radius, space norm sqrt(n).

    Arguments, shapes and state_dict are torch's. The space part of the output does not depend on `manifold`; its time
    does. Source: Zhang and Sennrich, NeurIPS 2019, on the space part.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | torch.Size,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, device=device, dtype=dtype)
        self.manifold = manifold or Lorentz()


class BatchNorm1d(LorentzModule, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` of the space part, whose coordinates are the channels: (N, n) or (N, n, L).

    Arguments, shapes, buffers and state_dict are torch's; in eval, running statistics serve a batch of one. The space
    part of the output does not depend on `manifold`; its time does. Source: Ioffe and Szegedy, ICML 2015, on the space
    part.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype, **kwargs)
        self.manifold = manifold or Lorentz()


class BatchNorm2d(LorentzModule, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` of the space part, whose coordinates are the channels: (N, n, H, W).

    The rest as in `BatchNorm1d`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype, **kwargs)
        self.manifold = manifold or Lorentz()
