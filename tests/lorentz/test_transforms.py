"""Every function goes through torch's machinery: dtypes, vmap, jvp, compile, meta, curvatures of any shape."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import lorentz.functional as LF
from tests import oracles
from tests.lorentz.operations import OPERATIONS, Operation, operands

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def test_every_public_function_is_in_the_table() -> None:
    assert sorted(operation.name for operation in OPERATIONS) == sorted(LF.__all__)


@every_operation
def test_every_function_says_its_shapes(operation: Operation) -> None:
    assert "(..." in (getattr(LF, operation.name).__doc__ or "")


@every_operation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_points_keep_the_dtype_and_scalars_come_in_float32_or_better(operation: Operation, dtype: torch.dtype) -> None:
    out = operation(*(value[0] for value in operands(operation, dtype)), 0.7)
    wide = torch.promote_types(dtype, torch.float32)
    assert out.dtype == (dtype if operation.result == "point" else wide)


@every_operation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_on_rounded_operands(operation: Operation, dtype: torch.dtype) -> None:
    low = [value[0] for value in operands(operation, dtype)]
    expected = operation(*(value.float() for value in low), 0.7)
    out = operation(*low, 0.7)
    # Products of torch accumulate in their own order; everything else is the same arithmetic, rounded once.
    rtol = 4 * torch.finfo(dtype).eps if operation.name in ("linear", "rotate", "isometry_inverse") else 1e-6
    torch.testing.assert_close(out.float(), expected.to(out.dtype).float(), rtol=rtol, atol=rtol)


@every_operation
def test_curvature_may_be_a_number_a_scalar_or_a_parameter_of_shape_1(operation: Operation) -> None:
    inputs = [value[0] for value in operands(operation, torch.float32)]
    expected = operation(*inputs, 0.7)
    for c in (torch.tensor(0.7), torch.tensor([0.7]), torch.tensor([0.7], dtype=torch.float64)):
        out = operation(*inputs, c)
        assert out.dtype == expected.dtype
        assert out.shape == expected.shape
        torch.testing.assert_close(out, expected)


def test_curvature_may_differ_by_row() -> None:
    x, y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    c = torch.tensor([[0.5], [1.0], [2.0]])
    for name in ("dist", "sqdist", "inner", "logmap", "expmap", "to_poincare", "egrad2rgrad"):
        arguments = (x,) if name == "to_poincare" else (x, y)
        each = torch.stack([getattr(LF, name)(*(a[i] for a in arguments), c[i].item()) for i in range(3)])
        torch.testing.assert_close(getattr(LF, name)(*arguments, c), each)


@pytest.mark.parametrize("name", ["time", "inner", "sqdist", "dist", "dist0", "norm"])
def test_keepdim_keeps_a_last_dimension_of_size_one(name: str) -> None:
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    inputs = [value[0] for value in operands(operation, torch.float32)]
    kept = getattr(LF, name)(*inputs, torch.tensor([0.7]), keepdim=True)
    assert kept.shape == (3, 1)
    assert torch.equal(kept.squeeze(-1), operation(*inputs, torch.tensor([0.7])))
    assert operation(*(value[0, 0] for value in operands(operation, torch.float32)), torch.tensor([0.7])).shape == ()


@every_operation
def test_vmap_is_a_loop(operation: Operation) -> None:
    inputs = operands(operation, torch.float64)
    mapped = torch.vmap(operation, in_dims=(*[0] * len(inputs), None), randomness="same")(*inputs, 0.7)
    for row in range(2):
        torch.testing.assert_close(mapped[row], operation(*(value[row] for value in inputs), 0.7))


@every_operation
def test_forward_mode_and_reverse_mode_agree(operation: Operation) -> None:
    inputs = (*(value[0] for value in operands(operation, torch.float32)), torch.tensor([0.7]))
    generator = torch.Generator().manual_seed(1)
    tangents = tuple(torch.randn(value.shape, generator=generator) for value in inputs)
    out, pushed = torch.func.jvp(operation, inputs, tangents)
    cotangent = torch.randn(out.shape, generator=generator)
    grads = torch.func.vjp(operation, *inputs)[1](cotangent)
    pulled = sum((grad * tangent).sum() for grad, tangent in zip(grads, tangents, strict=True))
    torch.testing.assert_close((pushed * cotangent).sum(), pulled, rtol=2e-4, atol=2e-4)


@every_operation
def test_per_sample_gradients_are_those_of_a_loop(operation: Operation) -> None:
    inputs = operands(operation, torch.float64)

    def loss(first: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return operation(first, *rest, 0.7).square().sum()

    mapped = torch.vmap(torch.func.grad(loss), randomness="same")(*inputs)
    for row in range(2):
        torch.testing.assert_close(mapped[row], torch.func.grad(loss)(*(value[row] for value in inputs)))


@every_operation
def test_meta_tensors_have_the_shapes_and_dtypes(operation: Operation) -> None:
    inputs = [value[0] for value in operands(operation, torch.bfloat16)]
    expected = operation(*inputs, 0.7)
    out = without_generator(operation)(*(value.to("meta") for value in inputs), 0.7)
    assert out.is_meta
    assert (out.shape, out.dtype) == (expected.shape, expected.dtype)


def without_generator(operation: Operation) -> Operation:
    """Dynamo traces no `torch.Generator`: sample with the global one."""
    return replace(operation, call=LF.wrapped_normal) if operation.name == "wrapped_normal" else operation


@every_operation
def test_every_function_traces_whole(operation: Operation) -> None:
    torch.compiler.reset()
    traced = without_generator(operation)
    inputs = (*(value[0] for value in operands(operation, torch.float32)), torch.tensor([0.7]))
    torch.manual_seed(0)
    out = torch.compile(traced.call, fullgraph=True, backend="eager")(*inputs)
    torch.manual_seed(0)
    # What has its gradient in closed form is traced as its definition, whose sums round otherwise.
    tolerance = 1e-6 if operation.name in ("attention", "linear") else 0
    torch.testing.assert_close(out, traced(*inputs), rtol=tolerance, atol=tolerance)


def assert_compiled_like_eager(operation: Operation, backend: str) -> None:
    torch.compiler.reset()
    inputs = [value[0].requires_grad_() for value in operands(operation, torch.float32)]
    c = torch.tensor([0.7], requires_grad=True)
    out, expected = torch.compile(operation.call, fullgraph=True, backend=backend)(*inputs, c), operation(*inputs, c)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.square().sum(), (*inputs, c), allow_unused=True)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.square().sum(), (*inputs, c), allow_unused=True))


@pytest.mark.parametrize("name", ["dist", "transp", "attention"])
def test_compiled_gradients_are_the_eager_ones(name: str) -> None:
    assert_compiled_like_eager(next(each for each in OPERATIONS if each.name == name), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.name != "wrapped_normal"], ids=str)
def test_the_default_compiler_gives_the_eager_result(operation: Operation) -> None:
    assert_compiled_like_eager(operation, "inductor")


def test_autocast_rounds_no_product_whose_terms_cancel() -> None:
    x, y = (oracles.points_at(5.0, 6, 8, seed=seed).float() for seed in (1, 2))
    expected = LF.pairwise_inner(x, y), LF.dist(x, y), LF.logmap(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        out = LF.pairwise_inner(x, y), LF.dist(x, y), LF.logmap(x, y)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_attention_follows_autocast_and_keeps_times_in_float32() -> None:
    x, y = (oracles.points_at(5.0, 6, 8, seed=seed).float() for seed in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        out = LF.attention(x, y, x)
    narrow = [each.bfloat16().float() for each in (x, y, x)]
    assert torch.equal(out, LF.attention(*narrow).bfloat16())


def test_linear_follows_autocast_and_keeps_the_time_in_float32() -> None:
    x = oracles.points_at(3.0, 6, 8, seed=1).float()
    weight, time_weight = torch.zeros(2, 8), torch.ones(2)
    with torch.autocast("cpu", torch.bfloat16):
        out = LF.linear(x, weight, time_weight)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out[:, 0], LF.time(x).bfloat16())


def test_functions_are_pure() -> None:
    for operation in OPERATIONS:
        inputs = [value[0] for value in operands(operation, torch.float32)]
        before = copy.deepcopy(inputs)
        operation(*inputs, 0.7)
        assert all(torch.equal(value, old) for value, old in zip(inputs, before, strict=True)), operation
