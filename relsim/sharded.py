"""Fact distributions whose entity table lies on several processes, some rows on each.

A log-partition is the logsumexp of those of the shards, and a mean their weighted mean, so one sum over the processes,
after one maximum, puts them together. The perceptrons are small, and every process holds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorentz_kernels.linear_logsumexp import linear_logsumexp, linear_logsumexp_mean
from relsim.crew import Crew
from relsim.distribution import TableDistribution
from relsim.errors import RelsimError
from relsim.lorentz import LorentzDistribution
from relsim.mlp import MLPDistribution
from relsim.models import kind_at, read_model
from relsim.neural import ENTITY_ROWS, NeuralDistribution


class RowSharded(NeuralDistribution, TableDistribution):
    """The part of a neural distribution that deals with the table, on the rows `start` to `stop` of this process."""

    crew: Crew
    start: int
    stop: int

    def vectors(self, entity: Tensor) -> Tensor:
        row, mine = self._row(entity)
        return self._sum(torch.where(mine[:, None], self.entity[row], 0.0))

    def head_partition(self, natural: Tensor) -> Tensor:
        return self._partition(natural, self.head_bias)

    def tail_partition(self, natural: Tensor) -> Tensor:
        return self._partition(natural, self.tail_bias)

    def head_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return self._moments(natural, self.head_bias)

    def tail_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return self._moments(natural, self.tail_bias)

    def head_score(self, natural: Tensor, head: Tensor) -> Tensor:
        return self._score(natural, self.head_bias, head)

    def tail_score(self, natural: Tensor, tail: Tensor) -> Tensor:
        return self._score(natural, self.tail_bias, tail)

    def head_logits(self, natural: Tensor, entities: slice = slice(None)) -> Tensor:
        return self._logits(natural, self.head_bias, entities)

    def tail_logits(self, natural: Tensor) -> Tensor:
        return self._logits(natural, self.tail_bias, slice(None))

    def total(self, part: Tensor) -> Tensor:
        return self.crew.sum(part)

    def all_rows(self, rows: Tensor) -> Tensor:
        everything = rows.new_zeros(len(self.entities), *rows.shape[1:])
        everything[self.start : self.stop] = rows
        return self.crew.sum(everything)

    def _partition(self, natural: Tensor, bias: Tensor | None) -> Tensor:
        own = linear_logsumexp(_Spread.apply(natural, self.crew), self.table, bias)
        top = self.crew.max(own)
        return top + self._sum(torch.exp(own - top)).log()

    @torch.no_grad()
    def _moments(self, natural: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        own, mean = linear_logsumexp_mean(natural, self.table, bias)
        top = self.crew.max(own)
        weight = torch.exp(own - top)[:, None]
        both = self.crew.sum(torch.cat([weight, weight * mean], dim=1))
        return top + both[:, 0].log(), both[:, 1:] / both[:, :1]

    def _score(self, natural: Tensor, bias: Tensor | None, entity: Tensor) -> Tensor:
        row, mine = self._row(entity)
        score = (_Spread.apply(natural, self.crew) * self.table[row]).sum(dim=-1)
        return self._sum(torch.where(mine, score if bias is None else score + bias[row], 0.0))

    def _logits(self, natural: Tensor, bias: Tensor | None, entities: slice) -> Tensor:
        first, last, _ = entities.indices(len(self.entities))
        result = natural.new_zeros(len(natural), last - first)
        low, high = max(first, self.start), min(last, self.stop)
        if low < high:
            own = slice(low - self.start, high - self.start)
            logits = natural @ self.table[own].mT
            result[:, low - first : high - first] = logits if bias is None else logits + bias[own]
        return self.crew.sum(result)

    def _row(self, entity: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of entities here, any row for those elsewhere, and which are here."""
        mine = (entity >= self.start) & (entity < self.stop)
        return torch.where(mine, entity - self.start, 0), mine

    def _sum(self, part: Tensor) -> Tensor:
        result: Tensor = _Gathered.apply(part, self.crew)
        return result


class ShardedMLP(RowSharded, MLPDistribution):
    """`MLPDistribution` with a sharded table."""


class ShardedLorentz(RowSharded, LorentzDistribution):
    """`LorentzDistribution` with a sharded table."""


_CLASSES: dict[str, type[RowSharded]] = {cls.kind: cls for cls in (ShardedMLP, ShardedLorentz)}


def part_of(size: int, crew: Crew) -> slice:
    """Return the rows of a table of `size` that this process holds."""
    step = -(-size // crew.size)
    return slice(min(crew.rank * step, size), min((crew.rank + 1) * step, size))


def shard(model: NeuralDistribution, crew: Crew) -> RowSharded:
    """Return the model with this process's rows of the table only; parameters are copied.

    Raises:
        RelsimError: the model is of a kind without such a table.
    """
    _check_kind(model.kind)
    rows = part_of(len(model.entities), crew)
    state = {key: value[rows] if key in ENTITY_ROWS else value for key, value in model.state_dict().items()}
    result = _empty(model, crew, rows, state)
    result.meta = dict(model.meta)
    return result.train(model.training)


def unshard(model: RowSharded) -> NeuralDistribution:
    """Return the whole model, on every process."""
    whole: type[NeuralDistribution] = {cls.kind: cls for cls in (MLPDistribution, LorentzDistribution)}[model.kind]
    result = whole(model.entities, model.relations, model.support, **model.config())
    state = {k: model.all_rows(v) if k in ENTITY_ROWS else v for k, v in model.state_dict().items()}
    result.load_state_dict(state)
    result.meta = dict(model.meta)
    return result.train(model.training)


def load_sharded(path: str | Path, crew: Crew) -> RowSharded:
    """Read this process's part of a model folder, in evaluation mode; the rest of the table is not read.

    Raises:
        RelsimError: as `relsim.models.load_model`, or the model is of a kind without such a table.
    """
    _check_kind(kind_at(path), f"{path}: ")
    outline, state = read_model(path, {key: lambda size: part_of(size, crew) for key in ENTITY_ROWS})
    return _empty(outline, crew, part_of(len(outline.entities), crew), state).eval()


def _empty(outline: NeuralDistribution, crew: Crew, rows: slice, state: Mapping[str, Any]) -> RowSharded:
    """A sharded model of the kind and shape of `outline`, whose parameters do not count, with this state."""
    with torch.device("meta"):
        result = _CLASSES[outline.kind]([], outline.relations, **outline.config())
    result.entities, result._entity_ids = outline.entities, outline._entity_ids
    result.crew, result.start, result.stop = crew, rows.start, rows.stop
    for key, value in state.items():
        owner, _, name = key.rpartition(".")
        module = result.get_submodule(owner)
        if name in module._buffers:
            module.register_buffer(name, value.clone())
        else:
            module.register_parameter(name, nn.Parameter(value.detach().clone()))
    return result


def _check_kind(kind: str, place: str = "") -> None:
    if kind not in _CLASSES:
        raise RelsimError(f"{place}a {kind} model has no table to share: run one process")


class _Gathered(torch.autograd.Function):
    """The sum over processes; every process computes the same loss from it, so its gradient is each part's."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, crew: Crew) -> Tensor:
        return crew.sum(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Spread(torch.autograd.Function):
    """What every process holds, used by each on its rows: the gradients add."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, crew: Crew) -> Tensor:
        ctx.crew = crew
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.crew.sum(grad), None
