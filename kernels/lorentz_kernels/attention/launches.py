"""The launches of attention that are compiled ahead of time: every shipped configuration, forward and backward."""

from __future__ import annotations

from functools import partial
from itertools import chain

import torch

from lorentz_kernels.ahead import Launch

SIDE = 16  # columns of a side row, multiplied beside the coordinates where a head has at most 64 of them in 16 bits


def launches() -> list[Launch]:
    """Return a launch for each rule of the table, and for masks, groups, and widths between powers of two."""
    wide, half, brain = torch.float32, torch.float16, torch.bfloat16
    plain = [_launch(dtype, width) for dtype, width in ((brain, 64), (brain, 128), (wide, 64), (wide, 128))]
    masked = [_launch(brain, width, masked=True) for width in (64, 128)]
    tiles = [_tile(dtype, width, rows) for dtype in (brain, wide) for width, rows in ((16, 16), (64, 32))]
    return [*chain(*plain, *masked), _launch(half, 64)[0], _launch(brain, 80)[0], *chain(*tiles)]


def _launch(dtype: torch.dtype, width: int, masked: bool = False) -> list[Launch]:
    """Return forward and backward: of these, 2 of 2 products and 5 of 7 count as useful, and no side rows do."""
    side = SIDE if width <= 64 and dtype != torch.float32 else 0
    name = f"{str(dtype).removeprefix('torch.')}-D{width}{'-masked' if masked else ''}"
    return [
        Launch(f"forward-{name}", partial(_run, dtype, width, masked, False), 2 * width / (2 * width + side)),
        Launch(f"backward-{name}", partial(_run, dtype, width, masked, True), 5 * width / (7 * width + 3 * side)),
    ]


def _run(dtype: torch.dtype, width: int, masked: bool, backward: bool) -> object:
    from lorentz_kernels.attention import triton

    batch, heads, groups, length = 2, 8, 4 if masked else 1, 1024
    q = torch.empty(batch, heads, length, width, dtype=dtype, device="cuda")
    k, v = (torch.empty(batch, heads // groups, length, width, dtype=dtype, device="cuda") for _ in range(2))
    mask = scale = c = None
    if masked:  # padding keys, a scale for each head, a learned curvature
        mask = torch.empty(batch, 1, 1, length, dtype=torch.bool, device="cuda")
        scale, c = torch.empty(1, heads, 1, device="cuda"), torch.empty(1, device="cuda")
    centred = dtype == torch.float32
    options = width**-0.5, 1.0, masked, 0, centred
    if not backward:
        return triton.forward(q, k, v, mask, scale, c, *options)
    rest = torch.empty_like(q)
    lse, factor = (torch.empty(batch, heads, length, device="cuda") for _ in range(2))
    return triton.backward(q, q, k, v, mask, scale, c, q, rest, lse, factor, *options)


def _tile(dtype: torch.dtype, width: int, rows: int) -> list[Launch]:
    """Return forward and backward where one tile holds a head; all but the products of forward count as useful."""
    name = f"{str(dtype).removeprefix('torch.')}-D{width}-L{rows}"
    return [
        Launch(f"tile-{name}", partial(_run_tile, dtype, width, rows, False)),
        Launch(f"tile-backward-{name}", partial(_run_tile, dtype, width, rows, True), 5 / 7),
    ]


def _run_tile(dtype: torch.dtype, width: int, rows: int, backward: bool) -> object:
    from lorentz_kernels.attention import triton

    q, k, v = (torch.empty(2, 4, rows, width, dtype=dtype, device="cuda") for _ in range(3))
    mask = torch.empty(2, 1, 1, rows, dtype=torch.bool, device="cuda")
    scale, c = torch.empty(1, 4, 1, device="cuda"), torch.empty(1, device="cuda")
    arguments = q, k, v, mask, scale, c, 2.0, 1.0, False, 0, dtype == torch.float32, True
    return triton.tile_backward(q, *arguments) if backward else triton.tile(*arguments)
