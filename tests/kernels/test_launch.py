"""A launch is remembered by all that its compiled version depends on, and by nothing that changes from call to call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from triton.runtime import driver

from lorentz_kernels import launch
from lorentz_kernels.launch import Remembered, cdiv, next_power_of_2


class Kernel:
    """Stands for a kernel of Triton's: compiles a version at each launch, and notes what that is launched with."""

    arg_names = ("X", "rate", "count", "MASK", "BLOCK", "CAUSAL")

    def __init__(self) -> None:
        self.compiled: list[dict[Any, list[Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile_and_launch(*arguments: Any, **named: Any) -> Any:
            launches: dict[Any, list[Any]] = {}
            self.compiled.append(launches)

            class Version:
                def __getitem__(self, sizes: tuple[int, ...]) -> Any:
                    return lambda *given: launches.setdefault(sizes, []).append(given)

            return Version()

        return compile_and_launch


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    class Driver:
        device = 0

        def get_current_device(self) -> int:
            return self.device

    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return Kernel()


X = torch.zeros(64)


def call(remembered: Remembered, *, x: torch.Tensor = X, rate: float = 0.5, count: int = 7, **named: Any) -> None:
    mask = named.pop("mask", None)
    remembered[(3,)](x, rate, count, mask, **{"CAUSAL": True, "num_warps": 4, "BLOCK": 16, **named})


def test_the_second_launch_goes_to_the_version_with_its_own_tensors_and_numbers(kernel: Kernel) -> None:
    remembered, other = Remembered(kernel), torch.ones(64)
    call(remembered)
    call(remembered, x=other, rate=0.25)
    assert len(kernel.compiled) == 1
    ((sizes, launches),) = kernel.compiled[0].items()
    assert sizes[:3] == (3, 1, 1)
    ((x, *rest),) = launches
    assert x is other
    assert rest == [0.25, 7, None, 16, True], "constants come in the order of the kernel, options not at all"


@pytest.mark.parametrize(
    "changed",
    [
        {"x": X.half()},
        {"x": X[1:]},
        {"count": 8},
        {"count": 1},
        {"mask": X},
        {"BLOCK": 32},
        {"CAUSAL": False},
        {"num_warps": 8},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_a_version_depends_on_is_looked_at_anew(kernel: Kernel, changed: dict[str, Any]) -> None:
    remembered = Remembered(kernel)
    call(remembered)
    call(remembered, **changed)
    assert len(kernel.compiled) == 2
    call(remembered)
    call(remembered, **changed)
    assert len(kernel.compiled) == 2


def test_a_device_has_versions_of_its_own(kernel: Kernel) -> None:
    remembered = Remembered(kernel)
    call(remembered)
    driver.active.device = 1
    call(remembered)
    assert len(kernel.compiled) == 2


def test_no_more_launches_than_a_limit_are_kept(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "KEPT", 3)
    remembered = Remembered(kernel)
    for count in range(10):
        call(remembered, count=count)
    assert len(remembered._known) <= 3
    assert len(kernel.compiled) == 10


@pytest.mark.parametrize(("x", "y"), [(0, 4), (1, 4), (4, 4), (5, 4), (2**40 + 1, 2**20)])
def test_division_rounds_up(x: int, y: int) -> None:
    assert (cdiv(x, y) - 1) * y < x <= cdiv(x, y) * y


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 1000, 1024, 1025])
def test_the_next_power_of_two(n: int) -> None:
    power = next_power_of_2(n)
    assert power // 2 < n <= power
    assert power & (power - 1) == 0
