"""The neural fact distribution with its softmaxes factored by classes of entities: for more than a million of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from relsim.classsum import all_classes, class_mean, log_within
from relsim.mlp import Perceptron
from relsim.neural import NeuralDistribution, log_frequency

if TYPE_CHECKING:
    from relsim.kb import Triples


class ClassFactoredDistribution(NeuralDistribution):
    r"""p(h|r) and p(t|h,r) as a softmax over classes times one within the class, exactly normalised.

    With u = f(r) for heads, g(h, r) for tails as in `relsim.mlp`, and each entity e in one class c:

        p(e | u) = exp(u . v_c + a_c) / exp Z(u)  *  exp(u . s_e + b_e) / exp Z_c(u)

    with Z(u) = logsumexp_c(u . v_c + a_c) and Z_c(u) = logsumexp_{e in c}(u . s_e + b_e). The log-probability of a fact
    takes a pass over the classes and over one of them: 2 sqrt(E) vectors with sqrt(E) classes (Goodman, 2001, Classes
    for fast maximum entropy training).

    In u alone this is no exponential family, since log p holds Z_c(u), which differs between classes. In the extended
    parameter w(u) = (u, Z_1(u), ..., Z_C(u)) with statistic (v_c + s_e, -onehot(c)) and log-partition Z(u) it is one,

        log p(e | u) = w(u) . (v_c + s_e, -onehot(c)) + a_c + b_e - Z(u),   mean (sum_e p(e) (v_c + s_e), -p(c)),

    and the Bregman divergence of Z between w(u) and w(u') is the chain rule: the KL of the classes, and the expected
    KL within them. So natural parameters have k + C entries here, and every estimator works on them. An evaluated head
    costs a pass over all entities, as it does without classes: only fitting is cheaper.

    Args:
        class_size: entities of a class; by default sqrt(E), rounded up. The others as of `NeuralDistribution`.
    """

    kind = "classes"
    position: Tensor  # (E,) the row of each entity in the tables, where classes are slices

    def __init__(
        self,
        entities: Sequence[str],
        relations: Sequence[str],
        support: Tensor | None = None,
        *,
        class_size: int | None = None,
        **shape: Any,
    ) -> None:
        super().__init__(entities, relations, support, **shape)
        count = len(self.entities)
        self.class_size = class_size or max(1, math.ceil(count**0.5))
        self.classes = -(-count // self.class_size)
        self.head_mlp = Perceptron([self.dim], self.hidden, self.dim, self.dropout)
        self.tail_mlp = Perceptron([self.dim, self.dim], self.hidden, self.dim, self.dropout)
        self.group = nn.Parameter(torch.randn(self.classes, self.dim) * self.dim**-0.5)
        self.group_head_bias = nn.Parameter(torch.zeros(self.classes))
        self.group_tail_bias = nn.Parameter(torch.zeros(self.classes))
        self.register_buffer("position", torch.arange(count))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "class_size": self.class_size}

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        """As torch's; the positions have to be a permutation.

        Raises:
            ValueError: they are none.
        """
        result = super().load_state_dict(state_dict, *arguments, **options)
        if not torch.equal(self.position.sort().values, torch.arange(len(self.position), device=self.position.device)):
            raise ValueError("expected positions that are a permutation of the entities")
        return result

    @torch.no_grad()
    def start_from(self, facts: Triples) -> None:
        """Make classes of entities with the same role; set biases to smoothed log-frequencies, within and between."""
        self.position.copy_(torch.from_numpy(by_role(facts, len(self.entities))))
        for entity, bias, between in (
            (facts.head, self.head_bias, self.group_head_bias),
            (facts.tail, self.tail_bias, self.group_tail_bias),
        ):
            if bias is None:
                continue
            start = torch.empty_like(bias)
            start[self.position] = log_frequency(entity, facts, len(self.entities)).to(start)
            padded = F.pad(start, (0, -len(start) % self.class_size), value=-torch.inf).unflatten(0, (self.classes, -1))
            of_class = torch.logsumexp(padded, dim=1)
            between.copy_(of_class - of_class.mean())
            bias.copy_(start - of_class.repeat_interleave(self.class_size)[: len(start)])

    def vectors(self, entity: Tensor) -> Tensor:
        return self.entity[self.position[entity]]

    # the parameter u, and its extension by the log-partitions of the classes

    def head_natural(self, relation: Tensor) -> Tensor:
        return self._extended(self._of_relation(relation), self.head_bias)

    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        return self._extended(self._of_pair(head, relation), self.tail_bias)

    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first
        query = self.tail_mlp.finish(of_head(self.vectors(head))[:, None] + of_relation(self.relation[relation]))
        return self._extended(query.flatten(0, 1), self.tail_bias).unflatten(0, query.shape[:2])

    def _of_relation(self, relation: Tensor) -> Tensor:
        return self.head_mlp.finish(self.head_mlp.first[0](self.relation[relation]))

    def _of_pair(self, head: Tensor, relation: Tensor) -> Tensor:
        of_head, of_relation = self.tail_mlp.first
        return self.tail_mlp.finish(of_head(self.vectors(head)) + of_relation(self.relation[relation]))

    def _extended(self, query: Tensor, bias: Tensor | None) -> Tensor:
        return torch.cat([query, all_classes(query, self.entity, bias, self.class_size)], dim=1)

    # the exponential family

    def head_partition(self, natural: Tensor) -> Tensor:
        return torch.logsumexp(self._between(natural, self.group_head_bias), dim=1)

    def tail_partition(self, natural: Tensor) -> Tensor:
        return torch.logsumexp(self._between(natural, self.group_tail_bias), dim=1)

    def head_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return self._moments(natural, self.head_bias, self.group_head_bias)

    def tail_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return self._moments(natural, self.tail_bias, self.group_tail_bias)

    def head_score(self, natural: Tensor, head: Tensor) -> Tensor:
        return self._score(natural, head, self.head_bias, self.group_head_bias)

    def tail_score(self, natural: Tensor, tail: Tensor) -> Tensor:
        return self._score(natural, tail, self.tail_bias, self.group_tail_bias)

    def head_logits(self, natural: Tensor, entities: slice = slice(None)) -> Tensor:
        return self._logits(natural, entities, self.head_bias, self.group_head_bias)

    def tail_logits(self, natural: Tensor) -> Tensor:
        return self._logits(natural, slice(None), self.tail_bias, self.group_tail_bias)

    def head_features(self, relation: Tensor, count: int) -> Tensor:
        """As of the base class, of the part of log p(h | r) that is linear in vectors of entities and classes."""
        group = self.position // self.class_size
        offset = self.group_head_bias[group] + (0 if self.head_bias is None else self.head_bias[self.position])
        statistic = self.entity[self.position] + self.group[group]
        return self.linear_features(self._of_relation(relation), statistic, offset, count)

    def _between(self, natural: Tensor, bias: Tensor) -> Tensor:
        """The scores u . v_c + a_c of the classes, (n, C)."""
        return F.linear(natural[:, : self.dim], self.group, bias)

    @torch.no_grad()
    def _moments(self, natural: Tensor, bias: Tensor | None, between: Tensor) -> tuple[Tensor, Tensor]:
        query, within = natural.split([self.dim, self.classes], dim=1)
        score = self._between(natural, between)
        partition = torch.logsumexp(score, dim=1)
        log_share = score - partition[:, None]
        share = log_share.exp()
        mean = share @ self.group + class_mean(query, log_share - within, self.entity, bias, self.class_size)
        return partition, torch.cat([mean, -share], dim=1)

    def _score(self, natural: Tensor, entity: Tensor, bias: Tensor | None, between: Tensor) -> Tensor:
        row = self.position[entity]
        group = row // self.class_size
        query, within = natural.split([self.dim, self.classes], dim=1)
        score = (query * (self.entity[row] + self.group[group])).sum(dim=1) + between[group]
        score = score - within.gather(1, group[:, None]).squeeze(1)
        return score if bias is None else score + bias[row]

    def _logits(self, natural: Tensor, entities: slice, bias: Tensor | None, between: Tensor) -> Tensor:
        row = self.position[entities]
        group = row // self.class_size
        query, within = natural.split([self.dim, self.classes], dim=1)
        score = F.linear(query, self.entity[row], None if bias is None else bias[row])
        return score + (self._between(natural, between) - within)[:, group]

    # training, which asks for one class of each fact

    def stated_head(self, relation: Tensor, which: Tensor, head: Tensor) -> Tensor:
        return self._stated(self._of_relation(relation), which, head, self.head_bias, self.group_head_bias)

    def stated_tail(self, head: Tensor, relation: Tensor, which: Tensor, tail: Tensor) -> Tensor:
        return self._stated(self._of_pair(head, relation), which, tail, self.tail_bias, self.group_tail_bias)

    def _stated(self, query: Tensor, which: Tensor, entity: Tensor, bias: Tensor | None, between: Tensor) -> Tensor:
        row = self.position[entity]
        group = row // self.class_size
        log_share = torch.log_softmax(self._between(query, between), dim=1)[which, group]
        return log_share + log_within(query, which, row, self.entity, bias, self.class_size)


def by_role(facts: Triples, entities: int) -> NDArray[np.int64]:
    """Return a row for each entity, (E,), so that those with the same main role stand together, frequent ones first.

    A role is a relation and a side of it; an entity's main role is the one that it was stated in most often. Roles
    stand in the order of their facts.
    """
    relations = int(facts.relation.max(initial=-1)) + 1
    role = np.concatenate([facts.relation, facts.relation + relations])
    key = np.concatenate([facts.head, facts.tail]) * (2 * relations) + role
    pair, first = np.unique(key, return_inverse=True)
    stated = np.bincount(first, np.concatenate([facts.count, facts.count]))
    entity, role = pair // (2 * relations), pair % (2 * relations)
    best = np.lexsort((stated, entity))  # the last of each entity has its main role
    last = np.flatnonzero(np.append(entity[best][1:] != entity[best][:-1], True)) if len(best) else best
    main, total = np.full(entities, 2 * relations), np.zeros(entities)
    main[entity[best[last]]] = role[best[last]]
    np.add.at(total, entity, stated)
    size = np.append(np.bincount(role, stated, 2 * relations), -1.0)  # those without a fact come last
    position = np.empty(entities, np.int64)
    position[np.lexsort((-total, main, -size[main]))] = np.arange(entities)
    return position
