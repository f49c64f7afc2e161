"""`Linear`: the paper's Eq. 2, its isometries, and agreement with `torch.nn.Linear`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.nn.linear import activated
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(c: float, out_manifold: Lorentz | None = None) -> lnn.Linear:
    """A layer whose parameters are all away from zero."""
    layer = lnn.Linear(4, 3, manifold=Lorentz(c), out_manifold=out_manifold, dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate((layer.weight, layer.bias, layer.time_weight)):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    return layer


@curvatures
def test_linear_is_equation_2_on_ambient_coordinates(c: float) -> None:
    layer, x = trained(c), normal(7, 4, seed=9)
    matrix = torch.cat([layer.time_weight[:, None], layer.weight], dim=1)
    expected = oracles.ambient_linear(oracles.ambient(x, c), matrix, layer.bias, c)
    torch.testing.assert_close(LF.to_ambient(layer(x), c), expected)
    torch.testing.assert_close(oracles.ambient_inner(expected, expected), torch.full((7,), -1 / c).double())


@curvatures
def test_linear_contains_every_boost_followed_by_a_rotation(c: float) -> None:
    x, y = normal(7, 4), normal(7, 4, seed=1)
    u = 0.8 * torch.nn.functional.normalize(normal(4, seed=2), dim=0)
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    gamma = (1 - u @ u).rsqrt()
    layer = lnn.Linear(4, 4, bias=False, manifold=Lorentz(c), dtype=torch.float64)
    with torch.no_grad():
        eye = torch.eye(4, dtype=torch.float64)
        layer.weight.copy_(rotation @ (eye + gamma**2 / (1 + gamma) * torch.outer(u, u)))
        layer.time_weight.copy_(-gamma * rotation @ u)
    torch.testing.assert_close(layer(x), LF.rotate(LF.boost(x, u, c), rotation))
    torch.testing.assert_close(LF.dist(layer(x), layer(y), c), LF.dist(x, y, c))
    ambient = [LF.to_ambient(point, c) for point in (layer(x), layer(y))]
    expected = oracles.ambient_inner(oracles.ambient(x, c), oracles.ambient(y, c))
    torch.testing.assert_close(oracles.ambient_inner(*ambient), expected)


def test_a_fresh_layer_is_its_twin_drawn_from_the_same_numbers() -> None:
    torch.manual_seed(0)
    layer = lnn.Linear(4, 3)
    torch.manual_seed(0)
    twin = nn.Linear(4, 3)
    x = normal(2, 5, 4).float()
    assert not layer.time_weight.any()
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("prefix", ["", "inner."])
def test_loading_a_euclidean_checkpoint_makes_a_trained_layer_euclidean(prefix: str) -> None:
    layer, twin = trained(1.0), nn.Linear(4, 3).double()
    module = nn.ModuleDict({"inner": layer}) if prefix else layer
    module.load_state_dict({prefix + name: value for name, value in twin.state_dict().items()}, strict=True)
    x = normal(5, 4)
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)


def test_a_euclidean_checkpoint_can_be_assigned_to_a_layer_on_meta() -> None:
    layer, twin = lnn.Linear(4, 3, device="meta"), nn.Linear(4, 3).double()
    layer.load_state_dict(twin.state_dict(), assign=True)
    x = normal(5, 4)
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)


def test_a_lorentz_checkpoint_restores_the_time_weight() -> None:
    layer, other = trained(1.0), lnn.Linear(4, 3, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.time_weight, layer.time_weight)


@pytest.mark.parametrize("learnable", [False, True])
def test_out_manifold_carries_the_result_to_its_curvature(learnable: bool) -> None:
    c_in, c_out = 0.5, 2.0
    plain, layer = trained(c_in), trained(c_in, Lorentz(c_out, learnable).double())
    x, y = normal(7, 4), normal(7, 4, seed=1)
    expected = LF.dist(plain(x), plain(y), c_in) * (c_in / c_out) ** 0.5
    torch.testing.assert_close(LF.dist(layer(x), layer(y), c_out), expected, rtol=1e-6, atol=0)
    assert layer.half()(x.half()).dtype == torch.float16
    assert "out_manifold=Lorentz(c=2" in repr(layer)


def test_a_learnable_manifold_shared_by_layers_is_one_parameter_that_learns() -> None:
    manifold = Lorentz(learnable=True)
    model = nn.Sequential(lnn.Linear(4, 4, manifold=manifold), lnn.ReLU(manifold=manifold), trained(1.0).float())
    model[2].manifold = manifold
    with torch.no_grad():
        model[0].time_weight.fill_(0.3)
    assert sum("log_c" in name for name, _ in model.named_parameters()) == 1
    model(normal(5, 4).float()).sum().backward()
    assert manifold.log_c.grad is not None
    assert manifold.log_c.grad.any()


def test_ambient_points_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"expected space coordinates \(..., 4\), got \(..., 5\): .*from_ambient"):
        lnn.Linear(4, 3)(LF.to_ambient(normal(2, 4)).float())


@pytest.mark.parametrize(
    "function", [nn.functional.relu, nn.functional.gelu, nn.functional.silu, torch.tanh, torch.sin]
)
def test_a_layer_and_its_activation_together_are_one_after_the_other(function: Callable[[Tensor], Tensor]) -> None:
    x = normal(5, 4, seed=3)
    for layer in (trained(0.5), trained(0.5, Lorentz(2.0)), nn.Linear(4, 3, dtype=torch.float64)):
        torch.testing.assert_close(activated(layer, function, x), function(layer(x)))


def test_whoever_listens_to_a_layer_hears_what_it_gave_before_the_activation() -> None:
    layer, x, heard = trained(1.0), normal(5, 4), list[Tensor]()
    expected = layer(x)
    layer.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    out = activated(layer, nn.functional.relu, x)
    torch.testing.assert_close(heard, [expected])
    torch.testing.assert_close(out, expected.relu())
