"""`gated_linear` on a CPU: its specification in float64 in value and gradients, whatever the blocks and the layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels.gated_linear import Map, closed, gated_linear, naive
from tests.kernels.compare import assert_close, expanded, padded, strided

NAMES = "x", "W", "w_t", "b", "v", "w", "b'", "c", "scale"
Leaves = list[Tensor]


def radius(logit: Tensor, c: Tensor | float, scale: Tensor | float) -> Tensor:
    """Depends on all that it is given."""
    return scale * torch.sigmoid(logit) + 0.1 / c


def problem(*shape: int, out: int = 6) -> tuple[Leaves, Tensor]:
    """The nine tensors in the order of `NAMES`, and an upstream gradient, in float64."""
    generator = torch.Generator().manual_seed(sum(shape) + out)
    width = shape[-1]
    sizes = shape, (out, width), (out,), (out,), (1, width), (1,), (1,)
    tensors = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    for gate in tensors[4:]:
        gate.mul_(0.2)  # a sigmoid near 1 loses its slope in float32, whoever computes it
    tensors += [torch.tensor([0.7], dtype=torch.float64), torch.tensor([2.5], dtype=torch.float64)]
    return tensors, torch.randn(*shape[:-1], out, generator=generator, dtype=torch.float64)


def call(function: Callable[..., Tensor], x: Tensor, *rest: Any, radius: Any = radius) -> Tensor:
    return function(x, Map(*rest[:3]), Map(*rest[3:6]), radius, *rest[6:])


def gradients(function: Callable[..., Tensor], tensors: Leaves, slope: Tensor, **options: Any) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = call(function, *leaves, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, slope)]


def single(tensors: Leaves) -> Leaves:
    return [t.float() for t in tensors]


@pytest.mark.parametrize("numbers", [1, 50, closed.BLOCK])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 33), (7,), (0, 4), (300, 2)], ids=str)
def test_float32_is_the_specification_whatever_the_blocks(
    shape: tuple[int, ...], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed, "BLOCK", numbers)
    tensors, slope = problem(*shape)
    truth = gradients(naive.gated_linear, [t.float().double() for t in tensors], slope.float().double())
    found = gradients(gated_linear, single(tensors), slope.float())
    for name, wanted, got in zip(("y", *NAMES), truth, found, strict=True):
        assert got.dtype == torch.float32
        assert_close(name, wanted, got, 5e-6)


@pytest.mark.parametrize("layout", [strided, padded, expanded], ids=lambda layout: layout.__name__)
def test_memory_layout_does_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    tensors, slope = problem(5, 4)
    x, upstream = layout(tensors[0].float()), layout(slope.float())
    truth = gradients(naive.gated_linear, [x.double(), *(t.float().double() for t in tensors[1:])], upstream.double())
    found = gradients(gated_linear, [x, *single(tensors[1:])], upstream)
    for name, wanted, got in zip(("y", *NAMES), truth, found, strict=True):
        assert_close(name, wanted, got, 5e-6)


@pytest.mark.parametrize("frozen", range(9), ids=NAMES)
def test_each_tensor_may_be_frozen(frozen: int) -> None:
    tensors, slope = problem(5, 4)
    every = gradients(gated_linear, single(tensors), slope.float())[1:]
    leaves = [t.requires_grad_(i != frozen) for i, t in enumerate(single(tensors))]
    call(gated_linear, *leaves).backward(slope.float())
    assert leaves[frozen].grad is None
    rest = [leaf.grad for leaf in leaves if leaf.requires_grad]
    torch.testing.assert_close(rest, [g for i, g in enumerate(every) if i != frozen], rtol=0, atol=0)


def test_there_may_be_no_bias_and_numbers_for_c_and_scale() -> None:
    tensors, slope = problem(5, 4)
    x, w, wt, _, v, vt = tensors[:6]
    results = []
    for function, leaves, upstream in (
        (naive.gated_linear, [x, w, wt, v, vt], slope),
        (gated_linear, single([x, w, wt, v, vt]), slope.float()),
    ):
        leaves = [t.requires_grad_() for t in leaves]
        y = function(leaves[0], Map(*leaves[1:3], None), Map(*leaves[3:5], None), radius, 0.7, 2.5)
        results.append([y, *torch.autograd.grad(y, leaves, upstream)])
    for wanted, got in zip(*results, strict=True):
        assert_close("gradient", wanted, got, 5e-6)


def test_a_zero_direction_stays_zero_and_can_be_left() -> None:
    tensors, slope = problem(5, 4)
    for zero in tensors[1:4]:
        zero.zero_()
    truth, found = (
        gradients(naive.gated_linear, tensors, slope),
        gradients(gated_linear, single(tensors), slope.float()),
    )
    assert not found[0].any()
    for name, wanted, got in zip(("y", *NAMES), truth, found, strict=True):
        assert_close(name, wanted, got, 5e-6)


def test_a_gate_that_is_shut_gives_the_origin_and_no_gradient_of_the_direction() -> None:
    tensors, slope = problem(5, 4)
    tensors[6].fill_(-200.0)

    def shut(logit: Tensor, c: Tensor, scale: Tensor) -> Tensor:
        return scale * torch.sigmoid(logit) + 0 * c

    y, *found = gradients(gated_linear, single(tensors), slope.float(), radius=shut)
    assert not y.any()
    assert not any(each.any() for each in found)


def test_second_derivatives_are_those_of_the_specification() -> None:
    """A gradient penalty, where the first gradient is in closed form."""
    tensors, slope = problem(5, 4)

    def penalty(function: Callable[..., Tensor], tensors: Leaves) -> tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in tensors]
        y = (call(function, *leaves) * slope.to(leaves[0].dtype)).sum()
        first = torch.autograd.grad(y, leaves, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), leaves)

    for name, wanted, got in zip(
        NAMES, penalty(naive.gated_linear, tensors), penalty(gated_linear, single(tensors)), strict=True
    ):
        assert_close(name, wanted, got, 2e-5)


def test_gradcheck_in_float64() -> None:
    tensors, _ = problem(3, 4, out=3)
    leaves = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *x: call(gated_linear, *x), leaves)


def test_transforms_of_torch() -> None:
    tensors, slope = problem(5, 4)
    low, upstream = single(tensors), slope.float()
    expected = gradients(gated_linear, low, upstream)
    torch.compiler.reset()
    compiled = torch.compile(lambda *x: call(gated_linear, *x), fullgraph=True, backend="aot_eager")
    leaves = [t.detach().requires_grad_() for t in low]
    y = compiled(*leaves)
    torch.testing.assert_close([y, *torch.autograd.grad(y, leaves, upstream)], expected, rtol=1e-4, atol=1e-5)
    by_row = torch.vmap(lambda row: call(gated_linear, row, *low[1:]))(low[0])
    torch.testing.assert_close(by_row, expected[0])
    tangent = torch.ones_like(low[0])
    got, wanted = (
        torch.func.jvp(lambda x, f=f: call(f, x, *low[1:]), (low[0],), (tangent,))
        for f in (gated_linear, naive.gated_linear)
    )
    torch.testing.assert_close(got, wanted)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert call(gated_linear, torch.empty(5, 4), *low[1:]).shape == (5, 6)


def test_a_result_changed_in_place_is_noticed() -> None:
    tensors, _ = problem(5, 4)
    leaves = [t.requires_grad_() for t in single(tensors)]
    y = call(gated_linear, *leaves).relu_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, *rest = single(problem(5, 4)[0])
    with pytest.raises(ValueError, match=r"expected x \(..., in\), direction \(out, in\) and \(out\), got \(\(5, 3\)"):
        call(gated_linear, x[:, :3], *rest)
    with pytest.raises(ValueError, match="expected a gate of one output, got 6"):
        gated_linear(x, Map(*rest[:3]), Map(*rest[:3]), radius, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"expected bias of the gate \(1,\) or none, got \(6,\)"):
        gated_linear(x, Map(*rest[:3]), Map(*rest[3:5], rest[2]), radius, 1.0, 1.0)
