"""`lorentz.Lorentz`: a geoopt manifold whose points are space coordinates."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import geoopt
import pytest
import torch
from geoopt.manifolds.base import ScalingInfo
from geoopt.optim import RiemannianAdam, RiemannianSGD
from torch import Tensor

import lorentz.functional as LF
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@curvatures
@pytest.mark.parametrize("learnable", [False, True])
def test_methods_are_the_functions_at_its_curvature(c: float, learnable: bool) -> None:
    manifold = Lorentz(c, learnable)
    x, y, v = (normal(5, 3, seed=seed) for seed in range(3))
    there = {"rtol": 1e-6, "atol": 1e-6}  # a learnable c is float32
    for name, arguments in {
        "dist": (x, y),
        "sqdist": (x, y),
        "dist0": (x,),
        "norm": (x, v),
        "egrad2rgrad": (x, v),
        "expmap": (x, v),
        "logmap": (x, y),
        "expmap0": (v,),
        "logmap0": (x,),
        "transp": (x, y, v),
        "transp0": (y, v),
        "geodesic": (0.3, x, y),
        "centroid": (x,),
    }.items():
        expected = getattr(LF, name)(*arguments, c=c)
        torch.testing.assert_close(getattr(manifold, name)(*arguments), expected, **there)
    torch.testing.assert_close(manifold.retr(x, v), LF.expmap(x, v, c), **there)
    torch.testing.assert_close(manifold.dist2(x, y), LF.dist(x, y, c).square(), **there)
    torch.testing.assert_close(manifold.inner(x, v), LF.norm(x, v, c).square(), **there)
    torch.testing.assert_close(manifold.inner(x, v, y), manifold.inner(x, y, v), **there)
    assert manifold.dist(x, y, keepdim=True).shape == (5, 1)
    assert manifold.component_inner(x, v).shape == (5, 1)
    moved, carried = manifold.expmap_transp(x, y, v)
    torch.testing.assert_close(carried, LF.transp(x, moved, v, c), **there)


def test_every_tensor_is_a_point_and_a_tangent_vector() -> None:
    manifold, x, v = Lorentz(), 1e3 * normal(5, 3), normal(5, 3, seed=1)
    assert manifold.projx(x) is x
    assert manifold.proju(x, v) is v
    assert manifold.check_point_on_manifold(x)
    assert manifold.check_vector_on_tangent(x, v)
    x[2, 1] = float("inf")
    assert manifold.check_point_on_manifold(x, explain=True) == (False, "'x' has coordinates that are not finite")
    assert not manifold.check_vector_on_tangent(v, x)


@pytest.mark.parametrize("c", [0.0, -1.0, 1e-5, 1e5, float("nan"), float("inf")])
@pytest.mark.parametrize("learnable", [False, True])
def test_curvature_out_of_range_is_refused(c: float, learnable: bool) -> None:
    with pytest.raises(ValueError, match=r"expected c in \[0.0001, 10000\] for curvature -c, got"):
        Lorentz(c, learnable)


def test_fixed_curvature_is_a_number_and_adds_nothing_to_the_state() -> None:
    manifold = Lorentz(2.0)
    assert manifold.c == 2.0
    assert isinstance(manifold.c, float)
    assert not manifold.state_dict()
    assert not list(manifold.parameters())
    assert repr(manifold) == "Lorentz(c=2, learnable=False) manifold"


def test_learnable_curvature_is_one_positive_number_of_shape_1() -> None:
    manifold = Lorentz(2.0, learnable=True)
    assert list(manifold.state_dict()) == ["log_c"]
    assert manifold.log_c.shape == (1,)
    assert isinstance(manifold.c, Tensor)
    torch.testing.assert_close(manifold.c, torch.tensor([2.0]))
    assert repr(manifold) == "Lorentz(c=2, learnable=True) manifold"
    assert torch.autograd.gradcheck(lambda _: manifold.double().c, (manifold.double().log_c,))


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_learned_curvature_stays_in_range_and_can_come_back(direction: float) -> None:
    manifold = Lorentz(learnable=True)
    optimiser = torch.optim.SGD(manifold.parameters(), lr=1.0)

    def step(sign: float) -> None:
        optimiser.zero_grad()
        (sign * manifold.c.log()).sum().backward()
        optimiser.step()

    for _ in range(12):
        step(-direction)
        assert 0.99e-4 < manifold.c.item() < 1.01e4
    assert abs(manifold.log_c.item()) > 9.3  # past the end
    for _ in range(12):
        step(direction)
    torch.testing.assert_close(manifold.c.detach(), torch.ones(1))


def test_curvature_is_learned_from_distances() -> None:
    x, y = normal(40, 3, dtype=torch.float32), normal(40, 3, seed=1, dtype=torch.float32)
    target = LF.dist(x, y, 3.0)
    manifold = Lorentz(0.5, learnable=True)
    optimiser = torch.optim.Adam(manifold.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        (manifold.dist(x, y) - target).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(manifold.c.item(), 3.0, rtol=1e-3, atol=0)


@pytest.mark.parametrize("learnable", [False, True])
def test_parameters_survive_copies_and_files(learnable: bool, tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.manifold = Lorentz(2.0, learnable)
    module.points = geoopt.ManifoldParameter(normal(5, 3, dtype=torch.float32), manifold=module.manifold)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other.points, module.points)
        assert other.points is not module.points
        assert isinstance(other.points.manifold, Lorentz)
        assert other.points.manifold is other.manifold
        torch.testing.assert_close(
            other.manifold.dist0(other.points), module.manifold.dist0(module.points), rtol=0, atol=0
        )
    stream = io.BytesIO()
    torch.save({name: value.detach().clone() for name, value in module.state_dict().items()}, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    fresh = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(loaded)
    assert torch.equal(fresh.points, module.points)
    assert torch.equal(torch.as_tensor(fresh.manifold.c), torch.as_tensor(module.manifold.c))


def test_a_manifold_made_on_meta_comes_to_life() -> None:
    with torch.device("meta"):
        manifold = Lorentz(3.0, learnable=True)
    assert repr(manifold) == "Lorentz(c=3, learnable=True) manifold"
    manifold.to_empty(device="cpu").reset_parameters()
    torch.testing.assert_close(manifold.c, torch.tensor([3.0]))


@pytest.mark.parametrize("learnable", [False, True])
def test_manifold_methods_trace_whole(learnable: bool) -> None:
    torch.compiler.reset()
    manifold = Lorentz(2.0, learnable)
    x, y = normal(5, 3, dtype=torch.float32), normal(5, 3, seed=1, dtype=torch.float32)

    def function(x: Tensor, y: Tensor) -> Tensor:
        return manifold.expmap(x, manifold.transp(y, x, manifold.logmap(y, x)))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), function(x, y))


def test_functional_call_replaces_the_curvature() -> None:
    class Distance(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.manifold = Lorentz(learnable=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.manifold.dist0(x)

    x = normal(5, 3, dtype=torch.float32)
    out = torch.func.functional_call(Distance(), {"manifold.log_c": torch.tensor([4.0]).log()}, x)
    torch.testing.assert_close(out, LF.dist0(x, 4.0))


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize(
    ("optimiser", "arguments", "steps"),
    [
        (RiemannianAdam, {"lr": 0.05}, 400),
        (RiemannianAdam, {"lr": 0.05, "amsgrad": True, "stabilize": 10}, 400),
        (RiemannianSGD, {"lr": 0.1}, 150),
        (RiemannianSGD, {"lr": 0.02, "momentum": 0.8, "stabilize": 10}, 300),
    ],
)
@curvatures
def test_geoopt_optimisers_find_the_centroid(
    c: float, learnable: bool, optimiser: type, arguments: dict[str, float], steps: int
) -> None:
    manifold = Lorentz(c, learnable)
    targets = oracles.points_at(1.5 / c**0.5, 7, 3, seed=0, c=c)
    start = oracles.points_at(2.0 / c**0.5, 1, 3, seed=1, c=c)[0]
    point = geoopt.ManifoldParameter(start, manifold=manifold)
    rule = optimiser([point], **arguments)
    for _ in range(steps):
        rule.zero_grad()
        (c * LF.sqdist(point, targets, c).mean() / 2).backward()
        rule.step()
    assert c**0.5 * LF.dist(point, LF.centroid(targets, None, c), c) < 1e-3
    assert isinstance(point, geoopt.ManifoldParameter)


def test_a_tree_is_embedded_by_geoopts_adam() -> None:
    # Three arms of two edges: the hyperbolic plane nearly has room for its distances, with edges of length 2.
    edges = [(0, 1), (1, 2), (0, 3), (3, 4), (0, 5), (5, 6)]
    hops = torch.full((7, 7), torch.inf).fill_diagonal_(0.0)
    for a, b in edges:
        hops[a, b] = hops[b, a] = 1.0
    for k in range(7):
        hops = torch.minimum(hops, hops[:, k : k + 1] + hops[k : k + 1])
    manifold = Lorentz()
    torch.manual_seed(0)
    points = geoopt.ManifoldParameter(manifold.random_normal(7, 2), manifold=manifold)
    rule = RiemannianAdam([points], lr=0.05)
    upper = torch.triu_indices(7, 7, offset=1)
    for _ in range(400):
        rule.zero_grad()
        distance = 0.5 * LF.pairwise_dist(points, points)[upper[0], upper[1]]
        loss = (distance / hops[upper[0], upper[1]] - 1).square().mean()
        loss.backward()
        rule.step()
    assert loss.sqrt() < 0.03
    assert points.isfinite().all()


@curvatures
def test_random_points_have_the_standard_deviation_that_was_asked_for(c: float) -> None:
    torch.manual_seed(0)
    points = Lorentz(c).random_normal(20_000, 3, std=0.5, dtype=torch.float64)
    assert isinstance(points, geoopt.ManifoldTensor)
    spread = LF.logmap0(points.as_subclass(Tensor), c).std()
    assert abs(spread - 0.5) < 4.5 * 0.5 / (2 * 60_000) ** 0.5
    around = Lorentz(c).random(1000, 3, mean=torch.tensor([2.0, 0.0, 0.0]), std=1e-3)
    assert LF.dist(around.as_subclass(Tensor), torch.tensor([2.0, 0.0, 0.0]), c).max() < 1e-2


def test_the_origin_is_zero() -> None:
    manifold = Lorentz()
    for origin in (manifold.origin(5, 3), manifold.origin((5, 3))):
        assert isinstance(origin, geoopt.ManifoldTensor)
        assert torch.equal(origin.as_subclass(Tensor), torch.zeros(5, 3))
    assert manifold.origin(3, dtype=torch.float64).dtype == torch.float64


def test_geoopts_scaled_wrapper_scales_what_is_a_length() -> None:
    base, scaled = Lorentz(), geoopt.Scaled(Lorentz(), 2.0)
    x, y = normal(5, 3), normal(5, 3, seed=1)
    for name, arguments in {"dist": (x, y), "dist0": (x,), "logmap": (x, y), "logmap0": (x,)}.items():
        torch.testing.assert_close(getattr(scaled, name)(*arguments), 2 * getattr(base, name)(*arguments))
    torch.testing.assert_close(scaled.expmap(x, scaled.logmap(x, y)), y)
    torch.testing.assert_close(scaled.expmap0(scaled.logmap0(y)), y)
    torch.testing.assert_close(scaled.transp(x, y, x), base.transp(x, y, x))
    assert Lorentz.__scaling__["sqdist"] is ScalingInfo.NotCompatible
    with pytest.raises(NotImplementedError):
        scaled.sqdist(x, y)


def test_manifold_does_not_change_geoopts_own_table() -> None:
    assert "sqdist" not in geoopt.Manifold.__scaling__
    assert "dist0" not in geoopt.Manifold.__scaling__
