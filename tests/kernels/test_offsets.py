"""Addresses of every kernel are computed in 64 bits, in the code that its real launches compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

triton = pytest.importorskip("triton")

import torch  # noqa: E402
import triton.language as tl  # noqa: E402

from lorentz_kernels.ahead import Launch, compile_launch, operations  # noqa: E402  its operations import triton
from tests.kernels.offsets import overflowing  # noqa: E402


@contextmanager
def front_end() -> Iterator[list[str]]:
    """Let kernels be compiled no further than TTIR; yield the list of it."""
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.runtime.jit import JITFunction

    class Stopped(Exception):
        pass

    found: list[str] = []

    def stop(module: object, *arguments: object) -> None:
        found.append(str(module))
        raise Stopped

    about = SimpleNamespace(name="", num_warps=4, num_stages=1, shared=0)
    compile_further = JITFunction.warmup

    def warmup(self: JITFunction, *arguments: object, **options: object) -> object:
        self.device_caches.clear()  # what this process has compiled before would not come here again
        try:
            return compile_further(self, *arguments, **options)
        except Stopped:
            return SimpleNamespace(asm={"cubin": b""}, metadata=about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_ALWAYS_COMPILE", "1")
        patch.setattr(CUDABackend, "make_ttgir", staticmethod(stop))
        patch.setattr(JITFunction, "warmup", warmup)
        yield found


@pytest.mark.parametrize("op", sorted(operations()))
def test_no_product_in_an_address_is_in_32_bits(op: str) -> None:
    """That of a row and a stride above all, in every launch that is shipped."""
    with front_end() as found:
        for launch in operations()[op]:
            compile_launch(launch, 90)
    assert len(found) >= len(operations()[op])
    assert all("tt.addptr" in code for code in found)
    assert [product for code in found for product in overflowing(code)] == []


@triton.jit
def narrow(X, stride, count, ROWS: tl.constexpr, WIDTH: tl.constexpr, HOW: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)[None, :]
    if HOW == "stride":
        at = X + row[:, None] * stride + column
    elif HOW == "width":
        at = X + row[:, None] * WIDTH + column
    elif HOW == "widened late":
        at = X + (row[:, None] * stride).to(tl.int64) + column
    elif HOW == "head":
        at = X + tl.program_id(1) * stride + column
    elif HOW == "heads of rows":
        at = X + tl.program_id(1) * (tl.cdiv(count, ROWS) * ROWS) * WIDTH + column
    elif HOW == "in a loop":
        at = X + column
        for start in range(0, count, ROWS):
            tl.store(X + (start + tl.arange(0, ROWS))[:, None] * WIDTH + column, 0.0)
    elif HOW == "within a tile":
        at = X + tl.program_id(0).to(tl.int64) * ROWS * stride + tl.arange(0, ROWS)[:, None] * stride + column
    else:
        at = X + row.to(tl.int64)[:, None] * stride + column
    tl.store(at, 0.0)


def products(how: str) -> list[str]:
    def launch() -> None:
        x = torch.empty(64, 32, device="cuda")
        narrow[(2, 2)](x, 37, 64, ROWS=16, WIDTH=32, HOW=how, enable_fp_fusion=True)

    with front_end() as found:
        compile_launch(Launch(how, launch), 90)
    (code,) = found
    return overflowing(code)


@pytest.mark.parametrize("how", ["stride", "width", "widened late", "head", "heads of rows", "in a loop"])
def test_products_in_32_bits_are_found(how: str) -> None:
    assert products(how)


@pytest.mark.parametrize("how", ["within a tile", "widened first"])
def test_products_in_64_bits_and_within_a_tile_are_innocent(how: str) -> None:
    assert products(how) == []
