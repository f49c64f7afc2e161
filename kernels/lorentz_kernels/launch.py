"""Launch a kernel again without asking again which of its compiled versions it is.

At each launch Triton binds and inspects every argument, in Python: for a kernel with fifty of them that takes longer
than most kernels run. What it would find follows from the dtypes and the alignment of tensors and from the numbers that
are not floats, so the version is kept under those.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from lorentz_kernels.dispatch import interpreting

KEPT = 4096  # launches that are remembered for each kernel


class Remembered:
    """A kernel of `triton.jit`, launched as `kernel[grid](*tensors_and_numbers, **constants_and_options)`."""

    remembering = True
    """False while kernels are only compiled, for tensors without addresses."""

    def __init__(self, kernel: Any) -> None:
        from triton.runtime import driver

        self.kernel, self._driver, self._interpreted = kernel, driver, interpreting()
        self._known: dict[tuple[Any, ...], tuple[Any, list[str]]] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        remembers = self.remembering and not self._interpreted
        return partial(self._launch, grid) if remembers else self.kernel[grid]

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **named: Any) -> None:
        traits = [x if type(x) is int else _trait(x) for x in arguments]
        key = (self._driver.active.get_current_device(), *traits, *named.items())
        known = self._known.get(key)
        if known is not None:
            compiled, constants = known
            sizes = *grid, 1, 1
            compiled[sizes](*arguments, *[named[name] for name in constants])
            return
        compiled = self.kernel[grid](*arguments, **named)
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[key] = compiled, self.kernel.arg_names[len(arguments) :]


def _trait(argument: Any) -> Any:
    """Return what a version depends on; of an integer the whole, more than Triton looks at."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    return float if isinstance(argument, float) else argument


def cdiv(x: int, y: int) -> int:
    """Return x / y rounded up; Triton's own is a function of constants, and slow."""
    return -(-x // y)


def next_power_of_2(n: int) -> int:
    """Return the smallest power of two that is not less than n > 0."""
    return 1 << (n - 1).bit_length()
