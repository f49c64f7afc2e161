"""Convolutions: the points of a window join to one point, and a linear map takes it to the output."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lorentz.manifold import Lorentz
from lorentz.nn._window_time import transposed_window_time, window_time
from lorentz.nn.linear import rescale
from lorentz.nn.module import LorentzModule

Padding = Literal["zeros", "reflect", "replicate", "circular"]


class _Convolution(LorentzModule, _ConvNd):
    """What the four have in common: `time_weight`, and what is done with the times of the windows."""

    absent_in_twin: ClassVar[tuple[str, ...]] = ("time_weight",)

    def _complete(self, manifold: Lorentz | None, out_manifold: Lorentz | None) -> None:
        """Give what torch's constructor did not."""
        self.manifold = manifold or Lorentz()
        self.out_manifold = out_manifold
        self.time_weight = nn.Parameter(self.weight.new_zeros(self.out_channels))

    def reset_parameters(self) -> None:
        """Draw `weight` and `bias` as torch does; set `time_weight` to zero."""
        super().reset_parameters()
        if "time_weight" in self._parameters:  # torch's constructor draws before it exists
            nn.init.zeros_(self.time_weight)

    def _check(self, x: Tensor) -> None:
        """Raise ValueError unless x is an image, or a batch of them, whose channels are the space coordinates."""
        n, dims = self.in_channels, len(self.kernel_size)
        width = x.shape[-dims - 1] if x.dim() in (dims + 1, dims + 2) else None
        if width != n:
            sizes = "L" if dims == 1 else "H, W"
            hint = ": did you pass ambient points? leave out the channel of times" if width == n + 1 else ""
            raise ValueError(
                f"expected space coordinates (N, {n}, {sizes}) or ({n}, {sizes}), got {tuple(x.shape)}{hint}"
            )

    def _add_time(self, space: Tensor, t: Tensor) -> Tensor:
        """Return space + w_t t in the output manifold: (..., out, *size) and times (..., groups, *size)."""
        dims = len(self.kernel_size)
        weight = self.time_weight.view(self.groups, -1, *[1] * dims)
        term = (t.unsqueeze(-dims - 1) * weight).flatten(-dims - 2, -dims - 1)
        out = (space + term).to(space.dtype)
        return out if self.out_manifold is None else rescale(out, self.manifold.c, self.out_manifold.c)


class _Conv(_Convolution):
    def forward(self, input: Tensor) -> Tensor:
        """Map points (N, in_channels, *size) or (in_channels, *size) to points of out_channels."""
        self._check(input)
        space = super().forward(input)
        t = window_time(
            input,
            self.kernel_size,
            self.stride,
            self.dilation,
            self._reversed_padding_repeated_twice,
            self.padding_mode,
            self.groups,
            self.manifold.c,
        )
        return self._add_time(space, t)


class _ConvTranspose(_Convolution):
    padding: tuple[int, ...]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map points (N, in_channels, *size) or (in_channels, *size) to points of out_channels.

        `output_size` chooses, as in torch, among the sizes that the stride leaves open.
        """
        self._check(input)
        space = super().forward(input, output_size)
        t = transposed_window_time(
            input,
            self.kernel_size,
            self.stride,
            self.dilation,
            self.padding,
            space.shape[-len(self.kernel_size) :],
            self.groups,
            self.manifold.c,
        )
        return self._add_time(space, t)


class Conv1d(_Conv, nn.Conv1d):
    """`torch.nn.Conv1d` on points, which are the pixels of (N, in_channels, L). The rest as in `Conv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._complete(manifold, out_manifold)


class Conv2d(_Conv, nn.Conv2d):
    r"""`torch.nn.Conv2d` on points: a window's points join to one, and a linear map of it is the output.

    .. math::
        y = \sqrt{c_{in} / c_{out}}\,(W * x + w_t\,t + b), \quad t = \sqrt{1/c + \sum_{window} |x|^2}.

    The channels are the space coordinates, so each pixel is a point. Joining coordinates of points gives a point, of
    time t, to which the map of `lorentz.nn.Linear` is applied. Padding with zeros is padding with the origin. With
    groups, each joins its own channels and has its own time.

    Args:
        in_channels: width of the input points.
        out_channels: width of the output points.
        kernel_size: as in torch, and so all up to `dtype`.
        stride: as in torch.
        padding: as in torch.
        dilation: as in torch.
        groups: as in torch.
        bias: add b.
        padding_mode: as in torch.
        device: as in torch.
        dtype: as in torch.
        manifold: space of the input; by default curvature -1, fixed.
        out_manifold: space of the output; by default that of the input.

    Shapes: those of torch, (N, in_channels, H, W) or (in_channels, H, W).

    Parameters: `weight` and `bias`, shaped and drawn as in torch; `time_weight` (out_channels), w_t, which starts at
    zero, and becomes zero when a state_dict of torch's module is loaded: such a layer agrees with its twin on the
    space part.

    Raises:
        ValueError: in forward, the input has other channels or dimensions.

    Source: Bdeir et al., Fully Hyperbolic Convolutional Neural Networks for Computer Vision, ICLR 2024, which joins
    so; the map: Chen et al., ACL 2022, Eq. 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._complete(manifold, out_manifold)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` on points, the pixels of (N, in_channels, L). The rest as in `ConvTranspose2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] = 0,
        output_padding: int | tuple[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int] = 1,
        padding_mode: Padding = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._complete(manifold, out_manifold)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on points: the pixels that reach an output join to one point.

    The map, its parameters, `manifold` and `out_manifold` are those of `Conv2d`; a window is the set of input pixels
    that reach an output pixel. Where the stride leaves an output that none reaches, its window is empty and has the
    time of the origin. Arguments and shapes are torch's, (N, in_channels, H, W) or (in_channels, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: Padding = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        manifold: Lorentz | None = None,
        out_manifold: Lorentz | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._complete(manifold, out_manifold)
