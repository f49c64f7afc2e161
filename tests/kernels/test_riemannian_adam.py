"""`adam_step_`: the step of the specification in place, whatever the shape, the rows and the kind of numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.riemannian_adam import adam_step, adam_step_, in_place
from tests.kernels.adam_problem import STEP, Problem, problem
from tests.kernels.compare import strided

SHAPES = [(1, 1), (5, 3), (33, 100), (2, 3, 4), (7,), (0, 3), (3, 0), (300, 700)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def expected(state: Problem, amsgrad: bool = False, step: float = STEP, **options: Any) -> tuple[Tensor, ...]:
    x, grad, w, v, v_max = state
    return adam_step(x, grad, w, v, step, v_max=v_max if amsgrad else None, **options)


def stepped(state: Problem, amsgrad: bool = False, step: float = STEP, **options: Any) -> tuple[Tensor, ...]:
    x, grad, w, v, v_max = state.clone()
    adam_step_(x, grad, w, v, step, v_max=v_max if amsgrad else None, **options)
    return (x, w, v, v_max) if amsgrad else (x, w, v)


@pytest.mark.parametrize("amsgrad", [False, True])
@shapes
def test_the_step_is_that_of_the_specification(shape: tuple[int, ...], amsgrad: bool) -> None:
    state = problem(*shape)
    options = {"lr": 0.1, "betas": (0.8, 0.95), "c": 2.0, "amsgrad": amsgrad}
    for got, wanted in zip(stepped(state, **options), expected(state, **options), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-14)


def test_blocks_of_rows_are_no_different(monkeypatch: pytest.MonkeyPatch) -> None:
    state = problem(11, 6)
    whole = stepped(state)
    monkeypatch.setattr(in_place, "BLOCK", 18)
    assert all(torch.equal(got, wanted) for got, wanted in zip(stepped(state), whole, strict=True))


@pytest.mark.parametrize("dense", [0, 1], ids=["rows", "groups"])
@pytest.mark.parametrize("indices", [1, 2])
def test_only_the_rows_that_are_named_move(indices: int, dense: int) -> None:
    state = problem(*(4, 5, 6)[: indices + dense], 3)
    rows = (torch.tensor([3, 0, 2]), torch.tensor([1, 4, 1]))[:indices]
    part = Problem(*(tensor[rows] for tensor in state))
    x, grad, w, v, v_max = state.clone()
    adam_step_(x, grad[rows], w, v, STEP, v_max=v_max, rows=rows)
    for got, before, wanted in zip((x, w, v, v_max), (state.x, *state[2:]), expected(part, True), strict=True):
        target = before.clone()
        target[rows] = wanted
        assert torch.equal(got, target)


@pytest.mark.parametrize("kind", ["step", "lr", "c"])
def test_numbers_may_be_tensors(kind: str) -> None:
    options: dict[str, Any] = {"step": float(STEP), "lr": 0.1, "c": 2.0}
    state = problem(5, 3)
    number = torch.tensor([options[kind]] if kind == "c" else options[kind], dtype=torch.float64)
    got = stepped(state, **{**options, kind: number})
    for value, wanted in zip(got, expected(state, **options), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (5,), (5, 4)])
def test_a_gradient_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    x, _, w, v, _ = problem(5, 3)
    with pytest.raises(ValueError, match=r"expected grad of shape \(5, 3\), got \("):
        adam_step_(x, torch.zeros(shape), w, v, STEP)


def test_the_step_compiles_whole_once_for_all_steps() -> None:
    torch.compiler.reset()
    compiled = torch.compile(adam_step_, fullgraph=True, backend="aot_eager")
    state = problem(6, 3)
    x, grad, w, v, _ = state.clone()
    truth = state
    for step, stance in ((STEP, "default"), (STEP + 1, "fail_on_recompile")):
        with torch.compiler.set_stance(stance):
            compiled(x, grad, w, v, torch.tensor(float(step)))
        moved = expected(truth, step=step)
        truth = truth._replace(x=moved[0], w=moved[1], v=moved[2])
    for got, wanted in zip((x, w, v), (truth.x, truth.w, truth.v), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_operator_keeps_its_contract_with_torch(amsgrad: bool, sparse: bool) -> None:
    x, grad, w, v, v_max = problem(5, 3).to(torch.float32)
    rows = torch.tensor([4, 1]) if sparse else None
    settings = torch.tensor([0.1, 0.5, 2.0]) if amsgrad else None
    arguments = (x, grad[:2] if sparse else grad, w, v, v_max if amsgrad else None, rows, settings, 0.1, 0.5, 2.0)
    torch.library.opcheck(torch.ops.lorentz_kernels.riemannian_adam_.default, (*arguments, [0.9, 0.999], 1e-8))


def test_memory_layout_does_not_matter() -> None:
    state = problem(6, 4)
    x, grad, w, v, _ = (strided(tensor) for tensor in state)
    adam_step_(x, grad, w, v, STEP)
    for got, wanted in zip((x, w, v), expected(state), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-14)
