"""The launches of `linear` that are compiled ahead of time: every rule of its table, at the width that it is for."""

from __future__ import annotations

from functools import partial

import torch

from lorentz_kernels.ahead import Launch
from lorentz_kernels.linear import triton

ROWS = 32768


def launches() -> list[Launch]:
    """Return the launches: what is done by row in 16 bits and in float32, and the fused product in 16 bits."""
    by_row = [
        Launch(f"{name}-n{width}-{_short(dtype)}", partial(call, width, dtype))
        for name, call in (("time", _time), ("epilogue", _epilogue), ("backward", _backward), ("add-time", _add_time))
        for width, dtype in ((32, torch.bfloat16), (128, torch.float32), (512, torch.bfloat16), (2048, torch.bfloat16))
    ]
    fused = [
        Launch(f"product-n{width}-{_short(dtype)}", partial(_product, width, dtype))
        for width, dtype in ((128, torch.bfloat16), (256, torch.bfloat16), (512, torch.bfloat16), (512, torch.float16))
    ]
    return [*by_row, Launch("backward-n8192-bf16", partial(_backward, 8192, torch.bfloat16)), *fused]


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def _rows(width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(ROWS, width, dtype=dtype, device="cuda")


def _time(width: int, dtype: torch.dtype) -> None:
    triton.time_of(_rows(width, dtype), None, 1.0)


def _epilogue(width: int, dtype: torch.dtype) -> None:
    time_weight, bias = (torch.empty(width, device="cuda") for _ in range(2))
    triton.epilogue(_rows(width, dtype), _rows(1), time_weight, bias)


def _backward(width: int, dtype: torch.dtype) -> None:
    triton.backward(_rows(width, dtype), _rows(1), torch.empty(width, device="cuda"))


def _add_time(width: int, dtype: torch.dtype) -> None:
    triton.add_time(_rows(width, dtype), _rows(width, dtype), _rows(1))


def _product(width: int, dtype: torch.dtype) -> None:
    weight = torch.empty(width, 512, dtype=dtype, device="cuda")
    time_weight, bias = (torch.empty(width, device="cuda") for _ in range(2))
    triton.product(_rows(512, dtype), weight, _rows(1), time_weight, bias)
