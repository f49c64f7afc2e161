"""Pooling and flattening of the space part: torch's modules, the time following.

The space part of the output does not depend on `manifold`; its time does. A mean of space parts is a point but no
centroid, which `CentroidPool2d` gives.
"""

from __future__ import annotations

from torch import nn

from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule

Size1 = int | tuple[int]
Size2 = int | tuple[int, int]


class AvgPool1d(LorentzModule, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` of the space part, whose coordinates are the channels: (N, n, L) or (n, L)."""

    def __init__(
        self,
        kernel_size: Size1,
        stride: Size1 | None = None,
        padding: Size1 = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(kernel_size, kernel_size if stride is None else stride, padding, ceil_mode, count_include_pad)
        self.manifold = manifold or Lorentz()


class AvgPool2d(LorentzModule, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` of the space part, whose coordinates are the channels: (N, n, H, W) or (n, H, W)."""

    def __init__(
        self,
        kernel_size: Size2,
        stride: Size2 | None = None,
        padding: Size2 = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self.manifold = manifold or Lorentz()


class MaxPool1d(LorentzModule, nn.MaxPool1d):
    """`torch.nn.MaxPool1d` of the space part, coordinate by coordinate: (N, n, L) or (n, L)."""

    def __init__(
        self,
        kernel_size: Size1,
        stride: Size1 | None = None,
        padding: Size1 = 0,
        dilation: Size1 = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.manifold = manifold or Lorentz()


class MaxPool2d(LorentzModule, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` of the space part, coordinate by coordinate: (N, n, H, W) or (n, H, W)."""

    def __init__(
        self,
        kernel_size: Size2,
        stride: Size2 | None = None,
        padding: Size2 = 0,
        dilation: Size2 = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.manifold = manifold or Lorentz()


class AdaptiveAvgPool1d(LorentzModule, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` of the space part: (N, n, L) or (n, L)."""

    def __init__(self, output_size: Size1 | None, *, manifold: Lorentz | None = None) -> None:
        super().__init__(output_size)
        self.manifold = manifold or Lorentz()


class AdaptiveAvgPool2d(LorentzModule, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` of the space part: (N, n, H, W) or (n, H, W)."""

    def __init__(
        self, output_size: int | tuple[int | None, int | None] | None, *, manifold: Lorentz | None = None
    ) -> None:
        super().__init__(output_size)
        self.manifold = manifold or Lorentz()


class Flatten(LorentzModule, nn.Flatten):
    """`torch.nn.Flatten` of the space part: the points of an image (N, n, H, W) join to one, (N, n * H * W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1, *, manifold: Lorentz | None = None) -> None:
        super().__init__(start_dim, end_dim)
        self.manifold = manifold or Lorentz()
