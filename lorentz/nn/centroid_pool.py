"""Pooling to the Lorentzian centroid of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz._precision import Curvature
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule

Value = TypeVar("Value", int, int | None)


class Windows(NamedTuple):
    """The windows along one dimension: where their pixels are, and which of these exist, both (out, width)."""

    positions: Tensor
    exist: Tensor


def centroid_pool(x: Tensor, windows: Sequence[Windows], c: Curvature = 1.0) -> Tensor:
    """Return the centroid of the points in each window: (..., n, *size) to (..., n, *out).

    It gathers every window, so that points near one another lose no digits far from the origin: see
    `lorentz.functional.centroid`.

    Args:
        x: pixels that are points, (..., n, *size).
        windows: along each dimension of the size; a window of the image is the product of one for each.
        c: the curvature is -c: a float, () or (1,).
    """
    dims = len(windows)
    positions, exist = windows[0]
    for size, along in zip(x.shape[-dims:][1:], windows[1:], strict=True):
        positions = (size * positions[:, None, :, None] + along.positions[:, None]).flatten(0, 1).flatten(1)
        exist = (exist[:, None, :, None] & along.exist[:, None]).flatten(0, 1).flatten(1)
    points = x.flatten(-dims).mT.index_select(-2, positions.flatten()).unflatten(-2, positions.shape)
    return LF.centroid(points, exist, c).mT.unflatten(-1, [len(along.positions) for along in windows])


def sliding_windows(
    size: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool = False, device: torch.device | None = None
) -> Windows:
    """Return the windows of `torch.nn.AvgPool1d`; pixels of the padding do not exist.

    Raises:
        ValueError: no window fits.
    """
    spare = size + 2 * padding - kernel_size
    count = (spare + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:  # the last window would hold nothing
        count -= 1
    if count < 1:
        raise ValueError(f"expected at least {kernel_size - 2 * padding} pixels along a dimension, got {size}")
    starts = stride * torch.arange(count, device=device) - padding
    positions = starts[:, None] + torch.arange(kernel_size, device=device)
    return Windows(positions.clamp(0, size - 1), (positions >= 0) & (positions < size))


def adaptive_windows(size: int, count: int, device: torch.device | None = None) -> Windows:
    """Return the windows of `torch.nn.AdaptiveAvgPool1d`, from floor(i size / count) to ceil((i + 1) size / count)."""
    order = torch.arange(count, device=device)
    starts, ends = order * size // count, ((order + 1) * size + count - 1) // count
    widest = size // count if size % count == 0 else size // count + 2
    positions = starts[:, None] + torch.arange(widest, device=device)
    return Windows(positions.clamp_max(size - 1), positions < ends[:, None])


class _CentroidPool(LorentzModule):
    dims: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        ceil_mode: bool = False,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = _each_dimension(kernel_size, self.dims)
        self.stride = self.kernel_size if stride is None else _each_dimension(stride, self.dims)
        self.padding = _each_dimension(padding, self.dims)
        self.ceil_mode = ceil_mode
        self.manifold = manifold or Lorentz()
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f"expected padding of at most half of {self.kernel_size}, got {self.padding}")

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., n, *size) to points (..., n, *out)."""
        sizes = _sizes(input, self.dims)
        arguments = zip(sizes, self.kernel_size, self.stride, self.padding, strict=True)
        windows = [sliding_windows(*each, self.ceil_mode, input.device) for each in arguments]
        return centroid_pool(input, windows, self.manifold.c)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"
        )


class CentroidPool1d(_CentroidPool):
    """Centroids of the windows of (..., n, L). The rest as in `CentroidPool2d`."""

    dims = 1


class CentroidPool2d(_CentroidPool):
    """Centroids of windows: the pooling that commutes with every isometry, as the mean of space parts does not.

    The centroid is that of `lorentz.functional.centroid`. Pixels of the padding are no points and do not count. All
    windows are held at once: kernel_size / stride times the input in each dimension.

    Args:
        kernel_size: as in `torch.nn.AvgPool2d`, and so the next three.
        stride: `kernel_size` if None.
        padding: at most half of `kernel_size`.
        ceil_mode: let the last window reach past the image.
        manifold: space of input and output; by default curvature -1, fixed.

    Shapes: points (..., n, H, W) to points (..., n, H_out, W_out), which are those of `torch.nn.AvgPool2d`.

    Raises:
        ValueError: padding exceeds half of the kernel, a tuple has another length than two, or, in forward, the input
            has too few dimensions or pixels.

    Source: the centroid: Law et al., ICML 2019.
    """

    dims = 2


class _AdaptiveCentroidPool(LorentzModule):
    dims: ClassVar[int]

    def __init__(self, output_size: int | tuple[int | None, ...] | None, *, manifold: Lorentz | None = None) -> None:
        super().__init__()
        self.output_size = _each_dimension(output_size, self.dims)
        self.manifold = manifold or Lorentz()

    def forward(self, input: Tensor) -> Tensor:
        """Map points (..., n, *size) to points (..., n, *output_size)."""
        sizes = zip(_sizes(input, self.dims), self.output_size, strict=True)
        windows = [adaptive_windows(size, size if out is None else out, input.device) for size, out in sizes]
        return centroid_pool(input, windows, self.manifold.c)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"output_size={self.output_size}"


class AdaptiveCentroidPool1d(_AdaptiveCentroidPool):
    """Centroids of as many windows of (..., n, L) as asked for. The rest as in `AdaptiveCentroidPool2d`."""

    dims = 1


class AdaptiveCentroidPool2d(_AdaptiveCentroidPool):
    """Centroids of the windows of `torch.nn.AdaptiveAvgPool2d`; one window is the centroid of the image.

    Args:
        output_size: as in torch; None keeps the size of the input.
        manifold: space of input and output; by default curvature -1, fixed.

    Shapes: points (..., n, H, W) to points (..., n, *output_size).

    Raises:
        ValueError: as `CentroidPool2d`.
    """

    dims = 2


def _each_dimension(value: Value | Sequence[Value], dims: int) -> tuple[Value, ...]:
    """Return one value per dimension."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * dims
    if len(values) != dims:
        raise ValueError(f"expected one number or {dims}, got {values}")
    return values


def _sizes(x: Tensor, dims: int) -> torch.Size:
    """Return the sizes of an image of points."""
    if x.dim() <= dims:
        raise ValueError(f"expected points (..., n, {'L' if dims == 1 else 'H, W'}), got {tuple(x.shape)}")
    return x.shape[-dims:]
