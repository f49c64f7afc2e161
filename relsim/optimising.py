"""How a fact distribution is trained: the settings, the optimiser, and the learning rate over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.neural import NeuralDistribution


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training facts; the learning rate falls to zero along a cosine over them.
        batch: groups of facts with equal (head, relation) in a step; None takes 1/64 of them, within 32 and 512.
        lr: the peak learning rate of AdamW, after one epoch of warm-up.
        weight_decay: decoupled decay of the perceptrons' weights.
        table_decay: decoupled decay of the entity and relation vectors.
        patience: stop after this many epochs without a better validation NLL.
        seed: of initialisation, order and dropout; equal seeds give equal models on one machine.
    """

    epochs: int = 20
    batch: int | None = None
    lr: float = 2e-3
    weight_decay: float = 0.1
    table_decay: float = 2.0
    patience: int = 4
    seed: int = 0


def adamw(model: NeuralDistribution, training: Training) -> torch.optim.Optimizer:
    """Return AdamW with the weight decays of `training`: tables, perceptrons, and none for biases."""
    tables = [model.entity, model.relation]
    weights = [p for p in model.parameters() if p.ndim > 1 and all(p is not table for table in tables)]
    offsets = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": tables, "weight_decay": training.table_decay},
        {"params": weights, "weight_decay": training.weight_decay},
        {"params": offsets, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.lr, fused=True)


def schedule(step: int, warmup: int, total: int) -> float:
    """Return the learning rate's share of its peak: linear warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


def flat_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimiser's state under flat names."""
    state = optimiser.state_dict()["state"]
    return {f"{index}/{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore(optimiser: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Undo `flat_state`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
