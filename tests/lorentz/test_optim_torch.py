"""`lorentz.optim` keeps torch's contracts: state, groups, sparse gradients, schedulers, copies, compiling."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

import lorentz.functional as LF
from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, RiemannianSGD, param_groups

MAKES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda groups, **options: RiemannianAdam(groups, **{"lr": 0.05, "weight_decay": 0.1, **options}),
    "amsgrad": lambda groups, **options: RiemannianAdam(groups, **{"lr": 0.05, "amsgrad": True, **options}),
    "sgd": lambda groups, **options: RiemannianSGD(groups, **{"lr": 0.02, "weight_decay": 0.1, **options}),
    "nesterov": lambda groups, **options: RiemannianSGD(
        groups, **{"lr": 0.02, "momentum": 0.8, "nesterov": True, **options}
    ),
}
every_optimiser = pytest.mark.parametrize("name", list(MAKES))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Table(nn.Module):
    """Points with a manifold of their own, in the protocol that the optimisers read."""

    def __init__(self, rows: int, n: int, manifold: Lorentz, sparse: bool = False) -> None:
        super().__init__()
        self.weight, self.manifold, self.sparse = Parameter(normal(rows, n)), manifold, sparse

    def points(self) -> Iterator[tuple[Parameter, Lorentz]]:
        yield self.weight, self.manifold

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.embedding(rows, self.weight, sparse=self.sparse)


class Model(nn.Module):
    """Points, a matrix with its bias, a norm, a learnable curvature."""

    def __init__(self, learnable: bool = True, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = Table(9, 4, Lorentz(2.0, learnable), sparse)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, rows: Tensor) -> Tensor:
        x, c = self.table(rows), self.table.manifold.c
        return LF.dist(self.norm(self.linear(x)), x, c)


def train(model: nn.Module, rule: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for k in range(first, first + steps):
        rule.zero_grad()
        model(torch.tensor([0, 1 + k % 4, 5, 5])).square().mean().backward()
        rule.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_groups_are_points_matrices_and_vectors() -> None:
    model = Model()
    points, matrices, vectors = param_groups(model, lr=0.1, weight_decay=0.01)
    assert points == {
        "params": [model.table.weight],
        "lr": 0.1,
        "weight_decay": 0,
        "manifold": model.table.manifold,
    }
    assert matrices == {"params": [model.linear.weight], "lr": 0.1, "weight_decay": 0.01}
    assert vectors["weight_decay"] == 0
    assert {id(p) for p in vectors["params"]} == {
        id(p) for p in (model.table.manifold.log_c, model.linear.bias, model.norm.weight, model.norm.bias)
    }


def test_biases_of_attention_do_not_decay_although_they_are_not_vectors() -> None:
    attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    matrices, vectors = param_groups(attention, weight_decay=0.1)
    assert [tuple(p.shape) for p in matrices["params"]] == [(12, 4), (4, 4)]
    assert any(p is attention.bias_k for p in vectors["params"])


def test_shared_points_appear_once_and_equal_fixed_manifolds_make_one_group() -> None:
    tables = nn.ModuleList([Table(3, 2, Lorentz(2.0)), Table(4, 2, Lorentz(2.0)), Table(5, 2, Lorentz(3.0))])
    tables[1].weight = tables[0].weight
    groups = param_groups(tables)
    assert [(len(group["params"]), group["manifold"].c) for group in groups] == [(1, 2.0), (1, 3.0)]
    learnable = nn.ModuleList([Table(3, 2, Lorentz(2.0, True)), Table(4, 2, Lorentz(2.0, True))])
    assert [group.get("manifold") for group in param_groups(learnable)] == [t.manifold for t in learnable] + [None]


def test_a_point_of_two_manifolds_is_refused() -> None:
    tables = nn.ModuleList([Table(3, 2, Lorentz(2.0)), Table(3, 2, Lorentz(3.0))])
    tables[1].weight = tables[0].weight
    with pytest.raises(ValueError, match="one manifold for a shared parameter"):
        param_groups(tables)


def test_another_method_named_points_is_refused() -> None:
    table = Table(3, 2, Lorentz())
    table.points = lambda: [table.weight]  # type: ignore[assignment, return-value]
    with pytest.raises(TypeError, match=r"expected Table.points\(\) to yield"):
        param_groups(table)


@pytest.mark.parametrize("explicit", [False, True])
def test_geoopt_parameters_are_points(explicit: bool) -> None:
    model = nn.Linear(4, 4)
    model.points = geoopt.ManifoldParameter(normal(5, 4), manifold=Lorentz(2.0))
    twin = Parameter(model.points.detach().as_subclass(Tensor).clone())
    rule = RiemannianAdam(param_groups(model) if explicit else model.parameters(), lr=0.1)
    other = RiemannianAdam([{"params": [twin], "manifold": Lorentz(2.0)}], lr=0.1)
    for k in range(3):
        model.points.grad = twin.grad = normal(5, 4, seed=k)
        rule.step()
        other.step()
    assert isinstance(model.points, geoopt.ManifoldParameter)
    assert torch.equal(model.points.as_subclass(Tensor), twin)


def test_points_of_other_manifolds_are_refused() -> None:
    sphere = geoopt.ManifoldParameter(normal(5, 4), manifold=geoopt.Sphere())
    with pytest.raises(ValueError, match=r"expected points of a lorentz.Lorentz, got points of Sphere"):
        RiemannianAdam([sphere])
    with pytest.raises(ValueError, match=r"expected a lorentz.Lorentz as the manifold"):
        RiemannianAdam([{"params": [Parameter(normal(5, 4))], "manifold": geoopt.Sphere()}])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
@every_optimiser
def test_points_in_16_bits_or_complex_are_refused(name: str, dtype: torch.dtype) -> None:
    p = Parameter(normal(5, 4).to(dtype))
    with pytest.raises(ValueError, match=r"expected points \(..., n\) in float32 or float64, got torch\."):
        MAKES[name]([{"params": [p], "manifold": Lorentz()}])
    later = Parameter(normal(5, 4))
    rule = MAKES[name]([{"params": [later], "manifold": Lorentz()}])
    later.data = later.data.to(dtype)
    later.grad = torch.ones_like(later)
    with pytest.raises(ValueError, match="expected points"):
        rule.step()


@every_optimiser
def test_weight_decay_of_points_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected weight_decay=0 for points, got 0\.1"):
        MAKES[name]([{"params": [Parameter(normal(5, 4))], "manifold": Lorentz(), "weight_decay": 0.1}])


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (RiemannianAdam, {"lr": -1.0}),
        (RiemannianAdam, {"betas": (0.9, 1.0)}),
        (RiemannianAdam, {"eps": -1e-8}),
        (RiemannianAdam, {"weight_decay": -1.0}),
        (RiemannianSGD, {"lr": float("nan")}),
        (RiemannianSGD, {"momentum": -0.1}),
        (RiemannianSGD, {"nesterov": True}),
        (RiemannianSGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[..., Any], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make([Parameter(normal(2, 2))], **options)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (RiemannianAdam, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (RiemannianAdam, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0, "amsgrad": True, "maximize": True}),
        (RiemannianAdam, torch.optim.AdamW, {"lr": torch.tensor(0.01), "weight_decay": 0.1}),
        (RiemannianSGD, torch.optim.SGD, {"lr": 0.01, "weight_decay": 0.1}),
        (RiemannianSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
        (RiemannianSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_euclidean_parameters_move_as_in_torch(
    ours: type, theirs: type, options: dict[str, Any], dtype: torch.dtype
) -> None:
    both = [[Parameter(normal(5, 4).to(dtype)), Parameter(normal(3, seed=1).to(dtype))] for _ in range(2)]
    rules = [make(params, **options) for make, params in zip((ours, theirs), both, strict=True)]
    for k in range(10):
        for params, rule in zip(both, rules, strict=True):
            params[0].grad = normal(5, 4, seed=k).to(dtype)
            params[1].grad = normal(3, seed=k).to(dtype) if k % 2 else None
            rule.step()
    for a, b in zip(*both, strict=True):
        assert torch.equal(a, b)
    states = [rule.state_dict()["state"] for rule in rules]
    assert states[0].keys() == states[1].keys()
    for mine, other in zip(states[0].values(), states[1].values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine)


@every_optimiser
def test_training_resumes_from_a_state_dict_to_the_bit(name: str, tmp_path: Path) -> None:
    model = Model()
    rule = MAKES[name](param_groups(model))
    train(model, rule, 5)
    torch.save({"model": model.state_dict(), "rule": rule.state_dict()}, tmp_path / "state.pt")
    train(model, rule, 5, first=5)
    other = Model()
    fresh = MAKES[name](param_groups(other), lr=123.0)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(loaded["model"])
    fresh.load_state_dict(loaded["rule"])
    assert fresh.param_groups[0]["manifold"] is other.table.manifold
    train(other, fresh, 5, first=5)
    assert same(model, other)
    for mine, theirs in zip(rule.state_dict()["state"].values(), fresh.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine if mine[key] is not None)


def test_the_state_of_points_is_adams_with_one_second_moment_each() -> None:
    model = Model()
    rule = RiemannianAdam(param_groups(model), amsgrad=True)
    train(model, rule, 2)
    state = rule.state_dict()
    assert {key: tuple(value.shape) for key, value in state["state"][0].items()} == {
        "step": (),
        "exp_avg": (9, 4),
        "exp_avg_sq": (9, 1),
        "max_exp_avg_sq": (9, 1),
    }
    assert all("manifold" not in group for group in state["param_groups"])
    assert rule.param_groups[0]["manifold"] is model.table.manifold


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@every_optimiser
def test_copies_train_on_alone_and_alike(name: str, copier: Callable[[Any], Any]) -> None:
    model = Model()
    rule = MAKES[name](param_groups(model))
    train(model, rule, 3)
    other, fresh = copier((model, rule))
    assert fresh.param_groups[0]["params"][0] is other.table.weight
    assert fresh.param_groups[0]["manifold"] is other.table.manifold
    train(model, rule, 3, first=3)
    assert not same(model, other)
    train(other, fresh, 3, first=3)
    assert same(model, other)


def test_groups_of_copies_and_compiled_models_are_their_own() -> None:
    model = Model()
    for other, inner in [(copy.deepcopy(model), None), (torch.compile(model), model)]:
        inner = other if inner is None else inner
        points, matrices, vectors = param_groups(other)
        assert len(points["params"]) == 1
        assert points["params"][0] is inner.table.weight
        assert points["manifold"] is inner.table.manifold
        assert matrices["params"][0] is inner.linear.weight
        assert len(vectors["params"]) == 4


@every_optimiser
def test_points_move_in_the_curvature_of_their_gradients(name: str) -> None:
    learned, fixed = Model(learnable=True), Model(learnable=False)
    rules = [MAKES[name](param_groups(model)[::-1]) for model in (learned, fixed)]  # the curvature's group first
    for model, rule in zip((learned, fixed), rules, strict=True):
        train(model, rule, 1)
    torch.testing.assert_close(learned.table.weight, fixed.table.weight, rtol=1e-6, atol=1e-6)
    assert learned.table.manifold.c != 2.0
    train(learned, rules[0], 20)
    assert all(p.isfinite().all() for p in learned.parameters())


@every_optimiser
def test_sparse_gradients_touch_their_rows_only_and_begin_like_dense_ones(name: str) -> None:
    dense, sparse = Model(sparse=False), Model(sparse=True)
    rules = [MAKES[name](param_groups(model)) for model in (dense, sparse)]
    before = sparse.table.weight.detach().clone()
    for model, rule in zip((dense, sparse), rules, strict=True):
        train(model, rule, 1)
    torch.testing.assert_close(sparse.table.weight, dense.table.weight, rtol=1e-6, atol=1e-6)
    train(sparse, rules[1], 3, first=1)
    untouched = [6, 7, 8]
    assert torch.equal(sparse.table.weight[untouched], before[untouched])
    assert not any(value[untouched].any() for value in rules[1].state[sparse.table.weight].values() if value.ndim)
    assert (sparse.table.weight[[0, 1, 2, 3, 4, 5]] != before[[0, 1, 2, 3, 4, 5]]).any(-1).all()


def test_rows_without_sparse_gradient_keep_their_momentum() -> None:
    table = Table(4, 3, Lorentz(), sparse=True)
    rule = RiemannianAdam(param_groups(table), lr=0.1)
    for rows in ([0, 1], [1, 1, 2], []):
        rule.zero_grad()
        table(torch.tensor(rows, dtype=torch.long)).square().sum().backward()
        rule.step()
        if rows == [0, 1]:
            first = {key: value.clone() for key, value in rule.state[table.weight].items()}
            where = table.weight[0].clone()
    assert torch.equal(table.weight[0], where)
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(rule.state[table.weight][key][0], first[key][0])
    assert rule.state[table.weight]["step"] == 3


def test_euclidean_rows_with_sparse_gradients_move_as_in_torchs_sparse_adam() -> None:
    both = [nn.Embedding(6, 3, sparse=True) for _ in range(2)]
    both[1].load_state_dict(both[0].state_dict())
    rules = [RiemannianAdam(both[0].parameters(), lr=0.1), torch.optim.SparseAdam(both[1].parameters(), lr=0.1)]
    for rows in ([0, 1, 1], [1, 4]):
        for table, rule in zip(both, rules, strict=True):
            rule.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            rule.step()
    assert torch.equal(both[0].weight, both[1].weight)


def test_what_sparse_gradients_cannot_do_is_refused() -> None:
    table = nn.Embedding(6, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="expected weight_decay=0 and amsgrad=False for the sparse gradient"):
        RiemannianAdam(table.parameters(), weight_decay=0.1).step()
    p = Parameter(normal(4, 3))
    p.grad = torch.eye(4)[:, :3].to_sparse()
    with pytest.raises(ValueError, match="expected a gradient that is sparse in rows"):
        RiemannianAdam([{"params": [p], "manifold": Lorentz()}]).step()


@every_optimiser
def test_parameters_without_gradient_have_no_state_and_stay(name: str) -> None:
    model = Model()
    before = copy.deepcopy(model)
    rule = MAKES[name](param_groups(model))
    rule.step()
    assert same(model, before)
    assert not rule.state_dict()["state"]


@every_optimiser
def test_a_group_that_is_added_later_moves_too(name: str) -> None:
    model = Model()
    points, *euclidean = param_groups(model)
    rule = MAKES[name](euclidean)
    rule.add_param_group(points)
    other = Model()
    train(model, rule, 3)
    train(other, MAKES[name](param_groups(other)), 3)
    assert same(model, other)


@every_optimiser
def test_closures_run_with_gradients(name: str) -> None:
    model, other = Model(), Model()
    rows = torch.tensor([0, 1, 5, 5])
    rule = MAKES[name](param_groups(model))

    def closure() -> Tensor:
        rule.zero_grad()
        loss = model(rows).square().mean()
        loss.backward()
        return loss

    expected = other(rows).square().mean()
    assert torch.equal(rule.step(closure), expected)
    train(other, MAKES[name](param_groups(other)), 1)
    assert same(model, other)


@every_optimiser
def test_schedulers_set_the_length_of_steps(name: str) -> None:
    model = Model()
    rule = MAKES[name](param_groups(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(rule, lambda k: 0.0 if k else 1.0)
    before = copy.deepcopy(model)
    train(model, rule, 1)
    assert not same(model, before)
    schedule.step()
    before = copy.deepcopy(model)
    train(model, rule, 2, first=1)
    assert same(model, before)


def test_a_learning_rate_can_be_a_tensor() -> None:
    results = []
    for lr in (0.05, torch.tensor(0.05, dtype=torch.float64)):
        for name in ("adam", "nesterov"):
            model = Model()
            train(model, MAKES[name](param_groups(model), lr=lr), 3)
            results.append(model)
    for a, b in zip(results[:2], results[2:], strict=True):
        for x, y in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("name", ["adam", "nesterov"])
def test_the_whole_step_compiles(name: str) -> None:
    torch.compiler.reset()
    model, other = Model(), Model()
    rule, eager = (MAKES[name](param_groups(m)) for m in (model, other))
    train(model, rule, 1)
    train(other, eager, 1)
    compiled = torch.compile(rule.step, backend="aot_eager", fullgraph=True)
    for k in range(3):
        for m, r, step in ((model, rule, compiled), (other, eager, eager.step)):
            r.zero_grad()
            m(torch.tensor([0, 1 + k, 5, 5])).square().mean().backward()
            step()
    for x, y in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(x, y)


def test_state_dicts_are_plain_data() -> None:
    model = Model()
    rule = RiemannianAdam(param_groups(model))
    train(model, rule, 2)
    stream = io.BytesIO()
    torch.save(rule.state_dict(), stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    assert loaded["param_groups"] == rule.state_dict()["param_groups"]
