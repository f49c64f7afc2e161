"""Softmaxes factored by classes: exactly normalised, the chain rule as a Bregman divergence, gradients, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from relsim.classsum import all_classes, class_mean, log_within
from relsim.cli import main
from relsim.comparing import compare
from relsim.crew import Crew
from relsim.data import nations
from relsim.design import bregman
from relsim.errors import RelsimError
from relsim.estimators import Enumerate, RaoBlackwell
from relsim.factored import ClassFactoredDistribution, by_role
from relsim.grouping import GroupedFacts
from relsim.kb import KB, Triples
from relsim.likelihood import batch_nll
from relsim.models import load_model, save_model
from relsim.optimising import Training
from relsim.search import nearest
from relsim.sharded import load_sharded, shard
from relsim.similar import neighbours
from relsim.training import fit, fit_counts
from tests.relsim.test_estimators import brute_force


def random_classes(entities: int = 23, relations: int = 5, seed: int = 0, **shape: int) -> ClassFactoredDistribution:
    """An untrained model in float64 whose entities stand in the tables in random order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = [f"e{i}" for i in range(entities)], [f"r{i}" for i in range(relations)]
        model = ClassFactoredDistribution(*names, dim=5, hidden=16, **shape).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * (0.9 if parameter.ndim > 1 else 0.5))
                if parameter.shape[-1] == 16:
                    parameter.mul_(0.25)
            model.position.copy_(torch.randperm(entities))
    return model


SIZES = pytest.mark.parametrize("size", [1, 4, 5, 22, 23, 40])  # of the classes, for 23 entities


@SIZES
@torch.no_grad()
def test_probabilities_are_those_of_the_formula(size: int) -> None:
    """Written out entity by entity, with plain loops over the classes."""
    model = random_classes(class_size=size)
    query = model._of_pair(torch.tensor([3]), torch.tensor([2]))[0]
    assert model.tail_bias is not None
    members: dict[int, list[int]] = {}
    for entity, row in enumerate(model.position.tolist()):
        members.setdefault(row // size, []).append(entity)
    assert len(members) == model.classes
    between = torch.stack([query @ model.group[c] + model.group_tail_bias[c] for c in range(model.classes)])
    expected = torch.empty(23, dtype=torch.float64)
    for c, inside in members.items():
        rows = model.position[inside]
        within = torch.stack([query @ model.entity[row] + model.tail_bias[row] for row in rows])
        expected[inside] = torch.log_softmax(between, 0)[c] + torch.log_softmax(within, 0)
    assert float(expected.exp().sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(model.tail_log_prob(3, 2), expected, rtol=1e-10, atol=1e-10)


@SIZES
@torch.no_grad()
def test_the_bregman_divergence_is_the_chain_rule(size: int) -> None:
    """KL of the classes, plus the expected KL within them, both from probabilities."""
    model = random_classes(class_size=size)
    natural = model.head_natural(torch.arange(5))
    found = bregman(natural[None], *(part[None] for part in model.head_moments(natural)))[0]
    log = model.head_log_prob(torch.arange(5))
    group = (model.position // size).expand(5, -1)
    share = torch.zeros(5, model.classes, dtype=torch.float64).scatter_add_(1, group, log.exp())
    inside = log - share.log().gather(1, group)
    for a in range(5):
        for b in range(5):
            of_classes = (share[a] * (share[a] / share[b]).log()).sum()
            within = (log[a].exp() * (inside[a] - inside[b])).sum()
            assert float(found[a, b]) == pytest.approx(float(of_classes + within), abs=1e-9)


@SIZES
def test_enumerate_is_the_sum_over_all_facts(size: int) -> None:
    model = random_classes(class_size=size)
    div = Enumerate().divergence(model, progress=False)
    np.testing.assert_allclose(div.kl, brute_force(model), rtol=0, atol=1e-9)


def test_stated_facts_have_their_log_probability_and_its_gradient() -> None:
    model = random_classes()
    head, relation, tail = torch.randint(23, (40,)), torch.randint(5, (40,)), torch.randint(23, (40,))
    loss = model.stated_head(torch.arange(5), relation, head) + model.stated_tail(
        head, relation, torch.arange(40), tail
    )
    expected = model.log_prob(head, relation, tail)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    names = [name for name, _ in model.named_parameters()]
    weight = torch.randn(40, dtype=torch.float64)
    found, wanted = (torch.autograd.grad(weight @ value, list(model.parameters())) for value in (loss, expected))
    for name, mine, theirs in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8, msg=name)


def test_gradients_within_classes() -> None:
    query = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    table = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, dtype=torch.float64, requires_grad=True)
    which = torch.tensor([5, 0, 0, 3, 3, 3, 1])
    row = torch.tensor([10, 0, 2, 1, 0, 9, 4])  # class 2 does not occur; class 3 is smaller; pairs recur

    def found(query: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        return log_within(query, which, row, table, bias, 3)

    assert torch.autograd.gradcheck(found, (query, table, bias))
    everything = all_classes(query, table, bias, 3)
    assert everything.shape == (6, 4)
    score = (query[which] * table[row]).sum(dim=1) + bias[row]
    torch.testing.assert_close(found(query, table, bias), score - everything[which, row // 3])
    without = log_within(query, which, row, table, None, 3)
    torch.testing.assert_close(without, score - bias[row] - all_classes(query, table, None, 3)[which, row // 3])


def test_tiles_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    query, table, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, 4), (53, 4), (7, 8)))

    def both() -> list[Tensor]:
        return [all_classes(query, table, None, 7), class_mean(query, weight, table, None, 7)]

    whole = both()
    monkeypatch.setattr("relsim.classsum.ENTRIES", 1)
    for found, expected in zip(both(), whole, strict=True):
        torch.testing.assert_close(found, expected)


ESTIMATORS = {"all": Enumerate(), "some": RaoBlackwell(mass=1.0, samples=60, features=6)}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
def test_search_and_blocks_give_what_the_matrix_holds(estimator: Enumerate | RaoBlackwell, tmp_path: Path) -> None:
    model = random_classes(150, 20, seed=3)
    div = estimator.divergence(model, progress=False)
    again = compare(model, tmp_path / "out", estimator, progress=False)
    assert again is not None
    np.testing.assert_allclose(again.kl, div.kl, rtol=1e-9, atol=1e-9)
    found, _ = nearest(model, "r3", 5, estimator=estimator)
    for mine, theirs in zip(found, neighbours(div, "r3", 5), strict=True):
        assert mine.name == theirs.name
        np.testing.assert_allclose((mine.kl_from, mine.kl_to), (theirs.kl_from, theirs.kl_to), rtol=1e-6)


def test_sampled_heads_cover_the_truth_and_are_unbiased_over_seeds() -> None:
    model = random_classes(300, 6, seed=1)
    exact = Enumerate().divergence(model, progress=False).kl
    seeds = [RaoBlackwell(mass=1.0, samples=80, seed=seed).divergence(model, progress=False) for seed in range(60)]
    pairs = ~np.eye(6, dtype=bool)
    kl, stderr = np.stack([div.kl[pairs] for div in seeds]), np.stack([div.stderr[pairs] for div in seeds])
    assert 0.90 <= np.mean(np.abs(kl - exact[pairs]) < 1.96 * stderr) <= 0.99
    assert np.abs((kl.mean(axis=0) - exact[pairs]) / (kl.std(axis=0, ddof=1) / 60**0.5)).max() < 4.0


def test_entities_of_a_role_share_classes_and_frequent_ones_come_first() -> None:
    facts = Triples.from_columns([0, 0, 0, 1, 4, 5], [0, 0, 0, 0, 1, 1], [2, 3, 6, 2, 0, 0], [1, 1, 1, 1, 3, 1])
    position = by_role(facts, 8)
    assert sorted(position.tolist()) == list(range(8))
    order = np.argsort(position).tolist()
    # heads of 0: only 1, since 0 is a tail of 1 four times; tails of 0: 2, 3, 6; tails of 1: 0; heads of 1: 4, 5
    groups = {frozenset(order[i : i + n]) for i, n in ((0, 1), (1, 1), (0, 2), (2, 3), (4, 3), (5, 2))}
    assert order[-1] == 7  # without a fact
    assert frozenset({4, 5}) in groups or abs(position[4] - position[5]) == 1
    assert position[4] < position[5]
    assert max(position[[2, 3, 6]]) - min(position[[2, 3, 6]]) == 2
    assert position[2] < min(position[[3, 6]])


def test_no_facts_at_all_leave_the_order() -> None:
    assert by_role(Triples.from_columns([], [], []), 4).tolist() == [0, 1, 2, 3]


def test_it_learns_nations_better_than_counts() -> None:
    kb = nations()
    model = fit(kb, model=ClassFactoredDistribution, dim=16, hidden=64, training=Training(epochs=8), progress=False)
    assert model.classes == 4
    assert model.meta["valid_nll"] < fit_counts(kb).meta["valid_nll"]


@torch.no_grad()
def test_the_start_is_the_frequencies_of_heads_and_tails() -> None:
    """With all vectors zero, the biases alone give the smoothed shares."""
    kb = nations()
    model = ClassFactoredDistribution(kb.entities, kb.relations, dim=4, hidden=8, class_size=5)
    model.start_from(kb.train)
    for parameter in (model.entity, model.group):
        parameter.zero_()
    count = torch.from_numpy(kb.train.head).bincount(torch.from_numpy(kb.train.count), 14) + 0.5
    torch.testing.assert_close(model.head_log_prob(3).exp(), (count / count.sum()).float())


@torch.no_grad()
def test_the_loss_is_that_of_a_model_of_one_class() -> None:
    """One class holds all entities: then it is the softmax of the perceptrons' model, whose class part is certain."""
    from relsim.mlp import MLPDistribution

    kb = nations()
    one = ClassFactoredDistribution(kb.entities, kb.relations, dim=6, hidden=16, class_size=14).eval()
    plain = MLPDistribution(kb.entities, kb.relations, dim=6, hidden=16).eval()
    plain.load_state_dict({key: value for key, value in one.state_dict().items() if key in plain.state_dict()})
    facts = GroupedFacts(kb.train)
    batch = facts.batch(torch.arange(len(facts)))
    torch.testing.assert_close(torch.stack(batch_nll(one, batch)), torch.stack(batch_nll(plain, batch)))


def test_the_command_fits_and_compares_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nations().save(tmp_path / "kb")
    line = ["fit", str(tmp_path / "kb"), str(tmp_path / "model"), "--model", "classes", "--epochs", "1"]
    assert main([*line, "--dim", "8", "--hidden", "16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid_nll"] < 14
    assert isinstance(load_model(tmp_path / "model"), ClassFactoredDistribution)
    assert main(["similar", str(tmp_path / "model"), "embassy", "--top", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_positions_that_are_no_permutation_are_damage(tmp_path: Path) -> None:
    save_model(random_classes(), tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for wrong in (tensors["position"] * 0, tensors["position"] + 1, tensors["position"] - 1):
        save_file({**tensors, "position": wrong}, tmp_path / "model" / "model.safetensors")
        with pytest.raises(RelsimError, match=r"damaged \(expected positions that are a permutation"):
            load_model(tmp_path / "model")


def test_a_crew_is_told_to_be_one(tmp_path: Path) -> None:
    model = random_classes()
    save_model(model, tmp_path / "model")
    for attempt in (lambda: shard(model, Crew(0, 2)), lambda: load_sharded(tmp_path / "model", Crew(0, 2))):
        with pytest.raises(RelsimError, match="a classes model has no table to share: run one process"):
            attempt()


def test_a_kb_of_two_entities_has_classes() -> None:
    kb = KB.from_names([("a", "r", "b"), ("b", "r", "a"), ("a", "s", "a"), ("b", "s", "b")])
    model = fit(kb, model=ClassFactoredDistribution, dim=2, hidden=2, training=Training(epochs=1), progress=False)
    assert (model.class_size, model.classes) == (2, 1)
