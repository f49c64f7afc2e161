"""`multihead` on a CPU: its specification in float64 in value and gradients of any order, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lorentz_kernels.linear.naive import linear
from lorentz_kernels.multihead import Heads, Map, multihead, naive, plan
from tests.kernels.compare import assert_close
from tests.kernels.multihead_cases import CASES, Case, gradients, problem


@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_and_gradients_are_those_of_the_specification(case: Case) -> None:
    p = problem(case)
    truth = gradients(p, naive.multihead, torch.float64)
    for name, found in gradients(p).items():
        assert_close(name, truth[name], found, 1e-5)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[6]], ids=str)
def test_what_wants_no_gradient_gets_none_and_changes_no_other(case: Case) -> None:
    p = problem(case)
    every = gradients(p)
    names = [name for name in every if name != "y"]
    for chosen in names:
        present = [x for x in p.tensors if x is not None]
        leaves = {name: x.detach().clone() for name, x in zip(names, present, strict=True)}
        leaves[chosen].requires_grad_()
        given = iter(leaves.values())
        y = p.call(multihead, [None if x is None else next(given) for x in p.tensors])
        torch.testing.assert_close(torch.autograd.grad(y, leaves[chosen], p.grad)[0], every[chosen])


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3]], ids=str)
def test_second_derivatives_are_those_of_the_specification(case: Case) -> None:
    p = problem(case)

    def penalty(function: Any, dtype: torch.dtype) -> list[Tensor]:
        leaves = [None if x is None else x.to(dtype).requires_grad_() for x in p.tensors]
        given = [leaf for leaf in leaves if leaf is not None]
        first = torch.autograd.grad(p.call(function, leaves), given, p.grad.to(dtype), create_graph=True)
        return list(
            torch.autograd.grad(sum(x.square().sum() for x in first), given, allow_unused=True, materialize_grads=True)
        )

    truth, found = penalty(naive.multihead, torch.float64), penalty(multihead, torch.float32)
    for number, (expected, actual) in enumerate(zip(truth, found, strict=True)):
        assert_close(str(number), expected, actual, 1e-4)


def test_autocast_gives_what_16_bits_give() -> None:
    p = problem(CASES[2], torch.bfloat16)
    exact = gradients(p)
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(p, dtype=torch.float32)
    for name, found in cast.items():
        assert_close(name, exact[name].float(), found.float(), 1e-2)
        assert found.dtype == (torch.bfloat16 if name == "y" else torch.float32)


def test_a_layout_of_the_inputs_is_as_good_as_another() -> None:
    p = problem(CASES[4])
    leaves = [None if x is None else x.mT.contiguous().mT if x.dim() > 1 else x for x in p.tensors]
    torch.testing.assert_close(p.call(multihead, leaves), p.call(multihead, p.tensors))


def test_it_leaves_alone_what_it_does_not_know() -> None:
    query, memory, *maps, _, _ = problem(CASES[4]).tensors
    into, out, heads = Map(*maps[:3]), Map(*maps[3:]), CASES[4].heads  # type: ignore[arg-type]
    assert query is not None

    def known(x: Tensor = query, keys: Tensor | None = memory, mask: Tensor | None = None, c: Any = 1.0) -> bool:
        return plan(x, keys, into, out, heads, mask, c) is not None

    assert known()
    assert not known(query.double())
    assert not known(query.bfloat16())  # weights of another dtype
    assert not known(query[:, :0])
    assert not known(keys=memory[:1])  # for all queries
    assert not known(mask=torch.zeros(5, 3, requires_grad=True))
    assert not known(c=torch.ones(5, 1))  # a curvature for each row
    assert not torch.func.vmap(lambda x: torch.tensor(known(x[None])))(query).any()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert not known()


def test_tensors_without_values_have_shapes() -> None:
    p = problem(CASES[0])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [None if x is None else mode.from_tensor(x) for x in p.tensors]
        assert p.call(multihead, fake).shape == p.grad.shape


def test_a_mask_that_does_not_fit_is_refused() -> None:
    p = problem(CASES[0])
    with pytest.raises(ValueError, match=r"expected attn_mask to broadcast to \(2, 2, 5, 5\), got \(4, 5\)"):
        p.__class__(p.tensors, torch.ones(4, 5, dtype=torch.bool), p.grad, p.case).call(multihead, p.tensors)


def test_the_specification_is_linear_maps_around_a_mean_of_points() -> None:
    """One head, one key: the mean is the value."""
    p = problem(Case(Heads(1, 1), keys=1), torch.float64)
    _, memory, *maps, _, _ = p.tensors
    value = linear(memory, maps[0][8:], maps[1][8:], maps[2][8:], 0.5)  # type: ignore[index, arg-type]
    expected = linear(value, *maps[3:], 0.5).expand(2, 5, 6)  # type: ignore[arg-type, call-arg]
    torch.testing.assert_close(p.call(naive.multihead, p.tensors), expected)
