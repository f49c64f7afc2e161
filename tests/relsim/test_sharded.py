"""Two gloo processes, half of the entity table on each: the same matrix, the same gradients, half of the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import relsim
from relsim.comparing import compare
from relsim.crew import Crew
from relsim.data import nations
from relsim.divergence import Divergence
from relsim.estimators import RaoBlackwell
from relsim.grouping import GroupedFacts
from relsim.lorentz import LorentzDistribution
from relsim.mlp import MLPDistribution
from relsim.models import load_model, save_model
from relsim.neural import ENTITY_ROWS, NeuralDistribution
from relsim.sharded import load_sharded, shard, unshard
from relsim.training import Training, batch_nll, fit
from tests.relsim.conftest import random_model
from tests.relsim.test_lorentz import random_points

ESTIMATOR = RaoBlackwell(mass=1.0, samples=60, features=4)
MODELS = {
    "mlp": lambda: random_model(151, 12, seed=2),  # an odd number of entities: the parts differ
    "lorentz": lambda: random_points(151, 12, seed=2, scale=0.2),
}


def together(rank: int, work: object, folder: Path, *arguments: object) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    work(Crew(rank, 2), folder, *arguments)  # type: ignore[operator]
    dist.barrier()  # a process that leaves early takes the others' connections with it
    dist.destroy_process_group()


def two(work: object, folder: Path, *arguments: object) -> None:
    mp.spawn(together, (work, folder, *arguments), nprocs=2)  # type: ignore[no-untyped-call]


def compare_sharded(crew: Crew, folder: Path) -> None:
    for kind, make in MODELS.items():
        model = shard(make(), crew)
        held = sum(model.get_parameter(name).numel() for name in ENTITY_ROWS)
        whole = sum(make().get_parameter(name).numel() for name in ENTITY_ROWS)
        assert abs(held / whole - 0.5) < 0.01
        div = compare(model, folder / kind, ESTIMATOR, crew=crew, progress=False)
        assert (div is None) == (crew.rank == 1)


def test_two_processes_give_the_same_matrix_as_one_and_hold_half_the_table_each(tmp_path: Path) -> None:
    two(compare_sharded, tmp_path)
    for kind, make in MODELS.items():
        found, expected = Divergence.load(tmp_path / kind), compare(make(), tmp_path / "one" / kind, ESTIMATOR)
        assert expected is not None
        for name in ("kl", "stderr", "head", "tail"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-6)
        assert found.meta["heads"] == expected.meta["heads"]


def gradients(model: NeuralDistribution) -> dict[str, torch.Tensor]:
    facts = GroupedFacts(nations().train)
    head, tail = batch_nll(model, facts.batch(torch.arange(0, len(facts), 7)))
    (head + tail).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def fresh(kind: str) -> NeuralDistribution:
    kb = nations()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cls = {"mlp": MLPDistribution, "lorentz": LorentzDistribution}[kind]
        return cls(kb.entities, kb.relations, dim=6, hidden=16).double()


def gradients_sharded(crew: Crew, folder: Path) -> None:
    for kind in MODELS:
        model = shard(fresh(kind), crew)
        found, expected = gradients(model), gradients(fresh(kind))
        assert found.keys() == expected.keys()
        for name, wanted in expected.items():
            part = wanted[model.start : model.stop] if name in ENTITY_ROWS else wanted
            torch.testing.assert_close(found[name], part, rtol=1e-9, atol=1e-9)


def test_gradients_of_a_step_are_those_of_one_process(tmp_path: Path) -> None:
    two(gradients_sharded, tmp_path)


def shard_and_back(crew: Crew, folder: Path) -> None:
    model = random_model(151, 5).float()
    again = unshard(shard(model, crew))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    loaded = load_sharded(folder / "model", crew)
    assert torch.equal(loaded.entity, model.entity[loaded.start : loaded.stop])
    relation = torch.arange(5)
    torch.testing.assert_close(loaded.head_log_prob(relation), model.head_log_prob(relation))
    torch.testing.assert_close(loaded.tail_log_prob(150, relation), model.tail_log_prob(150, relation))


def test_a_sharded_model_comes_back_whole_and_is_read_in_parts(tmp_path: Path) -> None:
    save_model(random_model(151, 5).float(), tmp_path / "model")
    two(shard_and_back, tmp_path)


def fit_sharded(crew: Crew, folder: Path) -> None:
    model = fit(nations(), dim=8, hidden=16, dropout=0.0, training=Training(epochs=2), crew=crew, progress=False)
    if crew.leads:
        save_model(model, folder / "model")


def test_fitting_on_two_processes_is_fitting_on_one(tmp_path: Path) -> None:
    two(fit_sharded, tmp_path)
    found = load_model(tmp_path / "model")
    expected = fit(nations(), dim=8, hidden=16, dropout=0.0, training=Training(epochs=2), progress=False)
    assert found.meta["valid_nll"] == pytest.approx(expected.meta["valid_nll"], abs=1e-3)


@pytest.mark.parametrize("command", ["compare"])
def test_torchrun_runs_the_command(command: str, tmp_path: Path) -> None:
    save_model(random_model(90, 6).float(), tmp_path / "model")
    root = Path(relsim.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'kernels'}", "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611"]
    line = [*start, "-m", "relsim", command, str(tmp_path / "model"), str(tmp_path / "out"), "--samples", "30"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("KL(a||b)") == 1
    found = Divergence.load(tmp_path / "out")
    expected = RaoBlackwell(samples=30).divergence(load_model(tmp_path / "model"), progress=False)
    np.testing.assert_allclose(found.kl, expected.kl, rtol=1e-4, atol=1e-5)
