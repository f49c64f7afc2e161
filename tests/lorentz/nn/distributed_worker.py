"""One of two processes that run every check of `test_distributed` together, so that torch is imported once in each.

Run as `python -m tests.lorentz.nn.distributed_worker RANK FOLDER`; writes `FOLDER/RANK.jsonl`, a line per check: its
name, and "ok" or the traceback. Every check has a process group of its own. A rank that fails closes it, at which the
other fails too and both go on with the next.
"""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, param_groups
from tests.lorentz.nn.modules import LAYERS, Layer, first
from tests.lorentz.test_optim_torch import MAKES, Model, train

RANKS = 2
GROUP_TIMEOUT = timedelta(seconds=60)


def ready(layer: Layer) -> nn.Module:
    """The same module on all ranks, in float64, where rounding does not choose the sign of a step."""
    torch.manual_seed(0)
    return layer.ready(manifold=Lorentz(0.7, learnable=True)).double()


def backward(layer: Layer, module: nn.Module, rank: int) -> None:
    """Add the gradients of a generic loss on the inputs of a rank."""
    inputs = layer.inputs(torch.float64, seed=rank)
    output = first(module(*(x.requires_grad_(x.is_floating_point()) for x in inputs)))
    weights = torch.linspace(-1.0, 1.3, output.numel(), dtype=output.dtype).view_as(output)
    ((weights * output).sum() + output.square().sum()).backward()


def reference(layer: Layer) -> nn.Module:
    """The module with the mean of the gradients of all ranks."""
    module = ready(layer)
    for rank in range(RANKS):
        backward(layer, module, rank)
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad /= RANKS
    return module


def step(module: nn.Module) -> None:
    RiemannianAdam(param_groups(module), lr=0.01).step()


def whole(x: Tensor) -> Tensor:
    x = x.detach()
    return x.full_tensor() if isinstance(x, DTensor) else x


def gradients(module: nn.Module) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {name: whole(torch.zeros_like(p) if p.grad is None else p.grad) for name, p in named}


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p) for name, p in module.named_parameters()}


def replicas_average_their_gradients(layer: Layer, rank: int) -> None:
    alone = reference(layer)
    idle = any(parameter.grad is None for parameter in alone.parameters())
    model = ready(layer)
    replica = DistributedDataParallel(model, find_unused_parameters=idle)
    backward(layer, replica, rank)
    torch.testing.assert_close(gradients(model), gradients(alone))
    step(replica)
    step(alone)
    torch.testing.assert_close(values(model), values(alone))
    for name, value in values(model).items():
        everywhere = [torch.empty_like(value) for _ in range(RANKS)]
        dist.all_gather(everywhere, value)
        assert torch.equal(*everywhere), name


def shards_are_the_whole(layer: Layer, rank: int, by_layers: bool = False) -> None:
    alone = reference(layer)
    model = ready(layer)
    mesh = dist.init_device_mesh("cpu", (RANKS,))
    if by_layers:
        # A parameter can be in one shard only: the curvature is in that of the root, whose norms refer to it.
        curvature = {p for name, p in model.named_parameters() if name.endswith("log_c")}
        for each in model.modules():
            if isinstance(each, lnn.TransformerEncoderLayer | lnn.TransformerDecoderLayer):
                fully_shard(each, mesh=mesh, ignored_params=curvature)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    backward(layer, model, rank)
    torch.testing.assert_close(gradients(model), gradients(alone))
    step(model)
    step(alone)
    torch.testing.assert_close(values(model), values(alone))


def a_module_without_parameters_can_be_sharded(layer: Layer, rank: int) -> None:
    module = layer.build().eval()
    inputs = layer.inputs(seed=rank)
    expected = first(copy.deepcopy(module)(*inputs))
    fully_shard(module, mesh=dist.init_device_mesh("cpu", (RANKS,)))
    assert torch.equal(first(module(*inputs)), expected)


def sharded_points_move_like_the_whole(optimiser: str, rank: int) -> None:
    alone, sharded = Model(), Model()
    fully_shard(sharded, mesh=dist.init_device_mesh("cpu", (RANKS,)))
    rules = [MAKES[optimiser](param_groups(model)) for model in (alone, sharded)]
    assert rules[1].param_groups[0]["params"] == [sharded.table.weight]
    for model, rule in zip((alone, sharded), rules, strict=True):
        train(model, rule, 4)
    torch.testing.assert_close(values(sharded), values(alone), rtol=1e-5, atol=1e-5)
    moment = "exp_avg_sq" if optimiser == "adam" else "momentum_buffer"
    mine, theirs = rules[0].state[alone.table.weight][moment], rules[1].state[sharded.table.weight][moment]
    torch.testing.assert_close(mine, whole(theirs), rtol=1e-5, atol=1e-7)


def checks() -> Iterator[tuple[str, Callable[[int], None]]]:
    """Yield the name of every check, under which the tests ask for it, and the check, a function of the rank."""
    for layer in LAYERS:
        yield f"{layer}, replicated", partial(replicas_average_their_gradients, layer)
        yield f"{layer}, sharded", partial(shards_are_the_whole, layer)
        if layer.name == "Transformer":
            yield f"{layer}, sharded by layers", partial(shards_are_the_whole, layer, by_layers=True)
        if not list(layer.build().parameters()):
            yield f"{layer}, sharded without parameters", partial(a_module_without_parameters_can_be_sharded, layer)
    for optimiser in ("adam", "nesterov"):
        yield f"{optimiser}, sharded", partial(sharded_points_move_like_the_whole, optimiser)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    with (folder / f"{rank}.jsonl").open("w") as file:
        for name, check in checks():
            own = dist.PrefixStore(name, store)
            try:
                dist.init_process_group("gloo", store=own, rank=rank, world_size=RANKS, timeout=GROUP_TIMEOUT)
                dist.barrier()  # or one rank could be done, and gone, before the other has found it
                check(rank)
                dist.barrier()
                result = "ok"
            except Exception:
                result = traceback.format_exc()
            if dist.is_initialized():
                dist.destroy_process_group()
            print(json.dumps([name, result]), file=file, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
