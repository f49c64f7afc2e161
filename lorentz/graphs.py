"""Graphs to learn from: edges, their weights, splits without leaks, pairs that are none, samples of neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor


def undirected(edges: Tensor) -> Tensor:
    """Return the distinct edges (E', 2) between two nodes i < j, of edges (E, 2) in any direction, loops left out."""
    low, high = edges.min(1).values, edges.max(1).values
    return torch.stack([low, high], 1)[low < high].unique(dim=0)


def edge_index(edges: Tensor) -> Tensor:
    """Return undirected edges (E, 2) in both directions, (2, 2E), as graph layers take them."""
    return torch.cat([edges, edges.flip(1)]).T.contiguous()


def mean_weight(edge_index: Tensor, num_nodes: int) -> Tensor:
    r"""Return the weight :math:`1 / d_i` of each edge (2, E) into node i of in-degree d_i, (E) of float32.

    All edges into a node together then weigh 1, as a loop of weight 1 does.
    """
    target = edge_index[1]
    return target.bincount(minlength=num_nodes)[target].float().reciprocal()


def symmetric_weight(edge_index: Tensor, num_nodes: int) -> Tensor:
    r"""Return the weight :math:`\sqrt{(1 + d_i) / (1 + d_j)}` of each edge (2, E) from node j into i, (E) of float32.

    d is the in-degree. Beside a loop of weight 1 these are, up to a factor that a mean or a centroid divides out, the
    weights :math:`1 / \sqrt{(1 + d_i)(1 + d_j)}` of a graph convolutional network, whose loops weigh 1 / (1 + d_i).

    Source: Kipf and Welling, ICLR 2017, Eq. 2.
    """
    source, target = edge_index[1].bincount(minlength=num_nodes).float().add(1)[edge_index]
    return (target / source).sqrt()


def random_pairs(count: int, num_nodes: int, excluded: Tensor, generator: Generator | None = None) -> Tensor:
    """Return pairs i < j (count, 2), distinct and drawn uniformly from those that `excluded` (E, 2) lacks.

    Raises:
        ValueError: there are not so many.
    """
    return _absent(count, num_nodes, _keys(undirected(excluded), num_nodes), generator)


@dataclass(frozen=True)
class EdgeSplit:
    """Edges of a graph for link prediction, each part (E, 2) with i < j.

    Attributes:
        train: the edges that the encoder may see.
        valid: held out.
        test: held out.
        valid_negatives: as many pairs that are no edge of any part.
        test_negatives: likewise, and others.
        num_nodes: number of nodes.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    valid_negatives: Tensor
    test_negatives: Tensor
    num_nodes: int

    def negatives(self, count: int, generator: Generator | None = None) -> Tensor:
        """Return `count` pairs to train against: neither edges, held-out ones included, nor held-out negatives."""
        return _absent(count, self.num_nodes, self._taken, generator)

    def disjoint(self, share: float, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Cut the training edges at random into a share to predict and the rest, which the encoder sees.

        An encoder that sees the edge that it is to predict finds the features of one end in the other, which no
        held-out edge will show it. With share 0 all edges are in both parts.

        Raises:
            ValueError: share is not in [0, 1).
        """
        if not 0 <= share < 1:
            raise ValueError(f"expected share in [0, 1), got {share}")
        if share == 0:
            return self.train, self.train
        shuffled = self.train[_permutation(len(self.train), generator).to(self.train.device)]
        predicted, seen = shuffled.tensor_split([max(1, int(share * len(shuffled)))])
        return predicted, seen

    @cached_property
    def _taken(self) -> Tensor:
        every = [self.train, self.valid, self.test, self.valid_negatives, self.test_negatives]
        return _keys(torch.cat(every), self.num_nodes).sort().values


def split_edges(
    edges: Tensor, num_nodes: int, valid: float = 0.05, test: float = 0.1, generator: Generator | None = None
) -> EdgeSplit:
    """Hold out shares of the edges (E, 2) for validation and test, and as many pairs that are no edges.

    Source: the shares are those of Chami et al., NeurIPS 2019, whose code trains against the held-out edges; this does
    not.

    Raises:
        ValueError: nothing is left to train on.
    """
    edges = undirected(edges)
    held = [int(share * len(edges)) for share in (valid, test)]
    if min(held) < 0 or sum(held) >= len(edges):
        raise ValueError(f"expected valid + test < 1, both >= 0, got {valid} and {test}")
    shuffled = edges[_permutation(len(edges), generator).to(edges.device)]
    parts = shuffled.split([*held, len(edges) - sum(held)])
    absent = random_pairs(sum(held), num_nodes, edges, generator)
    return EdgeSplit(parts[2], parts[0], parts[1], absent[: held[0]], absent[held[0] :], num_nodes)


class NodeSplit(NamedTuple):
    """Disjoint numbers of nodes."""

    train: Tensor
    valid: Tensor
    test: Tensor


@dataclass(frozen=True)
class Graph:
    """An undirected graph with features.

    Attributes:
        features: (N, F).
        edges: distinct pairs i < j, (E, 2).
        labels: the class of each node, (N), or None.
        split: the nodes of a standard split, or None.
    """

    features: Tensor
    edges: Tensor
    labels: Tensor | None = None
    split: NodeSplit | None = None

    def to(self, device: torch.device | str) -> Graph:
        """Return the graph on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        split = None if self.split is None else NodeSplit(*(part.to(device) for part in self.split))
        return Graph(self.features.to(device), self.edges.to(device), labels, split)

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """Return the graph of a `torch_geometric.data.Data`: x, edge_index, and y and the three masks if it has them.

        Raises:
            ValueError: x or edge_index is missing.
        """
        for name in ("x", "edge_index"):
            if getattr(data, name, None) is None:
                raise ValueError(f"expected data with x and edge_index, got none of {name}")
        masks = [getattr(data, name, None) for name in ("train_mask", "val_mask", "test_mask")]
        found = [mask.nonzero().squeeze(1) for mask in masks if mask is not None and mask.dim() == 1]
        split = NodeSplit(*found) if len(found) == 3 else None
        labels = getattr(data, "y", None)
        return cls(data.x.float(), undirected(data.edge_index.T), None if labels is None else labels.flatten(), split)


def split_nodes(
    labels: Tensor, valid: float = 0.15, test: float = 0.15, generator: Generator | None = None
) -> NodeSplit:
    """Hold out shares of each class, labels (N), for validation and test; every node is in one part.

    Raises:
        ValueError: nothing is left to train on.
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise ValueError(f"expected valid + test < 1, both >= 0, got {valid} and {test}")
    parts: list[list[Tensor]] = [[], [], []]
    for label in labels.unique():
        nodes = (labels == label).nonzero().squeeze(1)
        nodes = nodes[_permutation(len(nodes), generator).to(nodes.device)]
        held = [round(share * len(nodes)) for share in (valid, test)]
        for part, piece in zip((1, 2, 0), nodes.split([*held, len(nodes) - sum(held)]), strict=True):
            parts[part].append(piece)
    return NodeSplit(*(torch.cat(part).sort().values for part in parts))


class Sample(NamedTuple):
    """A part of a graph: its nodes (n), the seeds first, and its edges (2, e) among their places in `nodes`."""

    nodes: Tensor
    edge_index: Tensor


class NeighborSampler:
    """Draws, for seeds, some neighbours of each, some of theirs, and so on: the graph that a deep encoder needs.

    Args:
        edge_index: (2, E), sources over targets.
        num_nodes: N.
        fanouts: for each layer, from the seeds outwards, how many edges into a node are drawn, without replacement;
            -1 for all.

    Source: Hamilton et al., NeurIPS 2017.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, fanouts: Sequence[int]) -> None:
        order = edge_index[1].argsort(stable=True)
        self.source, self.num_nodes, self.fanouts = edge_index[0][order], num_nodes, tuple(fanouts)
        degree = edge_index[1].bincount(minlength=num_nodes)
        self.degree, self.start = degree, degree.cumsum(0) - degree

    def __call__(self, seeds: Tensor, generator: Generator | None = None) -> Sample:
        """Return the sample around distinct seeds (n): all that reach them in as many steps as there are layers."""
        nodes, frontier, pieces = seeds, seeds, []
        place = torch.full((self.num_nodes,), -1, device=seeds.device)
        place[seeds] = torch.arange(len(seeds), device=seeds.device)
        for fanout in self.fanouts:
            source, target = self._draw(frontier, fanout, generator)
            frontier = source.unique()
            frontier = frontier[place[frontier] < 0]
            place[frontier] = torch.arange(len(nodes), len(nodes) + len(frontier), device=seeds.device)
            nodes = torch.cat([nodes, frontier])
            pieces.append(torch.stack([place[source], place[target]]))
        return Sample(nodes, torch.cat([seeds.new_empty(2, 0), *pieces], dim=1))

    def _draw(self, nodes: Tensor, fanout: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Return the sources and the targets of edges drawn into nodes: those of least random keys in each."""
        degree = self.degree[nodes]
        target = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), degree)
        first = degree.cumsum(0) - degree
        edge = torch.arange(len(target), device=nodes.device) - first[target]  # its number among those of the node
        if fanout >= 0:
            keys = torch.rand(len(target), generator=generator, dtype=torch.float64).to(nodes.device)
            order = (target + keys).argsort()
            kept = order[edge < fanout]
        else:
            kept = torch.arange(len(target), device=nodes.device)
        return self.source[self.start[nodes[target[kept]]] + edge[kept]], nodes[target[kept]]


def _absent(count: int, num_nodes: int, taken: Tensor, generator: Generator | None) -> Tensor:
    """Return distinct pairs (count, 2) whose keys are not among `taken`, which is sorted and without repetitions."""
    room = num_nodes * (num_nodes - 1) // 2 - len(taken)
    if count > room:
        raise ValueError(f"expected count <= {room}, the number of pairs that are no edges, got {count}")
    if 2 * count > room:  # so dense that rejection would be slow
        pairs = torch.triu_indices(num_nodes, num_nodes, offset=1, device=taken.device).T
        free = pairs[~_contains(taken, _keys(pairs, num_nodes))]
        return free[_permutation(len(free), generator)[:count].to(free.device)]
    drawn = taken.new_empty(0)
    while len(drawn) < count:
        pairs = torch.randint(num_nodes, (2 * (count - len(drawn)) + 16, 2), generator=generator).to(taken.device)
        low, high = pairs.min(1).values, pairs.max(1).values
        keys = (low * num_nodes + high)[low < high]
        drawn = _distinct(torch.cat([drawn, keys[~_contains(taken, keys)]]))
    drawn = drawn[:count]
    return torch.stack([drawn // num_nodes, drawn % num_nodes], 1)


def _contains(ordered: Tensor, keys: Tensor) -> Tensor:
    place = torch.searchsorted(ordered, keys)
    return torch.cat([ordered, ordered.new_full((1,), -1)])[place] == keys


def _keys(pairs: Tensor, num_nodes: int) -> Tensor:
    return pairs[:, 0] * num_nodes + pairs[:, 1]


def _distinct(keys: Tensor) -> Tensor:
    """Return the distinct keys in the order of their first appearance: sorted, they would favour low nodes."""
    ordered, order = keys.sort(stable=True)
    repeated = torch.zeros_like(keys, dtype=torch.bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    return keys[~repeated]


def _permutation(n: int, generator: Generator | None) -> Tensor:
    return torch.randperm(n, generator=generator)
