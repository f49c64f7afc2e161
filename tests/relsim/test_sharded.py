"""Two gloo processes, half of the entity table on each: the same matrix, the same gradients, half of the memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file

import relsim
from relsim.checkpoint import Checkpoints
from relsim.comparing import compare
from relsim.crew import Crew
from relsim.data import nations
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.estimators import RaoBlackwell
from relsim.grouping import GroupedFacts
from relsim.likelihood import batch_nll
from relsim.lorentz import LorentzDistribution
from relsim.mlp import MLPDistribution
from relsim.models import load_model, save_model
from relsim.neural import ENTITY_ROWS, NeuralDistribution
from relsim.optimising import Training
from relsim.sharded import load_sharded, shard, unshard
from relsim.training import fit
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


class Part(Crew):
    """One process of two whose meetings with the other are played by the test."""

    def meet(self) -> None:
        return None


class Killed(Part):
    def meet(self) -> None:
        raise KeyboardInterrupt


def groups(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"entity": torch.tensor([value])} for name in ("model", "best", "optimiser")}


def test_a_checkpoint_of_a_crew_counts_when_all_parts_are_there(tmp_path: Path) -> None:
    """A kill after some of the parts of an epoch leaves the epoch before it."""
    folder, cpu = tmp_path / "training", torch.device("cpu")
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(folder, Killed(0, 2)).save(groups(0.5), {"a": 1}, {"epoch": 1})
    assert Checkpoints(folder, Part(0, 2)).load({"a": 1}, cpu) is None
    for rank in (1, 0):
        Checkpoints(folder, Part(rank, 2)).save(groups(1 + rank), {"a": 1}, {"epoch": 1})
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(folder, Killed(0, 2)).save(groups(7), {"a": 1}, {"epoch": 2})
    for rank in (0, 1):
        found = Checkpoints(folder, Part(rank, 2)).load({"a": 1}, cpu)
        assert found is not None
        assert found[0]["model"]["entity"].item() == 1 + rank
        assert found[1] == {"epoch": 1}
    for rank in (1, 0):
        Checkpoints(folder, Part(rank, 2)).save(groups(3 + rank), {"a": 1}, {"epoch": 2})
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "epoch-2"]


@pytest.mark.parametrize(
    ("crew", "settings", "fault"),
    [
        (Part(0, 2), {"a": 2}, "holds a training with other a"),
        (Crew(), {"a": 1}, "holds a training with other processes"),
        (Part(0, 3), {"a": 1}, "holds a training with other processes"),
    ],
)
def test_a_checkpoint_of_another_crew_is_refused(tmp_path: Path, crew: Crew, settings: dict, fault: str) -> None:
    for rank in (1, 0):
        Checkpoints(tmp_path / "training", Part(rank, 2)).save(groups(1), {"a": 1}, {"epoch": 1})
    with pytest.raises(RelsimError, match=fault):
        Checkpoints(tmp_path / "training", crew).load(settings, torch.device("cpu"))


def test_what_is_no_checkpoint_of_a_crew_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "thesis.tex").write_text("x")
    with pytest.raises(RelsimError, match="stands where checkpoints go"):
        Checkpoints(tmp_path / "training", Part(0, 2)).load({}, torch.device("cpu"))
    assert (tmp_path / "training" / "thesis.tex").exists()


def start_fit(kb: Path, model: Path) -> list[subprocess.Popen[str]]:
    """Two processes as torchrun starts them."""
    root = Path(relsim.__file__).parents[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    path = f"{root}{os.pathsep}{root / 'kernels'}"
    line = [sys.executable, "-m", "relsim", "fit", str(kb), str(model), "--dim", "16", "--hidden", "64"]
    return [
        subprocess.Popen(
            [*line, "--epochs", "12", "--patience", "12", "--batch", "8", "--json"],
            env={**os.environ, **meeting, "PYTHONPATH": path, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> dict[str, Any]:
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return json.loads(said[0][0])


def test_kill_9_of_two_processes_and_the_same_command_again_give_the_same_model(tmp_path: Path) -> None:
    nations().save(tmp_path / "kb")
    whole = finish(start_fit(tmp_path / "kb", tmp_path / "whole"))
    assert not (tmp_path / "whole.training").exists()
    manifest = tmp_path / "killed.training" / "checkpoint.json"
    processes = start_fit(tmp_path / "kb", tmp_path / "killed")
    while not manifest.exists() or json.loads(manifest.read_text())["progress"]["epoch"] < 3:
        assert all(process.poll() is None for process in processes), "it ended before it could be killed"
        time.sleep(0.005)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    reached = json.loads(manifest.read_text())["progress"]["epoch"]
    assert 3 <= reached < 12
    again = finish(start_fit(tmp_path / "kb", tmp_path / "killed"))
    assert again["history"] == whole["history"]
    tensors = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert tensors[0].keys() == tensors[1].keys()
    for key, value in tensors[0].items():
        assert torch.equal(value, tensors[1][key]), key
    assert not (tmp_path / "killed.training").exists()
