"""A training step over a million entities: the class-factored softmax beside the exact softmax over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from relsim.factored import ClassFactoredDistribution
from relsim.grouping import Batch
from relsim.likelihood import batch_nll
from relsim.mlp import MLPDistribution
from relsim.neural import NeuralDistribution
from relsim.optimising import Training, adamw

pytestmark = pytest.mark.benchmark(timer=time.process_time)
ENTITIES, RELATIONS, GROUPS = 1_000_000, 200, 512
NOISE = 1.15


def batch() -> Batch:
    """One fact for each of `GROUPS` pairs of a head and a relation."""
    one = torch.ones(GROUPS)
    heads, tails = torch.randint(ENTITIES, (2, GROUPS))
    return Batch(heads, torch.randint(RELATIONS, (GROUPS,)), one, tails, one, torch.ones(GROUPS, dtype=torch.int64))


def gradients(model: NeuralDistribution, facts: Batch) -> None:
    for parameter in model.parameters():
        parameter.grad = None
    head, tail = batch_nll(model, facts)
    ((head + tail) / GROUPS).backward()


def test_step_of_classes_against_a_softmax_over_a_million(side_by_side: Callable[..., float], benchmark: Any) -> None:
    """Loss and gradients; what AdamW takes for the table, the same for both, is stated beside it."""
    names = [str(i) for i in range(ENTITIES)], [str(i) for i in range(RELATIONS)]
    facts = batch()
    ours, peer = (kind(*names, hidden=256) for kind in (ClassFactoredDistribution, MLPDistribution))
    ratio = side_by_side(lambda: gradients(ours, facts), lambda: gradients(peer, facts), rounds=3)
    optimiser = adamw(ours, Training())
    optimiser.step()
    start = time.process_time()
    optimiser.step()
    benchmark.extra_info |= {"adamw_cpu_s": time.process_time() - start}
    assert ratio >= 8 / NOISE
