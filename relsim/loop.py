"""The loop of a training: epochs, validation, early stop, checkpoints."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from relsim.checkpoint import Checkpoints
from relsim.denormals import zero_denormals_
from relsim.errors import RelsimError
from relsim.grouping import GroupedFacts
from relsim.kb import KB, Triples
from relsim.likelihood import batch_nll, negative_log_likelihood
from relsim.neural import NeuralDistribution
from relsim.optimising import Training, adamw, flat_state, restore, schedule

Model = TypeVar("Model", bound=NeuralDistribution)


@dataclass
class _Progress:
    epoch: int = 0
    best_epoch: int = -1
    best_nll: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def train(model: Model, kb: KB, training: Training, checkpoints: Checkpoints | None, progress: bool | None) -> Model:
    """Train a model on the facts of a KB that has validation facts; return it as it was at the best epoch.

    Raises:
        RelsimError: the training diverged, or the checkpoints are of another one.
    """
    device = model.entity.device
    facts, valid = GroupedFacts(kb.train, device), GroupedFacts(kb.valid, device)
    batch = training.batch or min(512, max(32, len(facts) // 64))
    optimiser = adamw(model, training)
    best = {key: value.clone() for key, value in model.state_dict().items()}
    names = {"entities": len(kb.entities), "relations": len(kb.relations)}
    settings = {
        "kind": model.kind,
        **asdict(training),
        **model.config(),
        **names,
        "facts": _fingerprint(kb.train, kb.valid),
    }
    state = _Progress()
    if checkpoints is not None and (found := checkpoints.load(settings, device)):
        groups, done = found
        state = _Progress(**done)
        model.load_state_dict(groups["model"])
        best = groups["best"]
        restore(optimiser, groups["optimiser"])
    hidden = None if progress is None else not progress
    with tqdm(total=training.epochs * len(facts), initial=state.epoch * len(facts), disable=hidden, unit="row") as bar:
        while state.epoch < training.epochs and state.epoch - state.best_epoch <= training.patience:
            start = time.process_time()
            train_nll = _epoch(model, facts, optimiser, training, batch, state.epoch, bar)
            head, tail = negative_log_likelihood(model, valid)
            state.seconds += time.process_time() - start
            state.history.append({"train": train_nll, "valid_head": head, "valid_tail": tail})
            bar.set_description(f"epoch {state.epoch + 1}/{training.epochs}, validation {head + tail:.3f} nats")
            if head + tail < state.best_nll:
                state.best_epoch, state.best_nll = state.epoch, head + tail
                best = {key: value.clone() for key, value in model.state_dict().items()}
            state.epoch += 1
            if checkpoints is not None:
                groups = {"model": model.state_dict(), "best": best, "optimiser": flat_state(optimiser)}
                checkpoints.save(groups, settings, asdict(state))
    if not math.isfinite(state.best_nll):
        if checkpoints is not None:
            checkpoints.remove()
        raise RelsimError(f"{kb.source or 'the KB'}: the training diverged: lower lr, which is {training.lr:g}")
    model.load_state_dict(best)
    zero_denormals_(model)
    model.meta = {
        "source": kb.source,
        "training": asdict(training),
        "valid_nll": state.best_nll,
        "best_epoch": state.best_epoch,
        "cpu_seconds": round(state.seconds, 1),
        "history": state.history,
    }
    return model.eval()


def _epoch(
    model: NeuralDistribution,
    facts: GroupedFacts,
    optimiser: torch.optim.Optimizer,
    training: Training,
    batch: int,
    epoch: int,
    bar: Any,
) -> float:
    """One pass over the facts; return the mean training NLL. Order and dropout depend on the seed and epoch only."""
    torch.manual_seed(training.seed * 1_000_003 + epoch)
    device = facts.head.device
    steps = -(-len(facts) // batch)
    model.train()
    total = torch.zeros((), device=device)
    for step, groups in enumerate(torch.randperm(len(facts), device=device).split(batch)):
        for group in optimiser.param_groups:
            group["lr"] = training.lr * schedule(epoch * steps + step, steps, training.epochs * steps)
        rows = facts.batch(groups)
        head, tail = batch_nll(model, rows)
        loss = head + tail
        optimiser.zero_grad()
        (loss / rows.weight.sum()).backward()
        optimiser.step()
        total += loss.detach()
        bar.update(len(groups))
    return total.item() / facts.total


def _fingerprint(*parts: Triples) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for column in (part.head, part.relation, part.tail, part.count):
            digest.update(column.tobytes())
    return digest.hexdigest()
