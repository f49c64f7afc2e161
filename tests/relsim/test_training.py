"""Training: the objective, its determinism, resumption, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relsim import loop as module
from relsim.data import nations
from relsim.denormals import zero_denormals_
from relsim.errors import RelsimError
from relsim.grouping import GroupedFacts
from relsim.kb import KB, Triples
from relsim.likelihood import negative_log_likelihood
from relsim.optimising import Training
from relsim.training import fit, fit_counts
from tests.relsim.conftest import random_model

SMALL = {"dim": 8, "hidden": 16, "progress": False}


def test_objective_is_the_mean_of_minus_log_prob() -> None:
    model = random_model(9, 3)
    rng = np.random.default_rng(0)
    facts = Triples.from_columns(rng.integers(0, 9, 80), rng.integers(0, 3, 80), rng.integers(0, 9, 80))
    assert facts.total > len(facts)  # some are stated twice, and count twice
    head, relation, tail = (torch.from_numpy(part) for part in (facts.head, facts.relation, facts.tail))
    weight = torch.from_numpy(facts.count).double() / facts.total
    expected = -(weight * model.head_log_prob(relation).gather(1, head[:, None]).squeeze(1)).sum().item()
    joint = -(weight * model.log_prob(head, relation, tail)).sum().item()
    found = negative_log_likelihood(model, GroupedFacts(facts), chunk=7)
    np.testing.assert_allclose(found, (expected, joint - expected), rtol=1e-6)


def test_groups_hold_every_fact_once() -> None:
    facts = nations().train
    grouped = GroupedFacts(facts)
    pairs = set(zip(facts.head.tolist(), facts.relation.tolist(), strict=True))
    assert len(grouped) == len(pairs)
    seen = []
    for rows in torch.randperm(len(grouped), generator=torch.Generator().manual_seed(0)).split(13):
        batch = grouped.batch(rows)
        group = torch.repeat_interleave(torch.arange(len(rows)), batch.sizes)
        torch.testing.assert_close(batch.weight, torch.zeros(len(rows)).index_add(0, group, batch.counts))
        seen += list(zip(batch.head[group].tolist(), batch.relation[group].tolist(), batch.tail.tolist(), strict=True))
    assert sorted(seen) == sorted(zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), strict=True))


def test_it_learns_nations_better_than_counts() -> None:
    kb = nations().with_validation()
    model = fit(kb, hidden=64, dim=16, training=Training(epochs=10), progress=False)
    assert model.meta["valid_nll"] < fit_counts(kb).meta["valid_nll"]
    assert sum(negative_log_likelihood(model, GroupedFacts(kb.valid))) == pytest.approx(model.meta["valid_nll"], 1e-5)
    assert not model.training


def test_equal_seeds_give_equal_models_and_leave_the_callers_random_state() -> None:
    state = torch.random.get_rng_state()
    first, second = (fit(nations(), training=Training(epochs=2, seed=1), **SMALL) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = fit(nations(), training=Training(epochs=2, seed=2), **SMALL)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.entity, other.entity)


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_training_resumes_to_the_same_model(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(epochs=4, seed=3)
    whole = fit(nations(), training=training, **SMALL)
    epoch = module._epoch

    def interrupted(*arguments: object) -> float:
        if arguments[5] == stop:
            raise KeyboardInterrupt
        return epoch(*arguments)  # type: ignore[arg-type]

    folder = tmp_path / "model.training"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(nations(), training=training, resume=folder, **SMALL)
    assert folder.exists()
    resumed = fit(nations(), training=training, resume=folder, **SMALL)
    again = fit(nations(), training=training, resume=folder, **SMALL)  # a finished training is there at once
    assert torch.equal(again.entity, resumed.entity)
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.meta["history"] == whole.meta["history"]


def test_a_checkpoint_of_other_settings_or_names_is_refused(tmp_path: Path) -> None:
    folder, kb = tmp_path / "model.training", nations()
    fit(kb, training=Training(epochs=1), resume=folder, **SMALL)
    with pytest.raises(RelsimError, match="holds a training with other entities"):
        fit(replace(kb, entities=[*kb.entities, "x"]), training=Training(epochs=1), resume=folder, **SMALL)
    with pytest.raises(RelsimError, match="holds a training with other epochs"):
        fit(nations(), training=Training(epochs=2), resume=folder, **SMALL)


def test_training_stops_when_validation_no_longer_improves() -> None:
    model = fit(nations(), training=Training(epochs=60, lr=3e-2, patience=2), **SMALL)
    assert len(model.meta["history"]) == model.meta["best_epoch"] + 1 + 2 < 60
    best = min(entry["valid_head"] + entry["valid_tail"] for entry in model.meta["history"])
    assert model.meta["valid_nll"] == best


def test_denormal_weights_become_zero() -> None:
    model = copy.deepcopy(random_model(4, 2)).float()
    with torch.no_grad():
        model.tail_mlp.second.weight[0] = 1e-41
    zero_denormals_(model)
    assert (model.tail_mlp.second.weight[0] == 0).all()
    assert (model.tail_mlp.second.weight[1] != 0).all()


def test_a_kb_without_facts_or_with_one_entity_is_refused() -> None:
    with pytest.raises(RelsimError, match="no training facts"):
        fit(KB.from_names([]))
    with pytest.raises(RelsimError, match="a single entity"):
        fit(KB.from_names([("a", "r", "a")]))
    with pytest.raises(RelsimError, match="too few facts"):
        fit_counts(KB.from_names([("a", "r", "b")]))


def test_a_training_that_diverges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RelsimError, match=r"diverged: lower lr, which is 1e\+09"):
        fit(nations(), training=Training(epochs=2, lr=1e9), resume=tmp_path / "x.training", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("facts", [2, 3, 40])
def test_holding_out_leaves_facts_on_both_sides(facts: int) -> None:
    for seed in range(20):
        kb = KB.from_names([(f"e{i}", "r", "x") for i in range(facts)]).with_validation(seed=seed)
        assert len(kb.train) > 0
        assert len(kb.valid) > 0
        assert len(kb.train) + len(kb.valid) == facts
