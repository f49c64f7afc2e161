"""The rules of `lorentz.optim` against their definition in Minkowski space, in float64, and against geoopt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import geoopt
import networkx
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import lorentz.functional as LF
from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, RiemannianSGD, adam_step, sgd_step
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
STEPS = 40


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def points(*shape: int, seed: int = 0, c: float = 1.0) -> Tensor:
    return oracles.points_at(1.5 / c**0.5, shape[0], shape[1], seed=seed, c=c)


class Ambient:
    """Riemannian optimisation written with (n + 1)-vectors, time first, from the definitions alone."""

    def __init__(self, x: Tensor, c: float) -> None:
        self.c = c
        self.p = torch.cat([(1 / c + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)
        self.m = torch.zeros_like(self.p)
        self.v = torch.zeros_like(self.p[:, :1])
        self.v_max = torch.zeros_like(self.v)
        self.step = 0

    @staticmethod
    def inner(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(-1, keepdim=True) - 2 * u[:, :1] * v[:, :1]

    def gradient(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        p = self.p.clone().requires_grad_()
        h = torch.autograd.grad(loss(p), p)[0]
        h[:, 0] *= -1
        return h + self.c * self.inner(self.p, h) * self.p  # onto the tangent space of the hyperboloid

    def move(self, direction: Tensor) -> None:
        """Along `direction`, carrying m by the ambient transport through the log map."""
        length = self.inner(direction, direction).clamp_min(0).sqrt()
        t = self.c**0.5 * length
        end = t.cosh() * self.p + torch.where(t > 0, t.sinh() / torch.where(t > 0, t, 1.0), 1.0) * direction
        share = self.inner(end, self.m) / (1 / self.c - self.inner(self.p, end))
        self.m = self.m + share * (self.p + end)
        self.p = end

    def adam(self, r: Tensor, lr: float, beta1: float, beta2: float, eps: float, amsgrad: bool) -> None:
        self.step += 1
        self.m = beta1 * self.m + (1 - beta1) * r
        self.v = beta2 * self.v + (1 - beta2) * self.inner(r, r)
        self.v_max = torch.maximum(self.v, self.v_max)
        second = (self.v_max if amsgrad else self.v) / (1 - beta2**self.step)
        self.move(-lr * self.m / (1 - beta1**self.step) / (second.sqrt() + eps))

    def sgd(self, r: Tensor, lr: float, momentum: float, dampening: float, nesterov: bool) -> None:
        self.m = r if self.step == 0 else momentum * self.m + (1 - dampening) * r
        self.step += 1
        self.move(-lr * (r + momentum * self.m if nesterov else self.m))


def ambient_loss(targets: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """A loss that changes with the step and is not symmetric: a weighted sum of functions of <P, Q>."""
    weights = normal(len(targets), seed=100 + k).exp()

    def loss(p: Tensor) -> Tensor:
        product = p[:, None, 1:] * targets[None, :, 1:]
        form = product.sum(-1) - p[:, None, 0] * targets[None, :, 0]
        return (weights * (-form).log()).sum() + (weights * form.square()).sum() / 50

    return loss


def chart_loss(targets: Tensor, k: int, c: float) -> Callable[[Tensor], Tensor]:
    return lambda x: ambient_loss(targets, k)(LF.to_ambient(x, c))


@curvatures
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_is_its_definition_in_minkowski_space(c: float, amsgrad: bool) -> None:
    start, targets = points(7, 3, c=c), LF.to_ambient(points(5, 3, seed=1, c=c), c)
    truth, p = Ambient(start, c), Parameter(start.clone())
    rule = RiemannianAdam([{"params": [p], "manifold": Lorentz(c)}], lr=0.05, betas=(0.8, 0.95), amsgrad=amsgrad)
    for k in range(STEPS):
        rule.zero_grad()
        chart_loss(targets, k, c)(p).backward()
        rule.step()
        truth.adam(truth.gradient(ambient_loss(targets, k)), 0.05, 0.8, 0.95, 1e-8, amsgrad)
        torch.testing.assert_close(p.detach(), truth.p[:, 1:], rtol=1e-10, atol=1e-10)
    state = rule.state[p]
    moment = LF.egrad2rgrad(p.detach(), state["exp_avg"], c)
    torch.testing.assert_close(moment, truth.m[:, 1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state["exp_avg_sq"], truth.v, rtol=1e-9, atol=1e-9)
    assert LF.dist(p.detach(), start, c).min() > 0.1


@curvatures
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"), [(0.0, 0.0, False), (0.8, 0.0, False), (0.8, 0.3, False), (0.8, 0.0, True)]
)
def test_sgd_is_its_definition_in_minkowski_space(c: float, momentum: float, dampening: float, nesterov: bool) -> None:
    start, targets = points(7, 3, c=c), LF.to_ambient(points(5, 3, seed=1, c=c), c)
    truth, p = Ambient(start, c), Parameter(start.clone())
    group = {"params": [p], "manifold": Lorentz(c)}
    rule = RiemannianSGD([group], lr=0.004 / c, momentum=momentum, dampening=dampening, nesterov=nesterov)
    for k in range(STEPS):
        rule.zero_grad()
        chart_loss(targets, k, c)(p).backward()
        rule.step()
        truth.sgd(truth.gradient(ambient_loss(targets, k)), 0.004 / c, momentum, dampening, nesterov)
        torch.testing.assert_close(p.detach(), truth.p[:, 1:], rtol=1e-10, atol=1e-10)
    if momentum:
        moment = LF.egrad2rgrad(p.detach(), rule.state[p]["momentum_buffer"], c)
        torch.testing.assert_close(moment, truth.m[:, 1:], rtol=1e-9, atol=1e-9)
    assert LF.dist(p.detach(), start, c).min() > 0.1


@pytest.mark.parametrize("c", [0.25, 1.0])
def test_adam_on_one_point_per_parameter_is_geoopts(c: float) -> None:
    # geoopt's second moment on its Lorentz is one number per row too, broadcast; the two differ in its storage only,
    # and in the coordinates: the ambient point loses the sheet slowly, so the comparison is to 1e-7.
    start, targets = points(7, 3, c=c), LF.to_ambient(points(5, 3, seed=1, c=c), c)
    ours = Parameter(start.clone())
    theirs = geoopt.ManifoldParameter(LF.to_ambient(start, c), manifold=geoopt.Lorentz(k=1 / c))
    theirs.manifold.k.data = theirs.manifold.k.data.double()
    rules = [RiemannianAdam([{"params": [ours], "manifold": Lorentz(c)}], lr=0.05)]
    rules.append(geoopt.optim.RiemannianAdam([theirs], lr=0.05))
    for k in range(STEPS):
        for rule in rules:
            rule.zero_grad()
        chart_loss(targets, k, c)(ours).backward()
        ambient_loss(targets, k)(theirs.as_subclass(Tensor)).backward()
        for rule in rules:
            rule.step()
        torch.testing.assert_close(ours.detach(), theirs.detach().as_subclass(Tensor)[:, 1:], rtol=1e-7, atol=1e-7)


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda groups: RiemannianAdam(groups, lr=0.05),
    "amsgrad": lambda groups: RiemannianAdam(groups, lr=0.05, amsgrad=True),
    "sgd": lambda groups: RiemannianSGD(groups, lr=0.05),
    "momentum": lambda groups: RiemannianSGD(groups, lr=0.02, momentum=0.8),
    "nesterov": lambda groups: RiemannianSGD(groups, lr=0.02, momentum=0.8, nesterov=True),
}
every_optimiser = pytest.mark.parametrize("name", list(OPTIMISERS))


def fit(name: str, start: Tensor, loss: Callable[[Tensor], Tensor], steps: int, c: float = 1.0) -> Tensor:
    p = Parameter(start.clone())
    rule = OPTIMISERS[name]([{"params": [p], "manifold": Lorentz(c)}])
    for _ in range(steps):
        rule.zero_grad()
        loss(p).backward()
        rule.step()
    return p.detach()


@pytest.mark.parametrize("c", [0.25, 4.0])
@every_optimiser
def test_training_commutes_with_boosts(name: str, c: float) -> None:
    start, targets = points(7, 3, c=c), points(5, 3, seed=1, c=c)
    velocity = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64)

    def loss(x: Tensor, targets: Tensor) -> Tensor:
        return (c * LF.sqdist(x.unsqueeze(1), targets, c)).mean(1).log1p().sum()

    seen = LF.boost(targets, velocity, c)
    moved = fit(name, LF.boost(start, velocity, c), lambda x: loss(x, seen), STEPS, c)
    still = fit(name, start, lambda x: loss(x, targets), STEPS, c)
    torch.testing.assert_close(moved, LF.boost(still, velocity, c), rtol=1e-9, atol=1e-9)


@every_optimiser
def test_the_centroid_is_found(name: str) -> None:
    c = 4.0
    targets = points(9, 3, seed=1, c=c)
    found = fit(name, points(1, 3, c=c), lambda x: c * LF.sqdist(x, targets, c).mean() / 2, 300, c)
    assert c**0.5 * LF.dist(found[0], LF.centroid(targets, None, c), c) < 1e-3


def test_a_tree_is_embedded_with_low_distortion() -> None:
    # Three arms of two edges: the hyperbolic plane nearly has room for its distances, with edges of length 2.
    tree = networkx.Graph([(0, 1), (1, 2), (0, 3), (3, 4), (0, 5), (5, 6)])
    hops = torch.tensor(networkx.floyd_warshall_numpy(tree, range(7)), dtype=torch.float32)
    torch.manual_seed(0)
    p = Parameter(torch.randn(7, 2))
    rule = RiemannianAdam([{"params": [p], "manifold": Lorentz()}], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(rule, 300)
    upper = torch.triu_indices(7, 7, offset=1).unbind()
    for _ in range(300):
        rule.zero_grad()
        loss = (0.5 * LF.pairwise_dist(p, p)[upper] / hops[upper] - 1).square().mean()
        loss.backward()
        rule.step()
        schedule.step()
    assert loss.sqrt() < 0.05


@every_optimiser
def test_points_without_gradient_stay_exactly(name: str) -> None:
    start = torch.cat([torch.zeros(1, 3, dtype=torch.float64), points(4, 3)])
    assert torch.equal(fit(name, start, lambda x: 0.0 * x.sum(), 3), start)
    coincident = fit(name, start, lambda x: LF.dist(x, start).sum(), 3)
    assert torch.equal(coincident, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e6, 1e12, 1e18, 1e30])
@every_optimiser
def test_huge_gradients_leave_finite_points_that_still_learn(name: str, size: float, dtype: torch.dtype) -> None:
    start = torch.cat([oracles.points_at(radius, 3, 4, seed=0) for radius in (0.1, 2.0, 8.0)]).to(dtype)
    p = Parameter(start.clone())
    rule = OPTIMISERS[name]([{"params": [p], "manifold": Lorentz()}])
    for k in range(5):
        p.grad = size * normal(*p.shape, seed=k, dtype=dtype)
        rule.step()
        assert p.isfinite().all()
        assert all(value.isfinite().all() for value in rule.state[p].values())
    before = p.detach().clone()
    p.grad = LF.from_ambient(LF.to_ambient(before), check=False)
    rule.step()
    assert p.isfinite().all()


@every_optimiser
def test_a_gradient_whose_product_with_its_point_overflows_leaves_it_finite(name: str) -> None:
    x = torch.tensor([[1e8, 0.0], [1.0, 0.0]])
    grad = torch.tensor([[1e34, 0.0], [1.0, 0.0]])
    p = Parameter(x.clone())
    rule = OPTIMISERS[name]([{"params": [p], "manifold": Lorentz()}])
    p.grad = grad
    rule.step()
    assert torch.equal(p[0], x[0])
    assert p[1, 0] < 1
    assert all(value.isfinite().all() for value in rule.state[p].values())


def test_gradients_beyond_the_cut_count_as_if_at_the_cut() -> None:
    x, cut = points(6, 3).float(), torch.finfo(torch.float32).max ** 0.25
    zero = torch.zeros_like(x)
    at_cut = normal(6, 3, dtype=torch.float32)
    at_cut *= cut / (at_cut.square().sum(-1, keepdim=True) + (x * at_cut).sum(-1, keepdim=True).square()).sqrt()
    expected = adam_step(x, at_cut, zero, zero[:, :1], 1.0)
    for got, value in zip(adam_step(x, 1e4 * at_cut, zero, zero[:, :1], 1.0), expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


@every_optimiser
def test_a_nan_gradient_is_not_hidden(name: str) -> None:
    moved = fit(name, points(3, 3), lambda x: x.sum() * float("nan"), 1)
    assert moved.isnan().all()


def test_a_step_past_the_edge_of_the_range_ends_on_it() -> None:
    p = Parameter(points(5, 3).float())
    rule = RiemannianSGD([{"params": [p], "manifold": Lorentz()}], lr=1e4, momentum=0.9)
    for k in range(4):
        p.grad = normal(5, 3, seed=k, dtype=torch.float32)
        rule.step()
        radius = LF.dist0(p.detach())  # later steps may lead back inside
        assert (radius < 22.9).all()
        assert k > 0 or (radius > 19).all()
        assert all(value.isfinite().all() for value in rule.state[p].values())


@every_optimiser
def test_points_beyond_the_longest_time_stay_there(name: str) -> None:
    start = oracles.points_at(30.0, 4, 3, seed=0).float()
    p = Parameter(start.clone())
    rule = OPTIMISERS[name]([{"params": [p], "manifold": Lorentz()}])
    for k in range(4):
        p.grad = normal(4, 3, seed=k, dtype=torch.float32)
        rule.step()
    torch.testing.assert_close(p.detach(), start)


def test_each_step_is_as_long_as_the_learning_rate_while_gradients_are_steady() -> None:
    x = points(6, 3)
    grad = normal(6, 3, seed=1)
    y, w, v = adam_step(x, grad, torch.zeros_like(x), torch.zeros(6, 1, dtype=x.dtype), 1.0, lr=0.1, eps=0.0)
    torch.testing.assert_close(LF.dist(x, y), torch.full((6,), 0.1, dtype=x.dtype))
    torch.testing.assert_close(LF.norm(y, LF.egrad2rgrad(y, w)), LF.norm(x, 0.1 * LF.egrad2rgrad(x, grad)))
    torch.testing.assert_close(v.squeeze(-1), 1e-3 * LF.norm(x, LF.egrad2rgrad(x, grad)).square())


def test_maximise_is_descent_of_the_negative() -> None:
    targets = points(5, 3, seed=1)
    for make in (RiemannianAdam, RiemannianSGD):
        ends = []
        for sign in (1.0, -1.0):
            p = Parameter(points(4, 3))
            rule = make([{"params": [p], "manifold": Lorentz()}], lr=0.01, maximize=sign < 0)
            for _ in range(5):
                rule.zero_grad()
                (sign * LF.sqdist(p.unsqueeze(1), targets).sum()).backward()
                rule.step()
            ends.append(p.detach())
        assert torch.equal(*ends)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 3, 4), (5, 1), (70_000, 3)])
def test_points_of_any_shape_move_row_by_row(shape: tuple[int, ...]) -> None:
    x, grad = normal(*shape), normal(*shape, seed=1)
    p = Parameter(x.clone())
    rule = RiemannianAdam([{"params": [p], "manifold": Lorentz()}], lr=0.1)
    p.grad = grad
    rule.step()
    zero = torch.zeros_like(x)
    expected, _, v = adam_step(x, grad, zero, zero[..., :1], 1.0, lr=0.1)
    torch.testing.assert_close(p.detach(), expected, rtol=1e-14, atol=1e-14)
    assert rule.state[p]["exp_avg_sq"].shape == v.shape == (*shape[:-1], 1)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (adam_step, {"lr": 0.01, "c": 2.0}),
        (sgd_step, {"lr": 0.01, "momentum": 0.9, "c": 2.0}),
        (sgd_step, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_the_rules_compile_whole(function: Callable[..., tuple[Tensor, ...]], options: dict[str, Any]) -> None:
    torch.compiler.reset()
    x, grad, m = (normal(6, 3, seed=seed) for seed in range(3))
    state = (m, m[:, :1].square()) if function is adam_step else (m,)
    counter = (torch.tensor(3.0),) if function is adam_step else ()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = function(x, grad, *state, *counter, **options)
    for got, value in zip(compiled(x, grad, *state, *counter, **options), expected, strict=True):
        torch.testing.assert_close(got, value)


@pytest.mark.parametrize("radius", [1.0, 5.0, 8.0])
def test_moments_keep_their_digits_far_from_the_origin(radius: float) -> None:
    x = oracles.points_at(radius, 50, 4, seed=0).float()
    lengths = LF.time(x)[:, None]  # gradients of unit Riemannian length in the radial direction, shorter across
    grad, w = (normal(50, 4, seed=seed, dtype=torch.float32) / lengths for seed in (1, 2))
    v = torch.full((50, 1), 0.01)
    got = adam_step(x, grad, w, v, 3.0, lr=0.05)
    truth = adam_step(x.double(), grad.double(), w.double(), v.double(), 3.0, lr=0.05)
    assert LF.dist(got[0].double(), truth[0]).max() < 4 * torch.finfo(torch.float32).eps * LF.time(x).max()
    torch.testing.assert_close(got[1].double(), truth[1], rtol=1e-5, atol=1e-6 * float(truth[1].abs().max()))
