"""The times of the points that a convolution joins: sums over windows, formed in float32 or better.

They are sums of shifted images and no convolution with ones, because GPUs round the float32 inputs of a convolution to
TF32 by default. Nothing of the size of all windows is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz._precision import Curvature, curvature, widen


def window_time(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    padding_mode: str = "zeros",
    groups: int = 1,
    c: Curvature = 1.0,
) -> Tensor:
    r"""Return the time of the point that each window joins, :math:`t = \sqrt{1/c + \sum_{window} |x|^2}`.

    Args:
        x: images of points, (..., n, *size).
        kernel_size: one number per dimension of the size, and so the next two.
        stride: from one window to the next.
        dilation: from one pixel of a window to the next.
        padding: before and after, last dimension first, as `torch.nn.functional.pad` takes it.
        padding_mode: as in `torch.nn.Conv2d`; zeros are the origin.
        groups: into which the channels are cut; each joins its own part of the window.
        c: the curvature is -c: a float, () or (1,).

    Returns:
        (..., groups, *out), in float32 or better.
    """
    mode = "constant" if padding_mode == "zeros" else padding_mode
    squares = F.pad(_squares(x, len(kernel_size), groups), padding, mode)
    sums = _window_sums(squares, kernel_size, stride, dilation)
    return (1 / curvature(c, sums) + sums).sqrt()


def transposed_window_time(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    output_size: Sequence[int],
    groups: int = 1,
    c: Curvature = 1.0,
) -> Tensor:
    """Return the time of the point that the window of a transposed convolution joins: the pixels that reach an output.

    A transposed convolution is one of stride 1 over the image with stride - 1 zeros between its pixels. Arguments as in
    `window_time`, but `padding` is that of the convolution, one number per dimension.

    Returns:
        (..., groups, *output_size), in float32 or better.
    """
    squares = _interleave(_squares(x, len(kernel_size), groups), stride)
    margins: list[int] = []
    sizes = zip(squares.shape[-len(kernel_size) :], kernel_size, dilation, padding, output_size, strict=True)
    for size, k, d, p, out in sizes:
        before = d * (k - 1) - p
        margins = [before, out + d * (k - 1) - before - size, *margins]
    sums = _window_sums(F.pad(squares, margins), kernel_size, [1] * len(kernel_size), dilation)
    return (1 / curvature(c, sums) + sums).sqrt()


def _squares(x: Tensor, dims: int, groups: int) -> Tensor:
    """Return |x|^2 of each group of channels: (..., n, *size) to (..., groups, *size)."""
    wide = widen(x)
    return (wide * wide).unflatten(-dims - 1, (groups, -1)).sum(-dims - 1)


def _window_sums(x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Return the sum over every window, one dimension after the other: (..., *size) to (..., *out)."""
    for dim, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True), start=-len(kernel_size)):
        x = x.transpose(dim, -1)
        width = x.shape[-1] - d * (k - 1)
        x = reduce(torch.add, [x[..., j * d : j * d + width : s] for j in range(k)]).transpose(dim, -1)
    return x


def _interleave(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Put stride - 1 zeros after every pixel: (..., *size) to (..., *(stride * size))."""
    for dim, s in enumerate(stride, start=-len(stride)):
        x = F.pad(x.transpose(dim, -1).unsqueeze(-1), (0, s - 1)).flatten(-2).transpose(dim, -1)
    return x
