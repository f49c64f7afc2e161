"""The log-likelihood over a table on two gloo processes: ours beside DTensor with loss_parallel, forward and backward.

CPU seconds of one of the processes, and the largest memory that its step took beyond the table.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from relsim.crew import Crew
from relsim.mlp import MLPDistribution
from relsim.sharded import shard

pytestmark = pytest.mark.benchmark(timer=time.process_time)
ROWS, WIDTH, ROUNDS = 512, 64, 5
NOISE = 1.15


def ours(crew: Crew, table: Tensor, query: Tensor, target: Tensor) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Return a step: the loss, and its gradients in the query and in this process's rows of the table."""
    model = MLPDistribution([str(i) for i in range(len(table))], ["r"], dim=WIDTH, hidden=8, bias=False)
    model.entity.data.copy_(table)
    part = shard(model, crew)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        natural = query.clone().requires_grad_()
        loss = (part.tail_partition(natural) - part.tail_score(natural, target)).mean()
        return loss.detach(), *torch.autograd.grad(loss, [natural, part.entity])

    return step


def dtensor(crew: Crew, table: Tensor, query: Tensor, target: Tensor) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Return the same step as torch's tensor parallelism writes it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (crew.size,))
    rows = distribute_tensor(table, mesh, [Shard(0)]).requires_grad_()
    goal = distribute_tensor(target, mesh, [Replicate()])

    def step() -> tuple[Tensor, Tensor, Tensor]:
        natural = distribute_tensor(query.clone(), mesh, [Replicate()]).requires_grad_()
        with loss_parallel():
            loss = F.cross_entropy(natural @ rows.T, goal)
            grads = torch.autograd.grad(loss, [natural, rows])
        assert all(isinstance(grad, DTensor) for grad in grads)
        return loss.full_tensor().detach(), grads[0].full_tensor(), grads[1].to_local()

    return step


def worker(rank: int, folder: Path, entities: int, name: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / name}", rank=rank, world_size=2)
    torch.manual_seed(0)
    table, query = torch.randn(entities, WIDTH) * 0.3, torch.randn(ROWS, WIDTH)
    target = torch.randint(entities, (ROWS,))
    step = {"ours": ours, "dtensor": dtensor}[name](Crew(rank, 2), table, query, target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, seconds = step(), []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for _ in range(ROUNDS):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    if rank == 0:
        torch.save(list(found), folder / f"{name}.pt")
        record = {"cpu_s": median(seconds), "step_mib": memory / 1024}
        (folder / f"{name}.json").write_text(json.dumps(record))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("entities", [14_951, 200_000])
def test_sharded_loss_against_dtensor(entities: int, tmp_path: Path, benchmark: Any) -> None:
    """The same loss and gradients; ours takes no more CPU, and no memory for the scores."""
    records: dict[str, dict[str, float]] = {}
    for name in ("ours", "dtensor"):
        mp.spawn(worker, (tmp_path, entities, name), nprocs=2)  # type: ignore[no-untyped-call]
        records[name] = json.loads((tmp_path / f"{name}.json").read_text())
    steps = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in records]
    for mine, theirs in zip(*steps, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    benchmark.extra_info |= {f"{name}_{key}": value for name, of in records.items() for key, value in of.items()}
    benchmark.extra_info |= {"ratio": records["dtensor"]["cpu_s"] / records["ours"]["cpu_s"]}
    benchmark.pedantic(lambda: None, rounds=1)
    assert records["ours"]["cpu_s"] <= NOISE * records["dtensor"]["cpu_s"]
    assert records["ours"]["step_mib"] <= records["dtensor"]["step_mib"]
