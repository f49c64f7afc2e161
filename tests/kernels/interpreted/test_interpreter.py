"""What the other tests here stand on: the interpreter computes, and poison reaches what a kernel leaves out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose
from tests.kernels.compare import assert_close, expanded, padded, poisoned, strided
from tests.kernels.scale_kernel import scale


@pytest.mark.parametrize("layout", [strided, padded, expanded, torch.clone])
def test_a_kernel_reads_rows_of_any_stride(layout: type[Tensor]) -> None:
    x = layout(torch.randn(5, 7))
    with poisoned():
        y = scale(x, 3.0)
    assert_close("y", 3 * x.double(), y, 1e-7)


def test_numbers_that_a_kernel_does_not_write_are_nan() -> None:
    with poisoned():
        y = scale(torch.randn(5, 7), 3.0, rows=4)
    assert y[:4].isfinite().all()
    with pytest.raises(AssertionError, match="y: 7 of 35 numbers are NaN"):
        assert_close("y", torch.ones(5, 7), y, 1.0)


def test_triton_runs_on_the_cpu_when_asked_for_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORENTZ_KERNELS_BACKEND", raising=False)
    x = torch.ones(3)
    assert choose(x) == "torch"
    assert choose(x, None, backend="triton") == "triton"
    monkeypatch.setenv("LORENTZ_KERNELS_BACKEND", "triton")
    assert choose(x) == "triton"
    with pytest.raises(ValueError, match=r"LORENTZ_KERNELS_BACKEND=triton cannot run here: .* got torch.float64"):
        choose(x.double())
