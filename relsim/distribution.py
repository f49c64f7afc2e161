"""The fact distribution p(h, t | r) = p(h | r) p(t | h, r): what every model of it offers, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz_kernels.linear_logsumexp import linear_logsumexp, linear_logsumexp_mean
from relsim.errors import unknown_name
from relsim.heads import left_basis

Names: TypeAlias = "str | int | Sequence[str] | Sequence[int] | Tensor"
"""What a caller may pass for entities or relations: a name, an index, several of either, or an index tensor."""


FEATURE_ROWS = 1 << 15  # of the table at a time: 16 MiB of float64 for 64 columns


class FactDistribution(nn.Module, ABC):
    """A distribution over the facts of each relation, p(h, t | r) = p(h | r) p(t | h, r) (arXiv:1907.08937, Eq. 3).

    Each conditional is an exponential family over the E entities: natural parameter u in R^k, log-partition
    Z(u) = log sum_e exp(u . s_e + b_e), mean m(u) = grad Z(u) = sum_e p_u(e) s_e. A subclass gives the natural
    parameters and the moments; all else, and every estimator of divergences, follows from these.

    Attributes:
        entities, relations: the names behind the indices.
        support: (R,) int64, the number of distinct facts that each relation was fitted on.
        meta: how the model came to be (data, settings, validation NLL), saved with it.
    """

    kind: ClassVar[str]
    support: Tensor

    def __init__(self, entities: Sequence[str], relations: Sequence[str], support: Tensor | None = None) -> None:
        super().__init__()
        self.entities, self.relations = list(entities), list(relations)
        self._entity_ids = {name: index for index, name in enumerate(self.entities)}
        self._relation_ids = {name: index for index, name in enumerate(self.relations)}
        self.meta: dict[str, Any] = {}
        if support is None:
            support = torch.zeros(len(self.relations), dtype=torch.int64)
        self.register_buffer("support", support)

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build this model again, apart from names and support."""

    @abstractmethod
    def head_natural(self, relation: Tensor) -> Tensor:
        """Natural parameters of p(h | r) for relations (n,), shape (n, k)."""

    @abstractmethod
    def tail_natural(self, head: Tensor, relation: Tensor) -> Tensor:
        """Natural parameters of p(t | h, r) for pairs (n,), (n,), shape (n, k)."""

    @abstractmethod
    def tail_natural_grid(self, head: Tensor, relation: Tensor) -> Tensor:
        """Natural parameters of p(t | h, r) for every pair of heads (n,) and relations (r,), shape (n, r, k)."""

    @abstractmethod
    def head_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        """Z (n,) and mean m (n, k) of head conditionals (n, k); no gradient."""

    @abstractmethod
    def tail_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        """Z (n,) and mean m (n, k) of tail conditionals (n, k); no gradient."""

    @abstractmethod
    def head_logits(self, natural: Tensor, entities: slice = slice(None)) -> Tensor:
        """Unnormalised log p(h | r) over a slice of the entities for head parameters (n, k), shape (n, E)."""

    @abstractmethod
    def tail_logits(self, natural: Tensor) -> Tensor:
        """Unnormalised log p(t | h, r) over all entities for tail parameters (n, k), shape (n, E)."""

    def head_features(self, relation: Tensor, count: int) -> Tensor:
        """Return (E, 1 + count) features that tell types of heads apart, float64.

        The first is 1; the others are the leading left singular vectors of log p(h | r), (E, n), centred over the
        heads, times sqrt(E).
        """
        log = torch.log_softmax(self.head_logits(self.head_natural(relation)).double(), dim=-1).T
        factor = log - log.mean(dim=0)
        vectors = factor @ left_basis(factor.T @ factor, count) * len(log) ** 0.5
        return F.pad(vectors, (1, 0), value=1.0)

    def linear_features(self, natural: Tensor, statistic: Tensor, bias: Tensor | None, count: int) -> Tensor:
        """Return the same for a matrix of scores natural . statistic + bias, as thin as it is, which is never made."""
        natural = natural.double()
        if bias is not None:
            natural = F.pad(natural, (0, 1), value=1.0)
        right = torch.linalg.qr(natural, mode="r").R.T  # scores = (statistic right) Q^T with Q^T Q = 1
        size = len(self.entities)

        def factors() -> Iterator[Tensor]:
            """Blocks of rows of statistic right, in double precision, which the table need not be copied to."""
            for rows in range(0, len(statistic), FEATURE_ROWS):
                block = statistic[rows : rows + FEATURE_ROWS].double()
                if bias is not None:
                    block = torch.cat([block, bias[rows : rows + FEATURE_ROWS, None].double()], dim=1)
                yield block @ right

        zero = right.new_zeros(right.shape[1])
        mean = self.total(sum((factor.sum(dim=0) for factor in factors()), start=zero)) / size
        gram = self.total(sum(((f - mean).T @ (f - mean) for f in factors()), start=torch.outer(zero, zero)))
        basis = left_basis(gram, count) * size**0.5
        vectors = [(factor - mean) @ basis for factor in factors()]
        return self.all_rows(F.pad(torch.cat(vectors), (1, 0), value=1.0))

    def head_partition(self, natural: Tensor) -> Tensor:
        """Z of head conditionals (n, k), shape (n,); differentiable, for training."""
        return torch.logsumexp(self.head_logits(natural), dim=-1)

    def tail_partition(self, natural: Tensor) -> Tensor:
        """Z of tail conditionals (n, k), shape (n,); differentiable, for training."""
        return torch.logsumexp(self.tail_logits(natural), dim=-1)

    def head_score(self, natural: Tensor, head: Tensor) -> Tensor:
        """Unnormalised log p(h | r) of one head (n,) for each row of parameters (n, k), shape (n,)."""
        return self.head_logits(natural).gather(-1, head[:, None]).squeeze(-1)

    def tail_score(self, natural: Tensor, tail: Tensor) -> Tensor:
        """Unnormalised log p(t | h, r) of one tail (n,) for each row of parameters (n, k), shape (n,)."""
        return self.tail_logits(natural).gather(-1, tail[:, None]).squeeze(-1)

    def stated_head(self, relation: Tensor, which: Tensor, head: Tensor) -> Tensor:
        """log p(h_i | r_i) for heads (m,), r_i the number which_i of relations (n,); differentiable, for training."""
        natural = self.head_natural(relation)
        return self.head_score(natural[which], head) - self.head_partition(natural)[which]

    def stated_tail(self, head: Tensor, relation: Tensor, which: Tensor, tail: Tensor) -> Tensor:
        """log p(t_i | h_i, r_i) for tails (m,), the pair number which_i of (n,), (n,); differentiable, for training."""
        natural = self.tail_natural(head, relation)
        return self.tail_score(natural[which], tail) - self.tail_partition(natural)[which]

    def total(self, part: Tensor) -> Tensor:
        """Return the sum over all entities, given that over those whose rows are here: all of them."""
        return part

    def all_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all entities, given those that are here: all of them."""
        return rows

    def head_log_prob(self, relation: Names) -> Tensor:
        """log p(h | r) over all entities, in nats: (E,) for one relation, (n, E) for several.

        Raises:
            RelsimError: an unknown name.
        """
        index = self.relation_index(relation)
        result = torch.log_softmax(self.head_logits(self.head_natural(index.reshape(-1))), dim=-1)
        return result.reshape(*index.shape, -1)

    def tail_log_prob(self, head: Names, relation: Names) -> Tensor:
        """log p(t | h, r) over all entities, in nats: (E,) for one pair, (n, E) for several; the two broadcast.

        Raises:
            RelsimError: an unknown name.
        """
        heads, relations = torch.broadcast_tensors(self.entity_index(head), self.relation_index(relation))
        natural = self.tail_natural(heads.reshape(-1), relations.reshape(-1))
        return torch.log_softmax(self.tail_logits(natural), dim=-1).reshape(*heads.shape, -1)

    def log_prob(self, head: Names, relation: Names, tail: Names) -> Tensor:
        """log p(h, t | r) in nats: a scalar for one fact, (n,) for several; the three broadcast.

        Raises:
            RelsimError: an unknown name.
        """
        indices = self.entity_index(head), self.relation_index(relation), self.entity_index(tail)
        heads, relations, tails = torch.broadcast_tensors(*indices)
        of_head = self.head_log_prob(relations).gather(-1, heads[..., None])
        of_tail = self.tail_log_prob(heads, relations).gather(-1, tails[..., None])
        return (of_head + of_tail).squeeze(-1)

    @torch.no_grad()
    def sample(self, relation: Names, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw `n` facts from p(h, t | r) of one relation: heads (n,) and tails (n,), as indices.

        Raises:
            RelsimError: an unknown name.
        """
        index = self.relation_index(relation).reshape(1)
        heads = torch.multinomial(self.head_log_prob(index)[0].exp(), n, replacement=True, generator=generator)
        distinct, which = heads.unique(return_inverse=True)
        tails = torch.empty_like(heads)
        for start in range(0, len(distinct), 256):  # 256 rows of E probabilities at a time
            probability = self.tail_log_prob(distinct[start : start + 256], index).exp()
            for offset, row in enumerate(probability):
                mine = (which == start + offset).nonzero().squeeze(1)
                tails[mine] = torch.multinomial(row, len(mine), replacement=True, generator=generator)
        return heads, tails

    def entity_index(self, names: Names) -> Tensor:
        """Return entities as an index tensor: 0-d for one, 1-d for several.

        Raises:
            RelsimError: an unknown name, or an index out of range.
        """
        return self._index("entity", names, self.entities, self._entity_ids)

    def relation_index(self, names: Names) -> Tensor:
        """Return relations as an index tensor: 0-d for one, 1-d for several.

        Raises:
            RelsimError: an unknown name, or an index out of range.
        """
        return self._index("relation", names, self.relations, self._relation_ids)

    def _index(self, kind: str, names: Names, known: Sequence[str], ids: dict[str, int]) -> Tensor:
        def one(name: str | int) -> int:
            if isinstance(name, str):
                if name not in ids:
                    raise unknown_name(kind, name, known)
                return ids[name]
            return int(name)

        if not isinstance(names, Tensor):
            names = torch.tensor(one(names) if isinstance(names, str | int) else [one(name) for name in names])
        index = names.to(self.support.device, torch.int64)
        if index.numel() and not (0 <= int(index.min()) and int(index.max()) < len(known)):
            raise IndexError(
                f"expected {kind} indices in [0, {len(known)}), got {int(index.min())}..{int(index.max())}"
            )
        return index

    def extra_repr(self) -> str:
        return f"entities={len(self.entities)}, relations={len(self.relations)}"


class TableDistribution(FactDistribution):
    """A fact distribution whose conditionals are linear in one table of entity statistics s, (E, k), given by `table`.

    Attributes:
        head_bias, tail_bias: (E,) the base measures a and b of both conditionals, or none.
    """

    head_bias: Tensor | None
    tail_bias: Tensor | None

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """The sufficient statistic of every entity, shape (E, k)."""

    def head_features(self, relation: Tensor, count: int) -> Tensor:
        return self.linear_features(self.head_natural(relation), self.table, self.head_bias, count)

    def head_partition(self, natural: Tensor) -> Tensor:
        return linear_logsumexp(natural, self.table, self.head_bias)

    def tail_partition(self, natural: Tensor) -> Tensor:
        return linear_logsumexp(natural, self.table, self.tail_bias)

    def head_score(self, natural: Tensor, head: Tensor) -> Tensor:
        return _score(natural, self.table, self.head_bias, head)

    def tail_score(self, natural: Tensor, tail: Tensor) -> Tensor:
        return _score(natural, self.table, self.tail_bias, tail)

    def head_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return linear_logsumexp_mean(natural, self.table, self.head_bias)

    def tail_moments(self, natural: Tensor) -> tuple[Tensor, Tensor]:
        return linear_logsumexp_mean(natural, self.table, self.tail_bias)

    def head_logits(self, natural: Tensor, entities: slice = slice(None)) -> Tensor:
        bias = None if self.head_bias is None else self.head_bias[entities]
        return F.linear(natural, self.table[entities], bias)

    def tail_logits(self, natural: Tensor) -> Tensor:
        return F.linear(natural, self.table, self.tail_bias)


def _score(natural: Tensor, table: Tensor, bias: Tensor | None, entity: Tensor) -> Tensor:
    score = (natural * table[entity]).sum(dim=-1)
    return score if bias is None else score + bias[entity]
