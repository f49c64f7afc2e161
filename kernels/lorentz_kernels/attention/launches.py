"""The launches of attention that are compiled ahead of time: every shipped configuration, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lorentz_kernels.ahead import Launch

WIDTHS = {torch.bfloat16: (32, 64, 128), torch.float16: (64, 128), torch.float32: (64, 128)}


def launches() -> list[Launch]:
    """Return a launch for each dtype and head width, forward (four products) and backward (seven for five)."""
    return [
        Launch(f"{name}-{str(dtype).removeprefix('torch.')}-D{width}", call(dtype, width), useful)
        for dtype, widths in WIDTHS.items()
        for width in widths
        for name, call, useful in (("forward", _forward, 1.0), ("backward", _backward, 5 / 7))
    ]


def _forward(dtype: torch.dtype, width: int) -> Callable[[], object]:
    return lambda: _run(dtype, width, False)


def _backward(dtype: torch.dtype, width: int) -> Callable[[], object]:
    return lambda: _run(dtype, width, True)


def _run(dtype: torch.dtype, width: int, backward: bool) -> object:
    from lorentz_kernels.attention import triton

    q, k, v = (torch.empty(2, 8, 1024, width, dtype=dtype, device="cuda") for _ in range(3))
    centred = dtype == torch.float32
    options = width**-0.5, 1.0, False, 0, centred
    if not backward:
        return triton.forward(q, k, v, None, None, None, *options)
    rest = torch.empty_like(q, dtype=torch.float32 if centred else dtype)
    lse, factor = (torch.empty(2, 8, 1024, device="cuda") for _ in range(2))
    return triton.backward(q, q, k, v, None, None, None, q, rest, lse, factor, *options)
