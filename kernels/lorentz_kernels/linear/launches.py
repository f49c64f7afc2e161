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
    ends = [
        Launch(f"{name}-n2048-bf16-{activation}-time", partial(call, 2048, torch.bfloat16, activation))
        for name, call in (("epilogue", _epilogue), ("backward", _backward))
        for activation in ("relu", "gelu", "silu", "tanh")
    ]
    ends.append(Launch("product-n512-bf16-gelu-time", partial(_product, 512, torch.bfloat16, "gelu")))
    return [*by_row, Launch("backward-n8192-bf16", partial(_backward, 8192, torch.bfloat16)), *fused, *ends]


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def _rows(width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(ROWS, width, dtype=dtype, device="cuda")


def _time(width: int, dtype: torch.dtype) -> None:
    triton.time_of(_rows(width, dtype), None, 1.0)


def _epilogue(width: int, dtype: torch.dtype, activation: str = "") -> None:
    time_weight, bias = (torch.empty(width, device="cuda") for _ in range(2))
    triton.epilogue(_rows(width, dtype), _rows(1), time_weight, bias, activation, activation != "", None, 1.0)


def _backward(width: int, dtype: torch.dtype, activation: str = "") -> None:
    grad, x0, time_weight = _rows(width, dtype), _rows(1), torch.empty(width, device="cuda")
    kept = _rows(width, dtype) if activation else None
    triton.backward(grad, x0, time_weight, kept, x0 if activation else None, x0 if activation else None, activation)


def _add_time(width: int, dtype: torch.dtype) -> None:
    triton.add_time(_rows(width, dtype), _rows(width, dtype), _rows(1))


def _product(width: int, dtype: torch.dtype, activation: str = "") -> None:
    weight = torch.empty(width, 512, dtype=dtype, device="cuda")
    time_weight, bias = (torch.empty(width, device="cuda") for _ in range(2))
    timed = activation != ""
    triton.product(_rows(512, dtype), weight, _rows(1), time_weight, bias, activation, timed, None, 1.0)
