"""Offsets beyond 2^31 numbers: rows at both ends of memory that is reserved, and of which few pages are touched."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.attention.triton import backward, forward
from lorentz_kernels.linear import triton as linear
from lorentz_kernels.rank.triton import pair_products
from lorentz_kernels.riemannian_adam import adam_step_
from lorentz_kernels.score.triton import Operands
from tests.kernels.compare import assert_close

HALF = 2**30


def far_apart(tensor: Tensor) -> Tensor:
    """The same numbers, the first dimension of three or more 2^30 numbers apart."""
    buffer = torch.empty(HALF * (len(tensor) - 1) + tensor[0].numel(), dtype=tensor.dtype)
    view = buffer.as_strided(tensor.shape, (HALF, *tensor.stride()[1:]))
    return view.copy_(tensor)


def test_heads_of_attention_are_found() -> None:
    parts = [torch.randn(4, 5, 16).half() for _ in range(4)]
    near, far = ([x[None] for x in group] for group in (parts, [far_apart(x) for x in parts]))
    options = 0.5, 1.0, False, 0, False
    results = []
    for *points, grad in (near, far):
        saved = forward(*points, None, None, None, *options)
        results.append([*saved, *backward(grad, *points, None, None, None, *saved, *options)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_batches_and_masks_of_attention_are_found() -> None:
    parts = [torch.randn(4, 1, 5, 16).half() for _ in range(3)]
    mask = torch.randn(4, 1, 5, 5).half()
    options = 0.5, 1.0, False, 0, False
    near = forward(*parts, mask, None, None, *options)
    far = forward(*(far_apart(x) for x in parts), far_apart(mask), None, None, *options)
    torch.testing.assert_close(near, far, rtol=0, atol=0)


def test_rows_of_linear_are_found() -> None:
    x, ratio = torch.randn(4, 20).half(), torch.rand(4, 1)
    assert torch.equal(linear.time_of(far_apart(x), None, 1.0), linear.time_of(x, None, 1.0))
    assert torch.equal(linear.add_time(x, far_apart(x), ratio), linear.add_time(x, x, ratio))


def test_entries_of_a_table_are_found() -> None:
    """The rows that log-partitions and ranks load, by the kernel that takes single ones."""
    width, entries = 32, 2**26 + 5  # 2^31 + 160 numbers
    table, query = torch.empty(entries, width, dtype=torch.float16), torch.randn(3, width).half()
    entry = torch.tensor([0, 2**25, entries - 1])
    table[entry] = torch.randn(3, width).half()
    given = Operands(query, table, None, None, torch.ones(3), width, width, "ieee")
    config = {"ROWS": 16, "ENTRIES": 16, "num_warps": 4}
    out = pair_products(given, torch.arange(3), entry, config)
    assert_close("scores", (query.double() * table[entry].double()).sum(1), out, 1e-6)


def test_rows_of_adam_are_found() -> None:
    x, w = (far_apart(torch.zeros(4, 16)) for _ in range(2))
    grad = torch.randn(4, 16)
    plain = [torch.zeros(4, 16) for _ in range(2)]
    v = [torch.zeros(4, 1) for _ in range(2)]
    adam_step_(x, grad, w, v[0], 1, lr=0.1, backend="triton")
    adam_step_(plain[0], grad, plain[1], v[1], 1, lr=0.1, backend="triton")
    torch.testing.assert_close([x, w, v[0]], [*plain, v[1]], rtol=0, atol=0)
