"""The hyperbolic fact distribution: its scores against geoopt's distances, and the estimators on it."""

from __future__ import annotations

from pathlib import Path

import geoopt
import numpy as np
import pytest
import torch

import lorentz
from relsim.data import nations
from relsim.estimators import Enumerate, RaoBlackwell
from relsim.lorentz import LorentzDistribution
from relsim.models import load_model, save_model
from relsim.optimising import Training
from relsim.search import nearest
from relsim.similar import neighbours
from relsim.training import fit
from tests.relsim.test_estimators import brute_force


def random_points(entities: int = 25, relations: int = 4, seed: int = 0, scale: float = 0.5) -> LorentzDistribution:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = [f"e{i}" for i in range(entities)], [f"r{i}" for i in range(relations)]
        model = LorentzDistribution(*names, dim=5, hidden=16).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
    return model


@torch.no_grad()
def test_scores_are_squared_lorentzian_distances_over_tau() -> None:
    """Against geoopt, in ambient coordinates: |x - y|_L^2 = -2 - 2 <x, y>."""
    model = random_points()
    peer = geoopt.Lorentz()
    natural = model.tail_natural(torch.arange(3), torch.tensor([0, 1, 3]))
    tau = model.tail_map.log_tau.exp()
    q = natural[:, :-1] * tau / 2
    torch.testing.assert_close(-natural[:, -1] * tau / 2, (1 + q.square().sum(dim=1)).sqrt())
    points = [lorentz.to_ambient(part) for part in (q, model.entity)]
    sqdist = -2 - 2 * peer.inner(None, points[0][:, None], points[1][None])
    expected = torch.log_softmax(-sqdist / tau + model.tail_bias, dim=-1)
    found = model.tail_log_prob(torch.arange(3), torch.tensor([0, 1, 3]))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_first_layer_is_the_lorentz_layer_on_the_joined_point() -> None:
    model = random_points()
    h, r = torch.arange(4), torch.tensor([0, 1, 2, 3])
    layer = lorentz.nn.Linear(10, 16).double()
    of_head, of_relation = model.tail_map.first
    layer.weight.copy_(torch.cat([of_head.weight, of_relation.weight], dim=1))
    layer.bias.copy_(of_head.bias)
    layer.time_weight.copy_(model.tail_map.time_weight)
    joined = torch.cat([model.entity[h], model.relation[r]], dim=1)
    rest = model.tail_map
    q = rest.last(torch.relu(rest.second(torch.relu(layer(joined)))))
    natural = model.tail_natural(h, r)
    torch.testing.assert_close(natural[:, :-1], 2 / rest.log_tau.exp() * q)


@torch.no_grad()
def test_the_grid_is_every_pair() -> None:
    model = random_points()
    heads, relations = torch.arange(6), torch.arange(4)
    grid = model.tail_natural_grid(heads, relations)
    pairs = model.tail_natural(heads.repeat_interleave(4), relations.repeat(6))
    torch.testing.assert_close(grid.flatten(0, 1), pairs)


def test_enumerate_is_the_sum_over_all_facts() -> None:
    model = random_points()
    np.testing.assert_allclose(Enumerate().divergence(model, progress=False).kl, brute_force(model), rtol=0, atol=1e-9)


def test_sampling_and_search_work_unchanged() -> None:
    model = random_points(300, 12, seed=1, scale=0.2)
    exact = Enumerate().divergence(model, progress=False).kl
    pairs, inside = ~np.eye(12, dtype=bool), []
    for seed in range(20):
        div = RaoBlackwell(mass=1.0, samples=100, seed=seed).divergence(model, progress=False)
        inside.append(np.mean(np.abs(div.kl - exact)[pairs] < 1.96 * div.stderr[pairs]))
    assert 0.9 <= np.mean(inside) <= 0.99
    found, _ = nearest(model, "r3", 4, estimator=RaoBlackwell(mass=1.0, samples=100, seed=19))
    assert [n.name for n in found] == [n.name for n in neighbours(div, "r3", 4)]


def test_fitting_lowers_the_likelihood_and_survives_the_disk(tmp_path: Path) -> None:
    model = fit(nations(), model=LorentzDistribution, dim=16, hidden=64, training=Training(epochs=8), progress=False)
    assert isinstance(model, LorentzDistribution)
    history = [epoch["valid_head"] + epoch["valid_tail"] for epoch in model.meta["history"]]
    assert min(history) < history[0] - 0.02
    assert model.meta["valid_nll"] < 2 * np.log(14) - 0.1  # a uniform guess
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert isinstance(again, LorentzDistribution)
    torch.testing.assert_close(again.log_prob(0, 1, 2), model.log_prob(0, 1, 2))


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_as_many_as_the_perceptrons_within_one_percent(bias: bool) -> None:
    from relsim.mlp import MLPDistribution

    names = [str(i) for i in range(2000)], [str(i) for i in range(42)]
    points, mlp = (
        sum(p.numel() for p in cls(*names, bias=bias).parameters()) for cls in (LorentzDistribution, MLPDistribution)
    )
    assert points == pytest.approx(mlp, rel=0.01)
