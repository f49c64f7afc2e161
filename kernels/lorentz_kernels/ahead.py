"""Kernels compiled ahead of time, on any machine: the real launches, with fake CUDA tensors and no driver.

A launcher runs as on a GPU, so its grids, specialisations and constants are those of production; where it would start
a kernel, the kernel is compiled for the capability asked for, and what the compiler made is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels.command import modules
from lorentz_kernels.dispatch import INSTALLED, interpreting
from lorentz_kernels.launch import Remembered


@dataclass(frozen=True)
class Launch:
    """A call that launches kernels on tensors which it makes itself, on "cuda"; an operation lists its own.

    The list is what the function `launches()` in the operation's folder, in `launches.py`, returns: every shipped
    configuration, on aligned tensors of the sizes that it is meant for. Cut tensors with `narrow` and `select`, there
    and in launchers: subscripts of a fake tensor ask for the driver.
    """

    name: str
    call: Callable[[], object]
    useful: float = 1.0
    """Share of the executed products that were asked for: 5/7 where seven tiles are multiplied instead of five."""
    narrow: frozenset[str] = frozenset()
    """Names of kernels that read one number for each row, and so have no loads of 128 bits."""


@dataclass(frozen=True)
class Compiled:
    """A kernel as the compiler left it."""

    name: str
    cubin: bytes
    capability: int
    warps: int
    stages: int
    shared: int


def operations() -> dict[str, list[Launch]]:
    """Return the launches of every operation that lists some, by name."""
    return {name: module.launches() for name, module in modules("launches").items()}


def compile_launch(launch: Launch, capability: int) -> list[Compiled]:
    """Return the kernels that a launch starts, in order, compiled for sm_`capability`: 80, 90 or 100.

    Raises:
        RuntimeError: Triton is not installed, or only interprets.
    """
    with _without_gpu(capability) as compiled, FakeTensorMode():
        launch.call()
    return compiled


class _Driver:
    """What Triton asks a driver while it compiles, answered for a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return -self.target.arch  # kernels are cached by device: one for each capability, none of them a real one

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


class _Argument:
    """A tensor as a launch sees it: dtype and alignment."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype = tensor.dtype
        self._offset = int(tensor.storage_offset()) * tensor.element_size()

    def data_ptr(self) -> int:
        return self._offset


@contextmanager
def _without_gpu(capability: int) -> Iterator[list[Compiled]]:
    """Redirect every launch to the compiler; yield the list that the kernels end up in."""
    if not INSTALLED or interpreting():
        raise RuntimeError("compiling needs triton, installed, and TRITON_INTERPRET unset")
    from triton.runtime import driver
    from triton.runtime.jit import KernelInterface

    compiled: list[Compiled] = []

    def subscript(kernel: Any, grid: Any) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            assert "enable_fp_fusion" in options, f"{kernel.__name__}: Triton's default changes, so each launch says it"
            named = {name: _argument(value) for name, value in options.items()}
            made = kernel.warmup(*map(_argument, arguments), grid=grid, **named)
            about = made.metadata
            cubin, name = made.asm["cubin"], about.name.strip("_")
            compiled.append(Compiled(name, cubin, capability, about.num_warps, about.num_stages, about.shared))

        return launch

    original, active = KernelInterface.__getitem__, driver._active
    KernelInterface.__getitem__ = subscript
    Remembered.remembering = False
    driver.set_active(_Driver(capability))
    try:
        yield compiled
    finally:
        KernelInterface.__getitem__ = original
        Remembered.remembering = True
        driver._active = active


def _argument(value: Any) -> Any:
    return _Argument(value) if isinstance(value, torch.Tensor) else value
