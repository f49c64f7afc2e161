"""Splits without leaks, pairs that are no edges, samples of neighbourhoods: against sets, dictionaries and networkx."""

from __future__ import annotations

from types import SimpleNamespace

import networkx as nx
import pytest
import torch
from torch import Tensor

from lorentz.graphs import (
    Graph,
    NeighborSampler,
    edge_index,
    mean_weight,
    random_pairs,
    split_edges,
    split_nodes,
    symmetric_weight,
    undirected,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_graph(nodes: int, edges: int, seed: int = 0) -> Tensor:
    return torch.tensor(list(nx.gnm_random_graph(nodes, edges, seed).edges))


def as_set(pairs: Tensor) -> set[tuple[int, ...]]:
    return {tuple(sorted(pair)) for pair in pairs.tolist()}


def test_undirected_edges_are_those_of_networkx() -> None:
    raw = torch.randint(12, (80, 2), generator=generator(1))  # repetitions, both directions and loops
    truth = nx.Graph([(a, b) for a, b in raw.tolist() if a != b])
    got = undirected(raw)
    assert as_set(got) == {tuple(sorted(edge)) for edge in truth.edges}
    assert len(got) == truth.number_of_edges()
    assert (got[:, 0] < got[:, 1]).all()
    index = edge_index(got)
    assert {(b, a) for a, b in index.T.tolist()} == {tuple(edge) for edge in index.T.tolist()}
    assert index.shape == (2, 2 * len(got))


def test_weights_of_edges_are_those_of_a_mean_and_of_a_graph_convolutional_network() -> None:
    """Against dense matrices: D^-1 A, and D^-1/2 (A + 1) D^-1/2 over its own diagonal, of degrees with the loop."""
    graph = nx.gnm_random_graph(12, 20, 1)
    edges = edge_index(torch.tensor(list(graph.edges)))
    adjacency = torch.tensor(nx.to_numpy_array(graph)).float()
    degree = adjacency.sum(1)
    root = (1 + degree).rsqrt()
    convolution = root[:, None] * (adjacency + torch.eye(12)) * root
    mean, symmetric = mean_weight(edges, 12), symmetric_weight(edges, 12)
    assert torch.allclose(mean, (adjacency / degree.clamp_min(1)[:, None])[edges[1], edges[0]], rtol=1e-5)
    assert torch.allclose(symmetric, (convolution / convolution.diagonal()[:, None])[edges[1], edges[0]], rtol=1e-5)


@pytest.mark.parametrize("edges", [30, 120], ids=["sparse", "dense"])
def test_held_out_edges_are_nowhere_else(edges: int) -> None:
    every = random_graph(20, edges)
    split = split_edges(every, 20, 0.1, 0.2, generator(0))
    train, valid, test = map(as_set, (split.train, split.valid, split.test))
    assert train | valid | test == as_set(every)
    assert len(train) + len(valid) + len(test) == edges  # disjoint
    assert (len(valid), len(test)) == (edges // 10, edges // 5)
    wrong = as_set(split.valid_negatives), as_set(split.test_negatives)
    assert [*map(len, wrong)] == [len(valid), len(test)]
    assert not wrong[0] & wrong[1]
    assert not (wrong[0] | wrong[1]) & as_set(every)


@pytest.mark.parametrize("edges", [30, 120], ids=["sparse", "dense"])
def test_training_negatives_are_neither_edges_nor_held_out(edges: int) -> None:
    every = random_graph(20, edges)
    split = split_edges(every, 20, 0.1, 0.1, generator(0))
    forbidden = as_set(every) | as_set(split.valid_negatives) | as_set(split.test_negatives)
    free = {(a, b) for b in range(20) for a in range(b)} - forbidden
    drawn = set()
    for seed in range(60):
        negatives = split.negatives(8, generator(seed))
        assert len(as_set(negatives)) == 8
        drawn |= as_set(negatives)
    assert drawn <= free
    assert len(drawn) > 0.9 * len(free)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_edges_to_predict_are_hidden_from_the_encoder(share: float) -> None:
    split = split_edges(random_graph(30, 200), 30, generator=generator(0))
    predicted, seen = map(as_set, split.disjoint(share, generator(1)))
    assert predicted | seen == as_set(split.train)
    assert predicted & seen == (as_set(split.train) if share == 0 else set())
    assert len(predicted) == (int(share * 170) if share else 170)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_hides_every_edge_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match=r"^expected share in \[0, 1\), got "):
        split_edges(random_graph(9, 20), 9).disjoint(share)


@pytest.mark.parametrize("excluded", [4, 106], ids=["by rejection", "by enumeration"])
def test_pairs_that_are_no_edges_are_drawn_uniformly(excluded: int) -> None:
    edges = random_graph(16, excluded)
    count, repeats = 8, 3000
    tally: dict[tuple[int, ...], int] = {}
    for seed in range(repeats):
        for pair in as_set(random_pairs(count, 16, edges, generator(seed))):
            tally[pair] = tally.get(pair, 0) + 1
    free = 120 - excluded
    expected = repeats * count / free
    assert len(tally) == free
    # The count of a pair is binomial: five standard deviations, for the 116 pairs of the larger case.
    spread = (expected * (1 - count / free)) ** 0.5
    assert max(abs(n - expected) for n in tally.values()) < 5 * spread


def test_more_pairs_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^expected count <= 3, the number of pairs that are no edges, got 4$"):
        random_pairs(4, 4, torch.tensor([[0, 1], [1, 2], [3, 2]]))
    assert as_set(random_pairs(3, 4, torch.tensor([[0, 1], [1, 2], [3, 2]]))) == {(0, 2), (0, 3), (1, 3)}


@pytest.mark.parametrize("shares", [(0.6, 0.4), (-0.1, 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_errors(shares: tuple[float, float]) -> None:
    for split in (lambda: split_edges(random_graph(9, 20), 9, *shares), lambda: split_nodes(torch.zeros(9), *shares)):
        with pytest.raises(ValueError, match=r"^expected valid \+ test < 1, both >= 0, got "):
            split()


def test_nodes_are_split_once_each_and_by_class() -> None:
    labels = torch.arange(4).repeat_interleave(torch.tensor([40, 20, 80, 60]))
    split = split_nodes(labels, 0.25, 0.5, generator(0))
    assert sorted(torch.cat(split).tolist()) == list(range(200))
    assert [labels[part].bincount().tolist() for part in split] == [[10, 5, 20, 15], [10, 5, 20, 15], [20, 10, 40, 30]]
    again, other = (split_nodes(labels, 0.25, 0.5, generator(seed)) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(split, again, strict=True))
    assert not torch.equal(split.test, other.test)


def test_a_sample_of_all_neighbours_is_the_neighbourhood() -> None:
    graph = nx.gnm_random_graph(40, 60, 3)
    index, seeds = edge_index(torch.tensor(list(graph.edges))), torch.tensor([7, 3])
    sample = NeighborSampler(index, 40, [-1, -1])(seeds)
    near = {node for seed in (7, 3) for node in nx.single_source_shortest_path_length(graph, seed, 2)}
    assert sample.nodes[:2].tolist() == [7, 3]
    assert sorted(sample.nodes.tolist()) == sorted(near)
    edges = {tuple(edge) for edge in sample.nodes[sample.edge_index].T.tolist()}
    inner = {node for seed in (7, 3) for node in nx.single_source_shortest_path_length(graph, seed, 1)}
    assert edges == {(source, target) for target in inner for source in graph[target]}


def test_a_sample_draws_so_many_neighbours_without_replacement() -> None:
    graph = nx.gnm_random_graph(40, 200, 3)
    sampler = NeighborSampler(edge_index(torch.tensor(list(graph.edges))), 40, [4])
    seeds, tally = torch.arange(0, 40, 3), torch.zeros(40, 40)
    for seed in range(2000):
        sample = sampler(seeds, generator(seed))
        source, target = sample.nodes[sample.edge_index]
        assert (target.bincount(minlength=40)[seeds] == 4).all()  # no node has fewer neighbours
        tally[target, source] += 1
    assert tally.max() <= 2000
    for node in seeds.tolist():
        expected = 2000 * 4 / graph.degree(node)
        assert all(abs(tally[node, other] - expected) < 5 * expected**0.5 for other in graph[node])
        assert tally[node].sum() == 8000


def test_a_sample_of_nodes_without_neighbours_is_the_nodes() -> None:
    sample = NeighborSampler(torch.tensor([[0], [1]]), 5, [3, 3])(torch.tensor([4, 2]))
    assert sample.nodes.tolist() == [4, 2]
    assert sample.edge_index.shape == (2, 0)


def test_data_of_torch_geometric_become_a_graph() -> None:
    mask = torch.eye(3, dtype=torch.bool)
    data = SimpleNamespace(
        x=torch.ones(3, 2, dtype=torch.float64),
        edge_index=torch.tensor([[0, 1, 2, 2], [1, 0, 1, 2]]),
        y=torch.tensor([[1], [0], [1]]),
        train_mask=mask[0],
        val_mask=mask[1],
        test_mask=mask[2],
    )
    graph = Graph.from_pyg(data)
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert graph.features.dtype == torch.float32
    assert graph.labels is not None
    assert graph.labels.tolist() == [1, 0, 1]
    assert graph.split is not None
    assert [part.tolist() for part in graph.split] == [[0], [1], [2]]
    bare = Graph.from_pyg(SimpleNamespace(x=data.x, edge_index=data.edge_index, y=None))
    assert (bare.labels, bare.split) == (None, None)
    with pytest.raises(ValueError, match=r"^expected data with x and edge_index, got none of x$"):
        Graph.from_pyg(SimpleNamespace(edge_index=data.edge_index))


def test_a_real_data_object_of_torch_geometric_is_accepted() -> None:
    geometric = pytest.importorskip("torch_geometric.data", reason="needs torch_geometric, which is optional")
    data = geometric.Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0, 1], [1, 0]]))
    assert Graph.from_pyg(data).edges.tolist() == [[0, 1]]
