"""Numbers that callers give as floats: none is copied from the host, which a CUDA graph could not record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorentz_kernels.linear import linear
from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp
from lorentz_kernels.pairwise_dist import pairwise_dist
from lorentz_kernels.rank import lorentz_rank


class Crossings(TorchDispatchMode):
    """Notes the operators that read a tensor of the CPU and one of a GPU, or carry one over."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.found.append(str(function))
        return out


def points(*shape: int) -> Tensor:
    return torch.empty(shape, device="cuda")


CALLS: dict[str, Callable[[], object]] = {
    "linear": lambda: linear(points(5, 4), points(3, 4), points(3), None, 0.7, backend="torch"),
    "linear_logsumexp": lambda: linear_logsumexp(points(5, 4), points(7, 4), scale=0.5, backend="torch"),
    "lorentz_logsumexp": lambda: lorentz_logsumexp(points(5, 4), points(7, 4), beta=0.5, c=0.7, backend="torch"),
    "lorentz_rank": lambda: lorentz_rank(points(5, 4), points(7, 4), points(5).long(), c=0.7, backend="torch"),
    "pairwise_dist": lambda: pairwise_dist(points(5, 4), points(7, 4), 0.7, backend="torch"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_number_is_carried_from_the_host(call: Callable[[], object]) -> None:
    with FakeTensorMode(), Crossings() as crossings:
        call()
    assert crossings.found == []


def test_a_number_that_is_carried_is_seen() -> None:
    with FakeTensorMode(), Crossings() as crossings:
        points(3) * torch.ones(())
    assert len(crossings.found) == 1
