"""Fitting a fact distribution to a KB: exact softmax, rows grouped by (head, relation), resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import torch

from relsim.checkpoint import Checkpoints
from relsim.counts import CountsDistribution
from relsim.crew import Crew
from relsim.errors import RelsimError
from relsim.grouping import GroupedFacts
from relsim.kb import KB
from relsim.likelihood import negative_log_likelihood
from relsim.loop import train
from relsim.mlp import MLPDistribution
from relsim.neural import NeuralDistribution
from relsim.optimising import Training

ALONE = Crew()
Model = TypeVar("Model", bound=NeuralDistribution)
DISCOUNTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


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
        model: the class: `MLPDistribution`, `LorentzDistribution` or `ClassFactoredDistribution`.
        dim, hidden, bias, dropout: see `NeuralDistribution`.
        training: see `Training`.
        resume: a folder for checkpoints, written after every epoch. An interrupted call with the same folder goes on
            where it stopped and gives the same model. It is the caller's to remove, once the model is in safety.
        crew: processes that share the table of entities; all of them have to see the folder `resume`, and as many have
            to be there when the training goes on.
        progress: show a bar; by default on a terminal only.

    Raises:
        RelsimError: the KB has fewer than two facts or two entities, `resume` holds another training, or the training
            diverged.
    """
    training = training or Training()
    kb = _prepared(kb, training.seed)
    checkpoints = Checkpoints(Path(resume), crew) if resume else None
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(training.seed)
        support = torch.from_numpy(kb.support)
        fresh = model(kb.entities, kb.relations, support, dim=dim, hidden=hidden, bias=bias, dropout=dropout)
        fresh.start_from(kb.train)
        if crew.size > 1:
            return _train_together(fresh, kb, training, checkpoints, crew, progress)
        fresh.to(device)
        return train(fresh, kb, training, checkpoints, progress)


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


def _train_together(
    model: Model, kb: KB, training: Training, checkpoints: Checkpoints | None, crew: Crew, progress: bool | None
) -> Model:
    """Train with a shard of the table on every process; return the whole model on each."""
    from relsim.sharded import shard, unshard

    trained = train(shard(model, crew), kb, training, checkpoints, progress if crew.leads else False)
    return cast(Model, unshard(trained))
