"""Norms, activations, dropout: torch's on the space part, so that every output is a point."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

NAMES = ["LayerNorm", "RMSNorm", "BatchNorm1d", "BatchNorm2d", "ReLU", "GELU", "SiLU", "Tanh", "Dropout"]
batch_norms = pytest.mark.parametrize(("name", "shape"), [("BatchNorm1d", (8, 4)), ("BatchNorm2d", (8, 4, 3, 2))])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """The layer, its twin with the same weights, and an input."""
    arguments = (4,) if "Norm" in name else ()
    layer, twin = (getattr(module, name)(*arguments).double() for module in (lnn, nn))
    with torch.no_grad():
        for seed, parameter in enumerate(twin.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    layer.load_state_dict(twin.state_dict())
    return layer, twin, normal(8, 4, 3, 2, seed=5) if name == "BatchNorm2d" else normal(8, 4, seed=5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_the_space_part_is_that_of_the_twin_with_the_same_gradients(name: str, training: bool) -> None:
    layer, twin, x = pair(name)
    results = []
    for module in (layer.train(training), twin.train(training)):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        out = module(leaf)
        results.append((out, *torch.autograd.grad(out.square().sum(), (leaf, *module.parameters()))))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_are_instances_of_their_twins(name: str) -> None:
    assert issubclass(getattr(lnn, name), getattr(nn, name))


@batch_norms
def test_running_statistics_serve_a_batch_of_one(name: str, shape: tuple[int, ...]) -> None:
    layer, x = getattr(lnn, name)(4, momentum=None).double(), 3 * normal(*shape) + 2
    layer(x)
    layer.eval()
    one = layer(x[:1])
    torch.testing.assert_close(one, layer(x)[:1])
    dims = [0, *range(2, x.dim())]
    mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True)
    torch.testing.assert_close(one, (x[:1] - mean) / (var + 1e-5).sqrt())


@batch_norms
def test_batch_norm_can_do_without_bias_or_statistics(name: str, shape: tuple[int, ...]) -> None:
    layer = getattr(lnn, name)(4, affine=False, track_running_stats=False).double()
    assert not layer.state_dict()
    torch.testing.assert_close(layer(normal(*shape)).mean(0).sum(), torch.tensor(0.0).double(), atol=1e-9, rtol=0)


def test_rms_norm_without_weight_puts_every_point_at_one_radius() -> None:
    x = normal(9, 4) * torch.logspace(-2, 2, 9, dtype=torch.float64)[:, None]
    out = lnn.RMSNorm(4, eps=0.0, elementwise_affine=False)(x)
    torch.testing.assert_close(LF.dist0(out), torch.full((9,), 2.0).asinh().double())


def test_dropout_drops_space_coordinates_and_the_time_follows() -> None:
    torch.manual_seed(0)
    x = normal(1000, 4)
    out = lnn.Dropout(0.25)(x)
    kept = out != 0
    torch.testing.assert_close(out[kept], x[kept] / 0.75)
    assert abs(kept.double().mean() - 0.75) < 0.03
    ambient = LF.to_ambient(out)
    torch.testing.assert_close(oracles.ambient_inner(ambient, ambient), torch.full((1000,), -1.0).double())
    assert torch.equal(lnn.Dropout(0.25).eval()(x), x)


@pytest.mark.parametrize("name", NAMES)
def test_the_space_part_does_not_depend_on_the_curvature(name: str) -> None:
    layer, _, x = pair(name)
    other = getattr(lnn, name)(*((4,) if "Norm" in name else ()), manifold=Lorentz(4.0)).double().eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer.eval()(x))
