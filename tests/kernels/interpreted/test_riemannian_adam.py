"""The kernel of Riemannian Adam against its specification in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorentz_kernels.riemannian_adam import adam_step, adam_step_
from tests.kernels.adam_problem import STEP, Problem, problem
from tests.kernels.compare import assert_close, strided

LIMIT = 2e-6
SHAPES = [(1, 1), (5, 3), (17, 16), (33, 100), (2, 3, 33), (7,), (3, 1025)]


def check(state: Problem, truth: Problem, limit: float = LIMIT, step: float = STEP, **options: Any) -> None:
    """Compare one step of the kernel from `state` with one of the specification from `truth`."""
    x, grad, w, v, v_max = state
    adam_step_(x, grad, w, v, step, v_max=v_max, backend="triton", **options)
    wanted = adam_step(*truth[:4], STEP, v_max=truth.v_max, **{"c": 1.0, **{k: scalar(o) for k, o in options.items()}})
    for name, expected, actual in zip(("x", "w", "v", "v_max"), wanted, (x, w, v, v_max), strict=True):
        assert_close(name, expected, actual, limit)


def scalar(option: Any) -> Any:
    return option.double() if isinstance(option, torch.Tensor) else option


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_one_pass_is_the_step_of_the_specification(shape: tuple[int, ...], c: float) -> None:
    truth = problem(*shape, c=c)
    check(truth.to(torch.float32), truth, lr=0.1, c=c, betas=(0.8, 0.95))


def test_layouts_and_numbers_on_the_device_are_no_different() -> None:
    truth = problem(6, 9)
    state = Problem(*(strided(tensor.float()) for tensor in truth))
    check(state, truth, step=torch.tensor(float(STEP)), lr=torch.tensor(0.1), c=torch.tensor([2.0]))


@pytest.mark.parametrize("radius", [1e-3, 3.0, 1e2])
def test_points_near_and_far_move_alike(radius: float) -> None:
    truth = problem(9, 5, radius=radius)
    check(truth.to(torch.float32), truth, limit=1e-5)


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 5)], ids=["rows", "groups"])
def test_only_the_rows_that_are_named_move(shape: tuple[int, ...]) -> None:
    truth, rows = problem(*shape), (torch.tensor([3, 0, 2]),)
    before = truth.to(torch.float32)
    x, grad, w, v, _ = before.clone()
    adam_step_(x, grad[rows], w, v, STEP, lr=0.1, rows=rows, backend="triton")
    part = Problem(*(tensor[rows] for tensor in truth))
    moved = adam_step(*part[:4], STEP, lr=0.1)
    rest = [row for row in range(shape[0]) if row not in rows[0].tolist()]
    for name, old, new, wanted in zip(("x", "w", "v"), (before.x, before.w, before.v), (x, w, v), moved, strict=True):
        assert torch.equal(new[rest], old[rest])
        assert_close(name, wanted, new[rows], LIMIT)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("size", [1e6, 1e12, 1e18, 1e30, float("nan")])
def test_long_gradients_are_cut_as_in_the_specification(size: float) -> None:
    """In float32, whose longest vector is another than that of float64."""
    state = problem(9, 5).to(torch.float32)
    state = state._replace(grad=size * state.grad)
    x, grad, w, v, _ = state.clone()
    adam_step_(x, grad, w, v, STEP, lr=0.1, backend="triton")
    for actual, expected in zip((x, w, v), adam_step(*state[:4], STEP, lr=0.1), strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=1e-6, equal_nan=True)


def test_a_step_past_the_longest_time_ends_on_it() -> None:
    state = problem(4, 3).to(torch.float32)
    x, grad, w, v, _ = state.clone()
    adam_step_(x, grad, w, v, STEP, lr=1e4, backend="triton")
    expected = adam_step(*state[:4], STEP, lr=1e4)
    assert x.norm(dim=1).min() > 1e8
    for actual, wanted in zip((x, w, v), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=0)


def test_a_step_of_nothing_stays_exactly() -> None:
    x = torch.randn(5, 4)
    moved, zero = x.clone(), torch.zeros(5, 4)
    adam_step_(moved, zero, zero.clone(), torch.zeros(5, 1), 1, backend="triton")
    assert torch.equal(moved, x)
