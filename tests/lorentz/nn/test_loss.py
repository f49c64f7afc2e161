"""The losses: cones as the papers write them in ambient coordinates, cross-entropy written out."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
reductions = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reduce(loss: Tensor, reduction: str) -> Tensor:
    return {"none": loss, "mean": loss.sum() / loss.numel(), "sum": loss.sum()}[reduction]


def energy(x: Tensor, y: Tensor, c: float, threshold: float = 1.0, min_radius: float = 0.1) -> Tensor:
    """Desai et al. and Ganea et al.: max(0, ext(x, y) - threshold aper(x)), ambient."""
    p, q = oracles.ambient(x, c), oracles.ambient(y, c)
    product = c * oracles.ambient_inner(p, q)
    ext = ((q[:, 0] + p[:, 0] * product) / (x.norm(dim=1) * (product**2 - 1).sqrt())).acos()
    aper = (2 * min_radius / (c**0.5 * x.norm(dim=1))).clamp(max=1).asin()
    return (ext - threshold * aper).clamp(min=0)


def cross_entropy(x: Tensor, y: Tensor, c: float, temperature: float) -> Tensor:
    """Of the pairs, in both directions, with scores -dist / temperature."""
    p, q = oracles.ambient(x, c), oracles.ambient(y, c)
    distances = (-c * oracles.ambient_inner(p[:, None], q)).acosh() / c**0.5
    weights = (-distances / temperature).exp()
    right = weights.diagonal()
    return -((right / weights.sum(0)).log() + (right / weights.sum(1)).log()) / 2


@curvatures
@reductions
def test_cone_loss_is_the_angle_outside_the_cone(c: float, reduction: str) -> None:
    x = normal(40, 3) / c**0.5
    y = 2 * x + 0.5 * normal(40, 3, seed=1) / c**0.5  # some in the cones, some not
    loss = lnn.EntailmentConeLoss(1.5, min_radius=0.3, reduction=reduction, manifold=Lorentz(c))
    expected = energy(x, y, c, 1.5, 0.3)
    assert 0 < (expected == 0).sum() < 40
    torch.testing.assert_close(loss(x, y), reduce(expected, reduction))


@curvatures
@reductions
@pytest.mark.parametrize("negative", [-1, 0])
def test_wrong_pairs_cost_what_they_lack_of_the_margin(c: float, reduction: str, negative: int) -> None:
    x = normal(60, 3) / c**0.5
    y = 1.5 * x + 0.5 * normal(60, 3, seed=1) / c**0.5
    outside = energy(x, y, c) > 0
    x, y = x[outside], y[outside]
    target = torch.where(torch.arange(len(x)) % 3 == 0, 1, negative)
    expected = energy(x, y, c)
    expected = torch.where(target == 1, expected, (1.2 - expected).clamp(min=0))
    assert 0 < (expected[target != 1] > 0).sum() < (target != 1).sum()
    loss = lnn.EntailmentConeLoss(margin=1.2, reduction=reduction, manifold=Lorentz(c))
    torch.testing.assert_close(loss(x, y, target), reduce(expected, reduction))
    torch.testing.assert_close(loss(x, y, target == 1), loss(x, y, target))


def test_a_wrong_pair_deep_in_the_cone_is_driven_out() -> None:
    x = torch.tensor([[0.5, 0.0]])
    y = torch.tensor([[2.0, 0.1]], requires_grad=True)
    wrong = torch.tensor([-1])
    loss, optimiser = lnn.EntailmentConeLoss(margin=0.2), torch.optim.SGD([y], lr=0.1)
    assert loss(x, y, wrong) > 0.2
    for _ in range(200):
        optimiser.zero_grad()
        loss(x, y, wrong).backward()
        optimiser.step()
    assert loss(x, y, wrong) == 0
    assert LF.exterior_angle(x, y) >= LF.half_aperture(x) + 0.2


def test_descent_brings_a_point_into_the_cone() -> None:
    x = torch.tensor([[0.5, 0.0]])
    y = torch.tensor([[-1.0, 0.4]], requires_grad=True)
    loss, optimiser = lnn.EntailmentConeLoss(), torch.optim.SGD([y], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert loss(x, y) == 0


def test_the_origin_entails_everything() -> None:
    x, y = torch.zeros(5, 3, requires_grad=True), normal(5, 3).float().requires_grad_()
    loss = lnn.EntailmentConeLoss(threshold=0.0)(x, y)
    assert loss == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, (x, y)))


@curvatures
@reductions
def test_contrastive_loss_is_cross_entropy_in_both_directions(c: float, reduction: str) -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    loss = lnn.ContrastiveLoss(0.3, reduction=reduction, manifold=Lorentz(c), dtype=torch.float64)
    torch.testing.assert_close(loss(x, y), reduce(cross_entropy(x, y, c, 0.3), reduction))
    torch.testing.assert_close(loss(x, y), loss(y, x))


def test_contrastive_loss_keeps_the_order_of_the_pairs_apart_from_that_of_the_batch() -> None:
    x, y = normal(6, 3), normal(6, 3, seed=1)
    loss = lnn.ContrastiveLoss(reduction="none", dtype=torch.float64)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(loss(x[order], y[order]), loss(x, y)[order])
    batch = torch.stack([x, x[order]]), torch.stack([y, y])
    torch.testing.assert_close(loss(*batch), torch.stack([loss(x, y), loss(x[order], y)]))


def test_contrastive_loss_is_log_n_without_knowledge_and_zero_with_it() -> None:
    x = oracles.points_at(5.0, 8, 4, seed=1)
    loss = lnn.ContrastiveLoss(dtype=torch.float64)
    assert loss(x, x) < 1e-12
    assert loss(x[:1].expand(8, 4), x[:1].expand(8, 4)).item() == pytest.approx(math.log(8))


def test_contrastive_loss_tells_neighbours_apart_in_float32() -> None:
    # At radius 6 the product of float32 numbers has an error of 0.01; these points are 0.001 to 0.01 apart.
    x = oracles.points_at(6.0, 1, 4, seed=1).expand(8, 4)
    x, y = (oracles.neighbours_at(x, gap, seed=seed).float() for gap, seed in ((0.005, 2), (0.001, 3)))
    rows = list(zip(oracles.rows(x), oracles.rows(y), strict=True))
    scores = [[mp.exp(-oracles.dist(a, b, 1.0) / mp.mpf(0.05)) for _, b in rows] for a, _ in rows]
    sums = [(mp.fsum(scores[i]), mp.fsum(row[i] for row in scores)) for i in range(8)]
    truth = [-mp.log(scores[i][i] ** 2 / (sums[i][0] * sums[i][1])) / 2 for i in range(8)]
    got = lnn.ContrastiveLoss(0.05, learnable_temperature=False, reduction="none")(x, y)
    assert oracles.relative_errors(got, truth).max() < 1e-5


def test_temperature_learns_and_stops_at_that_of_clip() -> None:
    x = oracles.points_at(2.0, 8, 4, seed=1).float()
    loss = lnn.ContrastiveLoss(0.5)
    assert loss.temperature.item() == pytest.approx(0.5)
    loss(x, x).backward()  # right pairs ask for a lower temperature
    assert loss.log_temperature.grad > 0
    for low in (-10.0, -200.0):
        with torch.no_grad():
            loss.log_temperature.fill_(low)
        assert loss.temperature.item() == pytest.approx(0.01)
        (grad,) = torch.autograd.grad(loss(x, x.flip(0)), loss.log_temperature)
        assert grad.isfinite()
        assert grad < 0  # wrong pairs ask for a higher one, and get it
    loss.reset_parameters()
    assert loss.temperature.item() == pytest.approx(0.5)


def test_a_fixed_temperature_is_no_parameter() -> None:
    loss = lnn.ContrastiveLoss(0.005, learnable_temperature=False)
    assert not list(loss.parameters())
    assert loss.temperature == 0.005
    assert repr(loss) == "ContrastiveLoss(temperature=0.005, learnable_temperature=False, reduction='mean')"


def test_bad_arguments_are_refused_in_one_line() -> None:
    for kind in (lnn.EntailmentConeLoss, lnn.ContrastiveLoss):
        with pytest.raises(ValueError, match='expected reduction "none", "mean" or "sum", got \'avg\''):
            kind(reduction="avg")
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"expected temperature > 0, got {temperature}"):
            lnn.ContrastiveLoss(temperature)
    with pytest.raises(ValueError, match=r"expected a learnable temperature >= 0.01, got 0.005"):
        lnn.ContrastiveLoss(0.005)
    for other in (torch.ones(4, 3), torch.ones(5, 4), torch.ones(2, 5, 3)):
        with pytest.raises(ValueError, match=r"expected x and y of one shape \(..., N, n\), got \(5, 3\) and"):
            lnn.ContrastiveLoss()(torch.ones(5, 3), other)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(3,\)"):
        lnn.ContrastiveLoss()(torch.ones(3), torch.ones(3))
