"""`HyperplaneLinear`: signed distances to hyperplanes, measured with mirror images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(c: float) -> lnn.HyperplaneLinear:
    layer = lnn.HyperplaneLinear(4, 3, manifold=Lorentz(c), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(normal(3, 4))
        layer.bias.copy_(0.4 * normal(3, seed=1))
    return layer


def signed_distance(p: Tensor, normal: Tensor, c: float) -> Tensor:
    """Half the distance between p and its mirror image in the hyperplane <., normal> = 0, ambient, with the side."""
    side = oracles.ambient_inner(p, normal)
    image = p - 2 * (side / oracles.ambient_inner(normal, normal))[:, None] * normal
    return side.sign() * LF.dist(p[:, 1:], image[:, 1:], c) / 2


@curvatures
def test_outputs_have_the_weighted_signed_distances_to_the_hyperplanes(c: float) -> None:
    layer, x = trained(c), normal(7, 4, seed=9)
    y = oracles.ambient(layer(x), c)
    for k in range(3):
        length = layer.weight[k].norm()
        direction, shift = layer.weight[k] / length, c**0.5 * layer.bias[k]
        plane = torch.cat([-shift.sinh()[None], shift.cosh() * direction])  # <X, plane> = cosh n.x + sinh x0
        axis = torch.eye(4, dtype=torch.float64)[k + 1]
        torch.testing.assert_close(
            signed_distance(y, axis, c), length * signed_distance(oracles.ambient(x, c), plane, c)
        )


@curvatures
def test_the_bias_is_the_signed_distance_of_the_origin(c: float) -> None:
    layer = trained(c)
    origin = torch.zeros(1, 4, dtype=torch.float64)
    got = (c**0.5 * layer(origin)).asinh() / c**0.5
    torch.testing.assert_close(got[0], layer.weight.norm(dim=1) * layer.bias)


def test_near_the_origin_it_is_linear() -> None:
    layer, x = trained(1.0), 1e-6 * normal(5, 4)
    with torch.no_grad():
        layer.bias.zero_()
    torch.testing.assert_close(layer(x), x @ layer.weight.T, rtol=1e-9, atol=1e-17)


def test_radii_grow_linearly_with_the_weight_where_those_of_linear_grow_with_its_logarithm() -> None:
    x = normal(1, 4)
    hyperplane, linear = (kind(4, 1, bias=False, dtype=torch.float64) for kind in (lnn.HyperplaneLinear, lnn.Linear))
    with torch.no_grad():
        linear.weight.copy_(hyperplane.weight)
    radii = {}
    for factor in (1.0, 10.0, 20.0):
        for layer in (hyperplane, linear):
            scaled = {"weight": factor * layer.weight}
            radii[layer, factor] = LF.dist0(torch.func.functional_call(layer, scaled, (x,))).item()
    assert radii[hyperplane, 20.0] == pytest.approx(20 * radii[hyperplane, 1.0])
    assert radii[linear, 20.0] - radii[linear, 10.0] < 0.7  # log 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_outputs_stop_at_the_edge_of_the_range(dtype: torch.dtype, c: float) -> None:
    layer = lnn.HyperplaneLinear(4, 300, manifold=Lorentz(c), dtype=dtype)
    with torch.no_grad():
        layer.weight.fill_(1e3)
    out = layer(torch.ones(2, 4, dtype=dtype))
    assert out.isfinite().all()
    assert LF.time(out, c).isfinite().all()
    assert LF.dist0(out, c).isfinite().all()


def test_a_zero_row_gives_zero_with_finite_gradients() -> None:
    layer, x = trained(1.0), normal(5, 4).requires_grad_()
    with torch.no_grad():
        layer.weight[1] = 0
    out = layer(x)
    assert not out[:, 1].any()
    for grad in torch.autograd.grad(out.sum(), (x, *layer.parameters())):
        assert grad.isfinite().all()


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_a_hyperplane_out_of_reach_gives_finite_outputs_and_gradients(c: float) -> None:
    layer, x = lnn.HyperplaneLinear(4, 2, manifold=Lorentz(c)), normal(5, 4).float().requires_grad_()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1e4, -1e4]))
    out = layer(x)
    assert (out.sign() == torch.tensor([1, -1])).all()
    for value in (out, *torch.autograd.grad(out.log1p().nansum(), (x, *layer.parameters()))):
        assert value.isfinite().all()
