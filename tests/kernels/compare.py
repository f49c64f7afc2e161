"""What the tests of kernels share: an error ratio, outputs that start as NaN, inputs in awkward memory layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.measure import error_ratio

__all__ = ["assert_close", "error_ratio", "expanded", "padded", "poisoned", "strided"]


def assert_close(name: str, expected: Tensor, actual: Tensor, limit: float) -> None:
    """Fail unless shapes and infinities agree, no number is NaN, and the error ratio is at most `limit`."""
    assert actual.shape == expected.shape, f"{name}: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    assert not expected.isnan().any(), f"{name}: NaN in what is expected"
    assert not actual.isnan().any(), f"{name}: {int(actual.isnan().sum())} of {actual.numel()} numbers are NaN"
    infinite = expected.isinf()
    assert torch.equal(expected[infinite].double(), actual[infinite].double()), f"{name}: infinities differ"
    ratio = error_ratio(expected[~infinite], actual[~infinite])
    assert ratio <= limit, f"{name}: error ratio {ratio:.2e}, at most {limit:.2e} is allowed"


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill whatever is allocated without a value with NaN, so that a number that a kernel forgets to write is seen."""

    def filled(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocated(*arguments: Any, **options: Any) -> Tensor:
            tensor = allocate(*arguments, **options)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return allocated

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in [(torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (Tensor, "new_empty")]:
            patch.setattr(owner, name, filled(getattr(owner, name)))
        yield


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, every second column of a wider buffer whose other numbers are NaN."""
    buffer = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan)
    buffer[..., ::2] = tensor
    return buffer[..., ::2]


def padded(tensor: Tensor) -> Tensor:
    """The same numbers, rows farther apart than they are long and off by one element, NaN between and around them."""
    buffer = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 3), torch.nan)
    buffer[..., 1:-2] = tensor
    return buffer[..., 1:-2]


def expanded(tensor: Tensor) -> Tensor:
    """The first row in the place of all rows, with stride 0."""
    return tensor[:1].expand(tensor.shape)
