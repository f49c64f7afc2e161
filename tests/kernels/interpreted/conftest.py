"""Kernels run by Triton's interpreter, on the CPU: a process of their own, since Triton decides when it decorates."""

from __future__ import annotations

import pytest

from lorentz_kernels.dispatch import interpreting


def pytest_collect_file() -> None:
    """Refuse to collect these tests where Triton would compile the kernels instead."""
    if not interpreting():
        raise pytest.UsageError("tests/kernels/interpreted needs TRITON_INTERPRET=1 in the environment: see make test")
