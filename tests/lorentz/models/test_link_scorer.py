"""Scorers against their formulas, fact by fact in float64, and the properties that make them linear."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

import lorentz
import lorentz.functional as LF
from lorentz.models import (
    EuclideanHyboNet,
    EuclideanMuRE,
    EuclideanRotE,
    EuclideanScorer,
    HyboNet,
    LinkScorer,
    LorentzMuRP,
    LorentzRotH,
)
from lorentz.models.link_loss import candidate_scores
from lorentz.optim import RiemannianAdam, param_groups

CLASSES = [HyboNet, EuclideanHyboNet, LorentzMuRP, EuclideanMuRE, LorentzRotH, EuclideanRotE]
every_model = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
E, R, N = 11, 3, 6


def randomised(cls: type[LinkScorer], std: float = 0.7) -> LinkScorer:
    """A float64 model whose parameters have all left their start."""
    model = cls(E, R, N, margin=1.5, std=std).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.4 * torch.randn_like(p)
    return model


def ambient(x: Tensor) -> Tensor:
    return torch.cat([(1 + x.dot(x)).sqrt()[None], x])


def boost_matrix(p: Tensor) -> Tensor:
    """The boost of Chen et al. as an (n + 1, n + 1) matrix, of the velocity u = tanh |p| p / |p|."""
    u = p / p.norm() * p.norm().tanh()
    gamma = 1 / (1 - u @ u).sqrt()
    b = torch.eye(len(u) + 1, dtype=u.dtype)
    b[0, 0], b[0, 1:], b[1:, 0] = gamma, -gamma * u, -gamma * u
    b[1:, 1:] += gamma**2 / (1 + gamma) * torch.outer(u, u)
    return b


def moved(model: LinkScorer, x: Tensor, r: int) -> Tensor:
    """f_r(x) of one head, from the formula of each model."""
    if isinstance(model, HyboNet):
        return model.weight[r] @ x + model.time_weight[r] * (1 + x @ x).sqrt()
    if isinstance(model, EuclideanHyboNet):
        return model.weight[r] @ x + model.translation[r]
    if isinstance(model, EuclideanMuRE):
        return model.stretch[r] * x + model.translation[r]
    if isinstance(model, LorentzMuRP):
        v = model.stretch[r] * x / x.norm() * x.norm().asinh()
        return (boost_matrix(model.rapidity[r]) @ ambient(v / v.norm() * v.norm().sinh()))[1:]
    assert isinstance(model, LorentzRotH | EuclideanRotE)
    rotation = torch.zeros(N, N, dtype=x.dtype)
    for k, angle in enumerate(model.angles[r]):
        i, j = k, k + N // 2
        rotation[i, i] = rotation[j, j] = angle.cos()
        rotation[i, j], rotation[j, i] = -angle.sin(), angle.sin()
    if isinstance(model, EuclideanRotE):
        return rotation @ x + model.translation[r]
    return (boost_matrix(model.rapidity[r]) @ ambient(rotation @ x))[1:]


def fact_score(model: LinkScorer, h: int, r: int, t: int) -> Tensor:
    x, y = moved(model, model.entity.weight[h], r), model.entity.weight[t]
    if isinstance(model, EuclideanScorer):
        d = (x - y) @ (x - y)
    else:
        gap = ambient(x) - ambient(y)
        d = gap[1:] @ gap[1:] - gap[0] ** 2
    score = model.log_scale[r].exp() * (1.5 - d) + model.bias.weight[t, r // R]
    return score + (model.loop_weight[r] if h == t else 0)


@every_model
def test_scores_are_those_of_the_formula(cls: type[LinkScorer]) -> None:
    model = randomised(cls)
    grid = torch.cartesian_prod(torch.arange(E), torch.arange(2 * R), torch.arange(E))
    expected = torch.stack([fact_score(model, *fact) for fact in grid.tolist()])
    head, relation, tail = grid.unbind(1)
    torch.testing.assert_close(model(head, relation, tail), expected, rtol=1e-10, atol=1e-10)
    pairs = torch.cartesian_prod(torch.arange(E), torch.arange(2 * R))
    product = model.query(*pairs.unbind(1)) @ model.table().mT
    product[torch.arange(len(pairs)), pairs[:, 0]] += model.loop(pairs[:, 1])
    torch.testing.assert_close(product.flatten(), expected, rtol=1e-10, atol=1e-10)


@every_model
def test_tails_of_each_head_as_a_matrix(cls: type[LinkScorer]) -> None:
    model = randomised(cls)
    head, relation, tails = torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([[0, 2, 4], [4, 4, 1]])
    expected = model(head.repeat_interleave(3), relation.repeat_interleave(3), tails.flatten()).view(2, 3)
    torch.testing.assert_close(model(head, relation, tails), expected)
    torch.testing.assert_close(candidate_scores(model, head, relation, tails), expected)


@every_model
def test_gradients_are_those_of_finite_differences(cls: type[LinkScorer]) -> None:
    model = cls(E, R, 4, std=0.5, sparse=False).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    head, relation = torch.tensor([0, 4, 4, 7]), torch.tensor([1, 5, 0, 1])
    names, values = zip(*model.named_parameters(), strict=True)

    def scores(*parameters: Tensor) -> Tensor:
        mapping = dict(zip(names, parameters, strict=True))
        state = {**mapping}
        return torch.func.functional_call(
            _Product(model), {f"model.{k}": v for k, v in state.items()}, (head, relation)
        )

    assert torch.autograd.gradcheck(scores, values)


class _Product(torch.nn.Module):
    def __init__(self, model: LinkScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, head: Tensor, relation: Tensor) -> Tensor:
        return self.model.query(head, relation) @ self.model.table().mT


@every_model
def test_relations_are_the_identity_at_the_start(cls: type[LinkScorer]) -> None:
    model = cls(E, R, N, std=0.5)
    x = model.entity.weight.detach()
    for r in range(2 * R):
        torch.testing.assert_close(model.move(x, torch.full((E,), r)), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("std", [1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("cls", [HyboNet, EuclideanHyboNet])
def test_float32_products_resolve_neighbours_near_the_origin(cls: type[LinkScorer], std: float) -> None:
    model = cls(100, 1, N, std=std)
    exact = copy.deepcopy(model).double()
    head, relation = torch.arange(100), torch.zeros(100, dtype=torch.int64)
    products = (model.query(head, relation) @ model.table().mT).double()
    truth = exact(head, relation, torch.arange(100).expand(100, 100))
    truth = truth - torch.diag(exact.loop(relation))
    assert (products - truth).abs().max() < 1e-6 * truth.abs().max()


def test_rotation_and_boost_preserve_distances() -> None:
    model = randomised(LorentzRotH)
    x = model.entity.weight.detach()
    for r in range(2 * R):
        y = model.move(x, torch.full((E,), r))
        torch.testing.assert_close(LF.pairwise_dist(y, y), LF.pairwise_dist(x, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("lorentzian", "euclidean"),
    [(HyboNet, EuclideanHyboNet), (LorentzMuRP, EuclideanMuRE), (LorentzRotH, EuclideanRotE)],
)
def test_twins_have_equal_numbers_of_parameters(lorentzian: type[LinkScorer], euclidean: type[LinkScorer]) -> None:
    sizes = [sum(p.numel() for p in cls(E, R, N).parameters()) for cls in (lorentzian, euclidean)]
    assert sizes[0] == sizes[1]


def test_rotations_want_an_even_dimension() -> None:
    with pytest.raises(ValueError, match=r"^expected an even dim, .*, got 5$"):
        LorentzRotH(E, R, 5)


def test_the_twins_agree_where_the_space_is_nearly_flat() -> None:
    curved, flat = (cls(E, R, N, std=1e-3).double() for cls in (HyboNet, EuclideanHyboNet))
    with torch.no_grad():
        flat.entity.weight.copy_(curved.entity.weight)
        curved.time_weight.copy_(1e-3 * torch.randn(2 * R, N))
        flat.translation.copy_(curved.time_weight)
    head, relation, tail = torch.arange(E), torch.arange(E) % (2 * R), torch.arange(E).flip(0)
    torch.testing.assert_close(curved(head, relation, tail), flat(head, relation, tail), rtol=1e-4, atol=1e-12)


@every_model
def test_entities_of_lorentz_models_are_points_for_the_optimiser(cls: type[LinkScorer]) -> None:
    model = cls(E, R, N)
    points = [p for g in param_groups(model) if g.get("manifold") is not None for p in g["params"]]
    expected = [] if issubclass(cls, EuclideanScorer) else [model.entity.weight]
    assert len(points) == len(expected)
    assert all(p is q for p, q in zip(points, expected, strict=True))


@every_model
def test_a_step_touches_only_the_rows_that_were_asked_for(cls: type[LinkScorer]) -> None:
    model = cls(E, R, N, std=0.5)
    before = copy.deepcopy(model.state_dict())
    optimiser = RiemannianAdam(param_groups(model), lr=0.1)
    head, relation = torch.tensor([0, 4]), torch.tensor([1, 5])
    candidate_scores(model, head, relation, torch.tensor([[2, 3], [3, 5]])).sum().backward()
    optimiser.step()
    changed = (model.entity.weight != before["entity.weight"]).any(1).nonzero().flatten().tolist()
    assert changed == [0, 2, 3, 4, 5]
    assert (model.bias.weight != 0).any(1).nonzero().flatten().tolist() == [2, 3, 5]


def test_loop_weights_start_at_the_share_of_facts_whose_head_is_their_tail() -> None:
    model = HyboNet(E, 2, N)
    model.count_loops_(torch.tensor([[0, 0, 0], [1, 0, 2], [3, 0, 4], [1, 1, 2]]))
    assert model.loop_weight.tolist() == pytest.approx([math.log(v) for v in (1.5 / 4, 0.5 / 2, 0.5, 0.5)])


@every_model
def test_state_survives_and_the_repr_says_the_sizes(cls: type[LinkScorer]) -> None:
    model = randomised(cls)
    twin = cls(E, R, N, margin=1.5).double()
    twin.load_state_dict(model.state_dict())
    head, relation = torch.arange(E), torch.arange(E) % (2 * R)
    assert torch.equal(twin.query(head, relation) @ twin.table().mT, model.query(head, relation) @ model.table().mT)
    assert f"{cls.__name__}(\n  entities={E}, relations={R}, dim={N}, margin=1.5" in repr(model)


def test_ambient_points_of_the_package_are_those_of_this_test() -> None:
    x = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(lorentz.functional.to_ambient(x), ambient(x))
