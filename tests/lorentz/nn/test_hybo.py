"""`NormalizedLinear` and `HyboLinear` against the paper's equations, written in ambient coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
both = pytest.mark.parametrize("kind", [lnn.NormalizedLinear, lnn.HyboLinear])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(kind: type, c: float = 1.0, **keywords: object) -> torch.nn.Module:
    layer = kind(4, 3, manifold=Lorentz(c), dtype=torch.float64, **keywords)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    return layer


def ambient_rows(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """The matrix W (out, n + 1) and the vector v (n + 1) of the paper, time first."""
    matrix = torch.cat([layer.time_weight[:, None], layer.weight], dim=1)
    return matrix, torch.cat([layer.gate_time_weight, layer.gate_weight[0]])


@curvatures
@pytest.mark.parametrize("activation", [None, torch.tanh])
def test_normalized_linear_is_equation_3(c: float, activation: object) -> None:
    layer, x = trained(lnn.NormalizedLinear, c, activation=activation), normal(7, 4, seed=11)
    (matrix, v), p = ambient_rows(layer), oracles.ambient(x, c)
    direction = (p if activation is None else torch.tanh(p)) @ matrix.T + layer.bias
    gate = layer.log_scale.exp() / (1 + torch.exp(-(p @ v + layer.gate_bias)))
    space = gate[:, None] / direction.norm(dim=1, keepdim=True) * direction
    expected = torch.cat([(space.square().sum(1, keepdim=True) + 1 / c).sqrt(), space], dim=1)
    torch.testing.assert_close(LF.to_ambient(layer(x), c), expected)


@curvatures
@pytest.mark.parametrize("activation", [None, torch.tanh])
def test_hybo_linear_has_the_gated_time_and_the_direction_of_the_linear_map(c: float, activation: object) -> None:
    layer, x = trained(lnn.HyboLinear, c, activation=activation), normal(7, 4, seed=11)
    (matrix, v), p = ambient_rows(layer), oracles.ambient(x, c)
    p = p if activation is None else torch.tanh(p)
    space = p @ matrix.T + layer.bias
    time = layer.log_scale.exp() / (1 + torch.exp(-(p @ v + layer.gate_bias))) + 1 / c**0.5 + 0.1
    scale = ((time.square() - 1 / c) / space.square().sum(1)).sqrt()
    expected = torch.cat([time[:, None], scale[:, None] * space], dim=1)
    torch.testing.assert_close(LF.to_ambient(layer(x), c), expected)
    torch.testing.assert_close(oracles.ambient_inner(expected, expected), torch.full((7,), -1 / c).double())


@both
def test_the_scale_bounds_the_output(kind: type) -> None:
    layer = trained(kind, 1.0, scale=2.0, learnable_scale=False)
    out = layer(100 * normal(200, 4, seed=3))
    largest = LF.time(out).max() if kind is lnn.HyboLinear else out.norm(dim=-1).max()
    assert largest <= (3.1 if kind is lnn.HyboLinear else 2.0) + 1e-12
    assert largest > (3.0 if kind is lnn.HyboLinear else 1.9)


@both
def test_the_scale_is_learned_in_its_logarithm_or_constant(kind: type) -> None:
    learned, fixed = kind(4, 3, scale=5.0), kind(4, 3, scale=5.0, learnable_scale=False)
    torch.testing.assert_close(learned.log_scale.detach(), torch.tensor([math.log(5.0)]))
    torch.testing.assert_close(learned.scale.detach(), torch.tensor([5.0]))
    assert fixed.scale == 5.0
    assert set(learned.state_dict()) - set(fixed.state_dict()) == {"log_scale"}
    with torch.no_grad():
        learned.log_scale.fill_(-20.0)
    assert learned.scale > 0
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected scale > 0"):
            kind(4, 3, scale=scale)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-25, 1e-10, 1e10])
def test_no_size_of_the_direction_gives_nan(kind: type, dtype: torch.dtype, size: float) -> None:
    layer = kind(4, 3, bias=False, dtype=dtype)
    x = (size * normal(5, 4)).to(dtype).requires_grad_()
    out = layer(x)
    assert out.isfinite().all()
    for grad in torch.autograd.grad(out.float().sum(), (x, *layer.parameters())):
        assert grad.isfinite().all()


@both
def test_a_zero_direction_gives_the_origin_and_can_be_left(kind: type) -> None:
    layer, x = kind(4, 3, bias=False), torch.zeros(2, 4)
    out = layer(x)
    assert not out.any()
    (grad,) = torch.autograd.grad(out.sum(), layer.time_weight)
    assert (grad > 0).all()


@both
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6, 1e15])
def test_the_direction_is_exact_at_every_length(kind: type, size: float) -> None:
    layer, x = kind(4, 3, bias=False), normal(5, 4).float()
    with torch.no_grad():
        layer.gate_weight.zero_()
    expected = torch.nn.functional.normalize(layer(x), dim=-1)
    with torch.no_grad():
        layer.weight.mul_(size)
    torch.testing.assert_close(torch.nn.functional.normalize(layer(x), dim=-1), expected, rtol=1e-6, atol=1e-6)


@both
def test_an_activation_that_is_a_module_is_part_of_the_layer(kind: type) -> None:
    layer = kind(4, 3, activation=torch.nn.PReLU())
    assert "activation.weight" in layer.state_dict()
    assert layer(normal(5, 4).float()).shape == (5, 3)
    assert "activation=tanh" in repr(kind(4, 3, activation=torch.tanh))


@both
def test_without_bias_there_is_none_in_direction_or_gate(kind: type) -> None:
    assert not [name for name in kind(4, 3, bias=False).state_dict() if "bias" in name]
