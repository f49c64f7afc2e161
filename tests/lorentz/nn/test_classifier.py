"""`MLR` by the hyperplanes it measures distances to, `CentroidClassifier` by the ambient formula."""

from __future__ import annotations

import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.nn.module import PointOwner
from lorentz.optim import RiemannianAdam, param_groups
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained_mlr(c: float) -> lnn.MLR:
    layer = lnn.MLR(4, 3, manifold=Lorentz(c), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(normal(3, 4))
        layer.bias.copy_(0.4 * normal(3, seed=1))
    return layer


def trained_centroids(c: float, bias: bool = True) -> lnn.CentroidClassifier:
    layer = lnn.CentroidClassifier(4, 3, bias, manifold=Lorentz(c), dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    return layer


def on_hyperplane(layer: lnn.MLR, k: int, z: Tensor, c: float) -> Tensor:
    """A point of hyperplane k, by n - 1 numbers: a point with n.x = 0 carried along n by the distance -b, ambient."""
    direction = layer.weight[k].detach() / layer.weight[k].detach().norm()
    basis = torch.linalg.svd(direction[None]).Vh[1:]
    flat = z @ basis  # orthogonal to n
    shift = c**0.5 * layer.bias[k].detach()
    return flat - shift.sinh() * LF.time(flat, c, keepdim=True) * direction


@curvatures
def test_the_decision_boundary_is_the_hyperplane_and_the_logit_changes_sign_across_it(c: float) -> None:
    layer = trained_mlr(c)
    for k in range(3):
        direction = layer.weight[k].detach() / layer.weight[k].detach().norm()
        x = on_hyperplane(layer, k, normal(6, 3, seed=5), c)
        torch.testing.assert_close(layer(x)[:, k], torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
        # Geodesics between points of the boundary stay in it: it is flat.
        middle = LF.geodesic(0.3, x[:3], x[3:], c)
        torch.testing.assert_close(layer(middle)[:, k], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (layer(x + 1e-3 * direction)[:, k] > 0).all()
        assert (layer(x - 1e-3 * direction)[:, k] < 0).all()


@curvatures
def test_logits_are_the_weighted_distances_to_the_nearest_points_of_the_hyperplanes(c: float) -> None:
    layer, x = trained_mlr(c), normal(3, 4, seed=9)
    logits = layer(x)
    for k in range(3):
        for i in range(3):

            def length(z: object, k: int = k, i: int = i) -> float:
                return LF.dist(x[i], on_hyperplane(layer, k, torch.as_tensor(z), c), c).item()

            nearest = scipy.optimize.minimize(length, [0.0] * 3, method="Nelder-Mead", options={"xatol": 1e-6}).fun
            assert logits[i, k].abs().item() == pytest.approx(nearest * layer.weight[k].norm().item(), rel=1e-6)


@curvatures
def test_the_outputs_of_hyperplane_linear_have_the_logits_as_signed_distances(c: float) -> None:
    layer, x = trained_mlr(c), normal(7, 4, seed=9)
    linear = lnn.HyperplaneLinear(4, 3, manifold=Lorentz(c), dtype=torch.float64)
    linear.load_state_dict(layer.state_dict())
    torch.testing.assert_close((c**0.5 * linear(x)).asinh() / c**0.5, layer(x))


@curvatures
def test_the_bias_is_the_signed_distance_of_the_origin(c: float) -> None:
    layer = trained_mlr(c)
    torch.testing.assert_close(layer(torch.zeros(4).double()), layer.weight.norm(dim=1) * layer.bias)


def test_near_the_origin_mlr_is_the_linear_layer_whose_checkpoint_it_loads() -> None:
    layer, twin, x = trained_mlr(1.0), nn.Linear(4, 3, bias=False).double(), 1e-6 * normal(5, 4)
    layer.load_state_dict({**twin.state_dict(), "bias": torch.zeros(3)}, strict=True)
    torch.testing.assert_close(layer(x), twin(x), rtol=1e-9, atol=1e-17)


def test_mlr_follows_autocast_as_linear_does() -> None:
    layer, x = lnn.MLR(4, 3), normal(5, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == nn.Linear(4, 3)(x).dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_logits_of_hyperplanes_out_of_reach_are_finite(dtype: torch.dtype, c: float) -> None:
    layer, x = lnn.MLR(4, 2, manifold=Lorentz(c), dtype=dtype), torch.ones(3, 4, dtype=dtype)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([6e4, -6e4]))
    logits = layer(x)
    assert logits.isfinite().all()
    assert (logits.sign() == torch.tensor([1, -1])).all()
    for grad in torch.autograd.grad(logits.sum(), list(layer.parameters())):
        assert grad.isfinite().all()


@curvatures
@pytest.mark.parametrize("bias", [True, False])
def test_centroid_logits_are_minus_the_squared_distances_to_the_class_points(c: float, bias: bool) -> None:
    layer, x = trained_centroids(c, bias), normal(2, 5, 4, seed=9)
    inner = oracles.ambient_inner(oracles.ambient(x, c).unsqueeze(-2), oracles.ambient(layer.weight, c))
    expected = 2 / c + 2 * inner + (layer.bias if bias else 0)
    assert layer(x).shape == (2, 5, 3)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[0, 0]), expected[0, 0])
    at_class_points = layer(layer.weight).diagonal()
    torch.testing.assert_close(at_class_points, layer.bias if bias else 0 * at_class_points, rtol=0, atol=1e-12)


@pytest.mark.parametrize("radius", [0.5, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_the_error_of_a_centroid_logit_is_that_of_a_product(radius: float, c: float) -> None:
    layer = lnn.CentroidClassifier(16, 20, manifold=Lorentz(c), bias=False)
    x = oracles.points_at(radius / c**0.5, 20, 16, seed=1, c=c)
    with torch.no_grad():
        layer.weight.copy_(oracles.neighbours_at(x, 0.5 / c**0.5, seed=2, c=c))
    x, p = x.float(), layer.weight.detach()
    logits = layer(x).detach()
    times = LF.time(x, c)[:, None] * LF.time(p, c)
    for i, a in enumerate(oracles.rows(x)):
        truth = [-oracles.sqdist(a, b, c) for b in oracles.rows(p)]
        error = torch.tensor([float(abs(got - want)) for got, want in zip(logits[i].tolist(), truth, strict=True)])
        assert (error / times[i]).max() < 8 * torch.finfo(torch.float32).eps


def test_centroid_logits_stay_in_float32_under_autocast() -> None:
    layer, x = lnn.CentroidClassifier(8, 3), oracles.points_at(5.0, 6, 8, seed=1)
    for points in (x.float(), x.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            logits = layer(points)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, layer(points.float()), rtol=0, atol=0)


def test_class_points_are_points_to_the_optimiser() -> None:
    manifold = Lorentz(2.0)
    layer = lnn.CentroidClassifier(4, 3, manifold=manifold)
    assert isinstance(layer, PointOwner)
    ((parameter, space),) = layer.points()
    assert parameter is layer.weight
    assert space is manifold
    groups = param_groups(nn.Sequential(lnn.Linear(4, 4), layer), lr=0.1)
    assert [group["params"] for group in groups if "manifold" in group] == [[layer.weight]]


def test_class_points_learn_to_tell_classes_apart() -> None:
    torch.manual_seed(0)
    target = torch.arange(60) % 3
    centres = oracles.points_at(2.0, 3, 4, seed=1)
    x = oracles.neighbours_at(centres[target], 0.3, seed=2).float()
    for layer in (lnn.CentroidClassifier(4, 3), lnn.MLR(4, 3)):
        optimiser = RiemannianAdam(param_groups(layer), lr=0.05)
        for _ in range(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(layer(x), target).backward()
            optimiser.step()
        assert (layer(x).argmax(-1) == target).all()


@curvatures
@pytest.mark.parametrize("std", [0.2, None])
def test_std_is_that_of_the_tangent_vectors_in_radii_of_curvature(c: float, std: float | None) -> None:
    torch.manual_seed(0)
    layer = lnn.CentroidClassifier(4, 5000, std=std, manifold=Lorentz(c), dtype=torch.float64)
    got, expected = (LF.logmap0(layer.weight.detach(), c) * c**0.5).std(), 0.5 if std is None else std
    assert abs(got - expected) < 4.5 * expected / (2 * 20_000) ** 0.5
    assert not layer.bias.any()


@pytest.mark.parametrize("kind", [lnn.MLR, lnn.CentroidClassifier])
def test_ambient_points_are_refused_with_a_hint(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"expected space coordinates \(..., 4\), got \(..., 5\): .*from_ambient"):
        kind(4, 3)(LF.to_ambient(normal(2, 4)).float())
