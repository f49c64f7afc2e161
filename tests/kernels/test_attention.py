"""`attention` where no kernel runs: the specification, its derivatives in every mode, and what any attention keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import attention, naive, operators
from lorentz_kernels.attention.op import _Attention
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "last": {"is_causal": True, "diagonal": 2},  # the last query sees the last key
    "groups": {"enable_gqa": True},
    "keys": {"attn_mask": torch.tensor([True, False, True, True, False])},
    "bool": {"attn_mask": torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=torch.bool)},
    "added": {"attn_mask": torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5), "is_causal": True},
}
modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def operands(mode: dict[str, Any] | None = None, m: int = 4, grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = 1 if mode and mode.get("enable_gqa") else 2
    shapes = (1, 2, 3, 3), (1, heads, 5, 3), (1, heads, 5, m)
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=grad) for s in shapes]


def written_down(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, c: Tensor, centred: bool, **mode: Any) -> Tensor:
    """Attention through the operators, whose gradients are equations of their own."""
    mask = mode.get("attn_mask")
    mask = mask if mask is None else mask[(None,) * (4 - mask.dim())]
    causal, diagonal = mode.get("is_causal", False), mode.get("diagonal", 0)
    out: Tensor = _Attention.apply(operators, q, k, v, mask, scale[..., 0], c, 2.0, 1.0, causal, diagonal, centred)
    return out


@curvatures
@pytest.mark.parametrize("m", [3, 6])
def test_the_specification_is_the_equation_of_the_paper(m: int, c: float) -> None:
    q, k, v = operands(m=m, grad=False)
    bias = torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5)
    ambient = (oracles.ambient(x, c) for x in (q, k, v))
    expected = oracles.ambient_attention(*ambient, bias, 0.3, c)[..., 1:]
    torch.testing.assert_close(attention(q, k, v, bias, scale=0.3, c=c), expected)


@curvatures
@modes
def test_every_derivative_in_float64(mode: dict[str, Any], c: float) -> None:
    q, k, v = operands(mode)
    scale = torch.tensor([[[0.4]], [[0.9]]], dtype=torch.float64, requires_grad=True)  # a factor for each head
    curvature = torch.tensor([c], dtype=torch.float64, requires_grad=True)

    def function(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, c: Tensor) -> Tensor:
        return attention(q, k, v, scale=scale, c=c, **mode)

    assert torch.autograd.gradcheck(function, (q, k, v, scale, curvature))
    assert torch.autograd.gradgradcheck(function, (q, k, v, scale, curvature))


@curvatures
@pytest.mark.parametrize("centred", [True, False], ids=["centred", "origin"])
@modes
def test_the_gradients_that_are_written_down_are_those_of_the_specification(
    mode: dict[str, Any], centred: bool, c: float
) -> None:
    q, k, v = operands(mode)
    scale = torch.tensor([[[[0.4]], [[0.9]]]], dtype=torch.float64, requires_grad=True)
    inputs = q, k, v, scale, torch.tensor([c], dtype=torch.float64, requires_grad=True)
    expected = naive.attention(q, k, v, scale=scale, c=inputs[-1], **mode)
    found = written_down(*inputs, centred=centred, **mode)
    torch.testing.assert_close(found, expected)
    weight = torch.linspace(-1, 2, expected.numel(), dtype=torch.float64).view_as(expected)
    gradients = [torch.autograd.grad((x * weight).sum(), inputs) for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_second_derivatives_of_the_operator_hold_where_its_inputs_are_one_tensor() -> None:
    x = operands(grad=True)[0][0]

    def function(x: Tensor) -> Tensor:
        out: Tensor = _Attention.apply(operators, x[None], x[None], x[None], None, None, None, 0.8, 2.0, False, 0, True)
        return out

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_equal_scores_give_the_centroid_of_all_values() -> None:
    q, k, v = operands(grad=False)
    expected = [oracles.centroid(oracles.rows(values), [1.0] * 5, 2.0) for head in v.unbind(1) for values in head]
    out = attention(q, k, v, scale=1e-12, c=2.0)
    for head, point in zip(out[0], expected, strict=True):
        torch.testing.assert_close(head, torch.tensor([[float(x) for x in point]], dtype=head.dtype).expand_as(head))


@curvatures
def test_equal_values_are_returned(c: float) -> None:
    q, k, v = operands(grad=False)
    v = v[:, :, :1].expand_as(v)
    torch.testing.assert_close(attention(q, k, v, c=c), v[:, :, :3])


@curvatures
def test_isometries_commute_with_attention(c: float) -> None:
    q, k, v = operands(m=3, grad=False)
    velocity = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64)

    def boost(x: Tensor) -> Tensor:
        rows = [oracles.boost(row, oracles.row(velocity), c) for row in oracles.rows(x.flatten(0, -2))]
        return torch.tensor([[float(value) for value in row] for row in rows], dtype=x.dtype).view_as(x)

    torch.testing.assert_close(attention(*map(boost, (q, k, v)), c=c), boost(attention(q, k, v, c=c)))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    torch.testing.assert_close(attention(q @ turn, k @ turn, v @ turn, c=c), attention(q, k, v, c=c) @ turn)


def test_the_order_of_the_keys_does_not_matter() -> None:
    q, k, v = operands(grad=False)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(attention(q, k[:, :, order], v[:, :, order]), attention(q, k, v))


def test_a_number_added_to_all_scores_of_a_query_moves_nothing() -> None:
    q, k, v = operands(grad=False)
    mask = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    out = attention(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask + torch.tensor([[7.0], [-3.0], [0.0]])), out)
    (gradient,) = torch.autograd.grad(out.square().sum(), mask)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(3, dtype=torch.float64))


def test_leading_dimensions_broadcast_and_groups_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    calls: list[tuple[Callable[..., Tensor], dict[str, Any], list[Tensor]]] = [
        (attention, {}, [normal(3, 4), normal(5, 4), normal(5, 2)]),
        (attention, {}, [normal(2, 3, 4), normal(5, 4), normal(2, 5, 2)]),
        (attention, {"enable_gqa": True}, [normal(2, 1, 4, 3, 4), normal(7, 2, 5, 4), normal(2, 7, 2, 5, 2)]),
        (attention, {"attn_mask": normal(7, 1, 3, 5)}, [normal(2, 1, 4, 3, 4), normal(7, 4, 5, 4), normal(7, 4, 5, 2)]),
        (attention, {"scale": normal(4, 1, 1).exp()}, [normal(2, 7, 4, 3, 4), normal(4, 5, 4), normal(4, 5, 2)]),
    ]
    expected = [function(*tensors, **options) for function, options, tensors in calls]
    monkeypatch.setattr("lorentz_kernels.attention.op.choose", lambda *_, **__: "triton")
    for (function, options, tensors), wanted in zip(calls, expected, strict=True):
        given = {name: x.float() for name, x in options.items() if isinstance(x, Tensor)}
        torch.testing.assert_close(
            function(*(x.float() for x in tensors), **(options | given)), wanted.float(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((3, 4), (5, 5), (5, 5)), {}, r"got \(..., 4\) and \(..., 5\): did you pass ambient points"),
        (((3, 4), (5, 4), (6, 4)), {}, "as many values as keys, got 6 and 5"),
        (((3, 3, 4), (2, 5, 4), (2, 5, 4)), {"enable_gqa": True}, "H a multiple of H_kv"),
        (((3, 4), (5, 4), (5, 4)), {"scale": torch.ones(3)}, r"broadcasts to \(..., L, 1\), got \(3,\)"),
        (((3, 4), (5, 4), (5, 4)), {"backend": "cuda"}, "expected backend=triton or backend=torch"),
    ],
)
def test_what_does_not_fit_is_named(shapes: tuple[tuple[int, ...], ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*map(torch.zeros, shapes), **options)
