"""Fitting a fact distribution to a KB: exact softmax, rows grouped by (head, relation), resumable."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from tqdm import tqdm

from relsim import checkpoint
from relsim.counts import CountsDistribution
from relsim.crew import Crew
from relsim.denormals import zero_denormals_
from relsim.distribution import FactDistribution
from relsim.errors import RelsimError
from relsim.grouping import Batch, GroupedFacts
from relsim.kb import KB, Triples
from relsim.mlp import MLPDistribution
from relsim.neural import NeuralDistribution

ALONE = Crew()
Model = TypeVar("Model", bound=NeuralDistribution)
DISCOUNTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


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


@dataclass
class _Progress:
    epoch: int = 0
    best_epoch: int = -1
    best_nll: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    kb: KB,
    *,
    model: type[Model] = MLPDistribution,  # type: ignore[assignment]
    dim: int = 64,
    hidden: int = 1024,
    bias: bool = True,
    dropout: float = 0.3,
    training: Training | None = None,
    device: str | torch.device = "cpu",
    resume: str | Path | None = None,
    crew: Crew = ALONE,
    progress: bool | None = None,
) -> Model:
    """Fit the neural fact distribution by maximum likelihood; return the model of the best validation epoch.

    The objective is the mean of -log p(h | r) - log p(t | h, r) over stated facts (arXiv:1907.08937, Eq. 6), exactly,
    over all entities. Where the KB has no validation facts, a tenth of the training facts is held out.

    Args:
        model: the class, `MLPDistribution` or `LorentzDistribution`.
        dim, hidden, bias, dropout: see `NeuralDistribution`.
        training: see `Training`.
        resume: a folder for checkpoints, written after every epoch. An interrupted call with the same folder goes on
            where it stopped and gives the same model. It is the caller's to remove, once the model is in safety.
        crew: processes that share the table of entities; then there are no checkpoints.
        progress: show a bar; by default on a terminal only.

    Raises:
        RelsimError: the KB has fewer than two facts or two entities, `resume` holds another training, or the training
            diverged.
    """
    training = training or Training()
    kb = _prepared(kb, training.seed)
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(training.seed)
        support = torch.from_numpy(kb.support)
        fresh = model(kb.entities, kb.relations, support, dim=dim, hidden=hidden, bias=bias, dropout=dropout)
        fresh.start_from(kb.train)
        if crew.size > 1:
            return _train_together(fresh, kb, training, crew, progress)
        fresh.to(device)
        return _train(fresh, kb, training, Path(resume) if resume else None, progress)


def fit_counts(kb: KB, seed: int = 0) -> CountsDistribution:
    """Return the smoothed counts of a KB's training facts; the discount is the best of a few on the validation facts.

    Where the KB has no validation facts, a tenth of the training facts is held out, drawn with `seed`.

    Raises:
        RelsimError: the KB has fewer than two facts or two entities.
    """
    kb = _prepared(kb, seed)
    train = kb.train
    facts = torch.stack([torch.from_numpy(part) for part in (train.head, train.relation, train.tail, train.count)], 1)
    support = torch.from_numpy(kb.support)
    valid = GroupedFacts(kb.valid)
    models = [CountsDistribution(kb.entities, kb.relations, support, facts=facts, discount=d) for d in DISCOUNTS]
    scored = [(sum(negative_log_likelihood(model, valid, chunk=512)), model) for model in models]
    nll, best = min(scored, key=lambda pair: pair[0])
    best.meta = {"source": kb.source, "valid_nll": nll}
    return best


@torch.no_grad()
def negative_log_likelihood(model: FactDistribution, facts: GroupedFacts, chunk: int = 4096) -> tuple[float, float]:
    """Return the mean of -log p(h | r) and of -log p(t | h, r) over stated facts, in nats per fact."""
    training = model.training
    model.eval()
    head = tail = 0.0
    for groups in torch.arange(len(facts), device=facts.head.device).split(chunk):
        of_head, of_tail = batch_nll(model, facts.batch(groups))
        head, tail = head + of_head.item(), tail + of_tail.item()
    model.train(training)
    return head / facts.total, tail / facts.total


def _prepared(kb: KB, seed: int) -> KB:
    """Return the KB with validation facts, or say why it cannot be fitted."""
    place = kb.source or "the KB"
    if not len(kb.train):
        raise RelsimError(f"{place}: no training facts: a model needs some")
    if len(kb.entities) < 2:
        raise RelsimError(f"{place}: a single entity: a distribution over facts needs two or more")
    kb = kb.with_validation(seed=seed)
    if not len(kb.valid):
        raise RelsimError(f"{place}: too few facts to hold some out for validation: add facts")
    return kb


def batch_nll(model: FactDistribution, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the sums over the batch's facts, each as often as it was stated, of -log p(h | r) and -log p(t | h, r)."""
    relation, which = batch.relation.unique(return_inverse=True)
    head = batch.weight @ -model.stated_head(relation, which, batch.head).to(batch.weight.dtype)
    group = torch.repeat_interleave(torch.arange(len(batch.sizes), device=batch.sizes.device), batch.sizes)
    of_tail = model.stated_tail(batch.head, batch.relation, group, batch.tail)
    return head, batch.counts @ -of_tail.to(batch.counts.dtype)


def _train(model: Model, kb: KB, training: Training, folder: Path | None, progress: bool | None) -> Model:
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
    if folder is not None and (found := checkpoint.load(folder, settings, device)):
        groups, done = found
        state = _Progress(**done)
        model.load_state_dict(groups["model"])
        best = groups["best"]
        _restore(optimiser, groups["optimiser"])
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
            if folder is not None:
                groups = {"model": model.state_dict(), "best": best, "optimiser": _flat_state(optimiser)}
                checkpoint.save(folder, groups, settings, asdict(state))
    if not math.isfinite(state.best_nll):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
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


def _train_together(model: Model, kb: KB, training: Training, crew: Crew, progress: bool | None) -> Model:
    """Train with a shard of the table on every process; return the whole model on each."""
    from relsim.sharded import shard, unshard

    trained = _train(shard(model, crew), kb, training, None, progress if crew.leads else False)
    return cast(Model, unshard(trained))


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
            group["lr"] = training.lr * _schedule(epoch * steps + step, steps, training.epochs * steps)
        rows = facts.batch(groups)
        head, tail = batch_nll(model, rows)
        loss = head + tail
        optimiser.zero_grad()
        (loss / rows.weight.sum()).backward()
        optimiser.step()
        total += loss.detach()
        bar.update(len(groups))
    return total.item() / facts.total


def _schedule(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


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


def _flat_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}/{name}": value for index, entry in state.items() for name, value in entry.items()}


def _restore(optimiser: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _fingerprint(*parts: Triples) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for column in (part.head, part.relation, part.tail, part.count):
            digest.update(column.tobytes())
    return digest.hexdigest()
