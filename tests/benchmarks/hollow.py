"""The host's part of a training on a GPU, without one: CPU tensors, the real launchers, a driver that starts nothing.

Kernels leave their outputs as they were allocated, so results mean nothing; what a step costs Python does.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from lorentz_kernels import dispatch, registry


class Utils:
    def load_binary(self, *_: object) -> tuple[int, int, int, int, int]:
        return 0, 0, 32, 0, 1024  # module, function, registers, spills, threads

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32}


class Launcher:
    def __init__(self, *_: object) -> None: ...

    def __call__(self, *_: object) -> None: ...


class Driver:
    utils, launcher_cls = Utils(), Launcher
    device = -9  # no real one: what is compiled for it stays in the process

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every operation to its Triton launchers, and their launches nowhere."""

    def no_obstacle(*_: Any) -> None:
        return None

    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(dispatch, "_obstacle", no_obstacle)
    monkeypatch.setattr(dispatch, "_known_obstacle", no_obstacle)
    monkeypatch.setattr(registry, "interpreting", lambda: True)  # a CPU tensor may go to a launcher
